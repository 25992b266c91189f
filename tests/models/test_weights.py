"""Weight files in Keras's layout, and ones that are hostile, damaged or of another network."""

import json
import os
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import jax
import numpy as np
import pytest

from mlc_jax.errors import WeightsError
from mlc_jax.files.digest import digest_file
from mlc_jax.models.backbones import NETWORKS, load_backbone
from mlc_jax.models.layers import Conv, Network, layer_specs
from mlc_jax.models.weights import read_weights

NAME = "mobilenet_v2"


def put_names(group: h5py.Group, attribute: str, names: list[str]) -> None:
    """Stores names as Keras does, as one array of bytes."""
    group.attrs[attribute] = np.array(names, "S")


def names_of(group: h5py.Group, attribute: str) -> list[str]:
    return [name.decode() for name in group.attrs[attribute]]


@pytest.fixture
def keras_file(tmp_path: Path) -> Path:
    """A valid file in Keras's legacy layout, every value random."""
    return write_keras_file(tmp_path / "weights.h5", NAME)


def write_keras_file(path: Path, backbone: str) -> Path:
    rng = np.random.default_rng(0)
    specs = layer_specs(NETWORKS[backbone]())
    with h5py.File(path, "w") as file:
        put_names(file, "layer_names", ["input_1", *(spec.name for spec in specs)])
        put_names(file.create_group("input_1"), "weight_names", [])
        for index, spec in enumerate(specs):
            # Keras 1 named arrays otherwise than Keras 3; VGG19's published file is of its time.
            names = [f"layer{index}_{letter}:0" for letter in "Wbcd"[: len(spec.shapes)]]
            group = file.create_group(spec.name)
            put_names(group, "weight_names", names)
            for name, shape in zip(names, spec.shapes.values(), strict=True):
                group[name] = rng.random(shape, np.float32)
    return path


def layer(path: Path, name: str) -> str:
    """The HDF5 path of the first array of a layer."""
    with h5py.File(path) as file:
        return f"{name}/{names_of(file[name], 'weight_names')[0]}"


def test_arrays_go_by_their_order_in_a_layer(keras_file: Path) -> None:
    backbone = load_backbone(NAME, keras_file, fold=False)
    with h5py.File(keras_file) as file:
        for group, stored in (("Conv1", "kernel"), ("block_16_depthwise", "depthwise_kernel")):
            *block, name = group.rsplit("_", 1)
            params = backbone.params[block[0]][name] if block else backbone.params[group]
            np.testing.assert_array_equal(params[stored], file[layer(keras_file, group)][:])
    assert backbone.digest == digest_file(keras_file)
    assert not backbone.random


def test_a_whole_saved_model_is_read_like_its_weights(keras_file: Path, tmp_path: Path) -> None:
    whole = tmp_path / "model.h5"
    with h5py.File(keras_file) as source, h5py.File(whole, "w") as target:
        target.attrs["model_config"] = json.dumps({"class_name": "Functional"})
        source.copy(source, target, "model_weights")
    expected, found = (load_backbone(NAME, path).params for path in (keras_file, whole))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_long_lists_of_names_are_read_in_pieces(keras_file: Path) -> None:
    expected = load_backbone(NAME, keras_file).params
    with h5py.File(keras_file, "a") as file:
        names = names_of(file, "layer_names")
        del file.attrs["layer_names"]
        for piece, part in enumerate(np.array_split(names, 3)):
            put_names(file, f"layer_names{piece}", part.tolist())
    jax.tree.map(np.testing.assert_array_equal, load_backbone(NAME, keras_file).params, expected)


def test_renamed_layers_go_by_their_order(keras_file: Path) -> None:
    expected = load_backbone(NAME, keras_file).params
    with h5py.File(keras_file, "a") as file:
        names = names_of(file, "layer_names")
        for name in names:
            file.move(name, f"old_{name}")
        put_names(file, "layer_names", [f"old_{name}" for name in names])
    jax.tree.map(np.testing.assert_array_equal, load_backbone(NAME, keras_file).params, expected)


def test_a_layer_that_keras_numbered_is_found(tmp_path: Path) -> None:
    """Keras leaves the normalisation of images unnamed, and stores a count that is not read."""
    path, name = tmp_path / "weights.h5", "efficientnet_b0"
    expected = load_backbone(name, write_keras_file(path, name)).params
    with h5py.File(path, "a") as file:
        file.move("normalization", "normalization_3")
        names = [
            layer.replace("normalization", "normalization_3")
            for layer in names_of(file, "layer_names")
        ]
        put_names(file, "layer_names", names)
        file["normalization_3/count"] = np.int64(0)
        weights = [*names_of(file["normalization_3"], "weight_names"), "count"]
        put_names(file["normalization_3"], "weight_names", weights)
    jax.tree.map(np.testing.assert_array_equal, load_backbone(name, path).params, expected)


def test_names_of_tensorflow_s_time_go_by_their_order(tmp_path: Path) -> None:
    """MobileNetV3's published file has slashes in its names, which HDF5 takes for folders."""
    path = write_keras_file(tmp_path / "weights.h5", "mobilenet_v3_small")
    expected = load_backbone("mobilenet_v3_small", path).params
    with h5py.File(path, "a") as file:
        names = names_of(file, "layer_names")
        old = [
            re.sub(r"^(expanded_conv(_\d+)?)_", r"\1/", name).replace("_bn", "/BatchNorm")
            for name in names
        ]
        assert {"expanded_conv_1/expand/BatchNorm", "conv/BatchNorm"} < set(old)
        for name in names:
            file.move(name, f"moved_{name}")
        for name, new in zip(names, old, strict=True):
            source, target = file[f"moved_{name}"], file.require_group(new)
            target.attrs["weight_names"] = source.attrs["weight_names"]
            for weight in list(source):
                file.move(f"{source.name}/{weight}", f"{target.name}/{weight}")
            del file[f"moved_{name}"]
        put_names(file, "layer_names", old)
    found = load_backbone("mobilenet_v3_small", path).params
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def external_link(file: h5py.File, name: str, outside: Path) -> None:
    file[name] = h5py.ExternalLink(str(outside / "secret.h5"), "values")


def soft_link(file: h5py.File, name: str, outside: Path) -> None:
    file["stored_elsewhere"] = np.zeros((3, 3, 3, 32), np.float32)
    file[name] = h5py.SoftLink("/stored_elsewhere")


def virtual_data_set(file: h5py.File, name: str, outside: Path) -> None:
    layout = h5py.VirtualLayout((3, 3, 3, 32), np.float32)
    layout[:] = h5py.VirtualSource(str(outside / "secret.h5"), "values", (3, 3, 3, 32))
    file.create_virtual_dataset(name, layout)


def external_storage(file: h5py.File, name: str, outside: Path) -> None:
    size = 4 * 3 * 3 * 3 * 32
    where = [(str(outside / "secret.raw"), 0, size)]
    file.create_dataset(name, (3, 3, 3, 32), np.float32, external=where)


def objects(file: h5py.File, name: str, outside: Path) -> None:
    file.create_dataset(name, (3, 3, 3, 32), h5py.string_dtype())


def references(file: h5py.File, name: str, outside: Path) -> None:
    file.create_dataset(name, (3, 3, 3, 32), h5py.ref_dtype)


def chunks(file: h5py.File, name: str, outside: Path) -> None:
    file.create_dataset(name, data=np.zeros((3, 3, 3, 32), np.float32), compression="gzip")


def claimed_size(file: h5py.File, name: str, outside: Path) -> None:
    file.create_dataset(name, (1 << 20, 1 << 20), np.float32)


@pytest.mark.parametrize(
    "plant",
    [
        external_link,
        soft_link,
        virtual_data_set,
        external_storage,
        objects,
        references,
        chunks,
        claimed_size,
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_nothing_but_plain_arrays_is_read(
    plant: Callable[[h5py.File, str, Path], None], listed: bool, keras_file: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with h5py.File(outside / "secret.h5", "w") as secret:
        secret["values"] = np.ones((3, 3, 3, 32), np.float32)
    (outside / "secret.raw").write_bytes(bytes(4 * 3 * 3 * 3 * 32))
    for path in outside.iterdir():
        os.utime(path, (0, 0))  # a read would set the time of access anew
    name = layer(keras_file, "Conv1") if listed else "aside"
    with h5py.File(keras_file, "a") as file:
        if listed:
            del file[name]
        plant(file, name, outside)
    with pytest.raises(WeightsError, match=name) as refusal:
        load_backbone(NAME, keras_file)
    assert "\n" not in str(refusal.value)
    assert str(keras_file) in str(refusal.value)
    assert [path.stat().st_atime for path in outside.iterdir()] == [0, 0]


def test_an_oversized_list_of_names_is_refused(keras_file: Path) -> None:
    with h5py.File(keras_file, "a") as file:
        del file.attrs["layer_names"]
        put_names(file, "layer_names0", ["x"] * 12_000)
    with pytest.raises(WeightsError, match="oversized layer_names0"):
        load_backbone(NAME, keras_file)


def test_all_problems_are_said_at_once(keras_file: Path) -> None:
    with h5py.File(keras_file, "a") as file:
        names = [name for name in names_of(file, "layer_names") if name != "block_3_expand"]
        put_names(file, "layer_names", [*names, "extra"])
        put_names(file.create_group("extra"), "weight_names", ["kernel"])
        file["extra/kernel"] = np.zeros((2, 2), np.float32)
        for name, value in (
            ("Conv1", np.zeros((5, 5, 3, 32), np.float32)),
            ("Conv_1", np.zeros((1, 1, 320, 1280), np.int32)),
        ):
            del file[layer(keras_file, name)]
            file[layer(keras_file, name)] = value
    with pytest.raises(WeightsError) as refusal:
        load_backbone(NAME, keras_file)
    message = str(refusal.value)
    for part in (
        str(keras_file),
        "missing block_3/expand/kernel",
        "unexpected extra",
        "Conv1/kernel has shape (5, 5, 3, 32), not (3, 3, 3, 32)",
        "Conv_1/kernel is not of floating point",
    ):
        assert part in message


def test_another_architecture_and_values_that_are_not_finite_are_refused(keras_file: Path) -> None:
    with pytest.raises(WeightsError, match=r"missing block1/conv1/kernel.* and \d+ more"):
        load_backbone("vgg19", keras_file)
    with h5py.File(keras_file, "a") as file:
        file[layer(keras_file, "block_2_project")][0, 0, 3, 4] = np.nan
    with pytest.raises(WeightsError, match="block_2/project/kernel is not finite"):
        load_backbone(NAME, keras_file)


class Bomb:
    """A pickle of it creates a file when it is loaded."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("suffix", [".h5", ".pth", ".pt", ".safetensors", ".npz", ".pkl"])
def test_a_pickle_is_refused_unexecuted(suffix: str, tmp_path: Path) -> None:
    path, witness = tmp_path / f"weights{suffix}", tmp_path / "witness"
    path.write_bytes(pickle.dumps({"features.0.weight": Bomb(witness)}))
    with pytest.raises(WeightsError, match=str(path)):
        load_backbone("vgg19", path)
    assert not witness.exists()


@pytest.mark.parametrize("kept", [0, 7, 100, 4096, 100_000])
def test_a_truncated_file_is_refused(kept: int, keras_file: Path) -> None:
    keras_file.write_bytes(keras_file.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=str(keras_file)):
        load_backbone(NAME, keras_file)


class OneLayer(Network):
    """Small, so that most flipped bytes hit what HDF5 says about the arrays, not their values."""

    preprocess, channels, top = "tf", 4, ()

    def __init__(self) -> None:
        self.conv = Conv(3, 4, 1, bias=True)

    def torch_layers(self) -> dict[str, str]:
        return {"conv": "features.0"}


class Tensor:
    """As much of torch's as is read."""

    def __init__(self, values: np.ndarray) -> None:
        self.shape, self.values = values.shape, values

    def is_floating_point(self) -> bool:
        return True

    def detach(self) -> "Tensor":
        return self

    float = detach

    def numpy(self) -> np.ndarray:
        return self.values


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".PTH"])
def test_torch_is_asked_for_weights_only_and_never_again_without(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of torch, installed or not, is a module that has nothing but `load`."""
    path, asked = tmp_path / f"weights{suffix}", []
    path.write_bytes(pickle.dumps("only its name is looked at"))
    kernel = np.arange(12, dtype=np.float32).reshape(4, 3, 1, 1)
    answers = [{"features.0.weight": Tensor(kernel), "features.0.bias": Tensor(np.ones(4))}]

    def load(*given: Any, **named: Any) -> dict[str, Tensor]:
        asked.append((given, named))
        if answers:
            return answers.pop()
        raise pickle.UnpicklingError("Weights only load failed. Re-run with weights_only=False")

    torch = ModuleType("torch")
    monkeypatch.setattr(torch, "load", load, raising=False)
    monkeypatch.setitem(sys.modules, "torch", torch)
    params = read_weights(path, "one layer", OneLayer()).params
    np.testing.assert_array_equal(params["conv"]["kernel"], kernel.transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(params["conv"]["bias"], np.ones(4))
    with pytest.raises(WeightsError, match="plain tensors that torch loads with weights_only=True"):
        read_weights(path, "one layer", OneLayer())
    assert asked == [((path,), {"map_location": "cpu", "weights_only": True})] * 2


def test_flipped_bytes_raise_nothing_but_our_error(tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        put_names(file, "layer_names", ["conv"])
        put_names(file.create_group("conv"), "weight_names", ["kernel", "bias"])
        file["conv/kernel"] = np.ones((1, 1, 3, 4), np.float32)
        file["conv/bias"] = np.ones(4, np.float32)
    intact, messages = path.read_bytes(), []
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(intact)
        for place in rng.integers(0, len(intact), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_weights(path, "one layer", OneLayer())
        except WeightsError as error:
            messages.append(str(error))
    assert len(messages) > 30
    assert not any("\n" in message for message in messages)


def test_absent_files_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "folder.h5").mkdir()
    for name in ("absent.h5", "folder.h5", "pipe.h5"):
        with pytest.raises(WeightsError, match=name):
            load_backbone(NAME, tmp_path / name)
