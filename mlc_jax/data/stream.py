"""Images of a folder, a list or a single file, in small batches, however many there are.

Nothing is prepared or kept: files are looked up, decoded and resized as they are asked for, in
threads (decoding lets go of the GIL) and a few ahead of the consumer. Grain's sources have a length
and random access; a folder that is walked lazily has neither.
"""

import itertools
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from mlc_jax.data.delimited import open_text
from mlc_jax.data.images import decode_image, resolve_image
from mlc_jax.data.labels import Quarantined
from mlc_jax.data.pixels import FORMATS, resize_image
from mlc_jax.data.watch import result_of
from mlc_jax.errors import ConfigError, ImageError

MAX_LISTED = 100_000_000
HEADER = "filename"  # of the first column, in every CSV file of ours
# Photographs that nothing here can read are refused by name, not passed over.
IMAGE_SUFFIXES = (
    *(suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS),
    *(".heic", ".heif", ".avif"),
)


class Files(Protocol):
    """Files to be read in order, by their rows and their names relative to `root`."""

    @property
    def root(self) -> Path:
        """The folder that no file may lie outside of."""

    @property
    def follow_links(self) -> bool:
        """Whether links may lead out of it."""

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Row and file name."""


@dataclass
class Listing:
    """The files that a path names, in order, found while they are asked for.

    Attributes:
      path: a folder, a list, or an image.
      root: the folder that no file may lie outside of; file names are relative to it.
      passed_over: files met in the folder so far whose names are no images' names; hidden files and
        folders, and what macOS adds to archives (`__MACOSX`), count as one each.
      follow_links: whether links may lead out of `root`.
    """

    path: Path
    root: Path
    passed_over: int = 0
    follow_links: bool = False

    @property
    def is_folder(self) -> bool:
        """Whether the files are those of a folder and its folders."""
        return self.path == self.root

    def refuse_inside(self, workdir: Path) -> None:
        """Keeps what a job writes out of the folder that it reads.

        Raises:
          ConfigError: `workdir` lies in it.
        """
        if self.is_folder and workdir.resolve().is_relative_to(self.root.resolve()):
            raise ConfigError(
                f"--workdir={workdir} lies in config.data.images={str(self.path)!r}, whose files "
                "are read while others are written; choose another --workdir"
            )

    def resolve(self, filename: str) -> Path:
        """The path of one of the files. Raises ImageError, see `resolve_image`."""
        return resolve_image(self.root, filename, follow_links=self.follow_links)

    def nothing_readable(self, left_out: int, quarantine: Path) -> ConfigError:
        """The error where none of the files is an image; `quarantine` names those left out."""
        return ConfigError(
            f"config.data.images={str(self.path)!r} holds no image that can be read ({left_out} "
            f"cannot, {self.passed_over} files have other names than images have); {quarantine} "
            "gives the reasons"
        )

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Row and file name: the line in a list, else the number in order, from 1.

        Raises:
          ConfigError: the folder cannot be read.
          LabelsError: the list cannot be read.
        """
        if self.is_folder:
            return enumerate(self._walk(), 1)
        if is_list(self.path):
            return self._lines()
        return iter([(1, self.path.name)])

    def _walk(self) -> Iterator[str]:
        # The names of one folder and of those around it are held at a time, sorted. A link to a
        # folder, or a folder that cannot be read, is given as if it were a file: what opens files
        # refuses it with a reason.
        try:
            pending = [self._in_folder("")]
        except OSError as error:
            raise ConfigError(f"config.data.images={str(self.path)!r}: {error.strerror}") from error
        while pending:
            entry = next(pending[-1], None)
            if entry is None:
                pending.pop()
                continue
            name, is_folder, is_link = entry
            own = name.rpartition("/")[2]
            if own.startswith(".") or own == "__MACOSX":
                self.passed_over += 1
            elif is_folder:
                try:
                    pending.append(self._in_folder(f"{name}/"))
                except OSError:
                    yield name
            elif name.lower().endswith(IMAGE_SUFFIXES) or (is_link and (self.root / name).is_dir()):
                yield name
            else:
                self.passed_over += 1

    def _in_folder(self, prefix: str) -> Iterator[tuple[str, bool, bool]]:
        """Name, whether a folder, whether a link, of what lies in a folder; sorted by name."""
        with os.scandir(self.root / prefix) as entries:
            found = [
                (prefix + entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink())
                for entry in entries
            ]
        return iter(sorted(found))

    def _lines(self) -> Iterator[tuple[int, str]]:
        text = open_text(self.path, MAX_LISTED)
        if self.path.suffix.lower() == ".csv":
            named = ((row, fields[0]) for row, fields in text.records(","))
        else:
            lines = ((row, line.rstrip("\r\n")) for row, line in enumerate(text.lines(), 1))
            named = ((row, line) for row, line in lines if line.strip())
        first = next(named, None)
        if first is None:
            return iter(())
        is_header = first[1].strip().lower() == HEADER
        return named if is_header else itertools.chain([first], named)


def is_list(path: Path) -> bool:
    """Whether a path is that of a list of files, by its name."""
    return path.suffix.lower() in (".txt", ".csv")


def list_images(images: str, root: str, follow_links: bool = False) -> Listing:
    """The files that `config.data.images` and `config.data.root` name.

    Args:
      images: a folder, which is walked with the folders in it; a .txt or .csv file with one path
        per line (of a .csv, the first field); or an image.
      root: the folder that the paths in a list are relative to; empty for that of the list.
      follow_links: `config.data.follow_links`: whether links may lead out of the folder.

    Raises:
      ConfigError: nothing is there, or `root` is given without a list or is no folder.
    """
    path = Path(images)
    if not images or not path.exists():
        raise ConfigError(
            f"config.data.images={images!r} does not exist; give a folder, an image, or a .txt or "
            ".csv list of images"
        )
    if root and (path.is_dir() or not is_list(path)):
        raise ConfigError(f"config.data.root={root!r} is for lists; leave it empty for {images!r}")
    if root and not Path(root).is_dir():
        raise ConfigError(f"config.data.root={root!r} is no folder")
    folder = path if path.is_dir() else Path(root or path.parent)
    named = not path.is_dir() and not is_list(path)  # one image is meant as it is
    return Listing(path, folder, follow_links=follow_links or named)


@dataclass(frozen=True)
class ImageBatch:
    """A few consecutive files of a listing.

    Attributes:
      rows, filenames: of those that could be read.
      images: uint8 [b, H, W, 3], resized; b may be 0.
      refused: those that could not.
    """

    rows: tuple[int, ...]
    filenames: tuple[str, ...]
    images: np.ndarray
    refused: tuple[Quarantined, ...]


def stream_images(
    listing: Files, image_size: tuple[int, int], batch_size: int
) -> Iterator[ImageBatch]:
    """Decodes the files of a listing in order, holding about two batches at a time.

    Args:
      listing: the files.
      image_size: (height, width) in pixels.
      batch_size: files per batch, readable or not; the last batch may be smaller.
    """
    decoded = _decoded(listing, image_size, batch_size)
    while some := list(itertools.islice(decoded, batch_size)):
        good = [item for item in some if not isinstance(item, Quarantined)]
        yield ImageBatch(
            rows=tuple(row for row, _, _ in good),
            filenames=tuple(filename for _, filename, _ in good),
            images=np.stack([image for _, _, image in good])
            if good
            else np.empty((0, *image_size, 3), np.uint8),
            refused=tuple(item for item in some if isinstance(item, Quarantined)),
        )


Decoded = tuple[int, str, np.ndarray] | Quarantined


def _decoded(listing: Files, image_size: tuple[int, int], ahead: int) -> Iterator[Decoded]:
    """Every file of a listing, decoded; `ahead` of them while the consumer is busy."""

    def decode(row: int, filename: str) -> Decoded:
        try:
            path = resolve_image(listing.root, filename, follow_links=listing.follow_links)
            image = decode_image(path)
        except ImageError as error:
            return Quarantined(filename, row, error.reason)
        return row, filename, resize_image(image, image_size)

    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    waiting: deque[tuple[str, Future[Decoded]]] = deque()

    def first() -> Decoded:
        filename, future = waiting.popleft()
        return result_of(future, str(listing.root / filename))

    try:
        for row, filename in listing:
            waiting.append((filename, pool.submit(decode, row, filename)))
            if len(waiting) > ahead:
                yield first()
        while waiting:
            yield first()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
