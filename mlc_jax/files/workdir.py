"""A working directory belongs to one run: one process at a time, one set of inputs for ever."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlc_jax.errors import WorkdirError
from mlc_jax.files.atomic import remove_partial, write_json, write_text
from mlc_jax.files.lock import exclusive, shared

RECORD, ROWS, CHANGES = "run.json", "rows.jsonl", "changes.json"
# What a run writes, the record of its inputs last: what is set aside when they have changed. Other
# files in the folder are not ours to move.
RUN_FILES = (
    "summary.json",
    "labels.csv",
    "cells.csv",
    "compare.csv",
    "scores.csv",
    "split.json",
    "held_in.npz",
    "suspects.csv",
    "quarantine.csv",
    "groups.csv",
    "split.csv",
    "thresholds.json",
    "metrics.jsonl",
    "report.html",
    "plots",
    "tensorboard",
    "checkpoints",
    "classifier",
    ROWS,
    RECORD,
)
# Jobs whose results on a run lie in a folder of their name in it.
READERS = ("evaluate", "predict", "explain", "review", "export")
SHOWN = 5

Row = tuple[str, str, str]
"""What decides one row: file name, digest of the image, its labels as text."""


def reading(path: Path) -> contextlib.AbstractContextManager[None]:
    """Keeps jobs that write out of the directory of a finished run, which may be read-only."""
    return shared(path / ".lock")


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
        # Nobody else is here, so what a killed run was writing is of no use to anyone.
        remove_partial(path)
        remove_partial(path / "plots")
        yield path


def claim(
    workdir: Path, inputs: dict[str, Any], rows: Sequence[Row] = (), *, accept: bool = False
) -> dict[str, Any] | None:
    """Ties the directory to a run's inputs; finds out whether that run is finished.

    Args:
      workdir: owned by this process.
      inputs: JSON that decides the result: stage, configuration, digests of data and weights.
      rows: of the data, kept so that a change of one can be named.
      accept: where the directory holds a run with other inputs, set that run aside, in a folder
        beside it, and begin anew. What was learned from other rows is never gone on with: a head
        would be asked about images that it was fitted on. `changes` remembers it.

    Returns:
      The summary of the run where it is finished, else None.

    Raises:
      WorkdirError: the directory holds a run with other inputs; the message says which differ.
    """
    record = workdir / RECORD
    if record.exists():
        before = _read(record)
        if before != inputs:
            difference = _difference(before, inputs, _read_rows(workdir / ROWS), rows)
            if not accept:
                raise WorkdirError(
                    f"{workdir} holds a run with other inputs ({difference}); choose another "
                    "--workdir, or begin anew in it with --config.accept_changes=true"
                )
            _set_aside(workdir, difference)
    if not record.exists():
        write_text(workdir / ROWS, "".join(f"{json.dumps(row)}\n" for row in rows))
        write_json(record, inputs)
    summary = workdir / "summary.json"
    return _read(summary) if summary.exists() else None


def changes(workdir: Path) -> list[str]:
    """For people: every change of inputs that was accepted in this directory, oldest first."""
    file = workdir / CHANGES
    return [
        f"the inputs changed ({change['difference']}); the run before lies in {change['folder']}"
        for change in (_read(file)["changes"] if file.exists() else ())
    ]


def changed_rows(workdir: Path, rows: Sequence[Row]) -> str:
    """For people: the first rows that differ from those of the run in a directory.

    Empty where none does, or the run kept none.
    """
    return "; ".join(_changed_rows(_read_rows(workdir / ROWS), rows))


def _set_aside(workdir: Path, difference: str) -> None:
    """Moves the run in `workdir` into a folder of its own; remembers the change first."""
    file = workdir / CHANGES
    known = _read(file)["changes"] if file.exists() else []
    folder = workdir / f"superseded-{len(known) + 1}"
    write_json(file, {"changes": [*known, {"difference": difference, "folder": folder.name}]})
    folder.mkdir(exist_ok=True)
    # The record goes last, so that a run that is killed in between is refused again.
    about = [name for name in READERS if (workdir / name / "summary.json").exists()]
    for name in (*about, *RUN_FILES):
        if (workdir / name).exists():
            (workdir / name).rename(folder / name)


def _read(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text())
    except ValueError as error:
        raise WorkdirError(f"{file} is damaged; choose another --workdir") from error
    if not isinstance(value, dict):
        raise WorkdirError(f"{file} is damaged; choose another --workdir")
    return value


def _read_rows(file: Path) -> list[Row]:
    # They only explain a refusal; without them it stands all the same.
    try:
        found = [json.loads(line) for line in file.read_text().splitlines()]
        return [(str(name), str(image), str(labels)) for name, image, labels in found]
    except (OSError, ValueError, TypeError):
        return []


def _difference(
    before: dict[str, Any], now: dict[str, Any], old_rows: Sequence[Row], new_rows: Sequence[Row]
) -> str:
    old, new = _flat("", before), _flat("", now)
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    shown = [f"{key}: {_short(old.get(key))} there, {_short(new.get(key))} here" for key in keys]
    return _first(shown) + "".join(f"; {text}" for text in _changed_rows(old_rows, new_rows))


def _changed_rows(old_rows: Sequence[Row], new_rows: Sequence[Row]) -> list[str]:
    """The first few rows that differ, in words."""
    if not old_rows or not new_rows:
        return []
    old, new = (
        {name: (image, labels) for name, image, labels in rows} for rows in (old_rows, new_rows)
    )
    said = [f"{name!r} is not here" for name in old if name not in new]
    said += [f"{name!r} was not there" for name in new if name not in old]
    for name in old.keys() & new.keys():
        (old_image, old_labels), (image, labels) = old[name], new[name]
        if old_labels != labels:
            said.append(f"{name!r} has labels {old_labels} there, {labels} here")
        if old_image != image:
            said.append(f"{name!r} is another image")
    if not said and list(old) != list(new):
        said = ["the rows are in another order"]
    return [_first(sorted(said))] if said else []


def _first(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return "; ".join(texts[:SHOWN]) + more


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
