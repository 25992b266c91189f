"""Groups and splits that only the user knows: a column of the labels file, or a file.

`config.data.groups` says which images belong together (patient, scene, product, plate), and
`config.data.split` which split was published for them. Both are used as they are given; where they
contradict each other, no split would be right, so that is an error.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlc_jax.data.delimited import TextFile, csv_line, open_text, shown
from mlc_jax.errors import ConfigError, LabelsError
from mlc_jax.files.atomic import write_text
from mlc_jax.files.digest import digest_json

MAX_LINES = 2_000_000
_SAMPLE = 200  # records looked at to find the separator
_SHOWN = 5
_TRAIN, _VALIDATION, _TEST = "train", "validation", "test"
PARTS = {
    "train": _TRAIN,
    "training": _TRAIN,
    "val": _VALIDATION,
    "valid": _VALIDATION,
    "validation": _VALIDATION,
    "dev": _VALIDATION,
    "test": _TEST,
    "testing": _TEST,
}
"""The words that a split may consist of, in any case, and what they mean."""


@dataclass(frozen=True)
class Given:
    """One text per image, as the user gave it.

    Attributes:
      source: for people, the column or the file.
      values: per image; empty where nothing was given for it.
    """

    source: str
    values: tuple[str, ...]

    def select(self, rows: np.ndarray) -> "Given":
        """Those of the given images, int [n]."""
        return Given(self.source, tuple(self.values[row] for row in rows.tolist()))

    def digest(self) -> str:
        """Digest of the values."""
        return digest_json(list(self.values))


@dataclass(frozen=True)
class GivenSplit:
    """A split to be used as it is.

    Attributes:
      fold: int64 [N], the fold that a row was given, counted from 0; -1 for a row that is still to
        be dealt into the folds that follow the given ones, and for test rows.
      test: bool [N], rows of the test split.
      numbered: whether fold numbers were given, and not train, validation and test.
    """

    fold: np.ndarray
    test: np.ndarray
    numbered: bool


def read_given(
    key: str,
    given: str,
    columns: Mapping[str, Sequence[str]],
    filenames: Sequence[str],
    labels_file: Path,
) -> Given | None:
    """Reads `config.data.groups` or `config.data.split`.

    Args:
      key: groups or split.
      given: the value of the key: a file of file names and values, or a column of the labels file;
        empty for none, or for KEY.csv that an impute run left beside its labels.csv.
      columns: the columns of the labels file that hold no labels, per image.
      filenames: of the images, in order.
      labels_file: where they were read.

    Raises:
      ConfigError: neither a file nor a column.
      LabelsError: the file cannot be read, or names none of the images.
    """
    beside = labels_file.parent / f"{key}.csv"
    if given in columns:
        values = tuple(str(value).strip() for value in columns[given])
        return Given(f"column {shown(given)} of {labels_file}", values)
    if given and Path(given).is_file():
        return _read_file(Path(given), filenames)
    if beside.is_file() and beside.with_name("cells.csv").is_file():
        return _read_file(beside, filenames)
    if not given:
        return None
    has = f"has {', '.join(map(shown, columns))}" if columns else "has none"
    raise ConfigError(
        f"config.data.{key}={given!r} is no file, and no column of {labels_file} beside the labels "
        f"({has}); give a column, or a file of two columns, file name and value"
    )


def write_given(path: Path, given: Given, filenames: Sequence[str]) -> None:
    """Writes a file that `read_given` reads; atomic."""
    lines = [csv_line(["filename", path.stem])]
    lines += [
        csv_line([name, value])
        for name, value in zip(filenames, given.values, strict=True)
        if value
    ]
    write_text(path, "".join(lines))


def group_numbers(given: Given) -> np.ndarray:
    """int64 [N]: equal for images of one given group, counted from 0; others stand alone."""
    numbers: dict[tuple[str, int], int] = {}
    keys = ((value, -1 if value else row) for row, value in enumerate(given.values))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def make_split(given: Given, filenames: Sequence[str]) -> GivenSplit:
    """Interprets a split: train, val and test in any case, or fold numbers.

    The rows of val are one fold, the first; those of train are dealt into the others.

    Raises:
      LabelsError: an image without a value, or a value that is neither.
    """
    if lacking := [row for row, value in enumerate(given.values) if not value]:
        raise LabelsError(
            f"{given.source}: {len(lacking)} images have no part in the split "
            f"({_first(filenames[row] for row in lacking)}); give each train, val, test or the "
            "number of a fold, or leave its row out of the labels file"
        )
    words = [value.lower() for value in given.values]
    parts = np.array([PARTS.get(word, "") for word in words], object)
    if (parts != "").all():
        fold = np.where(parts == _VALIDATION, 0, -1).astype(np.int64)
        return GivenSplit(fold, parts == _TEST, numbered=False)
    numbers = [_whole(word) for word in words]
    known = {word for word, number in zip(words, numbers, strict=True) if number is not None}
    strange = sorted(set(words) - known) if known else sorted(set(words) - PARTS.keys())
    if strange:
        row = words.index(strange[0])
        raise LabelsError(
            f"{given.source}: {shown(given.values[row])} of {filenames[row]} is no part of a "
            "split; write train, val and test, or the numbers of folds, in all rows"
        )
    fold = np.unique(np.array(numbers, np.int64), return_inverse=True)[1].astype(np.int64)
    return GivenSplit(fold, np.zeros(len(fold), np.bool_), numbered=True)


def check_split(
    groups: Given, split: Given, made: GivenSplit, filenames: Sequence[str], rows: np.ndarray
) -> None:
    """Compares the groups and the split that were given.

    Args:
      groups, split: of the same images.
      made: the split, interpreted.
      filenames: of the images.
      rows: int [N], their line numbers in the labels file.

    Raises:
      LabelsError: images of one group lie in two parts of the split; names them.
    """
    first: dict[str, int] = {}
    torn: dict[str, str] = {}
    for row, (group, value) in enumerate(zip(groups.values, split.values, strict=True)):
        other = first.setdefault(group, row) if group else row
        if (made.fold[other], made.test[other]) != (made.fold[row], made.test[row]):
            torn.setdefault(
                group,
                f"group {shown(group)}: {filenames[other]} (row {rows[other]}) is in "
                f"{split.values[other]}, {filenames[row]} (row {rows[row]}) in {value}",
            )
    if torn:
        raise LabelsError(
            f"config.data.groups and config.data.split contradict each other in {len(torn)} "
            f"groups ({_first(torn.values(), '; ')}); move the rows of a group into one part, or "
            "leave one of the keys out"
        )


def _read_file(path: Path, filenames: Sequence[str]) -> Given:
    """A file of file names and values; images that it does not name get none.

    Raises:
      LabelsError: not two columns, no image of ours, or two values for one image.
    """
    text = open_text(path, MAX_LINES)
    for separator in (",", ";", "\t", " "):
        if _widths(text, separator) == {2}:
            break
    else:
        raise LabelsError(
            f"{path}: expected two columns, file name and value, separated by comma, semicolon, "
            "tab or space; leave other columns out"
        )
    ours = set(filenames)
    found: dict[str, tuple[str, int]] = {}
    for row, fields in text.records(separator):
        if len(fields) != 2:
            raise LabelsError(f"{path}, row {row}: {len(fields)} fields where 2 are expected")
        name, value = (field.strip() for field in fields)
        before, line = found.setdefault(name, (value, row))
        if before != value and name in ours:
            raise LabelsError(
                f"{path}: {name} has {shown(before)} in row {line}, {shown(value)} in row {row}; "
                "remove one"
            )
    if not ours & found.keys():
        raise LabelsError(
            f"{path} names none of the images (it begins with {shown(next(iter(found), ''))}, the "
            f"labels file with {shown(filenames[0])}); write file names as the labels file has them"
        )
    return Given(str(path), tuple(found.get(name, ("", 0))[0] for name in filenames))


def _widths(text: TextFile, separator: str) -> set[int]:
    """How many fields the first records have; none where this separator cannot be right."""
    try:
        return {len(fields) for _, fields in itertools.islice(text.records(separator), _SAMPLE)}
    except LabelsError:
        return set()


def _whole(text: str) -> int | None:
    """The number of a fold, such as 3 or 3.0."""
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() and abs(number) < 2**31 else None


def _first(texts: Iterable[str], separator: str = ", ") -> str:
    some = list(itertools.islice(texts, _SHOWN + 1))
    return separator.join(some[:_SHOWN]) + (" …" if len(some) > _SHOWN else "")
