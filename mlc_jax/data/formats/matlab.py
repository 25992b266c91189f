"""The arrays of MATLAB's .mat files: up to version 7.2 by SciPy, 7.3, which is HDF5, by h5py."""

from pathlib import Path
from typing import Any

import numpy as np

from mlc_jax.data.formats import matlab_hdf5
from mlc_jax.data.formats.matlab_hdf5 import KINDS, MAX_BYTES
from mlc_jax.errors import LabelsError


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
        return matlab_hdf5.load(path) if is_hdf5 else _of_mat5(path)
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
        if array.dtype.kind in (*KINDS, "U"):
            found[key] = array
        elif array.dtype.kind == "O":
            cells = [np.asarray(item) for item in array.ravel(order="F")]
            if cells and all(cell.dtype.kind == "U" and cell.size == 1 for cell in cells):
                found[key] = np.array([str(cell.ravel()[0]) for cell in cells])
    return found
