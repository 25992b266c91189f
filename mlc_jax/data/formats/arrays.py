"""NumPy's .npz and MATLAB's .mat: a matrix of labels, the images' names, the labels' names.

MATLAB files of published data sets have several such pairs (train_label, train_images_name): all
are read, and the part of the name that differs is the split.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mlc_jax.data.formats import matlab, npz
from mlc_jax.data.formats.cell_text import text_of
from mlc_jax.data.formats.record import Row, Sheet
from mlc_jax.data.formats.zipped import names_in_zip
from mlc_jax.data.layout import names_of
from mlc_jax.errors import LabelsError
from mlc_jax.label_settings import ReadOptions


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it holds arrays."""
    if first_bytes.startswith(b"MATLAB "):
        return True
    names = names_in_zip(path, first_bytes)
    return bool(names) and all(name.endswith(".npy") for name in names)


def read(path: Path, options: ReadOptions) -> Sheet:
    """The matrix as a table.

    Raises:
      LabelsError: it cannot be read, holds Python objects, or no matrix with names of its rows.
    """
    with path.open("rb") as raw:
        arrays = matlab.load(path) if raw.read(7) == b"MATLAB " else npz.load(path)
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
            # Such as train_label and train_images_name: the longest beginning in common.
            longest = range(len(key), -1, -1)
            near = next(o for n in longest for o in fitting if o.startswith(key[:n]))
            parts.append((key, names[near], matrix))
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
