"""cells.csv: the history of every cell, one row per (image, label), and the way back to a table."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlc_jax.data.delimited import csv_line, open_text, shown
from mlc_jax.data.table import MISSING, LabelTable, Source
from mlc_jax.errors import LabelsError
from mlc_jax.files.atomic import replacing

COLUMNS = (
    "filename",
    "label",
    "value",
    "source",
    "probability",
    "threshold",
    "accepted",
    "fold",
    "model",
)
MAX_LINES = 20_000_000
_SOURCES = {source.word: source for source in Source if source is not Source.MISSING}
_VALUES = {"": MISSING, "0": 0, "1": 1}
_VALUE_TEXTS = {value: text for text, value in _VALUES.items()}
_FOLD = re.compile("[0-9]{0,9}")
_TRUTHS = {"false": False, "true": True}


def write_cells(path: str | os.PathLike[str], frame: pd.DataFrame) -> None:
    """Writes cells.csv, atomically. The same frame gives the same bytes.

    Args:
      path: the file.
      frame: the columns COLUMNS, one row per (image, label). `value` is 0, 1 or MISSING; `source`
        is observed, imputed or reviewed, and only an imputed cell may be MISSING (the model
        abstained or could not learn the label); `probability` and `threshold` are in [0, 1] or NaN;
        `accepted` is a bool; `fold` is at least 0, or MISSING; `model` is a text.

    Raises:
      LabelsError: another column, or a value that `read_cells` would refuse; names the row.
    """
    _check_columns("frame of cells", list(frame.columns))
    columns = [frame[column].tolist() for column in COLUMNS]
    seen: set[tuple[str, str]] = set()
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_line(COLUMNS))
        for number, cell in enumerate(zip(*columns, strict=True)):
            where = f"frame of cells, row {number}"
            fields = _fields(where, cell)
            _parsed(where, fields, seen)
            file.write(csv_line(fields))


def _fields(where: str, cell: Sequence[Any]) -> list[str]:
    filename, label, value, source, probability, threshold, accepted, fold, model = cell
    for text in (filename, label, source, model):
        if not isinstance(text, str):
            raise LabelsError(f"{where}: {text!r} is not a text; see write_cells")
    if value not in _VALUE_TEXTS or not isinstance(accepted, bool):
        raise LabelsError(f"{where}: value {value!r}, accepted {accepted!r}; see write_cells")
    try:
        return [
            filename,
            label,
            _VALUE_TEXTS[value],
            source,
            "" if math.isnan(probability) else repr(float(probability)),
            "" if math.isnan(threshold) else repr(float(threshold)),
            "true" if accepted else "false",
            "" if fold == MISSING else str(int(fold)),
            model,
        ]
    except (TypeError, ValueError) as error:
        raise LabelsError(f"{where}: {error}; see write_cells") from None


def read_cells(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Reads cells.csv.

    Returns:
      The columns COLUMNS: filename, label, source, model str; value int8 with MISSING; probability,
      threshold float64 with NaN; accepted bool; fold int64 with MISSING.

    Raises:
      LabelsError: no such file, another header, a value that the contract does not allow, or a cell
        that stands there twice; names the row and the column.
    """
    text = open_text(Path(path), MAX_LINES)
    records = text.records(",")
    _check_columns(str(text.path), next(records, (1, []))[1])
    seen: set[tuple[str, str]] = set()
    cells = [_parsed(f"{text.path}, row {row}", fields, seen) for row, fields in records]
    dtypes = {
        "value": np.int8,
        "probability": np.float64,
        "threshold": np.float64,
        "accepted": np.bool_,
        "fold": np.int64,
    }
    return pd.DataFrame(cells, columns=list(COLUMNS)).astype(dtypes)


def _check_columns(where: str, columns: list[str]) -> None:
    if tuple(columns) != COLUMNS:
        raise LabelsError(
            f"{where}: columns {shown(','.join(map(str, columns)))} are not {','.join(COLUMNS)}; "
            "write the file anew with the impute job"
        )


def _parsed(where: str, fields: list[str], seen: set[tuple[str, str]]) -> tuple[Any, ...]:
    """One cell from its texts; `seen` holds the cells before it."""
    if len(fields) != len(COLUMNS):
        raise LabelsError(f"{where}: {len(fields)} fields, expected {len(COLUMNS)}")
    texts = dict(zip(COLUMNS, fields, strict=True))

    def refuse(column: str, expected: str) -> LabelsError:
        return LabelsError(f"{where}, {column}: {shown(texts[column])} is not {expected}")

    def share(column: str) -> float:
        if not texts[column]:
            return math.nan
        try:
            number = float(texts[column])
        except ValueError:
            number = math.nan
        if not 0 <= number <= 1:
            raise refuse(column, "a number in [0, 1] or empty")
        return number

    if not texts["filename"].strip() or not texts["label"].strip():
        raise LabelsError(f"{where}: a cell needs a filename and a label")
    if texts["source"] not in _SOURCES:
        raise refuse("source", f"one of {', '.join(_SOURCES)}")
    if texts["value"] not in _VALUES:
        raise refuse("value", "0, 1 or empty")
    if not texts["value"] and texts["source"] != "imputed":
        raise refuse("value", "0 or 1; only an imputed cell may be empty")
    if texts["accepted"] not in _TRUTHS:
        raise refuse("accepted", "true or false")
    if not _FOLD.fullmatch(texts["fold"]):
        raise refuse("fold", "the number of a fold or empty")
    key = (texts["filename"], texts["label"])
    if key in seen:
        raise LabelsError(
            f"{where}: {shown(key[0])}, {shown(key[1])} stands there twice; remove one"
        )
    seen.add(key)
    return (
        *key,
        _VALUES[texts["value"]],
        texts["source"],
        share("probability"),
        share("threshold"),
        _TRUTHS[texts["accepted"]],
        int(texts["fold"]) if texts["fold"] else MISSING,
        texts["model"],
    )


def with_cells(table: LabelTable, cells: pd.DataFrame) -> LabelTable:
    """Gives the values of a labels.csv their sources back, so that filled cells count as filled.

    Args:
      table: as `read_labels` gives it for labels.csv, where every value counts as observed.
      cells: as `read_cells` gives it for the cells.csv beside it.

    Returns:
      The table with the sources of `cells`. A cell that is imputed but not accepted is missing,
      also where it has a value, as those of a label that cannot be learned have.

    Raises:
      LabelsError: an image, a label or a value is in one of them only, or differs.
    """
    row_of = {filename: row for row, filename in enumerate(table.filenames)}
    column_of = {name: column for column, name in enumerate(table.names)}
    remedy = "labels.csv and cells.csv must come from the same run; remove cells.csv to do without"
    for column, known in (("filename", row_of), ("label", column_of)):
        strange = next((text for text in cells[column].unique() if text not in known), None)
        if strange is not None:
            raise LabelsError(
                f"cells.csv has the {column} {shown(strange)}, labels.csv has not; {remedy}"
            )
    at = (
        np.array([row_of[filename] for filename in cells["filename"]], np.int64),
        np.array([column_of[label] for label in cells["label"]], np.int64),
    )
    source = np.full(table.values.shape, Source.MISSING, np.uint8)
    values = np.full(table.values.shape, MISSING, np.int8)
    found = np.zeros(table.values.shape, np.bool_)
    found[at] = True
    source[at] = [_SOURCES[word] for word in cells["source"]]
    values[at] = cells["value"].to_numpy()
    refused = np.zeros(table.values.shape, np.bool_)
    refused[at] = ~cells["accepted"].to_numpy() & (cells["source"] == "imputed").to_numpy()
    source[refused | (values == MISSING)] = Source.MISSING
    differs = (values != table.values) & ~(refused & (table.values == MISSING))
    for wrong, what in ((~found, "is not in cells.csv"), (differs, "differs")):
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise LabelsError(
                f"cell {shown(table.filenames[row])}, {shown(table.names[column])} of labels.csv "
                f"{what}; {remedy}"
            )
    values[refused] = MISSING
    return LabelTable(table.filenames, table.names, values, source, table.rows)


def with_guesses(table: LabelTable, cells: pd.DataFrame) -> LabelTable:
    """The table as labels.csv shows it: also what was filled in without being accepted.

    Args:
      table: as `with_cells` gives it.
      cells: the columns of cells.csv, of the same run.
    """
    guesses = cells[(cells["source"] == "imputed") & ~cells["accepted"]]
    guesses = guesses[guesses["value"] != MISSING]
    row_of = {filename: row for row, filename in enumerate(table.filenames)}
    column_of = {name: column for column, name in enumerate(table.names)}
    at = (
        np.array([row_of[filename] for filename in guesses["filename"]], np.int64),
        np.array([column_of[label] for label in guesses["label"]], np.int64),
    )
    values, source = table.values.copy(), table.source.copy()
    values[at], source[at] = guesses["value"].to_numpy(np.int8), Source.IMPUTED
    return LabelTable(table.filenames, table.names, values, source, table.rows)
