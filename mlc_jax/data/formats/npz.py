"""The arrays of NumPy's .npz files."""

import zipfile
from pathlib import Path

import numpy as np

from mlc_jax.errors import LabelsError

MAX_BYTES = 2**30


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
        return {
            key: array.astype(np.str_) if array.dtype.kind == "S" else array
            for key, array in arrays.items()
        }
    except LabelsError:
        raise
    except Exception as error:  # the reader raises whatever the bytes led it to
        raise LabelsError(
            f"{path} is damaged, or cannot be read without executing code ({error}); save it again "
            "with numpy.savez, from arrays of numbers and texts"
        ) from None
