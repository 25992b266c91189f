"""Reading the label files people have, writing the one the contract describes, and quarantine.csv.

Everything is read as text and then interpreted, so 00012 stays 00012 and a file named NA keeps its
name. What had to be guessed is said in the notes; what cannot be interpreted is an error.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mlc_jax.data.annotators import Votes, merge_rows
from mlc_jax.data.delimited import csv_line, shown
from mlc_jax.data.formats.read import read_files
from mlc_jax.data.matching import ENOUGH, Matched, match_names
from mlc_jax.data.raw_table import Quarantined, RawTable
from mlc_jax.data.receipt import Receipt, make_receipt
from mlc_jax.data.table import MISSING, LabelTable
from mlc_jax.errors import LabelsError
from mlc_jax.files.atomic import replacing, write_text
from mlc_jax.label_settings import ReadOptions, flag

MAX_LINES = 2_000_000  # of cells.csv
_CELL_TEXT = {0: "0", 1: "1", MISSING: ""}
_DEFAULTS = ReadOptions()
# Columns that are proposed for config.data.split and config.data.groups.
_SPLITS = frozenset(("split", "fold", "subset", "partition", "usage", "ml use", "dataset split"))
_GROUPS = frozenset(
    ("patient", "patient id", "patientid", "subject", "subject id", "scene", "group")
)


@dataclass(frozen=True)
class Conflict:
    """A cell that became missing because the same file stands in several rows with both values."""

    filename: str
    label: str
    rows: tuple[int, ...]


@dataclass(frozen=True)
class LabelsFile:
    """What a label file holds.

    Attributes:
      table: the usable rows, one per image, in input order.
      notes: what was found out about the file, for people: encoding, separator, header, repeats.
      quarantine: rows without a file name (empty_filename) or of another width (wrong_field_count).
      merged: how many rows repeat the image of an earlier row and were merged into it.
      conflicts: cells on which such rows disagree, without a majority.
      extra_columns: the columns that hold no labels (split, fold, annotator, patient, date …) by
        name: one text per row of `table`, that of the image's first row.
      receipt: what was read as what.
      hint: where names are not in the image folder, which, and keys under which they are found.
    """

    table: LabelTable
    notes: tuple[str, ...]
    quarantine: tuple[Quarantined, ...]
    merged: int
    conflicts: tuple[Conflict, ...]
    extra_columns: dict[str, tuple[str, ...]]
    receipt: Receipt
    hint: str = ""


def read_labels(
    path: str | os.PathLike[str],
    options: ReadOptions = _DEFAULTS,
    *,
    images: Path | None = None,
    listed: Iterable[str] = (),
) -> LabelsFile:
    """Reads a label file of any format: see `mlc_jax/data/formats`.

    Of a table of text, the simplest: a file name and then 0, 1 or nothing for every label,
    separated by commas, semicolons, tabs, pipes or spaces; with or without a header; UTF-8, UTF-16
    or latin-1. 0, 0.0, 1 and 1.00 are values; an empty cell, ?, NA, NaN, N/A, null and None in any
    case are missing. Several rows of one image are merged by their majority; ties become missing.

    Args:
      path: the file, the folder of an export, or several files with commas between them.
      options: how it is to be read.
      images: the image folder, to find the images of the names in it; they stay as they are
        without it.
      listed: the images in that folder, relative to it.

    Raises:
      LabelsError: the file cannot be read, or a cell not interpreted; names row and column.
      ConfigError: options that do not fit the file or each other.
    """
    raw = read_files(os.fspath(path), options)
    matched = Matched(raw.filenames, 0, 0, "")
    if images is not None:
        listed = list(listed)
        matched = match_names(raw.filenames, images, listed, options)
        if matched.found < ENOUGH * matched.total and not options.file_column:
            matched = replace(matched, hint=_other_column(raw, matched, images, listed, options))
    votes = merge_rows(matched.filenames, raw.values, options.annotators)
    alpha = votes.alpha
    if raw.alpha is not None:
        alpha = np.where(np.isnan(alpha), raw.alpha, alpha)
    merged = len(raw.filenames) - votes.keep.size
    # Numbers of rows as Python's own would weigh as much as all the rest.
    kept = votes.keep.tolist() if merged else range(votes.keep.size)
    filenames = tuple(matched.filenames[position] for position in kept)
    source = (votes.values != MISSING).view(np.uint8)  # Source.MISSING is 0, Source.OBSERVED is 1
    table = LabelTable(filenames, raw.names, votes.values, source, raw.rows[votes.keep])
    conflicts = tuple(
        Conflict(
            matched.filenames[position],
            raw.names[label],
            tuple(int(raw.rows[row]) for row in rows),
        )
        for position, label, rows in votes.disputed
    )
    notes = (*raw.notes, *_notes(raw, matched, merged, votes, conflicts))
    return LabelsFile(
        table,
        notes,
        tuple(raw.quarantine),
        merged,
        conflicts,
        {
            column: tuple(texts[position] for position in kept)
            for column, texts in raw.extra.items()
        },
        make_receipt(raw, table, matched, notes, alpha),
        matched.hint,
    )


def _other_column(
    raw: RawTable, matched: Matched, images: Path, listed: list[str], options: ReadOptions
) -> str:
    """The hint of names that were not found; a column with names that are comes first."""
    for column, texts in raw.extra.items():
        try:
            other = match_names(texts, images, listed, options)
        except LabelsError:
            continue
        if other.found >= ENOUGH * other.total > 1:
            return (
                f"{other.found} of {other.total} names in column {shown(column)} are: "
                f"{flag('file_column', column)}"
            )
    return matched.hint


def refuse_without_zeros(file: LabelsFile, options: ReadOptions, where: str) -> None:
    """Refuses a table of ones and empty cells, unless it was stated that empty means missing.

    Raises:
      LabelsError: nothing in it is 0, so nothing can be learned; says what `blank` would do.
    """
    values = file.table.values
    blank = (values == MISSING).sum(axis=0)
    if options.blank or (values == 0).any() or not (values == 1).any() or not blank.any():
        return
    if not any(not text.strip() for text, _ in file.receipt.texts):
        return
    counts = ", ".join(
        f"{shown(name)} {one} ones and {count} empty"
        for name, one, count in zip(
            file.table.names[:6], (values == 1).sum(axis=0), blank, strict=False
        )
    )
    raise LabelsError(
        f"{where} holds ones and empty cells and no 0 ({counts}), so nothing can be learned; "
        "--config.data.blank=false reads the empty cells as 0, if they mean no"
    )


def _notes(
    raw: RawTable,
    matched: Matched,
    merged: int,
    votes: Votes,
    conflicts: tuple[Conflict, ...],
) -> Iterable[str]:
    left_out = [name for name, use in raw.columns.items() if use.startswith("left out")]
    if left_out:
        yield f"columns left out, which hold no labels: {', '.join(map(shown, left_out[:20]))}"
    for key, words in (("split", _SPLITS), ("groups", _GROUPS)):
        for name in left_out:
            if name.casefold().replace("_", " ") in words and name in raw.extra:
                yield f"{flag(key, name)} would use column {shown(name)}"
    if matched.way:
        yield matched.way
    if merged:
        yield f"{merged} rows repeat an earlier file and were merged into it"
    if votes.decided:
        yield f"{votes.decided} cells on which such rows disagree were decided by their rule"
    if conflicts:
        first = ", ".join(
            f"{shown(c.filename)} {shown(c.label)} (rows {', '.join(map(str, c.rows))})"
            for c in conflicts[:10]
        )
        yield f"{len(conflicts)} cells became missing because such rows disagree: {first}"


def write_labels(path: str | os.PathLike[str], table: LabelTable) -> None:
    """Writes labels.csv: `filename` and the label names, then 0, 1 or nothing per cell; atomic."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_line(["filename", *table.names]))
        for filename, values in zip(table.filenames, table.values, strict=True):
            file.write(csv_line([filename, *(_CELL_TEXT[value] for value in values.tolist())]))


def write_quarantine(path: str | os.PathLike[str], rows: Iterable[Quarantined]) -> None:
    """Writes quarantine.csv: filename, row, reason; atomic."""
    lines = [csv_line(["filename", "row", "reason"])]
    lines += [csv_line([item.filename, str(item.row), item.reason]) for item in rows]
    write_text(path, "".join(lines))
