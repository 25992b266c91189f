"""What `benchmark.py` times: ours and its peers, the same work in each, each in its own process.

A contestant is a function of the settings that prepares everything, compiles included, and returns
(units, run): how much one call of `run` does, and `run`, which returns a number that others who do
the same work must agree with, or None. Peers import what only the extra `bench` installs.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from contest import Run, Settings
from input_contestants import input_keras, input_ours, input_torch

BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
PRODUCTS = 50  # of matrices, per call


def pictures(settings: Settings, count: int) -> np.ndarray:
    """The images that every network gets, uint8 [count, H, W, 3]."""
    shape = (count, settings.height, settings.width, 3)
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


# ── the frozen forward pass: VGG19 with the same random weights, images per second ───────────────


def forward_ours(settings: Settings) -> tuple[int, Run]:
    """As features are extracted: the algorithms chosen by measuring, stored in the cache."""
    from mlc_jax.journal import Journal
    from mlc_jax.models.algorithms import choose_algorithm
    from mlc_jax.models.backbones import load_backbone
    from mlc_jax.models.winograd import with_winograd
    from mlc_jax.settings import cache_folder

    backbone = load_backbone("vgg19", "random")
    size = (settings.height, settings.width)
    algorithm = choose_algorithm(backbone, size, cache_folder(), Journal())
    return _forward_jax(with_winograd(backbone, algorithm.winograd), settings)


def forward_lax(settings: Settings) -> tuple[int, Run]:
    """Plain jax: `lax.conv` in every layer."""
    from mlc_jax.models.backbones import load_backbone

    return _forward_jax(load_backbone("vgg19", "random"), settings)


def _forward_jax(backbone: Any, settings: Settings, compute: str = "float32") -> tuple[int, Run]:
    import jax

    apply = jax.jit(lambda params, images: backbone.apply(params, images, compute).mean())
    images = jax.device_put(pictures(settings, settings.batch))
    params = jax.device_put(backbone.params)
    return settings.batch, lambda: float(apply(params, images))


def forward_bfloat16_ours(settings: Settings) -> tuple[int, Run]:
    """As features are extracted on accelerators: bfloat16, sums float32 by the compiler."""
    from mlc_jax.models.backbones import load_backbone

    return _forward_jax(load_backbone("vgg19", "random"), settings, "bfloat16")


def matmul_bfloat16(settings: Settings) -> tuple[float, Run]:
    """Large products of bfloat16 matrices: what the accelerator can do, in images' worth of FLOP.

    So a forward pass's images per second over this are its share of the accelerator's rate. Each
    product is a factor of the next, so that none is left out; many, so that the call costs nothing.
    """
    import jax
    import jax.numpy as jnp

    side = 8192 if jax.default_backend() != "cpu" else 512
    # Scaled, so that the products neither grow nor vanish.
    a = jax.random.normal(jax.random.key(0), (side, side), jnp.bfloat16) / side**0.5

    @jax.jit
    def product(a: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, PRODUCTS, lambda _, power: power @ a, a)

    pixels, channels, per_image = settings.height * settings.width, 3, 0
    for count, features in BLOCKS:
        for _ in range(count):
            per_image += 2 * 9 * channels * features * pixels
            channels = features
        pixels //= 4

    def run() -> None:
        jax.block_until_ready(product(a))

    return PRODUCTS * 2 * side**3 / per_image, run


def _torch_device() -> str:
    """Jax's kind of device: a PyTorch that cannot use it fails instead of racing on the CPU."""
    import jax

    return "cpu" if jax.default_backend() == "cpu" else "cuda"


def _torch_vgg19() -> Any:
    """VGG19 in torch, with the weights of our `load_backbone("vgg19", "random")`."""
    import torch

    from mlc_jax.models.backbones import load_backbone

    params = load_backbone("vgg19", "random").params
    layers: list[Any] = []
    channels = 3
    for block, (count, features) in enumerate(BLOCKS, start=1):
        for number in range(1, count + 1):
            own = params[f"block{block}"][f"conv{number}"]
            convolution: Any = torch.nn.Conv2d(channels, features, 3, padding=1)
            kernel = np.array(own["kernel"]).transpose(3, 2, 0, 1)
            convolution.weight.data = torch.from_numpy(np.ascontiguousarray(kernel))
            convolution.bias.data = torch.from_numpy(np.array(own["bias"]))
            layers += [convolution, torch.nn.ReLU(inplace=True)]
            channels = features
        layers.append(torch.nn.MaxPool2d(2))
    return torch.nn.Sequential(*layers).eval()


def _forward_torch(settings: Settings, *, half: bool, compiled: bool) -> tuple[int, Run]:
    import torch

    device = _torch_device()
    torch.backends.cudnn.benchmark = True
    dtype = torch.bfloat16 if half else torch.float32
    network = _torch_vgg19().to(device, dtype, memory_format=torch.channels_last)
    mean = torch.tensor([103.939, 116.779, 123.68], device=device)
    images = torch.from_numpy(pictures(settings, settings.batch)).to(device)

    def forward(images: Any) -> Any:
        prepared = (images.flip(-1).float() - mean).to(dtype).permute(0, 3, 1, 2)
        return network(prepared).float().mean()

    apply = torch.compile(forward) if compiled else forward

    def run() -> float:
        with torch.inference_mode():
            return float(apply(images))

    return settings.batch, run


def forward_torch(settings: Settings) -> tuple[int, Run]:
    """PyTorch, float32, channels-last; on a GPU it rounds factors to TF32 unless told otherwise."""
    return _forward_torch(settings, half=False, compiled=False)


def forward_torch_bfloat16(settings: Settings) -> tuple[int, Run]:
    """PyTorch, bfloat16, channels-last."""
    return _forward_torch(settings, half=True, compiled=False)


def forward_torch_compile(settings: Settings) -> tuple[int, Run]:
    """PyTorch, float32, channels-last, torch.compile."""
    return _forward_torch(settings, half=False, compiled=True)


def forward_torch_compile_bfloat16(settings: Settings) -> tuple[int, Run]:
    """PyTorch, bfloat16, channels-last, torch.compile."""
    return _forward_torch(settings, half=True, compiled=True)


# ── the original recipe's training step in Keras, images per second ─────────────────────────────


def recipe_keras(settings: Settings) -> tuple[int, Run]:
    """One `train_on_batch` of the original network; the backend is the environment's."""
    os.environ["KERAS_TORCH_DEVICE"] = _torch_device()
    import keras

    images = pictures(settings, settings.train_batch).astype(np.float32) / 255
    labels = np.random.default_rng(0).integers(0, 2, (settings.train_batch, 1))
    frozen = keras.applications.VGG19(
        include_top=False, weights=None, input_shape=(settings.height, settings.width, 3)
    )
    frozen.trainable = False
    x = frozen.output
    rows = keras.layers.Conv2D
    options = {"activation": "relu", "kernel_initializer": "he_normal"}
    x = rows(256, 3, **options)(x)
    x = rows(256, 3, strides=2, **options)(x)
    x = rows(128, x.shape[1:3], **options)(x)
    x = rows(128, 1, **options)(x)
    x = keras.layers.Dense(10, activation="relu")(keras.layers.Flatten()(x))
    model = keras.Model(frozen.input, keras.layers.Dense(1, activation="sigmoid")(x))
    model.compile(keras.optimizers.Adam(1e-5), "binary_crossentropy", metrics=["accuracy"])

    def run() -> None:
        model.train_on_batch(images, labels)

    run()
    return settings.train_batch, run


# ── heads on features that are there, head-images per second ────────────────────────────────────


def _heads(settings: Settings, name: str, heads: int, steps: int = 2) -> tuple[int, Run]:
    import jax
    import jax.numpy as jnp
    from ml_collections import ConfigDict

    from mlc_jax.data.sampling import Plan
    from mlc_jax.loss_settings import loss_config
    from mlc_jax.models.heads import HeadStack
    from mlc_jax.training.cached import CachedFeatures
    from mlc_jax.training.features import Cells
    from mlc_jax.training.optimizers import make_optimizer
    from mlc_jax.training.parallel import Devices
    from mlc_jax.training.step import Frozen, Recipe, init_state
    from mlc_jax.training.targets import LabelStatistics

    rows, batch = 64, 32
    shape = (settings.height // 32, settings.width // 32, 512) if name == "conv" else (1, 1, 512)
    rng = np.random.default_rng(0)
    devices = Devices("jit")
    features = CachedFeatures(rng.standard_normal((rows, 1, *shape)).astype(np.float16), devices)
    schedule = ConfigDict({"name": "constant", "factor": 0.7, "rtol": 0.004, "warmup": 0.1})
    keys = ConfigDict({"name": "adam", "learning_rate": 1e-5, "l2": 0.0})
    optimizer = make_optimizer(keys, schedule, steps, 40)
    recipe = Recipe(HeadStack(name, shape, 1), optimizer, loss_config(), steps)
    feed = features.feed(recipe)
    ones = jnp.ones((heads, 512))
    frozen = devices.replicate(
        Frozen(0 * ones, ones, LabelStatistics(*jnp.ones((3, heads, 1))), {})
    )
    labels = jnp.asarray(rng.integers(0, 2, (rows, 1)), jnp.float32)
    nothing = jnp.zeros((heads,), jnp.int32)
    known, context = jnp.ones((1, rows, 1)), jnp.zeros((1, rows, 0))
    cells = devices.replicate(
        Cells(labels[None], known, context, nothing, nothing[:, None], jnp.arange(heads))
    )
    places = rng.integers(0, rows, (steps, heads, batch)).astype(np.int32)
    plan = Plan(places, np.zeros_like(places), np.ones(places.shape, np.bool_))
    state = devices.replicate(init_state(recipe, feed.init(0, heads)))

    def run() -> None:
        nonlocal state
        state, sums = feed.train_epoch(state, frozen, cells, plan)
        jax.block_until_ready(sums)

    run()
    return steps * heads * batch, run


def heads_conv(settings: Settings) -> tuple[int, Run]:
    """Two steps of a stack of conv heads, batch 32."""
    return _heads(settings, "conv", settings.heads)


def heads_linear(settings: Settings) -> tuple[int, Run]:
    """Fifty steps of a stack of linear heads, batch 32."""
    return _heads(settings, "linear", settings.heads, 50)


def contestants() -> Iterator[tuple[str, Callable[[Settings], tuple[float, Run]]]]:
    """Every contestant by name."""
    for function in (
        forward_ours,
        forward_lax,
        forward_bfloat16_ours,
        matmul_bfloat16,
        forward_torch,
        forward_torch_bfloat16,
        forward_torch_compile,
        forward_torch_compile_bfloat16,
        recipe_keras,
        heads_conv,
        heads_linear,
        input_ours,
        input_torch,
        input_keras,
    ):
        yield function.__name__, function
