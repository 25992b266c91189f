"""A working directory belongs to one run: one process at a time, one set of inputs for ever."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlc_jax.errors import WorkdirError
from mlc_jax.files.atomic import write_json
from mlc_jax.files.lock import exclusive


@contextlib.contextmanager
def owned(path: Path) -> Iterator[Path]:
    """Makes the directory, and keeps other runs out of it for the length of the block.

    Raises:
      WorkdirError: it cannot be made or written, or another process uses it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkdirError(f"--workdir={path}: {error.strerror}; choose another") from error
    with exclusive(path / ".lock"):
        yield path


def claim(workdir: Path, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """Ties the directory to a run's inputs; finds out whether that run is finished.

    Args:
      workdir: owned by this process.
      inputs: JSON that decides the result: stage, configuration, digests of data and weights.

    Returns:
      The summary of the run where it is finished, else None.

    Raises:
      WorkdirError: the directory holds a run with other inputs; the message says which differ.
    """
    record = workdir / "run.json"
    if record.exists():
        before = _read(record)
        if before != inputs:
            raise WorkdirError(
                f"{workdir} holds a run with other inputs ({_difference(before, inputs)}); choose "
                "another --workdir, or remove that one"
            )
    else:
        write_json(record, inputs)
    summary = workdir / "summary.json"
    return _read(summary) if summary.exists() else None


def _read(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text())
    except ValueError as error:
        raise WorkdirError(f"{file} is damaged; choose another --workdir") from error
    if not isinstance(value, dict):
        raise WorkdirError(f"{file} is damaged; choose another --workdir")
    return value


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    old, new = _flat("", before), _flat("", now)
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    shown = [f"{key}: {_short(old.get(key))} there, {_short(new.get(key))} here" for key in keys]
    return "; ".join(shown[:5]) + (f"; and {len(shown) - 5} more" if len(shown) > 5 else "")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 24 else f"{text[:12]}…"


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        key: leaf
        for name, item in value.items()
        for key, leaf in _flat(f"{prefix}.{name}" if prefix else name, item).items()
    }
