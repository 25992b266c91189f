"""What a person decided about cells: the file that the review page saves, and its way back.

    {"format": "mlc_jax review decisions", "version": 1, "run": DIGEST,
     "decisions": [{"filename": "a.jpg", "label": "beach", "value": 1}, …]}

`value` is 0 or 1, or null where the person passed the cell over. A list instead of an object is
taken for an export of Label Studio.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlc_jax.data.delimited import csv_line, shown
from mlc_jax.data.label_studio import Answer, read_answers
from mlc_jax.data.table import MISSING, LabelTable, Source
from mlc_jax.errors import LabelsError
from mlc_jax.files.atomic import replacing

FORMAT = "mlc_jax review decisions"
VERSION = 1
MAX_FILE_BYTES = 2**28
CHANGES = (
    "filename",
    "label",
    "old_value",
    "old_source",
    "new_value",
    "change",
    "probability",
)
_VALUE_TEXTS = {0: "0", 1: "1", MISSING: ""}


@dataclass(frozen=True)
class Decisions:
    """The decisions of one file.

    Attributes:
      values: (file name, label) to 0 or 1.
      left_open: how many cells the person looked at and did not decide.
      origin: what kind of file it is, for people.
    """

    values: Mapping[tuple[str, str], int]
    left_open: int
    origin: str


def read_decisions(path: str | os.PathLike[str], run: str, names: Sequence[str]) -> Decisions:
    """Reads a decisions file, or an export of Label Studio.

    Args:
      path: the file.
      run: digest of the run that the decisions must be about.
      names: the labels of the run, in its order.

    Raises:
      LabelsError: the file cannot be read, is about another run, or holds a decision that is none;
        says which.
    """
    where = str(path)
    content = _json(Path(path))
    if isinstance(content, list):
        answers = read_answers(where, content, names)
        kind = "an export of Label Studio"
    else:
        answers = _own_answers(where, content)
        kind = "decisions of the review page"
    values: dict[tuple[str, str], int] = {}
    open_cells: set[tuple[str, str]] = set()
    for answer in answers:
        if answer.run != run:
            raise LabelsError(
                f"{answer.where} is about another run ({shown(answer.run[:12])}, not "
                f"{shown(run[:12])}); give config.checkpoint the run that it was made for"
            )
        cell = (answer.filename, answer.label)
        if cell in values or cell in open_cells:
            raise LabelsError(f"{answer.where}: {_named(cell)} stands there twice; remove one")
        if answer.value is None:
            open_cells.add(cell)
        else:
            values[cell] = answer.value
    if not values:
        raise LabelsError(f"{where} decides no cell; decide some on the page and save it again")
    return Decisions(values, len(open_cells), f"{where}: {kind}")


def _json(path: Path) -> Any:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise LabelsError(f"{path} has {size} bytes, more than {MAX_FILE_BYTES}")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise LabelsError(
            f"{path}: {error.strerror}; give the file that the review page saved"
        ) from None
    except (ValueError, RecursionError) as error:
        raise LabelsError(
            f"{path} is no JSON ({error}); give the file that the review page saved"
        ) from None


def _own_answers(where: str, content: Any) -> list[Answer]:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise LabelsError(
            f"{where} is neither decisions of the review page nor a JSON export of Label Studio"
        )
    if content.get("version") != VERSION:
        raise LabelsError(
            f"{where} has version {content.get('version')!r}, this program reads {VERSION}; save "
            "it with the page that this program writes"
        )
    listed = content.get("decisions")
    if not isinstance(listed, list):
        raise LabelsError(f"{where} holds no list of decisions; save it again")
    answers = []
    for number, item in enumerate(listed, 1):
        at = f"{where}, decision {number}"
        if not isinstance(item, dict) or not {"filename", "label", "value"} <= item.keys():
            raise LabelsError(f"{at}: expected filename, label and value; save it again")
        filename, label, value = item["filename"], item["label"], item["value"]
        if not isinstance(filename, str) or not isinstance(label, str):
            raise LabelsError(f"{at}: filename and label are texts, not {filename!r}, {label!r}")
        # A bool is an int to Python, and 1.0 equals 1: neither is what the page writes.
        if value is not None and (type(value) is not int or value not in (0, 1)):
            raise LabelsError(
                f"{at} ({_named((filename, label))}): value {shown(str(value))} is not 0, 1 or null"
            )
        answers.append(Answer(at, str(content.get("run")), filename, label, value))
    return answers


def with_decisions(
    table: LabelTable, cells: pd.DataFrame, decisions: Decisions
) -> tuple[LabelTable, pd.DataFrame, pd.DataFrame]:
    """The table after a review, and what the review changed.

    Args:
      table: of a finished run, with its sources.
      cells: the columns of cells.csv, of the same run.
      decisions: of cells of it.

    Returns:
      (table; cells, whose decided ones are `reviewed` and accepted, and keep their probability,
      threshold, fold and model; the columns CHANGES, one row per decided cell, in the order of
      `cells`).

    Raises:
      LabelsError: a decision about a cell that the run does not have.
    """
    index = pd.MultiIndex.from_arrays([cells["filename"], cells["label"]])
    decided = list(decisions.values)
    places = index.get_indexer(pd.MultiIndex.from_tuples(decided))
    if (places < 0).any():
        strange = decided[int(np.argmin(places))]
        raise LabelsError(
            f"{_named(strange)}: the run has no such cell; decide about the run's own images and "
            "labels"
        )
    order = np.argsort(places)
    places = places[order]
    new = np.array(list(decisions.values.values()), np.int8)[order]
    old = cells["value"].to_numpy()[places]
    changes = pd.DataFrame(
        {
            "filename": cells["filename"].to_numpy()[places],
            "label": cells["label"].to_numpy()[places],
            "old_value": old,
            "old_source": cells["source"].to_numpy()[places],
            "new_value": new,
            "change": np.select(
                [old == MISSING, old == new], ["filled", "confirmed"], default="corrected"
            ),
            "probability": cells["probability"].to_numpy()[places],
        }
    )
    value, reviewed = cells["value"].to_numpy(copy=True), np.zeros(len(cells), np.bool_)
    value[places], reviewed[places] = new, True
    after = cells.assign(
        value=value,
        source=cells["source"].mask(reviewed, Source.REVIEWED.word),
        accepted=cells["accepted"] | reviewed,
    )
    values, source = table.values.copy(), table.source.copy()
    row_of = {filename: row for row, filename in enumerate(table.filenames)}
    column_of = {name: column for column, name in enumerate(table.names)}
    at = (
        [row_of[filename] for filename in changes["filename"]],
        [column_of[label] for label in changes["label"]],
    )
    values[at], source[at] = new, Source.REVIEWED
    return (
        LabelTable(table.filenames, table.names, values, source, table.rows),
        after,
        changes,
    )


def write_changes(path: str | os.PathLike[str], changes: pd.DataFrame) -> None:
    """Writes changes.csv: what every decided cell was before, and what became of it; atomic."""
    texts: dict[str, Callable[[Any], str]] = {
        "old_value": _VALUE_TEXTS.__getitem__,
        "new_value": _VALUE_TEXTS.__getitem__,
        "probability": lambda p: "" if np.isnan(p) else repr(float(p)),
    }
    columns = [map(texts.get(name, str), changes[name].tolist()) for name in CHANGES]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_line(CHANGES))
        file.writelines(csv_line(fields) for fields in zip(*columns, strict=True))


def _named(cell: tuple[str, str]) -> str:
    return f"cell {shown(cell[0])}, {shown(cell[1])}"
