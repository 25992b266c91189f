"""Weights as safetensors: our own layout, torchvision's names, and headers that lie."""

import struct
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from mlc_jax.errors import WeightsError
from mlc_jax.models.backbones import Backbone, load_backbone
from mlc_jax.models.weights import write_safetensors, write_weights

NAME = "mobilenet_v2"


@pytest.fixture
def ours(tmp_path: Path) -> tuple[Backbone, Path]:
    backbone, path = (
        load_backbone(NAME, "random", fold=False, seed=3),
        tmp_path / "ours.safetensors",
    )
    write_weights(path, NAME, backbone.params, "torch")
    return backbone, path


def test_our_own_layout_is_read_back(ours: tuple[Backbone, Path]) -> None:
    backbone, path = ours
    found = load_backbone(NAME, path, fold=False)
    assert jax.tree.structure(found.params) == jax.tree.structure(backbone.params)
    jax.tree.map(np.testing.assert_array_equal, found.params, backbone.params)
    assert found.preprocess == "torch"
    with pytest.raises(WeightsError, match="weights of mobilenet_v2, not of vgg19"):
        load_backbone("vgg19", path)


def test_equal_arrays_are_equal_bytes_that_the_library_reads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"b/ü": rng.normal(size=(3, 5)), "a": np.arange(7, dtype=np.float32)}
    metadata = {letter: letter * 3 for letter in "jihgfedcba"}  # the library shuffles it
    paths = [tmp_path / f"{number}.safetensors" for number in range(5)]
    for path in paths:
        write_safetensors(path, arrays, metadata)
    assert len({path.read_bytes() for path in paths}) == 1
    with safe_open(paths[0], framework="numpy") as file:
        assert file.metadata() == metadata
        assert set(file.keys()) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(file.get_tensor(name), array)


@pytest.mark.parametrize("name", ["resnet50_v2", "efficientnet_b0", "xception", "convnext_tiny"])
def test_every_kind_of_layer_is_read_back(name: str, tmp_path: Path) -> None:
    backbone, path = load_backbone(name, "random", fold=False), tmp_path / "ours.safetensors"
    write_weights(path, name, backbone.params, backbone.preprocess)
    found = load_backbone(name, path, fold=False)
    assert jax.tree.structure(found.params) == jax.tree.structure(backbone.params)
    jax.tree.map(np.testing.assert_array_equal, found.params, backbone.params)
    assert found.preprocess == backbone.preprocess


def test_safetensors_that_lie_about_their_size_are_refused(ours: tuple[Backbone, Path]) -> None:
    _, path = ours
    data = path.read_bytes()
    for header in (1 << 62, 90 << 20, len(data)):
        path.write_bytes(struct.pack("<Q", header) + data[8:])
        with pytest.raises(WeightsError, match="header"):
            load_backbone(NAME, path)
    path.write_bytes(data[:-1])
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        load_backbone(NAME, path)


def test_torchvision_names_are_refused_where_they_are_not_known(tmp_path: Path) -> None:
    path = tmp_path / "mobilenet.safetensors"
    save_file({"features.0.0.weight": np.zeros((32, 3, 3, 3), np.float32)}, path)
    with pytest.raises(WeightsError, match="not known for mobilenet_v2"):
        load_backbone(NAME, path)
