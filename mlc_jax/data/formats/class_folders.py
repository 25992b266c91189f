"""Folders named for labels with images in them, alone or below train, val and test.

An image that lies in several folders, byte by byte the same and under the same name, has several
labels; the first path stands for it.
"""

from collections.abc import Iterator
from pathlib import Path

from mlc_jax.data.formats.record import ANNOTATED, Extra, Record
from mlc_jax.data.layout import is_image_name
from mlc_jax.files.digest import digest_file
from mlc_jax.label_settings import ReadOptions

_PARTS = frozenset(("train", "training", "val", "valid", "validation", "test"))
_NO_LABELS = frozenset(("images", "labels", "annotations", "imagesets", "masks", "jpegimages"))


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it is a folder with at least two folders of images."""
    del first_bytes
    return path.is_dir() and len({label for _, label, _ in _images(path)}) > 1


def read(path: Path, options: ReadOptions) -> Iterator[Record | Extra]:
    """The folder of every image."""
    del options
    first: dict[tuple[str, str], str] = {}
    images = list(_images(path))
    count: dict[str, int] = {}
    for file, _, _ in images:
        count[file.name] = count.get(file.name, 0) + 1
    for row, (file, label, part) in enumerate(images, 1):
        own = file.relative_to(path).as_posix()
        if count[file.name] > 1:
            own = first.setdefault((file.name, digest_file(file)), own)
        yield Record(own, "", ANNOTATED, "", "", row)
        yield Record(own, label, 1, label, "", row)
        if part:
            yield Extra(own, "split", part)


def _images(path: Path) -> Iterator[tuple[Path, str, str]]:
    """File, label and part of every image."""
    folders = sorted(item for item in path.iterdir() if item.is_dir() and not item.is_symlink())
    parts = [folder for folder in folders if folder.name.lower() in _PARTS]
    for folder in folders:
        if folder in parts:
            for inner in sorted(item for item in folder.iterdir() if item.is_dir()):
                if inner.name.lower() not in _NO_LABELS:
                    yield from ((file, inner.name, folder.name) for file in _in(inner))
        elif folder.name.lower() not in _NO_LABELS and not parts:
            yield from ((file, folder.name, "") for file in _in(folder))


def _in(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if is_image_name(f.name) and f.is_file())
