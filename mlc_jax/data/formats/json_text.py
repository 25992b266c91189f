"""JSON and JSON lines from files nobody vouches for."""

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from mlc_jax.data.delimited import open_text
from mlc_jax.errors import LabelsError

MAX_BYTES = 2**30


def load(path: Path) -> Any:
    """The content of a JSON file; the last one is kept, since detection and reading both need it.

    Raises:
      LabelsError: it cannot be read, is too large, or is no JSON.
    """
    try:
        return _load(path, path.stat().st_mtime_ns, path.stat().st_size)
    except OSError as error:
        raise LabelsError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise LabelsError(f"{path} is no JSON ({error}); export it again") from None


@lru_cache(maxsize=1)
def _load(path: Path, changed: int, size: int) -> Any:
    del changed
    if size > MAX_BYTES:
        raise LabelsError(f"{path} has {size} bytes, more than {MAX_BYTES}")
    return json.loads(path.read_text(encoding="utf-8-sig"))


def is_json(path: Path, first_bytes: bytes) -> bool:
    """Whether a file holds one JSON value, an object or a list."""
    start = first_bytes.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start.startswith((b"{", b"[")) or path.is_dir() or is_lines(path, first_bytes):
        return False
    return path.suffix.lower() == ".json" or _parses(path)


def is_lines(path: Path, first_bytes: bytes) -> bool:
    """Whether a file holds one JSON object per line."""
    if path.is_dir() or first_bytes.lstrip()[:1] != b"{":
        return False
    lines = first_bytes.strip().splitlines()
    if len(lines) < 2 and path.suffix.lower() not in (".jsonl", ".ndjson", ".manifest"):
        return False
    try:
        return isinstance(json.loads(lines[0]), dict)
    except (ValueError, RecursionError):
        return False


def _parses(path: Path) -> bool:
    try:
        load(path)
    except LabelsError:
        return False
    return True


def lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of every line.

    Raises:
      LabelsError: a line is no JSON object.
    """
    for number, line in enumerate(open_text(path).lines(), 1):
        if line.strip():
            try:
                item = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise LabelsError(f"{path}, line {number} is no JSON ({error})") from None
            if not isinstance(item, dict):
                raise LabelsError(f"{path}, line {number} is no JSON object")
            yield number, item
