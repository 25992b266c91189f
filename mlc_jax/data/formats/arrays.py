"""NumPy's .npz and MATLAB's .mat: a matrix of labels, the images' names, the labels' names.

MATLAB files of published data sets have several such pairs (train_label, train_images_name): all
are read, and the part of the name that differs is the split.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mlc_jax.data.formats import matlab
from mlc_jax.data.formats.record import Row, Sheet
from mlc_jax.data.formats.spreadsheet import text_of
from mlc_jax.data.layout import names_of
from mlc_jax.errors import LabelsError
from mlc_jax.label_settings import ReadOptions

MAX_BYTES = 2**30


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it holds arrays."""
    if first_bytes.startswith(b"MATLAB "):
        return True
    if not first_bytes.startswith(b"PK\x03\x04"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            return bool(names) and all(name.endswith(".npy") for name in names)
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        return False


def read(path: Path, options: ReadOptions) -> Sheet:
    """The matrix as a table.

    Raises:
      LabelsError: it cannot be read, holds Python objects, or no matrix with names of its rows.
    """
    with path.open("rb") as raw:
        arrays = matlab.load(path) if raw.read(7) == b"MATLAB " else _npz(path)
    names = {
        key: [text.strip() for text in array.ravel().tolist()]
        for key, array in arrays.items()
        if array.dtype.kind == "U" and array.size
    }
    matrices = {
        key: np.atleast_2d(array.T).T
        for key, array in arrays.items()
        if array.dtype.kind in "biuf" and array.ndim in (1, 2) and array.size > 1
    }
    parts: list[tuple[str, list[str], np.ndarray]] = []
    for key, matrix in matrices.items():
        fitting = [other for other, own in names.items() if len(own) == len(matrix)]
        if fitting and len(matrix) > 1:
            nearest = max(fitting, key=lambda other: _shared(key, other))
            parts.append((key, names[nearest], matrix))
    if not parts:
        held = ", ".join(f"{key} {array.dtype} {array.shape}" for key, array in arrays.items())
        raise LabelsError(
            f"{path} holds no matrix of labels with as many names of images as it has rows ({held})"
        )
    width = parts[0][2].shape[1]
    used = [own for _, own, _ in parts]
    labels = [own for own in names.values() if len(own) == width and own not in used]
    header = labels[0] if labels else list(names_of(options))
    if len(header) != width:
        header = [f"label_{number}" for number in range(1, width + 1)]

    def records() -> Iterator[Row]:
        several = len(parts) > 1
        yield 1, ["filename", *(["split"] if several else []), *header]
        number = 1
        for key, own, matrix in parts:
            for name, row in zip(own, matrix.tolist(), strict=True):
                number += 1
                part = [key.split("_")[0]] if several else []
                yield number, [name, *part, *map(text_of, row)]

    return Sheet(path, records, (f"arrays: {', '.join(key for key, _, _ in parts)}",))


def _shared(one: str, other: str) -> int:
    """How many letters two names begin with in common."""
    return next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )


def _npz(path: Path) -> dict[str, np.ndarray]:
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
