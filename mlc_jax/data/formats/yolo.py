"""YOLO: one text file per image with the number of a class and a box on every line."""

import re
from collections.abc import Iterator
from pathlib import Path

from mlc_jax.data.delimited import open_text, shown
from mlc_jax.data.formats.record import ANNOTATED, Extra, Record
from mlc_jax.data.formats.yolo_names import class_names
from mlc_jax.data.layout import names_of
from mlc_jax.errors import LabelsError
from mlc_jax.label_settings import ReadOptions

_LINE = re.compile(r"\s*(\d+)((?:\s+-?\d*\.?\d+(?:e-?\d+)?){4,})\s*")
_LISTS = ("train", "val", "test", "classes", "labels", "notes", "readme")


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it is a folder of such files, or an export that holds one."""
    del first_bytes
    filled = [text for file, _ in _files(path)[:50] if (text := _first_line(file))]
    return bool(filled) and all(_LINE.fullmatch(text) for text in filled)


def read(path: Path, options: ReadOptions) -> Iterator[Record | Extra]:
    """The classes of every image; an empty file is an image without any.

    Raises:
      LabelsError: a line is none, or a class has no name.
    """
    names = list(names_of(options)) or class_names(path)
    for name in names:
        yield Record("", name)
    for number, (file, part) in enumerate(_files(path), 1):
        yield Record(file.stem, "", ANNOTATED, "", "", number)
        if part:
            yield Extra(file.stem, "split", part)
        for row, line in enumerate(open_text(file).lines(), 1):
            found = _LINE.fullmatch(line)
            if found is None and line.strip():
                raise LabelsError(f"{file}, row {row}: {shown(line)} is no class and box")
            if found is not None:
                place = int(found[1])
                if names and place >= len(names):
                    raise LabelsError(f"{file}, row {row}: class {place} of {len(names)} names")
                yield Record(file.stem, names[place] if names else str(place), 1, found[1], "", row)


def _first_line(file: Path) -> str:
    with file.open("rb") as raw:
        return raw.readline(4096).decode("latin-1")


def _files(path: Path) -> list[tuple[Path, str]]:
    """The label files, each with the part of an export that it lies in."""
    if not path.is_dir():
        return []
    for pattern in ("*.txt", "labels/*.txt", "labels/*/*.txt", "*/labels/*.txt"):
        files = [file for file in sorted(path.glob(pattern)) if file.stem.lower() not in _LISTS]
        if files:
            level = {"labels/*/*.txt": -2, "*/labels/*.txt": -3}.get(pattern, 0)
            return [(file, file.parts[level] if level else "") for file in files]
    return []
