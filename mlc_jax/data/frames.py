"""Labels as pandas frames: written as the file that stages read, read from the one they write."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlc_jax.data.delimited import csv_line, shown
from mlc_jax.data.labels import read_labels
from mlc_jax.data.table import MISSING
from mlc_jax.errors import LabelsError

_COMPLETED = "mlc_jax_completed"  # in `attrs`: the file that a completed table was read from


def completed_frame(labels_file: Path) -> pd.DataFrame:
    """The table that an impute run completed: Int8 [N, L] of 0, 1 and NA, by `filename`.

    It carries a mark by which `labels_text` knows it.
    """
    table = read_labels(labels_file).table
    values = pd.DataFrame(
        table.values,
        index=pd.Index(table.filenames, name="filename"),
        columns=list(table.names),
        dtype="Int8",
    )
    values = values.mask(values == MISSING)
    values.attrs[_COMPLETED] = str(labels_file)
    return values


def labels_text(frame: pd.DataFrame) -> str:
    """A frame of labels as the text of a labels file.

    Args:
      frame: 0, 1 and NaN, of any dtype; one column per label, and the images' names in the index or
        in a column `filename`.

    Raises:
      LabelsError: it has no file names, or is a completed table: in a frame nothing tells its
        filled cells from those that people gave.
    """
    if _COMPLETED in frame.attrs:
        raise LabelsError(
            "labels: this frame holds cells that a model filled, and they would count as given by "
            f"people; give the path of {frame.attrs[_COMPLETED]}, or clear the frame's attrs"
        )
    if "filename" in frame.columns:
        frame = frame.set_index("filename")
    elif not all(isinstance(name, str) for name in frame.index):
        raise LabelsError(
            f"labels: frame with the columns {shown(', '.join(map(str, frame.columns)))} has no "
            "file names; give them as its index, or as a column named filename"
        )
    lines = [csv_line(["filename", *map(str, frame.columns)])]
    for name, *cells in frame.astype(object).itertuples():
        lines.append(csv_line([str(name), *map(_cell_text, cells)]))
    return "".join(lines)


def _cell_text(value: Any) -> str:
    """0, 1 or nothing; what is none of them stays as it is, for `read_labels` to refuse."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return ""
    is_label = isinstance(value, bool | np.bool_ | int | float | np.number) and value in (0, 1)
    return str(int(value)) if is_label else str(value)
