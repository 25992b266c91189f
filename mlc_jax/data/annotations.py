"""Single statements about images and labels, made into a table; what is not named is asked."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from mlc_jax.data.annotators import krippendorff_alpha
from mlc_jax.data.delimited import shown
from mlc_jax.data.formats.record import UNSEEN, Extra, Record
from mlc_jax.data.meanings import READ_AS, Meanings
from mlc_jax.data.raw_table import RawTable
from mlc_jax.data.table import MISSING
from mlc_jax.errors import LabelsError
from mlc_jax.label_settings import ReadOptions

MAX_CELLS = 2**31
_SHOWN = 6


class AbsentError(LabelsError):
    """`config.data.absent` has to be stated; `advice` is what has to be given beside it."""

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.advice = advice


class _Statement(NamedTuple):
    place: int
    label: int
    value: int
    explicit: bool  # a 0 may stand here as well: the value was written down


def table_of(
    where: str,
    stream: Iterable[Record | Extra],
    options: ReadOptions,
    meanings: Meanings,
    advice: str = "",
) -> RawTable:
    """The table of a stream of statements, one row per image and annotator.

    Args:
      where: names the file, for messages.
      stream: the statements.
      options: `absent` says what it means that an image does not name a label; it has to be stated
        where the file holds no 0 of its own.
      meanings: of texts.
      advice: keys that a message has to name beside `absent`.

    Raises:
      LabelsError: no image or label; a text without a meaning; `absent` is needed and not stated.
    """
    places: dict[tuple[str, str], int] = {}
    first_row: list[int] = []
    seen: list[bool] = []
    labels: dict[str, int] = {}
    statements: list[_Statement] = []
    raw: list[tuple[str, int]] = []  # text and the number of the statement that it decides
    extra: dict[str, dict[str, str]] = {}
    texts: Counter[tuple[str, int]] = Counter()
    for item in stream:
        if isinstance(item, Extra):
            extra.setdefault(item.column, {})[item.filename] = item.text
            continue
        label = -1
        if item.label:
            label = labels.setdefault(item.label.strip(), len(labels))
        if not item.filename:
            continue
        place = places.setdefault((item.filename, item.annotator), len(places))
        if place == len(seen):
            seen.append(False)
            first_row.append(item.row)
        if label < 0:
            seen[place] = seen[place] or item.value != UNSEEN
            continue
        seen[place] = True
        if item.value is None:
            raw.append((item.raw, len(statements)))
            statements.append(_Statement(place, label, MISSING, True))
        else:
            texts[item.raw or item.label, item.value] += 1
            statements.append(_Statement(place, label, item.value, item.value == 0))
    if not places:
        raise LabelsError(f"{where} names no image")
    if not labels:
        raise LabelsError(f"{where} names images and no label; nothing can be learned from it")
    _interpret(where, raw, statements, first_row, meanings, texts)
    shape = (len(places), len(labels))
    if shape[0] * shape[1] > MAX_CELLS:
        raise LabelsError(f"{where}: {shape[0]} images and {shape[1]} labels are too many")
    if all(name.isdecimal() for name in labels):  # numbers of classes, in their order
        places_of = {name: place for place, name in enumerate(sorted(labels, key=int))}
        new = [places_of[name] for name in labels]
        statements = [s._replace(label=new[s.label]) for s in statements]
        labels = places_of
    names = tuple(labels)
    values, named = _dense(shape, statements, options)
    repeats, alpha = _repeats(shape, [statements[number] for _, number in raw], values)
    annotated = np.array(seen, np.bool_)
    absent = ~named & annotated[:, None]
    if absent.any():
        # A file that states zeros of its own leaves out what is not known.
        states_zeros = any(s.explicit and s.value == 0 for s in statements)
        meaning = options.absent or ("missing" if states_zeros else "")
        if not meaning:
            raise ask_absent(where, names, values, absent, advice)
        if meaning == "false":
            values[absent] = 0
        texts["(not named)", 0 if meaning == "false" else MISSING] += int(absent.sum())
    if unseen := int((~annotated).sum()):
        texts["(not annotated)", MISSING] += unseen * len(names)
    return RawTable(
        [filename for filename, _ in places],
        names,
        values,
        np.array(first_row, np.int64),
        notes=repeats + _notes(places, unseen, options.absent),
        texts=texts,
        columns={},
        extra={
            column: [own.get(filename, "") for filename, _ in places]
            for column, own in extra.items()
        },
        unnamed=np.where(annotated & (options.absent == "false"), 0, MISSING).astype(np.int8),
        alpha=alpha,
    )


def _interpret(
    where: str,
    raw: list[tuple[str, int]],
    statements: list[_Statement],
    first_row: list[int],
    meanings: Meanings,
    texts: Counter[tuple[str, int]],
) -> None:
    """Gives the statements whose texts are to be interpreted their values."""
    counts = Counter(text for text, _ in raw)
    values = meanings.of_column(counts)
    if wrong := meanings.unstated_zero(counts):
        raise LabelsError(f"{where} {wrong}")
    for text, number in raw:
        value = values[text]
        if value is None:
            statement = statements[number]
            raise LabelsError(
                f"{where}, from row {first_row[statement.place]} on: {shown(text)} is not a label "
                f"({counts[text]} cells hold it); {meanings.remedy(counts)}"
            )
        statements[number] = statements[number]._replace(value=value)
        texts[text, value] += 1


def _dense(
    shape: tuple[int, int], statements: list[_Statement], options: ReadOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Values int8 [N, L], and which cells were named, bool [N, L]."""
    values = np.full(shape, MISSING, np.int8)
    named = np.zeros(shape, np.bool_)
    if not statements:
        return values, named
    at = np.array([s.place * shape[1] + s.label for s in statements], np.int64)
    value = np.array([s.value for s in statements], np.int8)
    flat, flat_named = values.reshape(-1), named.reshape(-1)
    flat_named[at] = True
    cells, inverse = np.unique(at, return_inverse=True)
    ones = np.bincount(inverse, value == 1, cells.size)
    zeros = np.bincount(inverse, value == 0, cells.size)
    merged = np.where(ones > zeros, 1, np.where(zeros > ones, 0, MISSING))
    if options.annotators == "agree":
        merged[(ones > 0) & (zeros > 0)] = MISSING
    elif options.annotators == "first":
        firsts = np.full(cells.size, MISSING)
        for place, own in zip(inverse[::-1], value[::-1], strict=True):
            firsts[place] = own if own != MISSING else firsts[place]
        merged = firsts
    flat[cells] = merged
    return values, named


def _repeats(
    shape: tuple[int, int], statements: list[_Statement], values: np.ndarray
) -> tuple[list[str], np.ndarray | None]:
    """Notes about cells that were stated several times, and the agreement of these statements."""
    given = [s for s in statements if s.value != MISSING]
    at = np.array([s.place * shape[1] + s.label for s in given], np.int64)
    cells, inverse, counts = np.unique(at, return_inverse=True, return_counts=True)
    several = counts > 1
    if not several.any():
        return [], None
    ones = np.bincount(inverse, [s.value for s in given], cells.size)
    zeros = counts - ones
    label = cells % shape[1]
    paired = np.stack(
        [np.bincount(label, np.where(several, own, 0), shape[1]) for own in (zeros, ones)]
    )
    pairs = np.where(several, ones * zeros / np.maximum(counts - 1, 1), 0)
    alpha = krippendorff_alpha(paired, np.bincount(label, pairs, shape[1]))
    split = (ones > 0) & (zeros > 0)
    lost = int((values.reshape(-1)[cells[split]] == MISSING).sum())
    notes = [f"{int(several.sum())} cells are stated several times"]
    if split.any():
        notes.append(
            f"{int(split.sum())} of them differ: {int(split.sum()) - lost} were decided by "
            f"config.data.annotators, {lost} became missing"
        )
    return notes, alpha


def ask_absent(
    where: str, names: tuple[str, ...], values: np.ndarray, absent: np.ndarray, advice: str
) -> AbsentError:
    """The error that asks what it means that a label is not named.

    Args:
      where: names the file or files.
      names: of the labels.
      values: int8 [N, L], as far as they are named.
      absent: bool [N, L], the cells that are not.
      advice: keys that have to be given as well.
    """
    ones, gone = (values == 1).sum(axis=0), absent.sum(axis=0)

    def counted(word: str) -> str:
        texts = [
            f"{shown(name)} {one} ones and {count} {word}"
            for name, one, count in zip(names, ones, gone, strict=True)
        ]
        return ", ".join(texts[:_SHOWN]) + (" …" if len(texts) > _SHOWN else "")

    flags = f"{advice} " if advice else ""
    message = (
        f"{where}: {len(values)} rows name {len(names)} labels, and what it means that a label is "
        f"not named is not stated. {flags}--config.data.absent=false: it does not apply "
        f"({counted('zeros')}); {flags}--config.data.absent=missing: it is not known "
        f"({counted('missing')}), and without any 0 no label can be learned"
    )
    return AbsentError(message, advice)


def _notes(places: dict[tuple[str, str], int], unseen: int, absent: str) -> list[str]:
    notes = []
    if unseen:
        notes.append(f"{unseen} images were not annotated: all their labels are missing")
    annotators = {annotator for _, annotator in places}
    if len(annotators) > 1:
        notes.append(f"{len(annotators)} annotators")
    if absent:
        notes.append(
            f"labels that are not named are read as {READ_AS[0 if absent == 'false' else MISSING]}"
        )
    return notes
