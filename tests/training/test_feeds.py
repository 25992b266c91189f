"""Laws of the feeds: whether features come from the cache or from the step, they are the same."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from configs.impute import get_config
from mlc_jax.data.dataset import ImageSet
from mlc_jax.data.pipeline import chosen_views
from mlc_jax.data.sampling import Plan
from mlc_jax.errors import WeightsError
from mlc_jax.journal import Journal
from mlc_jax.models import backbones
from mlc_jax.models.backbones import Backbone, load_backbone
from mlc_jax.models.features import FeatureSpec, feature_shape
from mlc_jax.models.heads import HeadStack
from mlc_jax.models.layers import Network
from mlc_jax.settings import resolve
from mlc_jax.training.cached import CachedFeatures
from mlc_jax.training.features import Cells, Features
from mlc_jax.training.feeds import choose_backbone, make_spec, open_features
from mlc_jax.training.online import OnlineFeatures
from mlc_jax.training.optimizers import make_optimizer
from mlc_jax.training.parallel import Devices
from mlc_jax.training.standards import label_statistics
from mlc_jax.training.step import Frozen, Recipe, init_state
from mlc_jax.training.streamed import StreamedFeatures
from tests.image_folders import image_folder, prepared

ROWS, HEADS, BATCH, STEPS, VIEWS = 7, 3, 4, 2, 2
SIZE = (32, 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("feeds")


@pytest.fixture(scope="module")
def images(folder: Path) -> ImageSet:
    return prepared(folder, image_folder(folder / "images", ROWS), SIZE)


class Tiny(Network):
    """Two convolutions: a network whose programs compile in no time."""

    channels = 6

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.first = nnx.Conv(3, 8, (9, 9), strides=8, rngs=rngs)
        self.second = nnx.Conv(8, self.channels, (3, 3), strides=2, rngs=rngs)

    def blocks(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
        yield "second", nnx.relu(self.second(nnx.relu(self.first(x))))


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    network: Network = Tiny()
    graphdef, params = nnx.split(network)
    return Backbone(
        name="tiny",
        graphdef=graphdef,
        params=nnx.to_pure_dict(params),
        channels=Tiny.channels,
        preprocess="tf",
        origin="drawn here",
        digest="0" * 64,
        random=True,
    )


@pytest.fixture(scope="module")
def mobilenet() -> Backbone:
    return load_backbone("mobilenet_v2", "random")


def configuration(*, cache: bool, head: str = "linear", dtype: str = "float32") -> ConfigDict:
    config = get_config()
    config.data.image_size = SIZE
    config.features.views = VIEWS
    config.features.cache = cache
    config.features.dtype = dtype
    config.features.batch_size = 5
    config.features.mirror = False
    config.head.name = head
    # Binary cross-entropy under another name, so that a linear head is trained step by step.
    config.loss.name, config.loss.gamma, config.loss.alpha = "focal", 0.0, -1.0
    config.optimizer.name, config.optimizer.learning_rate = "sgd", 0.01
    config.schedule.name = "constant"
    return resolve(config, lambda _: None)


def one_device() -> Devices:
    return Devices("jit", jax.local_devices()[:1])


def plan(steps: int, seed: int, views: int = VIEWS + 1) -> Plan:
    rng = np.random.default_rng(seed)
    shape = (steps, HEADS, BATCH)
    return Plan(
        rng.integers(0, ROWS, shape).astype(np.int32),
        rng.integers(0, views, shape).astype(np.int32),
        rng.random(shape) < 0.9,
    )


def recipe(shape: tuple[int, int, int], head: str = "linear") -> Recipe:
    config = configuration(cache=True)
    optimizer = make_optimizer(config.optimizer, config.schedule, STEPS, 1)
    return Recipe(HeadStack(head, shape, 1), optimizer, config.loss, STEPS)


OUTPUTS = np.array([[0], [1], [1]])
VALUES = np.random.default_rng(1).integers(-1, 2, (ROWS, 2))
CELLS = Cells(
    jnp.asarray(np.maximum(VALUES, 0)[None], jnp.float32),
    jnp.asarray(VALUES[None] >= 0, jnp.float32),
    jnp.zeros((1, ROWS, 0)),
    jnp.zeros(HEADS, jnp.int32),
    jnp.asarray(OUTPUTS, jnp.int32),
    jnp.arange(HEADS),
)


def one_epoch(features: Features, how: Recipe) -> dict[str, Any]:
    means, squares = features.moments
    feed = features.feed(how)
    # One scale for all channels: a hardly varying one would be blown up, rounding and all.
    spread = np.full(means.shape[1], np.sqrt((squares - means**2).mean()))
    whole = np.tile(means.mean(axis=0), (HEADS, 1)), np.tile(spread, (HEADS, 1))
    statistics = label_statistics(VALUES, [np.arange(ROWS)] * HEADS, OUTPUTS)
    mean, std = (jnp.asarray(part, jnp.float32) for part in whole)
    frozen = Frozen(mean, std, statistics, feed.frozen_backbone)
    state = jax.tree.map(jnp.copy, init_state(how, feed.init(0, HEADS)))
    state, sums = feed.train_epoch(state, frozen, CELLS, plan(STEPS, 3))
    logits = feed.logits(state.params, frozen, CELLS, plan(3, 4, views=1))
    assert logits.shape == (3, HEADS, BATCH, 1)
    return {
        "moments": (means, squares),
        "params": jax.device_get(state.params),
        "sums": jax.device_get(sums),
        "logits": logits,
    }


@pytest.mark.parametrize(
    ("network", "head", "kind", "devices"),
    [
        ("tiny", "linear", "jit", 1),
        ("tiny", "linear", "pmap", 3),
        pytest.param("tiny", "conv", "jit", 1, marks=pytest.mark.slow),
        pytest.param("mobilenet", "linear", "jit", 1, marks=pytest.mark.slow),
    ],
)
def test_the_cache_changes_nothing(
    folder: Path,
    images: ImageSet,
    request: pytest.FixtureRequest,
    network: str,
    head: str,
    kind: str,
    devices: int,
) -> None:
    backbone: Backbone = request.getfixturevalue(network)
    assert len(jax.local_devices()) >= devices  # conftest simulates them
    results = []
    for cache in (True, False):
        config = configuration(cache=cache, head=head)
        runner = Devices(kind, jax.local_devices()[:devices])
        features = open_features(config, images, backbone, runner, folder / "cache", Journal())
        how = recipe(feature_shape(backbone, make_spec(config, backbone)), head)
        assert isinstance(features, CachedFeatures if cache else OnlineFeatures)
        results.append(one_epoch(features, how))
    cached, online = results
    for one, other in zip(jax.tree.leaves(cached), jax.tree.leaves(online), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(one).max())
    assert np.abs(cached["logits"]).max() > 1e-3


def tuned_epoch(images: ImageSet, backbone: Backbone, runner: Devices, steps: Plan) -> Any:
    config = configuration(cache=False)
    features = OnlineFeatures(
        images, backbone, make_spec(config, backbone), 5, "all", runner, lambda _: None
    )
    optimizer = make_optimizer(config.optimizer, config.schedule, STEPS, 1, backbone_rate=RATE)
    how = Recipe(HeadStack("linear", (1, 1, 6), 1), optimizer, config.loss, STEPS)
    feed = features.feed(how)
    statistics = label_statistics(VALUES, [np.arange(ROWS)] * HEADS, OUTPUTS)
    still = jnp.zeros((HEADS, 6)), jnp.ones((HEADS, 6))
    frozen = Frozen(*still, statistics, feed.frozen_backbone)
    params = feed.init(0, HEADS)
    dense = {"kernel": jnp.full((HEADS, 6, 1), 0.1), "bias": jnp.zeros((HEADS, 1))}
    state = init_state(how, params._replace(head={"dense": dense}))
    state, sums = feed.train_epoch(jax.tree.map(jnp.copy, state), frozen, CELLS, steps)
    return jax.device_get((state.params, sums))


RATE = 0.003


def test_a_backbone_is_tuned_by_its_gradient(images: ImageSet, tiny: Backbone) -> None:
    """One step of SGD against the loss written down plainly, head by head."""
    steps = plan(1, 3)
    params, _ = tuned_epoch(images, tiny, one_device(), steps)
    chosen = chosen_views(
        images,
        steps.rows.reshape(-1),
        steps.views.reshape(-1),
        make_spec(configuration(cache=False), tiny).views,
        HEADS * BATCH,
    )
    pictures = next(iter(chosen)).reshape(HEADS, BATCH, *SIZE, 3)
    for head in range(HEADS):
        rows, label = steps.rows[0, head], OUTPUTS[head, 0]
        known = steps.mask[0, head] & (VALUES[rows, label] >= 0)
        targets = VALUES[rows, label][known]

        def loss(backbone: Any, head: int = head, known: Any = known, y: Any = targets) -> Any:
            z = tiny.apply(backbone, pictures[head][known]).mean(axis=(1, 2)).sum(axis=1) * 0.1
            return jnp.mean(jnp.logaddexp(0.0, z) - y * z)

        gradient = jax.grad(loss)(tiny.params)
        # Nesterov's momentum of 0.9: the first step is (1 + 0.9) times the gradient.
        expected = jax.tree.map(lambda p, g: p - 1.9 * RATE * g, tiny.params, gradient)
        own = jax.tree.map(lambda leaf, h=head: leaf[h], params.backbone)
        for made, want, was in zip(
            *(jax.tree.leaves(tree) for tree in (own, expected, tiny.params)), strict=True
        ):
            step = np.abs(np.asarray(want) - np.asarray(was)).max()
            np.testing.assert_allclose(made, want, atol=1e-4 * step + 1e-7)
            assert step > 0


def test_each_head_tunes_a_copy_of_its_own(images: ImageSet, tiny: Backbone) -> None:
    """What the other heads see leaves no trace in a head's backbone."""
    steps = plan(STEPS, 3)
    rows = steps.rows.copy()
    rows[:, 1:] = (rows[:, 1:] + 1) % ROWS
    one, _ = tuned_epoch(images, tiny, one_device(), steps)
    other, _ = tuned_epoch(images, tiny, one_device(), steps._replace(rows=rows))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a[0], b[0], rtol=1e-6, atol=1e-7)
    assert (
        np.abs(one.backbone["first"]["kernel"][1] - other.backbone["first"]["kernel"][1]).max() > 0
    )


@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_devices_tune_alike(images: ImageSet, tiny: Backbone, kind: str) -> None:
    steps = plan(1, 3)
    one = tuned_epoch(images, tiny, one_device(), steps)
    many = tuned_epoch(images, tiny, Devices(kind, jax.local_devices()[:3]), steps)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(a).max())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_moments_are_those_of_the_features(dtype: str) -> None:
    rng = np.random.default_rng(0)
    # More rows than are reduced at a time, and a mean that would eat the spread in half precision.
    raw = jnp.asarray(100 + rng.normal(size=(150, 3, 2, 4, 5)), dtype)
    features = np.asarray(raw)
    means, squares = CachedFeatures(features, one_device()).moments
    exact = features.astype(np.float64)
    np.testing.assert_allclose(means, exact.mean(axis=(1, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(squares, (exact**2).mean(axis=(1, 2, 3)), rtol=1e-6)
    assert means.dtype == squares.dtype == np.float64


def test_pooled_features_are_the_mean_of_the_map(
    folder: Path, images: ImageSet, tiny: Backbone
) -> None:
    made = {}
    for head in ("linear", "conv"):
        config = configuration(cache=True, head=head)
        features = open_features(config, images, tiny, one_device(), folder / "cache", Journal())
        made[head] = features.moments[0]
    scale = np.abs(made["conv"]).max()
    np.testing.assert_allclose(made["linear"], made["conv"], rtol=1e-5, atol=1e-5 * scale)


def test_the_second_opening_extracts_nothing(
    folder: Path, images: ImageSet, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configuration(cache=True, dtype="bfloat16")
    arguments = (config, images, tiny, one_device(), folder / "cache")
    open_features(*arguments, Journal())
    monkeypatch.setattr(Backbone, "apply", pytest.fail)
    monkeypatch.setattr(backbones.Backbone, "feature_shape", lambda self, size: (1, 1, 6))
    journal = Journal()
    open_features(*arguments, journal)
    assert f"feature cache: {ROWS} images of tiny are there already, 0 to extract" in journal.notes
    assert "extract features" not in journal.seconds


def test_features_beyond_the_share_of_memory_stay_on_disk(
    folder: Path, images: ImageSet, tiny: Backbone
) -> None:
    config, journal = configuration(cache=True), Journal()
    held = open_features(config, images, tiny, one_device(), folder / "cache", journal)
    config.features.memory = 1e-12
    streamed = open_features(config, images, tiny, one_device(), folder / "cache", journal)
    assert isinstance(held, CachedFeatures)
    assert isinstance(streamed, StreamedFeatures)
    assert "more than features.memory=1e-12 of what there is: read from disk" in journal.notes[-1]
    np.testing.assert_allclose(streamed.moments, held.moments, rtol=1e-6)


def test_an_accelerator_computes_a_frozen_backbone_in_bfloat16(
    images: ImageSet, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = configuration(cache=True)
    assert make_spec(asked, tiny).compute == "float32"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert make_spec(asked, tiny).compute == "bfloat16"
    asked.backbone.trainable = "all"
    assert make_spec(asked, tiny).compute == "float32"
    asked.backbone.trainable, asked.features.compute = "none", "float32"
    assert make_spec(asked, tiny).compute == "float32"
    some = np.stack([images[row] for row in range(4)])
    full, narrow = (np.asarray(tiny.apply(tiny.params, some, c)) for c in ("float32", "bfloat16"))
    error = np.linalg.norm(narrow - full) / np.linalg.norm(full)
    assert narrow.dtype == np.float32
    assert 1e-4 < error < 2e-2, "three digits, and no more than that is lost"


def test_the_key_of_the_cache_follows_the_configuration(tiny: Backbone) -> None:
    base = make_spec(configuration(cache=True), tiny)
    assert isinstance(base, FeatureSpec)
    digests = {base.digest()}
    changes = {
        "seed": 1,
        "features.views": 3,
        "features.dtype": "float16",
        "features.compute": "bfloat16",
        "head.name": "conv",
        "augment.rotation": 6.0,
        "augment.shear": 0.3,
        "augment.zoom": 0.1,
        "augment.shift": 0.2,
        "augment.horizontal_flip": False,
        "augment.vertical_flip": True,
        "augment.brightness": (0.5, 1.0),
    }
    for key, value in changes.items():
        config = configuration(cache=True)
        config.update_from_flattened_dict({key: value})
        digests.add(make_spec(config, tiny).digest())
    assert len(digests) == 1 + len(changes)
    # What decides training only, or how the work is cut, must not cost an extraction.
    others = {
        "epochs": 3,
        "folds": 7,
        "oversample": "none",
        "optimizer.learning_rate": 0.5,
        "features.batch_size": 2,
        "parallel": "pmap",
        "data.labels": "other.csv",
    }
    config = configuration(cache=True)
    config.update_from_flattened_dict(others)
    assert make_spec(config, tiny).digest() == base.digest()
    other_weights = dataclasses.replace(tiny, digest="1" * 64)
    assert make_spec(configuration(cache=True), other_weights).digest() != base.digest()


def test_only_the_demo_may_do_without_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Path:
        raise WeightsError(f"the weights of {name} are not there")

    monkeypatch.setattr(backbones, "published_weights", absent)
    config = get_config()
    config.backbone.name = "mobilenet_v2"
    journal = Journal()
    assert choose_backbone(config, journal).random
    assert any("RANDOM" in warning for warning in journal.warnings)
    assert any("not there" in note for note in journal.notes)
    config.data.labels, config.data.images = "labels.csv", "images"
    with pytest.raises(WeightsError, match="not there"):
        choose_backbone(config, Journal())
    config.backbone.weights = "random"
    assert choose_backbone(config, Journal()).random
