"""Labels as pandas frames: written as the file that stages read, read from the one they write."""

from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from mlc_jax.data.cells import read_cells
from mlc_jax.data.delimited import csv_line, shown
from mlc_jax.data.labels import LabelsFile, read_labels
from mlc_jax.data.table import MISSING, LabelTable
from mlc_jax.errors import LabelsError
from mlc_jax.label_settings import OURS

# The completed tables that were given out. Pandas loses a mark in `attrs` on the way through
# concat, join and the constructor, so a frame is recognised by the cells that it holds.
_given_out: set[Path] = set()


def completed_frame(labels_file: Path) -> pd.DataFrame:
    """The table that an impute run completed: Int8 [N, L] of 0, 1 and NA, by `filename`.

    `labels_text` recognises what is made of it.
    """
    _given_out.add(labels_file.absolute())
    return _frame(read_labels(labels_file, OURS).table)


def labels_frame(file: LabelsFile) -> pd.DataFrame:
    """A label file's table: Int8 [N, L] of 0, 1 and NA, by `filename`; the receipt in `attrs`."""
    frame = _frame(file.table)
    frame.attrs["receipt"] = file.receipt.as_json()
    return frame


def _frame(table: LabelTable) -> pd.DataFrame:
    values = pd.DataFrame(
        table.values,
        index=pd.Index(table.filenames, name="filename"),
        columns=list(table.names),
        dtype="Int8",
    )
    return values.mask(values == MISSING)


def labels_text(frame: Any) -> str:
    """A frame of labels as the text of a labels file.

    Args:
      frame: of pandas, polars or Arrow: 0, 1 and NaN, of any dtype; one column per label, and the
        images' names in a column `filename` or, with pandas, in the index.

    Raises:
      LabelsError: it has no file names, or holds most of the cells that a run filled in the images
        it shares with it, all as the run filled them: in a frame nothing tells them from cells
        that people gave.
    """
    if not isinstance(frame, pd.DataFrame):
        try:
            frame = nw.from_native(frame, eager_only=True).to_pandas()
        except TypeError:
            raise LabelsError(
                f"labels: {type(frame).__name__} is no frame; give a path, or a frame of pandas, "
                "polars (a lazy one collected) or Arrow"
            ) from None
    if "filename" in frame.columns:
        frame = frame.set_index("filename")
    elif not all(isinstance(name, str) for name in frame.index):
        raise LabelsError(
            f"labels: frame with the columns {shown(', '.join(map(str, frame.columns)))} has no "
            "file names; give them as its index, or as a column named filename"
        )
    for labels_file in sorted(_given_out):
        _refuse_filled(frame, labels_file)
    lines = [csv_line(["filename", *map(str, frame.columns)])]
    for name, *cells in frame.astype(object).itertuples():
        lines.append(csv_line([str(name), *map(_cell_text, cells)]))
    return "".join(lines)


def _refuse_filled(frame: pd.DataFrame, labels_file: Path) -> None:
    """Refuses a frame that holds the filled cells of a completed table.

    Raises:
      LabelsError: more than half of the cells that the run filled, of the images and labels that
        the frame has, are there, and none of them with another value.
    """
    cells_file = labels_file.with_name("cells.csv")
    if not cells_file.exists():
        return
    cells = read_cells(cells_file)
    rows = dict(zip(map(str, frame.index), range(len(frame)), strict=True))
    columns = dict(zip(map(str, frame.columns), range(frame.shape[1]), strict=True))
    filled = cells[
        (cells["source"] == "imputed")
        & (cells["value"] != MISSING)
        & cells["filename"].isin(rows)
        & cells["label"].isin(columns)
    ]
    texts = frame.astype(object).to_numpy()
    found = [
        _cell_text(texts[rows[filename], columns[label]])
        for filename, label in zip(filled["filename"], filled["label"], strict=True)
    ]
    given = [text for text in found if text]
    same = [text for text, value in zip(found, filled["value"], strict=True) if text == str(value)]
    if 2 * len(same) > len(found) and len(same) == len(given):
        raise LabelsError(
            f"labels: this frame holds {len(same)} of the {len(found)} cells that a model filled "
            f"in {labels_file}, and they would count as given by people; give the path of that "
            "file, or, if people gave them, save the frame as a CSV file and give its path"
        )


def _cell_text(value: Any) -> str:
    """0, 1 or nothing; what is none of them stays as it is, for `read_labels` to refuse."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return ""
    is_label = isinstance(value, bool | np.bool_ | int | float | np.number) and value in (0, 1)
    return str(int(value)) if is_label else str(value)
