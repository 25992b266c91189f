"""One line per epoch in metrics.jsonl, the same figures as TensorBoard event files beside it."""

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator
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

    What keeps TensorBoard's files from being written is warned of once, and ends nothing.

    Args:
      workdir: holds metrics.jsonl and the folder tensorboard.
      warn: told of it.
    """

    def __init__(self, workdir: Path, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._begun = False
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
        begins, self._begun = not self._begun, True
        if begins:
            lines = self._path.read_text().splitlines(keepends=True) if epoch else []
            # A run of several rounds skips the epochs that a round had no need of, so a line's
            # number is not its epoch.
            earlier = takewhile(lambda line: _epoch_of(line) < epoch, lines)
            write_text(self._path, "".join(earlier))
        line = json.dumps({"epoch": epoch, **without_nan(figures)}, allow_nan=False)
        with self._path.open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())  # before the checkpoint that counts on it
        with self._beside():
            if begins:
                self._board = SummaryWriter(str(self._folder), purge_step=epoch or None)
            if self._board is not None:
                for name, value in _flat("", figures):
                    self._board.add_scalar(name, value, epoch)

    def close(self) -> None:
        """Writes out the event files."""
        if self._board is not None:
            with self._beside():
                self._board.close()

    @contextlib.contextmanager
    def _beside(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # the library's own, whatever the folder led it to
            self._board = None
            self._warn(
                f"{self._folder}: TensorBoard's files cannot be written "
                f"({type(error).__name__}: {error}); metrics.jsonl holds the same figures"
            )


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
