"""The arrays of NumPy's .npz files."""

import zipfile
from pathlib import Path

import numpy as np

from mlc_jax.errors import LabelsError

MAX_BYTES = 2**30
_LAST_LETTER = 0x10FFFF  # of Unicode


def load(path: Path) -> dict[str, np.ndarray]:
    """Name to array.

    Raises:
      LabelsError: the file cannot be read, is too large, or holds Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(item.file_size for item in archive.infolist()) > MAX_BYTES:
                raise LabelsError(f"{path} has more than {MAX_BYTES} bytes unpacked")
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        return {key: _readable(array) for key, array in arrays.items()}
    except LabelsError:
        raise
    except Exception as error:  # the reader raises whatever the bytes led it to
        raise LabelsError(
            f"{path} is damaged, or cannot be read without executing code ({error}); save it again "
            "with numpy.savez, from arrays of numbers and texts"
        ) from None


def _readable(array: np.ndarray) -> np.ndarray:
    """An array of numbers as it is, one of texts as texts whose letters exist.

    Raises:
      ValueError: a letter is none; Python would end in a SystemError where it is looked at.
    """
    if array.dtype.kind == "S":
        return array.astype(np.str_)
    if array.dtype.kind == "U" and array.dtype.itemsize:
        native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("=")))
        if (native.ravel().view(np.uint32) > _LAST_LETTER).any():
            raise ValueError("its texts hold numbers that are no letters")
    return array
