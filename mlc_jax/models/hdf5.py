"""Keras's HDF5 weight files, read as hostile: nothing outside the file, nothing but plain arrays.

HDF5 can point to other files (external links, external storage, virtual data sets), hold Python
objects and claim any size. The whole file is checked before the first value of it is read.
"""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from mlc_jax.errors import WeightsError

MAX_OBJECTS = 100_000
MAX_NAMES = 10_000
MAX_NAME_BYTES = 1_024


@contextlib.contextmanager
def open_guarded(path: Path) -> Iterator[h5py.File]:
    """Opens an HDF5 file whose every link and data set stays inside it.

    Raises:
      WeightsError: it is not HDF5, or holds a link that is not hard, or a data set that is
        external, virtual, chunked, of objects, or without its bytes in the file.
    """
    try:
        with h5py.File(path, "r") as file:
            names: list[str] = []

            def enough(name: str) -> bool | None:
                names.append(name)
                return True if len(names) > MAX_OBJECTS else None

            # Only names are taken during the visit: errors must not cross HDF5's own frames.
            if file.visit_links(enough):
                raise WeightsError(f"{path}: refused, since it holds over {MAX_OBJECTS:,} objects")
            for name in names:
                if reason := _refusal(file, name):
                    raise WeightsError(
                        f"{path}: refused, since {name} is {reason}; a weight file holds plain "
                        "arrays only"
                    )
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise WeightsError(f"{path}: not a readable HDF5 file ({_first_line(error)})") from error


def keras_layers(file: h5py.File) -> dict[str, list[h5py.Dataset]]:
    """The layers that have weights, in the file's order, each with its data sets in Keras's order.

    Values are not read. The layers of a whole saved model, under `model_weights`, are found too.

    Args:
      file: from `open_guarded`.

    Raises:
      WeightsError: the file is not in Keras's legacy layout.
    """
    root = file.get("model_weights", file)
    if not isinstance(root, h5py.Group):
        raise WeightsError(f"{file.filename}: model_weights is not a group")
    layers = {}
    for layer in _names(root, "layer_names"):
        group = root.get(layer)
        if not isinstance(group, h5py.Group):
            raise WeightsError(f"{file.filename}: layer {layer} is listed but absent")
        weights = [group.get(name) for name in _names(group, "weight_names")]
        if not all(isinstance(weight, h5py.Dataset) for weight in weights):
            raise WeightsError(f"{file.filename}: a weight of layer {layer} is listed but absent")
        if weights:
            layers[layer] = weights
    return layers


def _refusal(file: h5py.File, name: str) -> str | None:
    """What `name` is that must not be read; None if it may be."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return "a link that leads elsewhere"
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        return None
    if found.is_virtual:
        return "a virtual data set"
    if found.external:
        return "a data set stored outside of the file"
    if found.dtype.hasobject:
        return "a data set of objects"
    if found.chunks is not None:
        return "a chunked data set"
    if found.id.get_storage_size() != found.nbytes:
        return "a data set without its bytes"
    return None


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """The names in `attribute`, which Keras cuts into `attribute0`, `attribute1`, ... if long."""
    pieces = [attribute]
    if attribute not in group.attrs:
        numbered = (f"{attribute}{n}" for n in itertools.count())
        pieces = list(itertools.takewhile(lambda piece: piece in group.attrs, numbered))
    if not pieces:
        raise WeightsError(
            f"{group.file.filename}: {group.name} has no {attribute}, so it is not in Keras's "
            "legacy HDF5 layout; write it with Keras's model.save('weights.h5')"
        )
    names: list[str] = []
    for piece in pieces:
        stored = group.attrs.get_id(piece)
        if (
            np.prod(stored.shape, dtype=np.int64) > MAX_NAMES
            or stored.dtype.itemsize > MAX_NAME_BYTES
        ):
            raise WeightsError(f"{group.file.filename}: {group.name} has an oversized {piece}")
        values = np.ravel(group.attrs[piece]).tolist()
        names.extend(v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in values)
    return names


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
