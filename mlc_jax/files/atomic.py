"""Writing files so that a reader sees the old content or the new one, never half of either."""

import contextlib
import json
import math
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PARTIAL = ".partial"
_TOKEN_BYTES = 4
_OURS = re.compile(rf"\.[0-9a-f]{{{2 * _TOKEN_BYTES}}}{re.escape(PARTIAL)}(\.[^.]*)?$")
_LONGEST_NAME = 255  # bytes of a file's name, on the file systems of Linux
_LONGEST_SUFFIX = 32


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary sibling of `path`, renamed over it on success and removed on failure.

    The sibling keeps the suffix of `path`, since some writers choose their format by it. Its bytes
    reach the disk before the rename does, so that a power cut cannot leave a renamed, empty file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(_partial_name(target))
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
    except OSError as error:
        error.filename = error.filename or str(target)  # a full disk does not say where
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _partial_name(target: Path) -> str:
    """A name for the sibling of `target`; of a long name as much as a file system takes."""
    suffix = target.suffix if len(os.fsencode(target.suffix)) <= _LONGEST_SUFFIX else ""
    end = f".{secrets.token_hex(_TOKEN_BYTES)}{PARTIAL}{suffix}"
    stem = os.fsencode(target.stem)[: _LONGEST_NAME - 1 - len(os.fsencode(end))]
    return f".{stem.decode(errors='ignore')}{end}"


def remove_partial(folder: Path) -> None:
    """Removes what killed writers left in `folder`, where the caller knows that none is at work."""
    for left in folder.glob(f".*{PARTIAL}*"):
        if _OURS.search(left.name):  # not any other hidden file of such a name
            left.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Writes `data` to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes `text` to `path` atomically, as UTF-8 with the line ends it has.

    Bytes of a file's name that are no UTF-8 are written as escapes.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes a JSON value atomically, indented; numbers that are not finite become null."""
    write_text(path, json.dumps(without_nan(value), indent=2, allow_nan=False) + "\n")


def without_nan(value: Any) -> Any:
    """A JSON value with None for numbers that are not finite, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
