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

    As they are written, if 99 % lie in the folder; else in the way that finds 99 %, each of them
    once: without leading folders, by the last part, or by that without its suffix and in any case.
    Several such ways are one where they find the same files.

    Args:
      names: as the label file has them, one per row.
      folder: the image folder.
      listed: the images in it, relative to it, with "/" between folders.
      options: suffix, prefix and match may say how.

    Raises:
      LabelsError: two images fit a name, in one way or by two.
    """
    files = list(listed)
    there = set(files)
    if options.suffix or options.prefix:
        names = [f"{options.prefix}{name.strip()}{options.suffix}" for name in names]
    distinct = list(dict.fromkeys(names))
    exact = sum(name in there or _is_file(folder, name) for name in distinct)
    if not options.match and exact >= ENOUGH * len(distinct):
        hint = _hint(distinct, there, folder, options) if exact < len(distinct) else ""
        return Matched(names, exact, len(distinct), "", hint)
    ways: dict[str, tuple[str, Callable[[], dict[str, str | None]]]] = {
        "path": (
            "without the folders before the image folder",
            lambda: _by_path(distinct, there, folder),
        ),
        "name": ("by the last part of their paths", lambda: _by(distinct, files, _last)),
        "stem": ("by their names without suffix", lambda: _by(distinct, files, _stem)),
    }
    if options.match:
        ways = {options.match: ways[options.match]}
    tried: dict[str, dict[str, str | None]] = {}
    unclear: LabelsError | None = None
    for key, (_, find) in ways.items():
        try:
            found = find()
        except LabelsError as error:
            unclear = unclear or error
            continue
        count = sum(file is not None for file in found.values())
        if count >= ENOUGH * len(distinct) or (options.match and count):
            tried[key] = found
    if not tried:
        if unclear is not None:
            raise unclear
        return Matched(names, exact, len(distinct), "", _hint(distinct, there, folder, options))
    _refuse_other_files(tried)
    key, found = next(iter(tried.items()))
    count = sum(file is not None for file in found.values())
    way = (
        f"{count} of {len(distinct)} file names are found {ways[key][0]} (config.data.match={key})"
    )
    lost = (name for name, file in found.items() if file is None)
    hint = _absent(lost, len(distinct), there)
    return Matched([found[name] or name for name in names], count, len(distinct), way, hint)


def _refuse_other_files(tried: dict[str, dict[str, str | None]]) -> None:
    """Refuses ways that find different files for one name.

    Args:
      tried: the file of every name, or None, by the key of each way that finds enough of them.

    Raises:
      LabelsError: two ways find two files; it names both.
    """
    (first, found), *others = tried.items()
    for other, also in others:
        for name, file in found.items():
            if file is not None and also[name] is not None and also[name] != file:
                raise LabelsError(
                    f"{shown(name)} is {shown(file)} by {flag('match', first)} and "
                    f"{shown(also[name] or '')} by {flag('match', other)}; give one of them"
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


def _by_path(names: list[str], there: set[str], folder: Path) -> dict[str, str | None]:
    """Names whose last parts, as many as possible, are the path of a file."""
    found: dict[str, str | None] = {}
    root = _parts(str(folder.absolute()))
    for name in names:
        parts = _parts(name)
        if parts[: len(root)] == root:
            parts = parts[len(root) :]
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        found[name] = next((tail for tail in tails if tail in there), None)
    return found


def _by(names: list[str], files: list[str], key: Callable[[str], str]) -> dict[str, str | None]:
    """Names that share a key with one file; of several, with the one in the same folders.

    Raises:
      LabelsError: two files fit a name.
    """
    by_key: dict[str, list[str]] = {}
    for file in files:
        by_key.setdefault(key(file), []).append(file)
    found: dict[str, str | None] = {}
    for name in names:
        own = _nearest(name, by_key.get(key(name), []))
        if len(own) > 1:
            raise LabelsError(
                f"{shown(name)} fits {shown(own[0])} and {shown(own[1])} in the image folder; "
                f"{_distinction(name, own)}"
            )
        found[name] = own[0] if own else None
    return found


def _nearest(name: str, files: list[str]) -> list[str]:
    """Of files that fit a name, those that share most of the folders before it."""
    if len(files) < 2:
        return files
    own = [part.casefold() for part in reversed(_parts(name)[:-1])]

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
