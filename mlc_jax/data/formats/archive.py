"""Packed label files: .gz with one file, .zip with one or an export; unpacked under caps."""

import contextlib
import gzip
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mlc_jax.data.images import is_unsafe
from mlc_jax.errors import LabelsError

MAX_BYTES = 2**30
MAX_FILES = 1_000_000
_PIECE = 2**20
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
            inner = (_gunzip if not zipfile.is_zipfile(path) else _unzip)(path, Path(folder))
        except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile) as error:
            raise LabelsError(
                f"{path} cannot be unpacked ({error}), and is damaged; download or pack it again"
            ) from None
        except (RuntimeError, NotImplementedError) as error:  # a password, another compression
            raise LabelsError(
                f"{path} cannot be unpacked here ({error}); unpack it yourself, and give the label "
                "file in it"
            ) from None
        yield inner


def _gunzip(path: Path, folder: Path) -> Path:
    target = folder / (path.stem or "labels")
    with gzip.open(path) as packed, target.open("wb") as file:
        size = 0
        while piece := packed.read(_PIECE):
            size += len(piece)
            if size > MAX_BYTES:
                raise LabelsError(f"{path} has more than {MAX_BYTES} bytes unpacked")
            file.write(piece)
    return target


def _unzip(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path) as archive:
        items = [item for item in archive.infolist() if not item.is_dir()]
        if len(items) > MAX_FILES:
            raise LabelsError(f"{path} holds {len(items)} files, more than {MAX_FILES}")
        wanted = [
            item
            for item in items
            if PurePosixPath(item.filename).suffix.lower() in _LABELS.split()
            and not item.filename.startswith("__MACOSX/")
        ]
        size = 0
        for item in wanted:
            if is_unsafe(item.filename):
                raise LabelsError(f"{path}: {item.filename!r} leads out of the archive")
            target = folder / item.filename
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(item) as packed, target.open("wb") as file:
                while piece := packed.read(_PIECE):
                    size += len(piece)
                    if size > MAX_BYTES:
                        raise LabelsError(f"{path} has more than {MAX_BYTES} bytes unpacked")
                    file.write(piece)
    if not wanted:
        raise LabelsError(f"{path} holds no label file; unpack it and give the label file")
    if len(wanted) == 1:
        return folder / wanted[0].filename
    inner = [item for item in folder.iterdir() if item.is_dir()]
    return (
        inner[0] if len(inner) == 1 and not any(f.is_file() for f in folder.iterdir()) else folder
    )
