"""One line per epoch in metrics.jsonl, the same figures as TensorBoard event files beside it."""

import json
import math
import os
from itertools import takewhile
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from mlc_jax.files.atomic import without_nan, write_text
from mlc_jax.processes import leads


class MetricsWriter:
    """Writes the figures of each epoch. No times, so equal runs write equal files.

    Of several processes the leader's alone writes.

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
        if not leads():
            return
        if self._board is None:
            lines = self._path.read_text().splitlines(keepends=True) if epoch else []
            # A run of several rounds skips the epochs that a round had no need of, so a line's
            # number is not its epoch.
            earlier = takewhile(lambda line: _epoch_of(line) < epoch, lines)
            write_text(self._path, "".join(earlier))
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


def _epoch_of(line: str) -> float:
    try:
        return int(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # torn by a kill: it and what follows is written anew


def _flat(prefix: str, figures: dict[str, Any]) -> list[tuple[str, float]]:
    pairs = []
    for key, value in figures.items():
        if isinstance(value, dict):
            pairs += _flat(f"{prefix}{key}/", value)
        elif isinstance(value, int | float) and math.isfinite(value):
            pairs.append((prefix + key, float(value)))
    return pairs
