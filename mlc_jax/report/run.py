"""A finished run as every report reads it: the files that all stages write."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlc_jax.errors import WorkdirError

REMEDY = "run into another --workdir"


@dataclass(frozen=True, eq=False)
class JudgedCells:
    """Cells of one label whose value people gave and whose image no model of them had seen.

    Attributes:
      observed: bool [K], the values that people gave.
      probabilities: float64 [K].
    """

    observed: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """What every stage leaves in its working directory.

    Attributes:
      workdir: the directory, in which a stage's page finds the stage's other files.
      summary: summary.json.
      epochs: the lines of metrics.jsonl, in order; empty where there is none.
      quarantine: (file name, row, reason) of what was left out.
    """

    workdir: Path
    summary: dict[str, Any]
    epochs: list[dict[str, Any]]
    quarantine: list[tuple[str, str, str]]


def read_run(workdir: Path) -> FinishedRun:
    """Reads a finished run.

    Args:
      workdir: its working directory.

    Raises:
      WorkdirError: the run is not finished, or one of its files is missing or damaged.
    """
    return FinishedRun(
        workdir=workdir,
        summary=_read_summary(workdir / "summary.json"),
        epochs=_read_epochs(workdir / "metrics.jsonl"),
        quarantine=_read_quarantine(workdir / "quarantine.csv"),
    )


def _read_summary(path: Path) -> dict[str, Any]:
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        finished = summary["finished"] and bool(summary["labels"])
    except OSError as error:
        raise WorkdirError(f"{path}: {error.strerror}; finish the run first") from error
    except (ValueError, KeyError, TypeError) as error:
        raise WorkdirError(f"{path} is damaged ({error}); {REMEDY}") from error
    if not finished:
        raise WorkdirError(f"{path}: the run is not finished; run the same command again")
    return summary


def _read_epochs(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise WorkdirError(f"{path} is damaged ({error}); {REMEDY}") from error


def _read_quarantine(path: Path) -> list[tuple[str, str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            records = list(csv.reader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise WorkdirError(f"{path}: {error}; {REMEDY}") from error
    if records[:1] != [["filename", "row", "reason"]] or {len(r) for r in records} != {3}:
        raise WorkdirError(f"{path} is not filename,row,reason; {REMEDY}")
    return [(filename, row, reason) for filename, row, reason in records[1:]]
