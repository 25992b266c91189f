"""Tables of texts read: one column per label, a column of tags, or one row per image and label."""

import ast
import itertools
import json
import operator
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from mlc_jax.data.annotations import table_of
from mlc_jax.data.delimited import shown
from mlc_jax.data.formats.record import ANNOTATED, UNSEEN, Extra, Record, Row, Sheet
from mlc_jax.data.layout import (
    SPACE_REMEDY,
    Layout,
    common_width,
    find_layout,
    is_image_name,
    is_total,
    names_of,
)
from mlc_jax.data.meanings import Meanings
from mlc_jax.data.raw_table import Quarantined, RawTable
from mlc_jax.data.table import MISSING
from mlc_jax.errors import ConfigError, LabelsError
from mlc_jax.label_settings import ReadOptions, flag

SAMPLE = 200  # rows looked at to find out what the columns hold
_MOST_TEXTS = 250
_SEPARATORS = {"space": " ", "comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}


def read_sheet(sheet: Sheet, options: ReadOptions) -> RawTable:
    """Reads a table.

    Raises:
      LabelsError: what a row or cell holds cannot be interpreted; names row, column and remedy.
      ConfigError: options that do not fit the table or each other.
    """
    if sheet.false_values and not options.false_values:
        options = replace(options, false_values=sheet.false_values)
    meanings = Meanings(options)
    where = str(sheet.path)
    sample = [fields for _, fields in itertools.islice(sheet.records(), SAMPLE)]
    skipped = 0 if options.ours else _leading(sample)
    filled = [row for row in sample[skipped:] if any(field.strip() for field in row)]
    if not filled:
        raise LabelsError(f"{where} holds no usable row; expected a file name, then 0, 1 or NA")
    layout = find_layout(where, filled, options, meanings, sheet.by_spaces)
    names = names_of(options)
    if not layout.header and layout.labels and names and len(names) != len(layout.labels):
        raise ConfigError(
            f"config.data.names holds {len(names)} names, and {where} {len(layout.labels)} columns "
            "of labels without a header; name each of them, in their order"
        )
    notes = list(sheet.notes)
    if skipped:
        notes.append(f"{skipped} rows of comments or titles above the table are passed over")
    start = skipped + int(layout.header)
    if layout.ragged or layout.tags is not None or layout.long is not None:
        table = _read_sparse(sheet, layout, start, options, meanings)
    else:
        table = _read_wide(sheet, layout, start, options, meanings)
    table.notes = notes + table.notes
    if layout.header:
        table.notes.insert(len(notes), "with header")
    elif layout.labels:
        named = ", ".join(names) or f"label_1 to label_{len(layout.labels)}"
        table.notes.insert(len(notes), f"no header: labels are named {named}")
    table.columns = _uses(layout)
    counts: Counter[str] = Counter()
    for (text, _), count in table.texts.items():
        counts[text] += count
    table.notes += meanings.unused(counts)
    return table


def _leading(sample: list[list[str]]) -> int:
    """How many rows above the table are comments, titles or empty."""
    width = common_width([row for row in sample if any(field.strip() for field in row)])
    for number, row in enumerate(sample):
        texts = [field for field in row if field.strip()]
        comment = bool(texts) and row[0].startswith("#") and len(row) != width
        alone = width > 1 and len(texts) == 1 and len(row) in (1, width)
        title = alone and bool(row[0].strip()) and not is_image_name(row[0])
        title = title and number < len(sample) - 1
        if texts and not comment and not title:
            return number
    return 0


def _uses(layout: Layout) -> dict[str, str]:
    """What each column that is no label is."""
    titled = [name or f"column {number}" for number, name in enumerate(layout.names, 1)]
    uses = {titled[layout.file]: "file names"}
    if layout.tags is not None:
        uses[titled[layout.tags]] = "lists of labels"
    if layout.long is not None and not layout.suffixed:
        uses[titled[layout.long[0]]] = "names of labels"
    if layout.long is not None and layout.long[1] is not None:
        uses[titled[layout.long[1]]] = "values of labels"
    if layout.annotator is not None:
        uses[titled[layout.annotator]] = "annotators"
    uses |= {titled[n]: f"left out: {reason}" for n, reason in layout.left_out.items()}
    return uses | {titled[number]: "left out: it is empty" for number in layout.empty}


class _Codes(dict[str, int]):
    """Numbers texts in the order in which they are met."""

    def __missing__(self, text: str) -> int:
        code = len(self)
        if code > _MOST_TEXTS:
            raise _ManyTextsError
        self[text] = code
        return code


class _ManyTextsError(Exception):
    """More texts than labels can have."""


def _picker(columns: tuple[int, ...]) -> Callable[[list[str]], Any]:
    """What takes the fields of these columns out of a row."""
    if columns == tuple(range(columns[0], columns[-1] + 1)):
        return operator.itemgetter(slice(columns[0], columns[-1] + 1))
    return operator.itemgetter(*columns)


def _read_wide(
    sheet: Sheet, layout: Layout, start: int, options: ReadOptions, meanings: Meanings
) -> RawTable:
    where = str(sheet.path)
    if not layout.labels:
        raise LabelsError(
            f"{where} holds no column of labels; expected a file name, then 0, 1 or NA"
        )
    rows = _Rows(sheet, layout, start, meanings)
    # Packed, as lists of numbers would outweigh the file: texts are numbered, row by row.
    codes, cells = _Codes(), bytearray()
    names: list[str] = []
    lines = array("q")
    others = tuple(sorted(_other_columns(layout)))
    pick, pick_others = _picker(layout.labels), _picker(others) if others else None
    kept: list[Any] = []
    known: dict[str, str] = {}
    number_of = codes.__getitem__
    try:
        for row, fields in rows:
            cells += bytes(map(number_of, pick(fields)))
            names.append(fields[layout.file])
            lines.append(row)
            if pick_others is not None:
                kept.append([known.setdefault(text, text) for text in pick_others(fields)])
    except _ManyTextsError:
        raise LabelsError(_many_texts(where, layout, row, fields, codes, meanings)) from None
    if not names:
        raise LabelsError(f"{where} holds no usable row; expected a file name, then 0, 1 or NA")
    coded = np.frombuffer(cells, np.uint8).reshape(len(names), len(layout.labels))
    del cells
    rows_of = np.frombuffer(lines, np.int64)
    notes = rows.notes
    count = len(names) if options.ours else _without_totals(names, coded, list(codes), meanings)
    if count < len(names):
        last = ", ".join(map(shown, names[count:]))
        notes.append(
            f"{len(names) - count} rows of totals or notes at the end, passed over: {last}"
        )
        del names[count:], kept[count:]
        coded, rows_of = coded[:count], rows_of[:count]
    values, texts = _values(where, sheet.by_spaces, layout, coded, list(codes), rows_of, meanings)
    extra = {
        layout.names[column] or f"column {column + 1}": [row[place] for row in kept]
        for place, column in enumerate(others)
    }
    return RawTable(
        names,
        tuple(layout.names[column] for column in layout.labels),
        values,
        rows_of,
        notes=notes,
        quarantine=rows.quarantine,
        texts=texts,
        extra=extra,
    )


class _Rows:
    """The rows below the header that have the right width and a file name; counts the others."""

    def __init__(self, sheet: Sheet, layout: Layout, start: int, meanings: Meanings) -> None:
        self._sheet, self._layout, self._start = sheet, layout, start
        self._meanings = meanings
        self.quarantine: list[Quarantined] = []
        self._empty = self._comments = 0
        self._units: list[int] = []

    @property
    def notes(self) -> list[str]:
        """What was passed over, so far."""
        said = {"empty": self._empty, "comment": self._comments}
        notes = [f"{count} {kind} rows are passed over" for kind, count in said.items() if count]
        if self._units:
            first = ", ".join(map(str, self._units[:5])) + (" …" if len(self._units) > 5 else "")
            notes.append(
                f"{len(self._units)} rows without a file name and labels (units, or a remark) are "
                f"passed over: {first}"
            )
        return notes

    def __iter__(self) -> Iterator[Row]:
        width, file = self._layout.width, self._layout.file
        ragged, empty = self._layout.ragged, self._layout.empty
        for row, fields in itertools.islice(self._sheet.records(), self._start, None):
            if (len(fields) == width or ragged) and fields[file] and not fields[file].isspace():
                if empty and any(fields[number].strip() for number in empty):
                    raise self._unnamed(row, fields)
                yield row, fields
            elif (mended := self._mended(row, fields)) is not None:
                yield row, mended

    def _mended(self, row: int, fields: list[str]) -> list[str] | None:
        """A row of another width or without a name: mended, or None and counted."""
        layout = self._layout
        width = layout.width
        if not any(field.strip() for field in fields):
            self._empty += 1
        elif fields[0].startswith("#") and len(fields) != width:
            self._comments += 1
        elif len(fields) > width and not any(field.strip() for field in fields[width:]):
            if fields[layout.file].strip():
                return fields[:width]
            self.quarantine.append(Quarantined(fields[layout.file], row, "empty_filename"))
        elif len(fields) != width:
            if self._sheet.by_spaces and len(fields) > width:
                raise LabelsError(
                    f"{self._sheet.path}, row {row}: {len(fields)} fields where {width} are "
                    f"expected; {SPACE_REMEDY}"
                )
            self.quarantine.append(Quarantined(fields[0], row, "wrong_field_count"))
        elif not any(
            self._meanings.is_label(fields[n]) for n in layout.labels if fields[n].strip()
        ):
            self._units.append(row)  # a second line of the header: units, or what to write
        else:
            self.quarantine.append(Quarantined(fields[layout.file], row, "empty_filename"))
        return None

    def _unnamed(self, row: int, fields: list[str]) -> LabelsError:
        number = next(n for n in self._layout.empty if fields[n].strip())
        return LabelsError(
            f"{self._sheet.path}, row {row}, column {number + 1}: {shown(fields[number])} stands "
            "in a column without a name; give it one in the header"
        )


def _many_texts(
    where: str,
    layout: Layout,
    row: int,
    fields: list[str],
    codes: dict[str, int],
    meanings: Meanings,
) -> str:
    column = next(n for n in layout.labels if fields[n] not in codes)
    name = layout.names[column]
    return (
        f"{where}, row {row}, column {column + 1} ({shown(name)}): {shown(fields[column])}; the "
        f"columns of labels hold more than {_MOST_TEXTS} different texts; "
        f"{flag('ignore_columns', name)} leaves a column out; "
        f"{meanings.remedy(dict.fromkeys(codes, 1))}"
    )


def _without_totals(
    names: list[str], coded: np.ndarray, texts: list[str], meanings: Meanings
) -> int:
    """How many rows there are before those at the end that sum up, or say where it comes from."""
    count = len(names)
    while count > 1 and len(names) - count < 3 and is_total(names[count - 1]):
        if all(meanings.get(texts[code]) is not None for code in np.unique(coded[count - 1])):
            break  # an image of that name
        count -= 1
    blank = all(not texts[code].strip() for code in np.unique(coded[count - 1]))
    if blank and count > 1 and is_image_name(names[0]) and not is_image_name(names[count - 1]):
        count -= 1  # a note below the table
    return count


def _values(
    where: str,
    by_spaces: bool,
    layout: Layout,
    coded: np.ndarray,
    texts: list[str],
    rows: np.ndarray,
    meanings: Meanings,
) -> tuple[np.ndarray, Counter[tuple[str, int]]]:
    """The meanings of numbered texts, int8 [N, L], and how often each was read as what."""
    values = np.empty(coded.shape, np.int8)
    counted: Counter[tuple[str, int]] = Counter()
    together: Counter[str] = Counter()
    wrong: list[tuple[int, int, str]] = []
    for place in range(coded.shape[1]):
        counts = np.bincount(coded[:, place], minlength=len(texts))
        own = [texts[code] for code in np.flatnonzero(counts)]
        found = meanings.of_column(own)
        lookup = np.full(len(texts), MISSING, np.int8)
        for code in np.flatnonzero(counts).tolist():
            value = found[texts[code]]
            together[texts[code]] += int(counts[code])
            if value is None:
                first = int(np.argmax(coded[:, place] == code))
                wrong.append((first, place, texts[code]))
            else:
                lookup[code] = value
                counted[texts[code], value] += int(counts[code])
        values[:, place] = lookup[coded[:, place]]
    if problem := meanings.unstated_zero(together):
        raise LabelsError(f"{where} {problem}")
    if wrong:
        first, place, text = min(wrong)
        column = layout.labels[place]
        remedy = meanings.remedy(together)
        if by_spaces:
            remedy += f"; {SPACE_REMEDY}"
        is_list = re.search(r"[\s,;|]", text.strip()) is not None
        if len(layout.labels) == 1 and (is_list or not set(together) & {"0", "1", "0.0", "1.0"}):
            remedy += f"; if these are labels: {flag('tags_column', layout.names[column])}"
        raise LabelsError(
            f"{where}, row {rows[first]}, column {column + 1} ({shown(layout.names[column])}): "
            f"{shown(text)} is not a label ({together[text]} cells hold it); {remedy}"
        )
    return values, counted


def _read_sparse(
    sheet: Sheet, layout: Layout, start: int, options: ReadOptions, meanings: Meanings
) -> RawTable:
    rows = _Rows(sheet, layout, start, meanings)
    advice = ""
    if layout.tags is not None and not options.tags_column and layout.header:
        advice = flag("tags_column", layout.names[layout.tags])
    if layout.long is not None:
        stream = _long(rows, layout, meanings)
    else:
        texts = (
            " ".join(fields[1:]) if layout.ragged else fields[layout.tags or 0]
            for _, fields in _Rows(sheet, layout, start, meanings)
        )
        split = _tag_splitter(str(sheet.path), layout, texts, options, meanings)
        stream = _tags(rows, layout, split, options, meanings)
    table = table_of(str(sheet.path), stream, options, meanings, advice)
    table.notes = rows.notes + table.notes
    table.quarantine = rows.quarantine
    return table


def _other_columns(layout: Layout) -> list[int]:
    """The columns that hold no labels and are kept as they are."""
    return [*layout.left_out, *([] if layout.annotator is None else [layout.annotator])]


def _extras(layout: Layout, fields: list[str]) -> Iterator[Extra]:
    for column in _other_columns(layout):
        yield Extra(fields[layout.file], layout.names[column], fields[column])


def _long(rows: _Rows, layout: Layout, meanings: Meanings) -> Iterator[Record | Extra]:
    assert layout.long is not None
    label, value = layout.long
    for row, fields in rows:
        filename, name = fields[layout.file], fields[label].strip()
        if layout.suffixed:
            filename, _, name = filename.strip().rpartition("_")
        annotator = "" if layout.annotator is None else fields[layout.annotator].strip()
        yield Record(
            filename,
            name,
            1 if value is None else None,
            name if value is None else fields[value],
            annotator,
            row,
        )
        if not layout.suffixed:
            yield from _extras(layout, fields)


def _tags(
    rows: _Rows,
    layout: Layout,
    split: Callable[[str], list[str]],
    options: ReadOptions,
    meanings: Meanings,
) -> Iterator[Record | Extra]:
    for row, fields in rows:
        filename = fields[layout.file]
        annotator = "" if layout.annotator is None else fields[layout.annotator].strip()
        if layout.ragged:
            tags = [field.strip() for field in fields[1:] if field.strip()]
        else:
            text = fields[layout.tags or 0]
            # An empty cell is not an empty list: whether anybody looked is not known.
            if meanings.is_missing(text) and options.blank != "false":
                yield Record(filename, "", UNSEEN, text, annotator, row)
                continue
            tags = split(text)
        yield Record(filename, "", ANNOTATED, "", annotator, row)
        for tag in tags:
            yield Record(filename, _named(tag, options), 1, tag, annotator, row)
        if not layout.ragged:
            yield from _extras(layout, fields)


def _named(tag: str, options: ReadOptions) -> str:
    """The name of a tag that may be a number into `config.data.names`."""
    names = names_of(options)
    return names[int(tag)] if tag.isdecimal() and int(tag) < len(names) else tag


def _tag_splitter(
    where: str, layout: Layout, texts: Iterator[str], options: ReadOptions, meanings: Meanings
) -> Callable[[str], list[str]]:
    """What splits a cell of tags; found out from all the cells where the options do not say."""
    if layout.ragged:
        return str.split
    if options.tags_separator:
        separator = _SEPARATORS.get(options.tags_separator, options.tags_separator)
        return lambda text: _split(text, separator)
    stripped = (text.strip() for text in texts if not meanings.is_missing(text))
    wholes = [text for text in dict.fromkeys(stripped) if text]
    if any(text[0] in "[{" for text in wholes):
        # Label Studio writes one choice as it is, and several as a list.
        return lambda text: _from_list(where, text) if text.strip()[:1] in "[{" else [text.strip()]
    for separator in "|;,":
        if any(separator in text for text in wholes):
            return lambda text: _split(text, separator)
    if not any(re.search(r"\s", text) for text in wholes):
        return lambda text: [text.strip()] if text.strip() else []
    parts = Counter(part for text in wholes for part in set(text.split()))
    if len(parts) <= len(wholes) or all(part.isdecimal() for part in parts):
        return str.split
    if max(parts.values()) == 1:
        return lambda text: [text.strip()]
    name = layout.names[layout.tags or 0]
    raise LabelsError(
        f"{where}, column {shown(name)}: {shown(next(t for t in wholes if ' ' in t))} may be one "
        "label or several; --config.data.tags_separator=space parts it at spaces, "
        "--config.data.tags_separator=comma leaves it whole"
    )


def _split(text: str, separator: str) -> list[str]:
    parts = text.split() if separator == " " else text.split(separator)
    return [part.strip() for part in parts if part.strip()]


def _from_list(where: str, text: str) -> list[str]:
    """The labels in a list as JSON or Python writes it, or under `choices` in an object."""
    if not text.strip():
        return []
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise LabelsError(f"{where}: {shown(text)} is no list of labels") from None
    if isinstance(found, dict):
        found = found.get("choices", found)
    if isinstance(found, dict):
        found = [key for key, value in found.items() if value in (1, True, "1", "true")]
    items = found if isinstance(found, list | tuple | set) else [found]
    if not all(isinstance(item, str | int | float) for item in items):
        raise LabelsError(f"{where}: {shown(text)} is no list of labels")
    return [str(item).strip() for item in items if str(item).strip()]
