"""The arrays of MATLAB's .mat files of version 7.3, which are HDF5."""

from pathlib import Path
from typing import Any

import numpy as np

from mlc_jax.errors import LabelsError

MAX_BYTES = 2**30
KINDS = "biuf"  # of arrays that hold numbers


def load(path: Path) -> dict[str, np.ndarray]:
    """Name to array.

    Raises:
      LabelsError: it is too large, or refers to other files. h5py's own errors pass.
    """
    import h5py  # here, since few label files are MATLAB's

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
            elif item.dtype.kind in KINDS:
                found[key] = values(item).T
    return found


def _text(codes: np.ndarray) -> str:
    """A text of MATLAB, whose letters are numbers of 16 bits."""
    return codes.astype("<u2").tobytes().decode("utf-16-le", "replace")
