"""Every block of every backbone against Keras's own model; VGG19 also against torch's."""

import importlib
import os
from functools import partial
from pathlib import Path
from typing import Any

import jax
import keras
import numpy as np
import pytest
from flax import nnx
from keras.applications import imagenet_utils
from keras_files import MODELS, block_outputs, keras_model, save_legacy, save_torchvision
from PIL import Image

from mlc_jax.models.backbones import NETWORKS, load_backbone
from mlc_jax.models.layers import layer_specs
from mlc_jax.models.preprocess import PREPROCESS
from mlc_jax.models.published import PUBLISHED

DEFAULT, ODD, SMALL = (450, 350), (97, 75), (33, 47)  # ODD is the least that Keras's Xception takes
SMALLEST = (
    "vgg19",
    "resnet50",
    "resnet50_v2",
    "mobilenet",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "efficientnet_v2_b0",
    "xception",
    "convnext_tiny",
)
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # as in the documentation of torchvision's weights
IMAGENET_STD = (0.229, 0.224, 0.225)


def photographs(count: int) -> np.ndarray:
    """Photographs at 224x224, uint8 [count, 224, 224, 3]."""
    folder = os.environ.get("MLC_JAX_TEST_DATA")
    if not folder:
        pytest.skip("MLC_JAX_TEST_DATA, the folder with scenes/images, is not set")
    files = sorted(Path(folder, "scenes", "images").glob("*.jpg"))[:count]
    return np.stack([np.asarray(Image.open(f).convert("RGB").resize((224, 224))) for f in files])


def random_images(size: tuple[int, int], count: int = 1) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, *size, 3), np.uint8)


def keras_input(name: str, images: np.ndarray) -> np.ndarray:
    """Images as Keras's own `preprocess_input` for a backbone leaves them."""
    module = importlib.import_module(MODELS[name].__module__)
    return module.preprocess_input(images.astype(np.float32))


def relative_error(ours: jax.Array, theirs: np.ndarray) -> float:
    assert ours.shape == theirs.shape
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def cases() -> list[Any]:
    """The smallest backbone of each kind at three sizes, the others at one."""
    chosen = {name: (ODD, DEFAULT, SMALL) if name in SMALLEST else (ODD,) for name in MODELS}
    chosen["xception"] = (ODD, DEFAULT)
    return [
        pytest.param(
            name,
            size,
            marks=() if name in SMALLEST and size == ODD else pytest.mark.slow,
            id=f"{name}-{size[0]}x{size[1]}",
        )
        for name, sizes in chosen.items()
        for size in sizes
    ]


@pytest.mark.parametrize(("name", "size"), cases())
def test_every_block_agrees_with_keras(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    model = keras_model(name, size)
    published = PUBLISHED[name]
    digest = published.digest and published.digest.partition(":")[2]
    assert model.wanted == (published.file, published.url, digest)
    specs, in_keras = layer_specs(NETWORKS[name]()), [la for la in model.layers if la.weights]
    assert [list(spec.shapes.values()) + [()] * len(spec.unread) for spec in specs] == [
        [tuple(weight.shape) for weight in layer.weights] for layer in in_keras
    ]
    backbone = load_backbone(name, save_legacy(model, tmp_path / f"{name}.h5"))
    images = random_images(size)
    prepared = PREPROCESS[backbone.preprocess](images)

    names: list[str] = []

    def blocks(params: Any, x: jax.Array) -> list[jax.Array]:
        made = list(nnx.merge(backbone.graphdef, params).blocks(x))
        names[:] = [block for block, _ in made]
        return [activation for _, activation in made]

    ours = jax.jit(blocks)(backbone.params, prepared)
    probe = keras.Model(model.inputs, list(block_outputs(model, names).values()))
    theirs = probe.predict_on_batch(keras_input(name, images))
    errors = {
        block: relative_error(own, their)
        for block, own, their in zip(names, ours, theirs, strict=True)
    }
    assert max(errors.values()) < 1e-4, errors

    assert ours[-1].shape[1:] == backbone.feature_shape(size) == model.output_shape[1:]
    assert ours[-1].shape[-1] == backbone.channels
    assert ours[-1].dtype == np.float32


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_unfolded_norms_give_the_same_features(name: str, tmp_path: Path) -> None:
    model = keras_model(name, ODD)
    backbone = load_backbone(name, save_legacy(model, tmp_path / f"{name}.h5"), fold=False)
    images = random_images(ODD)
    ours = jax.jit(backbone.apply)(backbone.params, images)
    assert relative_error(ours, model.predict_on_batch(keras_input(name, images))) < 1e-4


def test_vgg19_of_the_recipe_gives_14_by_10_by_512() -> None:
    assert load_backbone("vgg19", "random").feature_shape((450, 350)) == (14, 10, 512)


KERAS_PREPROCESS = {
    **{
        mode: partial(imagenet_utils.preprocess_input, mode=mode)
        for mode in ("caffe", "tf", "torch")
    },
    "unit": keras.layers.Rescaling(1 / 255),
    "tf128": keras.layers.Rescaling(1 / 128, -1),
    # Of openai/clip-vit-base-patch32's preprocessor_config.json.
    "clip": keras.layers.Normalization(
        mean=[255 * mean for mean in (0.48145466, 0.4578275, 0.40821073)],
        variance=[(255 * std) ** 2 for std in (0.26862954, 0.26130258, 0.27577711)],
    ),
}


@pytest.mark.parametrize("mode", PREPROCESS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_preprocessing_is_keras_s(mode: str, dtype: type) -> None:
    images = random_images((5, 4), 2).astype(dtype)
    theirs = KERAS_PREPROCESS[mode](images.astype(np.float32))
    ours = PREPROCESS[mode](jax.numpy.asarray(images))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-5)


def test_real_weights_see_photographs_as_keras_does() -> None:
    folder = os.environ.get("MLC_JAX_TEST_WEIGHTS")
    if not folder:
        pytest.skip("MLC_JAX_TEST_WEIGHTS, the folder with the MobileNetV2 .h5, is not set")
    path = next(Path(folder).glob("mobilenet_v2_*_no_top.h5"))
    images = photographs(2)
    backbone = load_backbone("mobilenet_v2", path)
    model = keras.applications.MobileNetV2(
        include_top=False, weights=str(path), input_shape=(224, 224, 3)
    )
    prepared = imagenet_utils.preprocess_input(images.astype(np.float32), mode="tf")
    ours = jax.jit(backbone.apply)(backbone.params, images)
    assert relative_error(ours, model.predict_on_batch(prepared)) < 1e-4


def test_torchvision_names_give_the_same_network(tmp_path: Path) -> None:
    model = keras_model("vgg19", (40, 40))
    from_keras = load_backbone("vgg19", save_legacy(model, tmp_path / "vgg19.h5"))
    from_torch = load_backbone("vgg19", save_torchvision(model, tmp_path / "vgg19.safetensors"))
    jax.tree.map(np.testing.assert_array_equal, from_keras.params, from_torch.params)
    assert (from_keras.preprocess, from_torch.preprocess) == ("caffe", "torch")

    images = random_images((40, 40))
    prepared = imagenet_utils.preprocess_input(images.astype(np.float32), mode="torch")
    ours = jax.jit(from_torch.apply)(from_torch.params, images)
    assert relative_error(ours, model.predict_on_batch(prepared)) < 1e-4


def test_a_state_dict_runs_as_in_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    layers, channels = [], 3
    for features, repeats in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(repeats):
            layers += [torch.nn.Conv2d(channels, features, 3, padding=1), torch.nn.ReLU()]
            channels = features
        layers.append(torch.nn.MaxPool2d(2, 2))
    network = torch.nn.ModuleDict({"features": torch.nn.Sequential(*layers)})
    torch.save(network.state_dict(), tmp_path / "vgg19.pth")

    backbone = load_backbone("vgg19", tmp_path / "vgg19.pth")
    images = random_images((61, 47))
    unit = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        theirs = network["features"]((unit - mean) / std).permute(0, 2, 3, 1).numpy()
    ours = jax.jit(backbone.apply)(backbone.params, images)
    assert relative_error(ours, theirs) < 1e-4
