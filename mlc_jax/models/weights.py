"""Weight files: Keras's legacy HDF5, safetensors in the Hub's, torchvision's or our names, .pth.

Files are untrusted. Nothing in them is executed, every shape is checked before its values are read,
and everything that does not fit is collected and said at once.
"""

import contextlib
import functools
import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from mlc_jax.errors import WeightsError
from mlc_jax.files.atomic import write_bytes
from mlc_jax.files.digest import digest_file
from mlc_jax.models.hdf5 import keras_layers, open_guarded
from mlc_jax.models.layers import LayerSpec, Network, layer_specs
from mlc_jax.models.preprocess import PREPROCESS
from mlc_jax.models.stored import OIHW_TO_HWIO, Stored, transposed

OUR_FORMAT = "mlc_jax"
MAX_HEADER_BYTES = 4 << 20
MAX_PROBLEMS = 20

Params = Any


@dataclass(frozen=True)
class Weights:
    """What a weight file holds.

    Attributes:
      params: nested dict of float32 arrays, as `nnx.merge` takes it.
      preprocess: how images must be prepared for these weights, a key of `PREPROCESS`.
      digest: SHA-256 of the file.
    """

    params: Params
    preprocess: str
    digest: str


class Contents(NamedTuple):
    """The arrays of a file, those that are known by our names ("block1/conv1/kernel")."""

    arrays: dict[str, Stored]
    preprocess: str


def read_weights(path: Path, name: str, network: Network) -> Weights:
    """Reads a weight file for a backbone.

    Args:
      path: a .h5, .hdf5, .safetensors, .pth or .pt file.
      name: name of the backbone.
      network: the backbone as it was built, without values.

    Raises:
      WeightsError: the file is missing, unsafe, damaged, or of another architecture; the message
        names every parameter that is missing, unexpected, of another shape, or not finite.
    """
    readers = {
        ".h5": _keras,
        ".hdf5": _keras,
        ".safetensors": _safetensors,
        ".pth": _torch,
        ".pt": _torch,
    }
    if path.suffix.lower() not in readers:
        raise WeightsError(f"{path}: weights are read from {', '.join(readers)} files")
    if not path.is_file():
        raise WeightsError(f"{path}: no such weight file")
    expected = {
        "/".join((*layer.path, variable)): shape
        for layer in layer_specs(network)
        for variable, shape in layer.shapes.items()
    }
    try:
        digest = digest_file(path)
        with readers[path.suffix.lower()](path, name, network) as contents:
            _refuse(path, name, _mismatches(contents.arrays, expected))
            values = {key: np.asarray(contents.arrays[key].read(), np.float32) for key in expected}
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
    _refuse(
        path, name, [f"{k} is not finite" for k, v in values.items() if not np.isfinite(v).all()]
    )
    return Weights(nested(values), contents.preprocess, digest)


def write_weights(path: Path, name: str, params: Params, preprocess: str) -> None:
    """Writes `params` atomically, as safetensors in the names that `read_weights` knows as ours."""
    leaves, _ = jax.tree.flatten_with_path(params)
    arrays = {
        jax.tree_util.keystr(key, simple=True, separator="/"): np.asarray(value)
        for key, value in leaves
    }
    metadata = {"format": OUR_FORMAT, "backbone": name, "preprocess": preprocess}
    write_safetensors(path, arrays, metadata)


def write_safetensors(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes arrays atomically, equal ones as equal bytes.

    The library writes metadata in an order that differs from one process to the next, and a file's
    digest with it; and its `save_file` makes files that nobody but their owner may read.
    """
    data = safetensors.numpy.save(arrays, metadata=metadata)
    # The format: the header's length in 8 bytes, the header in JSON, then the arrays, whose places
    # are counted from the end of the header.
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    write_bytes(path, len(header).to_bytes(8, "little") + header + data[end:])


@contextlib.contextmanager
def _keras(path: Path, name: str, network: Network) -> Iterator[Contents]:
    """Arrays go by their order within a layer, since their names changed with Keras's versions."""
    specs = layer_specs(network)
    with open_guarded(path) as file:
        found = {k: v for k, v in keras_layers(file).items() if k not in network.top}
        arrays = {}
        for layer, weights in _named_as_ours(found, specs).items():
            spec = next((spec for spec in specs if spec.name == layer), LayerSpec((layer,), {}))
            known = (*spec.shapes, *spec.unread)
            variables = [*known, *(f"array {n}" for n in range(len(known), len(weights)))]
            for variable, weight in zip(variables, weights, strict=False):
                if variable in spec.unread:
                    continue
                key = "/".join((*spec.path, variable))
                read = functools.partial(weight.__getitem__, ())
                arrays[key] = Stored(weight.shape, weight.dtype.kind == "f", read)
        yield Contents(arrays, network.preprocess)


def _named_as_ours(
    found: dict[str, list[h5py.Dataset]], specs: list[LayerSpec]
) -> dict[str, list[h5py.Dataset]]:
    """The layers of a file under the names of `specs`.

    Layers that Keras left unnamed it numbered, and names changed with its versions; it goes by the
    order of layers alone. So do we for those whose names we do not know, if every shape fits.
    """
    names = {spec.name for spec in specs}
    others = [layer for layer in found if layer not in names]
    unnamed = [spec for spec in specs if spec.name not in found]
    fits = len(others) == len(unnamed) and all(
        len(found[layer]) == len(spec.shapes) + len(spec.unread)
        and [weight.shape for weight in found[layer]][: len(spec.shapes)]
        == list(spec.shapes.values())
        for layer, spec in zip(others, unnamed, strict=True)
    )
    renamed = {layer: spec.name for layer, spec in zip(others, unnamed, strict=False) if fits}
    return {renamed.get(layer, layer): weights for layer, weights in found.items()}


@contextlib.contextmanager
def _safetensors(path: Path, name: str, network: Network) -> Iterator[Contents]:
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > min(MAX_HEADER_BYTES, path.stat().st_size):
        raise WeightsError(f"{path}: its header claims {header} bytes, which no backbone needs")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            arrays = {}
            for key in sorted(file.keys()):
                entry = file.get_slice(key)
                floating = entry.get_dtype() in ("F16", "F32", "F64")
                read = functools.partial(file.get_tensor, key)
                arrays[key] = Stored(tuple(entry.get_shape()), floating, read)
            metadata = file.metadata() or {}
            if metadata.get("format") != OUR_FORMAT:
                yield _from_torch(path, name, network, arrays)
            elif metadata.get("backbone") != name:
                backbone = metadata.get("backbone")
                raise WeightsError(f"{path}: holds the weights of {backbone}, not of {name}")
            elif metadata.get("preprocess") not in PREPROCESS:
                mode = metadata.get("preprocess")
                raise WeightsError(f"{path}: preprocess={mode} is none of {', '.join(PREPROCESS)}")
            else:
                yield Contents(arrays, metadata["preprocess"])
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})") from error


@contextlib.contextmanager
def _torch(path: Path, name: str, network: Network) -> Iterator[Contents]:
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise WeightsError(
            f"{path}: reading it needs torch (pip install torch); or convert it to .safetensors "
            "where torch is installed"
        ) from error
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        arrays = {
            str(key): Stored(
                tuple(tensor.shape),
                tensor.is_floating_point(),
                tensor.detach().float().numpy().view,
            )
            for key, tensor in tensors.items()
        }
    except Exception as error:  # torch raises whatever the pickle, zip or tar in the file led it to
        raise WeightsError(
            f"{path}: not a state dict of plain tensors that torch loads with weights_only=True"
        ) from error
    yield _from_torch(path, name, network, arrays)


def _from_torch(path: Path, name: str, network: Network, found: dict[str, Stored]) -> Contents:
    """Our names for the Hub's or torchvision's, and HWIO kernels for OIHW."""
    if (arrays := network.hub_arrays(found)) is not None:
        return Contents(arrays, network.preprocess)
    layers = network.torch_layers()
    if not layers:
        raise WeightsError(
            f"{path}: torchvision's names are not known for {name}; use Keras's .h5 file"
        )
    renamed = {}
    for spec in layer_specs(network):
        renamed[f"{layers[spec.name]}.weight"] = "/".join((*spec.path, "kernel"))
        renamed[f"{layers[spec.name]}.bias"] = "/".join((*spec.path, "bias"))
    arrays = {}
    for key, stored in found.items():
        if key.split(".")[0] in network.top:
            continue
        arrays[renamed.get(key, key)] = transposed(stored, OIHW_TO_HWIO)
    return Contents(arrays, "torch")


def _mismatches(arrays: dict[str, Stored], expected: dict[str, tuple[int, ...]]) -> list[str]:
    problems = [f"missing {key}" for key in expected if key not in arrays]
    problems += [f"unexpected {key}" for key in arrays if key not in expected]
    for key, stored in arrays.items():
        if key in expected and stored.shape != expected[key]:
            problems.append(f"{key} has shape {stored.shape}, not {expected[key]}")
        elif key in expected and not stored.floating:
            problems.append(f"{key} is not of floating point numbers")
    return problems


def _refuse(path: Path, name: str, problems: list[str]) -> None:
    if problems:
        rest = len(problems) - MAX_PROBLEMS
        more = f"; and {rest} more" if rest > 0 else ""
        listed = "; ".join(problems[:MAX_PROBLEMS])
        raise WeightsError(f"{path}: does not hold the weights of {name}: {listed}{more}")


def nested(values: dict[str, np.ndarray]) -> Params:
    """A nested dict of jax arrays, from arrays by names as in "block1/conv1/kernel"."""
    params: dict[str, Any] = {}
    for key, value in values.items():
        *path, variable = key.split("/")
        layer = params
        for part in path:
            layer = layer.setdefault(part, {})
        layer[variable] = jnp.asarray(value)
    return params
