"""Packed label files: .gz with one file, .zip with one or an export; unpacked under caps."""

import contextlib
import gzip
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from mlc_jax.data.images import is_unsafe
from mlc_jax.errors import LabelsError

MAX_BYTES, MAX_FILES = 2**30, 1_000_000
_LABELS = (
    ".csv .tsv .txt .json .jsonl .ndjson .manifest .xml .yaml .names .labels .xlsx .ods .parquet "
    ".feather .npz .mat"
)


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it is packed."""
    return not path.is_dir() and first_bytes.startswith((b"PK\x03\x04", b"\x1f\x8b"))


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The label file, or the folder of an export, that is packed in a file; removed afterwards.

    Raises:
      LabelsError: it is damaged, encrypted, too large, or a name in it leads out of its folder.
    """
    with tempfile.TemporaryDirectory(prefix="mlc_jax-") as folder:
        try:
            inner = _unpack(path, Path(folder))
        except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile) as error:
            raise LabelsError(
                f"{path} cannot be unpacked ({error}), and is damaged; download or pack it again"
            ) from None
        except (RuntimeError, NotImplementedError) as error:  # a password, another compression
            raise LabelsError(
                f"{path} cannot be unpacked here ({error}); unpack it, and give its label file"
            ) from None
        yield inner


def _members(path: Path) -> Iterator[tuple[str, gzip.GzipFile | IO[bytes]]]:
    """Name and content of every label file in it."""
    if not zipfile.is_zipfile(path):
        with gzip.open(path) as packed:
            yield path.stem or "labels", packed
        return
    with zipfile.ZipFile(path) as archive:
        names = [item.filename for item in archive.infolist() if not item.is_dir()]
        if len(names) > MAX_FILES:
            raise LabelsError(f"{path} holds {len(names)} files, more than {MAX_FILES}")
        for name in names:
            is_label = PurePosixPath(name).suffix.lower() in _LABELS.split()
            if is_label and not name.startswith("__MACOSX/"):
                with archive.open(name) as packed:
                    yield name, packed


def _unpack(path: Path, folder: Path) -> Path:
    names, size = [], 0
    for name, packed in _members(path):
        if is_unsafe(name):
            raise LabelsError(f"{path}: {name!r} leads out of the archive")
        names.append(name)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("wb") as file:
            while piece := packed.read(2**20):
                if (size := size + len(piece)) > MAX_BYTES:
                    raise LabelsError(f"{path} has more than {MAX_BYTES} bytes unpacked")
                file.write(piece)
    if not names:
        raise LabelsError(f"{path} holds no label file; unpack it and give the label file")
    inner = list(folder.iterdir())
    return folder / names[0] if len(names) == 1 else inner[0] if len(inner) == 1 else folder
