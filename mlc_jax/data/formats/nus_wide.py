"""NUS-WIDE: Labels_NAME.txt with 0 or 1 per line, in the order of an image list."""

import re
from collections.abc import Iterator
from pathlib import Path

from mlc_jax.data.delimited import open_text, shown
from mlc_jax.data.formats.record import Extra, Record
from mlc_jax.errors import LabelsError
from mlc_jax.label_settings import ReadOptions

_NAME = re.compile(r"Labels_(.+?)(?:_(Train|Test))?")
_LISTS = {"": "Imagelist.txt", "Train": "TrainImagelist.txt", "Test": "TestImagelist.txt"}


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it is a folder of such files."""
    del first_bytes
    return bool(_files(path))


def read(path: Path, options: ReadOptions) -> Iterator[Record | Extra]:
    """The labels of every image.

    Raises:
      LabelsError: an image list is not there, or has another length; a line is neither 0 nor 1.
    """
    del options
    lists: dict[str, list[str]] = {}
    for file, label, part in _files(path):
        names = lists.setdefault(part, _image_list(path, _LISTS[part]))
        lines = [line.strip() for line in open_text(file).lines() if line.strip()]
        if len(lines) != len(names):
            raise LabelsError(f"{file} has {len(lines)} lines, the image list has {len(names)}")
        for row, (name, text) in enumerate(zip(names, lines, strict=True), 1):
            if text not in ("0", "1"):
                raise LabelsError(f"{file}, row {row}: {shown(text)} is neither 0 nor 1")
            yield Record(name, label, int(text), text, "", row)
            if part:
                yield Extra(name, "split", part.lower())


def _files(path: Path) -> list[tuple[Path, str, str]]:
    if not path.is_dir():
        return []
    found = [
        (file, name[1], name[2] or "")
        for file in sorted(path.glob("**/Labels_*.txt"))
        if (name := _NAME.fullmatch(file.stem))
    ]
    parts = {part for _, _, part in found}
    return [item for item in found if item[2] or parts == {""}]


def _image_list(path: Path, name: str) -> list[str]:
    for folder in (path, path.parent):
        if files := sorted(folder.glob(f"**/{name}")):
            return [line.strip() for line in open_text(files[0]).lines() if line.strip()]
    raise LabelsError(f"{path}: there is no {name} in it or beside it")
