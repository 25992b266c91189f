"""Winograd's algorithm against `lax.conv` in float64, and a choice of it that is made once."""

import dataclasses
import json
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mlc_jax.journal import Journal
from mlc_jax.models import algorithms
from mlc_jax.models.algorithms import DIRECT, Algorithm, choose_algorithm, stored_algorithm
from mlc_jax.models.backbones import Backbone, load_backbone
from mlc_jax.models.features import FeatureSpec
from mlc_jax.models.layers import LAYOUT, Conv, Network
from mlc_jax.models.winograd import (
    FILTER,
    IN,
    OUT,
    convolve,
    eligible,
    transform_filters,
    with_winograd,
)
from mlc_jax.training.features import extractor
from mlc_jax.training.parallel import Devices
from tests.image_folders import views

LARGE = (130, 129)
CONVOLUTIONS = [
    f"block{b}_conv{n}" for b, n in zip("1122333344445555", "1212123412341234", strict=True)
]


@pytest.fixture(scope="module")
def vgg19() -> Backbone:
    return load_backbone("vgg19", "random")


def in_float64(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    with jax.enable_x64(True):
        wide = jnp.asarray(x, jnp.float64), jnp.asarray(kernel, jnp.float64)
        made = jax.lax.conv_general_dilated(*wide, (1, 1), "SAME", dimension_numbers=LAYOUT)
        assert made.dtype == jnp.float64
        return np.asarray(made)


def test_the_matrices_are_an_identity_in_exact_arithmetic() -> None:
    """Winograd's 1-D law for unit vectors, which by linearity is the law for all."""
    outer, inner = OUT.astype(int), IN.astype(int)
    filters = np.vectorize(lambda value: Fraction(round(value * 24), 24))(FILTER)
    for i in range(3):
        for j in range(6):
            products = filters[:, i] * inner[:, j]
            expected = [int(j - i == place) for place in range(4)]
            assert (outer @ products).tolist() == expected


@pytest.mark.parametrize(
    ("batch", "height", "width", "channels"),
    [(1, 4, 4, 64), (1, 5, 7, 64), (3, 113, 90, 8), (8, 28, 21, 64), (6, 13, 13, 512)],
    ids=["one tile", "odd", "strips", "images together", "divisor"],
)
def test_it_is_a_convolution(batch: int, height: int, width: int, channels: int) -> None:
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((batch, height, width, channels), np.float32), 0)
    kernel = rng.standard_normal((3, 3, channels, 5), np.float32)
    ours = jax.jit(convolve)(x, tuple(map(jnp.asarray, transform_filters(kernel))))
    theirs = in_float64(x, kernel)
    assert ours.shape == theirs.shape
    assert np.linalg.norm(ours - theirs) < 5e-6 * np.linalg.norm(theirs)
    assert np.abs(ours - theirs).max() < 2e-5 * np.abs(theirs).max()


def test_features_of_a_whole_network_stay_within_a_ten_thousandth(vgg19: Backbone) -> None:
    """Fourteen transformed layers in a row, against the same network in float64."""
    fast = with_winograd(vgg19, CONVOLUTIONS[2:])
    images = np.random.default_rng(1).integers(0, 256, (2, 48, 40, 3)).astype(np.uint8)
    ours = np.asarray(jax.jit(fast.apply)(fast.params, images))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), vgg19.params)
        x = jnp.asarray(images[..., ::-1], jnp.float64) - jnp.array([103.939, 116.779, 123.68])
        for block in sorted(wide):
            for layer in sorted(wide[block]):
                x = jax.lax.conv_general_dilated(
                    x, wide[block][layer]["kernel"], (1, 1), "SAME", dimension_numbers=LAYOUT
                )
                x = jnp.maximum(x + wide[block][layer]["bias"], 0)
            x = jax.lax.reduce_window(x, -np.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        theirs = np.asarray(x)
    assert theirs.dtype == np.float64
    assert np.linalg.norm(ours - theirs) < 1e-5 * np.linalg.norm(theirs)
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_the_loaded_network_stays_as_it_was(vgg19: Backbone) -> None:
    """Fine-tuning needs it: its filters, its gradient, its names."""
    before = jax.tree.map(np.asarray, vgg19.params)
    fast = with_winograd(vgg19, ["block5_conv4"])
    jax.tree.map(np.testing.assert_array_equal, before, vgg19.params)
    assert set(vgg19.params["block5"]["conv4"]) == {"kernel", "bias"}
    assert len(fast.params["block5"]["conv4"]) == 37
    assert fast.params["block5"]["conv3"].keys() == {"kernel", "bias"}
    assert fast.feature_shape((64, 64)) == vgg19.feature_shape((64, 64))


def test_every_3x3_convolution_of_vgg19_is_eligible_and_the_stride_of_mobilenet_is_not(
    vgg19: Backbone,
) -> None:
    shapes = eligible(vgg19, (450, 350))
    assert list(shapes) == CONVOLUTIONS
    assert shapes["block1_conv2"] == (450, 350, 64, 64)
    assert shapes["block5_conv1"] == (28, 21, 512, 512)
    assert eligible(load_backbone("mobilenet_v2", "random"), (96, 96)) == {}


class Two(Network):
    """Two convolutions."""

    channels = 5

    def __init__(self) -> None:
        self.first = Conv(3, 8, 3, bias=True)
        self.second = Conv(8, self.channels, 3)

    def __call__(self, x: jax.Array, layer: str = "") -> jax.Array:
        assert not layer
        return self.second(nnx.relu(self.first(x)))


@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_eight_devices_give_what_one_gives(vgg19: Backbone, kind: str) -> None:
    graphdef = nnx.split(Two())[0]
    rng = np.random.default_rng(2)
    first = {"kernel": rng.normal(size=(3, 3, 3, 8)), "bias": rng.normal(size=8)}
    params = {"first": first, "second": {"kernel": rng.normal(size=(3, 3, 8, 5))}}
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    two = dataclasses.replace(vgg19, graphdef=graphdef, params=params, channels=5)
    algorithm = Algorithm(("first", "second"), 8)
    spec = FeatureSpec(("two", ""), (32, 32), False, "float32", views(0), algorithm)
    images = rng.integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
    one = extractor(two, spec, Devices(kind, jax.devices()[:1]))(images)
    eight = extractor(two, spec, Devices(kind))(images)
    direct = extractor(two, dataclasses.replace(spec, algorithm=DIRECT), Devices(kind))(images)
    np.testing.assert_allclose(one, direct, rtol=1e-4, atol=1e-4 * float(jnp.abs(one).max()))
    np.testing.assert_allclose(eight, one, rtol=1e-5, atol=1e-5 * float(jnp.abs(one).max()))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Measurements that cost nothing: Winograd wins from 256 channels on, and 4 images a call."""
    asked: list[tuple[int, ...]] = []

    def convolutions(shape: tuple[int, ...]) -> dict[str, float]:
        asked.append(shape)
        return {"direct": 1.0, "winograd": 0.5 if shape[2] >= 256 else 0.99}

    def batches(backbone: Backbone, *_: object) -> dict[int, float]:
        assert "filter0" in backbone.params["block4"]["conv1"]
        return {2: 1.0, 4: 2.0, 8: 2.01}

    monkeypatch.setattr(algorithms, "time_convolutions", convolutions)
    monkeypatch.setattr(algorithms, "time_batches", batches)
    return asked


def test_a_choice_is_measured_once_and_kept(
    vgg19: Backbone, tmp_path: Path, measured: list[tuple[int, ...]]
) -> None:
    journal = Journal()
    assert stored_algorithm(vgg19, LARGE, tmp_path) == DIRECT
    first = choose_algorithm(vgg19, LARGE, tmp_path, journal)
    winners = [name for name in CONVOLUTIONS if name >= "block3_conv2"]
    assert first == Algorithm(tuple(winners), 4)
    # One measurement for each shape; the three channels of an image are not worth one.
    assert len(measured) == len(set(measured)) == 8
    assert choose_algorithm(vgg19, LARGE, tmp_path, journal) == first
    assert stored_algorithm(vgg19, LARGE, tmp_path) == first
    assert len(measured) == 8
    (file,) = (tmp_path / "algorithms").glob("*.json")
    assert len(json.loads(file.read_text())["measured"]["seconds"]) == 8
    assert "11 of 15 layers, 4 images per call" in journal.notes[-1]
    # Another size is another choice; a damaged one is made anew.
    choose_algorithm(vgg19, (200, 200), tmp_path, journal)
    assert len(measured) == 16
    file.write_text("{")
    assert choose_algorithm(vgg19, LARGE, tmp_path, journal) == first
    assert len(measured) == 24


def test_small_images_are_not_measured(
    vgg19: Backbone, tmp_path: Path, measured: list[tuple[int, ...]]
) -> None:
    assert choose_algorithm(vgg19, (64, 64), tmp_path, Journal()) == DIRECT
    assert not measured
    assert not list(tmp_path.iterdir())


def test_a_measurement_times_both_algorithms() -> None:
    seconds = algorithms.time_convolutions((9, 9, 32, 32))
    assert set(seconds) == {"direct", "winograd"}
    assert all(0 < value < 60 for value in seconds.values())


def test_the_algorithm_is_part_of_the_key_of_features() -> None:
    spec = FeatureSpec(("vgg19", ""), LARGE, True, "float16", views(0))
    assert spec.algorithm == DIRECT
    others = [Algorithm(("block5_conv1",), 0), Algorithm((), 4)]
    keys = {dataclasses.replace(spec, algorithm=other).digest() for other in [DIRECT, *others]}
    assert len(keys) == 3
