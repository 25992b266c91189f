"""The names in a label file and the images in a folder: which is which, and how that was found."""

import itertools
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlc_jax.data.delimited import shown
from mlc_jax.data.layout import IMAGE_SUFFIXES
from mlc_jax.errors import LabelsError
from mlc_jax.label_settings import ReadOptions, flag

_UPLOADED = re.compile(r"[0-9a-f]{8}-")
ENOUGH = 0.99  # of the names have to be found for a way to be taken by itself
_MOST_TRIED, _SHOWN = 50, 3
_SAID = {
    "path": "without the folders before the image folder",
    "name": "by the last part of their paths",
    "stem": "by their names without suffix",
}


@dataclass(frozen=True)
class Matched:
    """Names of a label file as names of files.

    Attributes:
      filenames: one per row, relative to the folder, as written where no way was taken.
      found: how many different names lie in the folder.
      total: how many different names there are.
      way: how they were found, for people; empty where they are the files' names.
      hint: which names are not there; where fewer than 99 % are, keys under which they are found,
        if there are such.
    """

    filenames: list[str]
    found: int
    total: int
    way: str
    hint: str = ""


def match_names(
    names: list[str], folder: Path, listed: Iterable[str], options: ReadOptions
) -> Matched:
    """Finds the image of every name.

    As they are written, if 99 % lie in the folder; else in the one way that finds 99 %, each in one
    image: without leading folders (path), by the last part (name), by that without its suffix
    (stem). Where several ways do and agree, in the first of them.

    Args:
      names: as the label file has them, one per row.
      folder: the image folder.
      listed: the images in it, relative to it, with "/" between folders.
      options: suffix, prefix and match may say how.

    Raises:
      LabelsError: two images fit a name, in one way or in two.
    """
    files = list(listed)
    there = set(files)
    if options.suffix or options.prefix:
        names = [f"{options.prefix}{name.strip()}{options.suffix}" for name in names]
    distinct = list(dict.fromkeys(names))
    enough = ENOUGH * len(distinct)
    exact = sum(name in there or _is_file(folder, name) for name in distinct)
    if not options.match and exact >= enough:
        hint = _hint(distinct, there, folder, options) if exact < len(distinct) else ""
        return Matched(names, exact, len(distinct), "", hint)
    ways: dict[str, Callable[[], dict[str, list[str]]]] = {
        "path": lambda: _by_path(distinct, there, folder),
        "name": lambda: _by(distinct, files, folder, _last),
        "stem": lambda: _by(distinct, files, folder, _stem),
    }
    fitting = {
        key: find() for key, find in ways.items() if not options.match or options.match == key
    }
    least = 1 if options.match else enough
    fitting = {
        key: found for key, found in fitting.items() if distinct and _count(found, 1) >= least
    }
    if not fitting:
        return Matched(names, exact, len(distinct), "", _hint(distinct, there, folder, options))
    unique = [key for key, found in fitting.items() if _count(found, 1, 1) >= enough]
    key = next(iter(unique or fitting))
    found = fitting[key]
    _check_single(found)
    agreeing = [other for other in unique if other != key]
    for other, also in fitting.items():
        _check_agreement(key, found, other, also)
    count = _count(found, 1)
    way = f"{count} of {len(distinct)} file names are found {_SAID[key]} (config.data.match={key})"
    if agreeing:
        way += f", in the same images as with {' and '.join(agreeing)}"
    hint = _absent((name for name, own in found.items() if not own), len(distinct), there)
    filenames = [next(iter(found[name]), name) for name in names]
    return Matched(filenames, count, len(distinct), way, hint)


def _count(found: dict[str, list[str]], least: int, most: int | None = None) -> int:
    """How many names fit at least, and at most, so many images."""
    return sum(least <= len(own) and (most is None or len(own) <= most) for own in found.values())


def _check_single(found: dict[str, list[str]]) -> None:
    for name, own in found.items():
        if len(own) > 1:
            raise LabelsError(
                f"{shown(name)} fits {shown(own[0])} and {shown(own[1])} in the image folder; "
                f"{_distinction(name, own)}"
            )


def _check_agreement(
    key: str, found: dict[str, list[str]], other: str, also: dict[str, list[str]]
) -> None:
    for name, own in found.items():
        if own and also[name] and own[0] not in also[name]:
            raise LabelsError(
                f"{shown(name)} is {shown(own[0])} by {flag('match', key)} and "
                f"{shown(also[name][0])} by {flag('match', other)}; give one of them"
            )


def _absent(names: Iterable[str], total: int, there: set[str]) -> str:
    """Which names are not there, beside one that is; nothing where all are."""
    absent = list(names)
    if not absent:
        return ""
    more = " …" if len(absent) > _SHOWN else ""
    return (
        f"{len(absent)} of {total} names are not in the image folder, as "
        f"{', '.join(map(shown, absent[:_SHOWN]))}{more}; it holds {shown(min(there))}"
    )


def _hint(distinct: list[str], there: set[str], folder: Path, options: ReadOptions) -> str:
    """What is not there, beside what is, and texts around the names that make them files."""
    if not there:
        return f"there is no image in {folder}" if distinct else ""
    absent = [name for name in distinct if name not in there and not _is_file(folder, name)]
    said = _absent(absent, len(distinct), there)
    if not absent or len(absent) <= (1 - ENOUGH) * len(distinct):
        return said
    name = absent[0].strip()
    around = dict.fromkeys(
        (before, after)
        for file in sorted(there)
        if name and name in file
        for before, _, after in (file.partition(name),)
    )
    for before, after in list(around)[:_MOST_TRIED]:
        found = sum(f"{before}{own.strip()}{after}" in there for own in distinct)
        if found >= ENOUGH * len(distinct):
            given = {"prefix": before + options.prefix, "suffix": options.suffix + after}
            flags = " ".join(flag(key, text) for key, text in given.items() if text)
            return f"{said}; {found} of {len(distinct)} are found with {flags}"
    return said


def _is_file(folder: Path, name: str) -> bool:
    try:
        return os.path.isfile(folder / name)  # noqa: PTH113, Path.is_file raises for a NUL
    except ValueError:
        return False


def _parts(name: str) -> list[str]:
    if "://" in name:
        name = unquote(urlsplit(name).path)
    return [part for part in name.strip().replace("\\", "/").split("/") if part not in ("", ".")]


def _last(name: str) -> str:
    parts = _parts(name) or [""]
    # Label Studio puts eight digits before the name of a file that was uploaded.
    return _UPLOADED.sub("", parts[-1], count=1) if "upload" in parts[:-1] else parts[-1]


def _stem(name: str) -> str:
    last = _last(name)
    stem, _, suffix = last.rpartition(".")
    return (stem if f".{suffix.lower()}" in IMAGE_SUFFIXES else last).casefold()


def _inner(name: str, root: list[str]) -> list[str]:
    """The parts of a name, without those of the image folder."""
    parts = _parts(name)
    return parts[len(root) :] if parts[: len(root)] == root else parts


def _by_path(names: list[str], there: set[str], folder: Path) -> dict[str, list[str]]:
    """Names whose last parts, as many as possible, are the path of a file."""
    found: dict[str, list[str]] = {}
    root = _parts(str(folder.absolute()))
    for name in names:
        parts = _inner(name, root)
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        found[name] = [tail for tail in tails if tail in there][:1]
    return found


def _by(
    names: list[str], files: list[str], folder: Path, key: Callable[[str], str]
) -> dict[str, list[str]]:
    """The files that share a key with a name; of several, those in the same folders."""
    root = _parts(str(folder.absolute()))
    by_key: dict[str, list[str]] = {}
    for file in files:
        by_key.setdefault(key(file), []).append(file)
    return {name: _nearest(_inner(name, root), by_key.get(key(name), [])) for name in names}


def _nearest(parts: list[str], files: list[str]) -> list[str]:
    """Of files that fit a name, those that share most of the folders before it."""
    if len(files) < 2:
        return files
    own = [part.casefold() for part in reversed(parts[:-1])]

    def shared(file: str) -> int:
        folders = reversed(file.casefold().split("/")[:-1])
        pairs = zip(own, folders, strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    most = max(map(shared, files))
    return [file for file in files if shared(file) == most]


def _distinction(name: str, files: list[str]) -> str:
    """What decides between files that fit a name."""
    last = _parts(name)[-1]
    ends = [file.rpartition("/")[2].removeprefix(last) for file in files[:2]]
    if all(end.startswith(".") for end in ends) and ends[0] != ends[1]:
        return f"{flag('suffix', ends[0])} or {flag('suffix', ends[1])} says which"
    return "write the paths of the images into the label file"
