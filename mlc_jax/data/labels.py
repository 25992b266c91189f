"""Reading the labels file people have, writing the one the contract describes, and quarantine.csv.

Everything is read as text and then interpreted, so 00012 stays 00012 and a file named NA keeps its
name. What had to be guessed is said in the notes; what cannot be interpreted is an error.
"""

import array
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlc_jax.data.delimited import TextFile, csv_line, open_text, shown
from mlc_jax.data.table import MISSING, LabelTable
from mlc_jax.errors import ConfigError, LabelsError
from mlc_jax.files.atomic import replacing, write_text

MAX_LINES = 2_000_000
_SAMPLE = 200  # records looked at to find the separator
_SEPARATORS = {"\t": "tab", ";": "semicolon", ",": "comma", " ": "space"}
_FILENAME_HEADERS = frozenset(
    (
        "filename",
        "file_name",
        "file",
        "name",
        "path",
        "image",
        "image_name",
        "image_id",
        "img",
        "id",
        "fname",
        "photo",
        "picture",
        "filepath",
        "file_path",
        "image_path",
        "img_path",
    )
)
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
_CELL_TEXT = {0: "0", 1: "1", MISSING: ""}
_MISSING_WORDS = frozenset(("", "?", "na", "nan", "n/a", "#n/a", "<na>", "null", "none"))
# What people write where they do not know: no message proposes to read these as 0 or 1.
_UNKNOWN_WORDS = frozenset(
    (
        "-1",
        "-",
        "--",
        ".",
        "unknown",
        "uncertain",
        "unsure",
        "undefined",
        "unclear",
        "unlabeled",
        "unlabelled",
        "missing",
        "tbd",
    )
)


@dataclass(frozen=True)
class Quarantined:
    """A row or image that was left out: the name in the file, its line number, a reason code."""

    filename: str
    row: int
    reason: str


@dataclass(frozen=True)
class Conflict:
    """A cell that became missing because the same file stands in several rows with both values."""

    filename: str
    label: str
    rows: tuple[int, ...]


@dataclass(frozen=True)
class LabelsFile:
    """What a labels file holds.

    Attributes:
      table: the usable rows, one per file name, in input order.
      notes: what was found out about the file, for people: encoding, separator, header, repeats.
      quarantine: rows without a file name (empty_filename) or of another width (wrong_field_count).
      merged: how many rows repeat the file of an earlier row and were merged into it.
      conflicts: cells on which such rows disagree.
    """

    table: LabelTable
    notes: tuple[str, ...]
    quarantine: tuple[Quarantined, ...]
    merged: int
    conflicts: tuple[Conflict, ...]


@dataclass(frozen=True)
class _Layout:
    separator: str
    header: bool
    names: tuple[str, ...]

    @property
    def width(self) -> int:
        return 1 + len(self.names)


def read_labels(
    path: str | os.PathLike[str],
    *,
    true_values: Iterable[str] = (),
    false_values: Iterable[str] = (),
    missing_values: Iterable[str] = (),
) -> LabelsFile:
    """Reads a labels file: a file name and then 0, 1 or nothing for every label.

    Separated by commas, semicolons, tabs or spaces; with or without a header; UTF-8, UTF-16 or
    latin-1. 0, 0.0, 1 and 1.00 are values; an empty cell, ?, NA, NaN, N/A, null and None in any
    case are missing. Several rows of one file are merged; where they disagree the cell becomes
    missing.

    Args:
      path: the labels file.
      true_values, false_values, missing_values: texts that mean 1, 0 and missing, in any case; they
        may give 0, 1 and the empty cell another meaning.

    Raises:
      LabelsError: the file cannot be read, or a cell not interpreted; names row and column.
      ConfigError: a text in two of the lists.
    """
    meanings = _Meanings(true_values, false_values, missing_values)
    text = open_text(Path(path), MAX_LINES)
    layout = _layout(text, meanings)
    names: list[str] = []
    # Packed, as lists of numbers would outweigh the file: line numbers, and labels row by row.
    lines = array.array("q")
    cells = bytearray()
    quarantine = []
    records = text.records(layout.separator)
    for row, fields in itertools.islice(records, int(layout.header), None):
        if len(fields) != layout.width:
            if layout.separator == " " and len(fields) > layout.width:
                raise LabelsError(
                    f"{text.path}, row {row}: {len(fields)} fields where {layout.width} are "
                    f"expected; {_SPACE_REMEDY}"
                )
            quarantine.append(Quarantined(fields[0], row, "wrong_field_count"))
        elif not fields[0].strip():
            quarantine.append(Quarantined(fields[0], row, "empty_filename"))
        else:
            cells += _interpreted(text, layout, meanings, row, fields)
            names.append(fields[0])
            lines.append(row)
    if not names:
        raise LabelsError(f"{text.path} holds no usable row; expected a file name, then 0, 1 or NA")
    meanings.check_minus_one(text.path)
    filenames = tuple(names)
    del names
    rows = np.frombuffer(lines, np.int64)
    values = np.frombuffer(cells, np.int8).reshape(len(filenames), len(layout.names))
    keep, conflicts = _merge(filenames, layout.names, values, rows)
    source = (values != MISSING).view(np.uint8)  # Source.MISSING is 0, Source.OBSERVED is 1
    table = LabelTable(filenames, layout.names, values, source, rows)
    merged = len(filenames) - keep.size
    return LabelsFile(
        table.select(keep) if merged else table,
        tuple(_notes(text, layout, merged, conflicts)),
        tuple(quarantine),
        merged,
        tuple(conflicts),
    )


_SPACE_REMEDY = (
    "file names that hold spaces need double quotes, or separate the columns by commas or tabs"
)


class _Meanings:
    """What the texts of cells mean: 1, 0 or MISSING."""

    def __init__(
        self,
        true_values: Iterable[str],
        false_values: Iterable[str],
        missing_values: Iterable[str],
    ) -> None:
        self._values: dict[str, int] = {"0": 0, "1": 1} | dict.fromkeys(_MISSING_WORDS, MISSING)
        self._claimed: dict[str, str] = {}
        lists = {
            "true_values": (true_values, 1),
            "false_values": (false_values, 0),
            "missing_values": (missing_values, MISSING),
        }
        for key, (texts, value) in lists.items():
            for text in (texts,) if isinstance(texts, str) else texts:
                word = _canonical(str(text))
                if self._claimed.setdefault(word, key) != key:
                    raise ConfigError(
                        f"config.data.{key} holds {text!r}, and so does config.data."
                        f"{self._claimed[word]}; leave it out of one of them"
                    )
                self._values[word] = value
        # Texts as they stand in the file, each looked up once.
        self._seen: dict[str, int | None] = {}

    def get(self, text: str) -> int | None:
        """The meaning of a text; None where it has none."""
        try:
            return self._seen[text]
        except KeyError:
            value = self._values.get(_canonical(text))
            if value is not None:
                self._seen[text] = value
            return value

    def __contains__(self, text: str) -> bool:
        return self.get(text) is not None

    def check_minus_one(self, path: Path) -> None:
        """Refuses -1 read as 0 beside cells of 0 whose own meaning was not stated.

        Raises:
          LabelsError: which of the two means no is not known.
        """
        words = {_canonical(text) for text in self._seen}
        if self._claimed.get("-1") == "false_values" and "0" in words - self._claimed.keys():
            raise LabelsError(
                f"{path} holds 0 beside -1, which config.data.false_values reads as 0: if 0 means "
                "unknown, add --config.data.missing_values=0; if -1 does, give "
                "--config.data.missing_values=-1 instead; if both mean no, name both in "
                "config.data.false_values"
            )


def _canonical(text: str) -> str:
    """Texts that mean the same have the same: in lower case, numbers in their shortest form."""
    word = text.strip().casefold()
    if re.fullmatch(r"[+-]?\d{1,9}(\.0*)?", word, re.ASCII):
        return str(int(word.partition(".")[0]))
    return word


def _interpreted(
    text: TextFile, layout: _Layout, meanings: _Meanings, row: int, fields: list[str]
) -> bytes:
    """The labels of one row as int8."""
    cells = [meanings.get(field) for field in fields[1:]]
    if None in cells:
        column = cells.index(None)
        word = fields[column + 1].strip()
        if _canonical(word) in _UNKNOWN_WORDS:
            remedy = (
                "where it stands for what is not known, --config.data.missing_values="
                f"{csv_line([word]).strip()} reads it as missing"
            )
        else:
            remedy = (
                "write 0, 1 or NA, or name what it means: in config.data.true_values, "
                "config.data.false_values or config.data.missing_values"
            )
        if layout.separator == " ":
            remedy += f"; {_SPACE_REMEDY}"
        raise LabelsError(
            f"{text.path}, row {row}, column {column + 2} ({shown(layout.names[column])}): "
            f"{shown(fields[column + 1])} is not a label; {remedy}"
        )
    return np.array(cells, np.int8).tobytes()


def _layout(text: TextFile, meanings: _Meanings) -> _Layout:
    """Finds separator and header in the first records.

    The separator is the one under which most records have the commonest width and most of their
    cells are labels.
    """
    samples = {separator: _sample(text, separator) for separator in _SEPARATORS}

    def score(separator: str) -> tuple[float, float]:
        body = samples[separator][1:] or samples[separator]
        width = _common_width(body)
        if width < 2:
            return 0.0, 0.0
        even = [fields for fields in body if len(fields) == width]
        labels = sum(field in meanings for fields in even for field in fields[1:])
        regular = len(even) / len(body)
        return regular * labels / (len(even) * (width - 1)), regular

    separator = max(_SEPARATORS, key=score)
    records = samples[separator]
    if score(separator) == (0.0, 0.0):
        row, fields = next(text.records("\t"), (1, [""]))  # raises what kept the samples empty
        raise LabelsError(
            f"{text.path}, row {row}: {shown(fields[0])} holds no comma, semicolon, tab or space "
            "between a file name and labels; expected e.g. a.jpg,1,0,NA"
        )
    first = records[0]
    if not _is_header(records, meanings):
        width = _common_width(records)
        return _Layout(separator, False, tuple(f"label_{n}" for n in range(1, width)))
    body_width = _common_width(records[1:]) or len(first)
    if len(first) != body_width:
        remedy = "name the file column and every label"
        if separator == " " and body_width > len(first):
            remedy += f"; {_SPACE_REMEDY}"
        raise LabelsError(
            f"{text.path}: the header has {len(first)} fields, the rows have {body_width}; {remedy}"
        )
    names = tuple(name.strip() for name in first[1:])
    for column, name in enumerate(names, start=2):
        if not name or names.index(name) != column - 2:
            raise LabelsError(
                f"{text.path}, header, column {column}: label name {shown(name)} is "
                f"{'used twice' if name else 'empty'}; give every label its own name"
            )
    return _Layout(separator, True, names)


def _sample(text: TextFile, separator: str) -> list[list[str]]:
    sample: list[list[str]] = []
    try:
        for _, fields in itertools.islice(text.records(separator), _SAMPLE):
            sample.append(fields)
    except LabelsError:
        # Quotes need not make sense under the wrong separator; under the right one the error comes
        # again when the whole file is read.
        pass
    return sample


def _common_width(records: list[list[str]]) -> int:
    """The commonest number of fields, 0 without records; of two equally common the earlier."""
    return Counter(map(len, records)).most_common(1)[0][0] if records else 0


def _is_header(records: list[list[str]], meanings: _Meanings) -> bool:
    name, *rest = (field.strip() for field in records[0])
    name = name.lower()
    if name in _FILENAME_HEADERS or (not name and all(rest) and len(rest) > 0):
        return True
    if name.endswith(_IMAGE_SUFFIXES):
        return False
    below = [fields[0].strip().lower().endswith(_IMAGE_SUFFIXES) for fields in records[1:]]
    if below and all(below):
        return True  # labels may be named 0, 1 or NA
    return not any(field in meanings for field in rest)


def _merge(
    filenames: tuple[str, ...], names: tuple[str, ...], values: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, list[Conflict]]:
    """Merges rows of one file into the first of them, in `values`.

    Returns:
      int64 positions of the rows to keep, in order, and the cells on which merged rows disagree.
    """
    # A dictionary of all names would outweigh the file; hashes show the few that need one.
    hashes = np.fromiter(map(hash, filenames), np.int64, len(filenames))
    in_order = np.sort(hashes)
    repeated = np.unique(in_order[1:][in_order[1:] == in_order[:-1]])
    groups: dict[str, list[int]] = {}
    for position in np.flatnonzero(np.isin(hashes, repeated)).tolist() if repeated.size else []:
        groups.setdefault(filenames[position], []).append(position)
    keep = np.ones(len(filenames), np.bool_)
    conflicts = []
    for filename, positions in groups.items():
        if len(positions) == 1:
            continue
        group = values[positions]
        disagree = (group == 0).any(axis=0) & (group == 1).any(axis=0)
        values[positions[0]] = np.where(disagree, MISSING, group.max(axis=0))
        keep[positions[1:]] = False
        where = tuple(rows[positions].tolist())
        conflicts += [Conflict(filename, names[n], where) for n in np.flatnonzero(disagree)]
    return np.flatnonzero(keep), conflicts


def _notes(
    text: TextFile, layout: _Layout, merged: int, conflicts: list[Conflict]
) -> Iterable[str]:
    yield f"encoding {text.encoding}" + (" with byte order mark" if text.mark else "")
    yield f"separated by {_SEPARATORS[layout.separator]}"
    if layout.header:
        yield "with header"
    else:
        yield f"no header: labels are named label_1 to label_{len(layout.names)}"
    if merged:
        yield f"{merged} rows repeat an earlier file and were merged into it"
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
