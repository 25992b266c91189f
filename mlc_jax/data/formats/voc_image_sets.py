"""Pascal VOC's ImageSets: LABEL_train.txt with 1, -1 or 0 (difficult) per image."""

import re
from collections.abc import Iterator
from pathlib import Path

from mlc_jax.data.delimited import open_text, shown
from mlc_jax.data.formats.record import Extra, Record
from mlc_jax.data.table import MISSING
from mlc_jax.errors import LabelsError
from mlc_jax.label_settings import ReadOptions

_NAME = re.compile(r"(.+)_(trainval|train|val|test)")
_LINE = re.compile(r"(\S+)\s+(-1|0|1)\s*")
_MEANING = {"1": 1, "-1": 0, "0": MISSING}


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it is a folder of such lists."""
    del first_bytes
    files = _files(path)
    return bool(files) and all(
        _LINE.fullmatch(next(open_text(file).lines(), "")) for file, _, _ in files[:3]
    )


def read(path: Path, options: ReadOptions) -> Iterator[Record | Extra]:
    """The values of every list.

    Raises:
      LabelsError: a line is none.
    """
    del options
    for file, label, part in _files(path):
        for row, line in enumerate(open_text(file).lines(), 1):
            found = _LINE.fullmatch(line)
            if found is None and line.strip():
                raise LabelsError(f"{file}, row {row}: {shown(line)} is no image and 1, -1 or 0")
            if found is not None:
                yield Record(found[1], label, _MEANING[found[2]], found[2], "", row)
                yield Extra(found[1], "split", part)


def _files(path: Path) -> list[tuple[Path, str, str]]:
    """File, label and part of every list; trainval only where train and val are not."""
    if not path.is_dir():
        return []
    folder = next((f for f in (path / "ImageSets/Main", path / "Main") if f.is_dir()), path)
    found = [
        (file, name[1], name[2])
        for file in sorted(folder.glob("*_*.txt"))
        if (name := _NAME.fullmatch(file.stem))
    ]
    parts = {part for _, _, part in found}
    drop = "trainval" if {"train", "val"} <= parts else ""
    return [item for item in found if item[2] != drop]
