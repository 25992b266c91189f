"""The arrays of MATLAB's .mat files: up to version 7.2 by SciPy, 7.3, which is HDF5, by h5py."""

from pathlib import Path
from typing import Any

import numpy as np

from mlc_jax.errors import LabelsError

MAX_BYTES = 2**30
_KINDS = "biuf"


def load(path: Path) -> dict[str, np.ndarray]:
    """Name to array: numbers as they are, texts and cells with a text each as arrays of texts.

    What is neither (structures, cells of cells) is left out.

    Raises:
      LabelsError: the file cannot be read, is too large, or refers to others.
    """
    if path.stat().st_size > MAX_BYTES:
        raise LabelsError(f"{path} has more than {MAX_BYTES} bytes")
    try:
        with path.open("rb") as raw:
            is_hdf5 = raw.read(10) == b"MATLAB 7.3"
        return _of_hdf5(path) if is_hdf5 else _of_mat5(path)
    except LabelsError:
        raise
    except Exception as error:  # the readers raise whatever the bytes led them to
        raise LabelsError(
            f"{path} is a MATLAB file that cannot be read ({type(error).__name__}: {error}); in "
            "MATLAB, save it again: save('labels.mat', '-v7')"
        ) from None


def _of_mat5(path: Path) -> dict[str, np.ndarray]:
    import scipy.io  # here, since few label files are MATLAB's

    content: dict[str, Any] = scipy.io.loadmat(path)
    found = {}
    for key, value in content.items():
        array = np.asarray(value)
        if key.startswith("__"):
            continue
        if array.dtype.kind in (*_KINDS, "U"):
            found[key] = array
        elif array.dtype.kind == "O":
            cells = [np.asarray(item) for item in array.ravel(order="F")]
            if cells and all(cell.dtype.kind == "U" and cell.size == 1 for cell in cells):
                found[key] = np.array([str(cell.ravel()[0]) for cell in cells])
    return found


def _of_hdf5(path: Path) -> dict[str, np.ndarray]:
    import h5py  # here, likewise

    found: dict[str, np.ndarray] = {}
    size = 0

    def values(item: Any) -> np.ndarray:
        nonlocal size
        if item.external or item.is_virtual:
            raise LabelsError(f"{path}: {item.name} lies in another file; save it again")
        size += item.size * item.dtype.itemsize
        if size > MAX_BYTES:
            raise LabelsError(f"{path} has more than {MAX_BYTES} bytes unpacked")
        return np.asarray(item[()])

    with h5py.File(path, "r") as file:
        for key in file:
            if not isinstance(file.get(key, getlink=True), h5py.HardLink):
                raise LabelsError(f"{path}: {key!r} refers to another place; save it again")
            item = file[key]
            if not isinstance(item, h5py.Dataset) or "MATLAB_empty" in item.attrs:
                continue
            kind = item.attrs.get("MATLAB_class", b"")
            if kind == b"char":
                # A row of MATLAB's array is a text; HDF5 holds it as a column.
                found[key] = np.array([_text(row) for row in np.atleast_2d(values(item).T)])
            elif kind == b"cell":
                cells = [file[reference] for reference in values(item).ravel()]
                if all(cell.attrs.get("MATLAB_class", b"") == b"char" for cell in cells):
                    found[key] = np.array([_text(values(cell).T.ravel()) for cell in cells])
            elif item.dtype.kind in _KINDS:
                found[key] = values(item).T
    return found


def _text(codes: np.ndarray) -> str:
    """A text of MATLAB, whose letters are numbers of 16 bits."""
    return codes.astype("<u2").tobytes().decode("utf-16-le", "replace")
