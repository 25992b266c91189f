"""One line per epoch in metrics.jsonl, the same figures as TensorBoard event files beside it."""

import json
import math
import os
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from mlc_jax.files.atomic import without_nan, write_text


class MetricsWriter:
    """Writes the figures of each epoch. No times, so equal runs write equal files.

    Lines of later epochs, left by a run that was stopped after its last checkpoint, are cut off
    when the first epoch of this run is written.

    Args:
      workdir: holds metrics.jsonl and the folder tensorboard.
    """

    def __init__(self, workdir: Path) -> None:
        self._path = workdir / "metrics.jsonl"
        self._folder = workdir / "tensorboard"
        self._board: SummaryWriter | None = None

    def write(self, epoch: int, figures: dict[str, Any]) -> None:
        """Appends one line.

        Args:
          epoch: counted from 0.
          figures: JSON whose leaves are numbers; a NaN is written as null.
        """
        if self._board is None:
            write_text(self._path, _lines_before(self._path, epoch))
            self._board = SummaryWriter(str(self._folder), purge_step=epoch or None)
        line = json.dumps({"epoch": epoch, **without_nan(figures)}, allow_nan=False)
        with self._path.open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())  # before the checkpoint that counts on it
        for name, value in _flat("", figures):
            self._board.add_scalar(name, value, epoch)

    def close(self) -> None:
        """Writes out the event files."""
        if self._board is not None:
            self._board.close()


def _lines_before(path: Path, epoch: int) -> str:
    """The lines of earlier epochs; a course that stops early leaves out some numbers."""
    kept = []
    for line in path.read_text().splitlines(keepends=True) if epoch else []:
        if not line.endswith("\n") or json.loads(line)["epoch"] >= epoch:
            break
        kept.append(line)
    return "".join(kept)


def _flat(prefix: str, figures: dict[str, Any]) -> list[tuple[str, float]]:
    pairs = []
    for key, value in figures.items():
        if isinstance(value, dict):
            pairs += _flat(f"{prefix}{key}/", value)
        elif isinstance(value, int | float) and math.isfinite(value):
            pairs.append((prefix + key, float(value)))
    return pairs
