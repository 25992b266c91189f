"""Linear heads of all labels and splits: strengths chosen, then fitted; see `linear_solver`.

For each outer split: strengths are chosen by heads that leave out its fold and a neighbour, then a
head is fitted on everything but its fold at the chosen strength. No part of the choice, the fit or
the standardisation sees a value of the fold that judges the head.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from mlc_jax.assess.metrics import roc_auc
from mlc_jax.interrupt import check
from mlc_jax.processes import agreed, requested
from mlc_jax.training.checkpoint import Checkpoints
from mlc_jax.training.linear_solver import LinearSolver, Targets
from mlc_jax.training.logistic import Heads, Problem
from mlc_jax.training.loop import SAVE_SECONDS
from mlc_jax.training.strengths import (
    MOST_STEPS,
    Inner,
    Strengths,
    choose_strengths,
    path_strength,
    rarer_cells,
    validation_losses,
)

PATH_TOLERANCE = 1e-3
"""Of the gradient of the mean loss, where heads only compare strengths. By hand, on 80 labels of
1,000 photographs, it chose the same strengths as 1e-5, in half the iterations."""

TOLERANCE = 1e-6
"""The same for heads that are kept."""


TargetsOf = Callable[[np.ndarray], Targets]


@dataclass(frozen=True)
class PathStep:
    """What one strength of the path showed, per outer split and label, float64 [S, L].

    Attributes:
      step: its number, from 0.
      strength: of the prior.
      train_loss, train_accuracy: of pair heads on their training cells.
      val_loss, val_accuracy, val_auc: on the inner validation folds, observed cells only.
      iterations: of the solver.
    """

    step: int
    strength: float
    train_loss: np.ndarray
    train_accuracy: np.ndarray
    val_loss: np.ndarray
    val_accuracy: np.ndarray
    val_auc: np.ndarray
    iterations: np.ndarray


@dataclass(frozen=True)
class LinearFit:
    """Heads at their chosen strengths.

    Attributes:
      heads: of S splits and L labels; float32.
      mean, std: float32 [S, C], in the units of the features.
      problems: what they were fitted to, on the devices; see `LinearSolver.logits`.
    """

    heads: Heads
    mean: np.ndarray
    std: np.ndarray
    problems: list[Problem]


def follow_path(
    solver: LinearSolver,
    targets_of: TargetsOf,
    values: np.ndarray,
    inner: Inner,
    progress: "Progress",
    on_step: Callable[[PathStep], None],
) -> Strengths:
    """Chooses every head's strength by inner cross-validation; see `strengths`.

    Args:
      solver: of the features.
      targets_of: the targets of splits, from their training rows.
      values: int8 [N, L], observed cells; -1 elsewhere. Nothing else measures a strength.
      inner: the inner validation folds.
      progress: where each step is kept.
      on_step: called with the metrics of each step, before it is kept.
    """
    targets = targets_of(inner.rows)
    problems, usable = solver.place(targets, inner.rows), solver.usable(targets, inner.rows)
    rarer = rarer_cells(values, inner)
    while True:
        if progress.losses:
            strengths, enough = choose_strengths(np.array(progress.losses), rarer)
            if enough or len(progress.losses) == MOST_STEPS:
                break
        step = len(progress.losses)
        strength = np.full(usable.shape, path_strength(step))
        heads, logits, iterations = solver.fit(problems, strength, progress.heads, PATH_TOLERANCE)
        losses = validation_losses(values, logits, inner, usable)
        on_step(_metrics(values, logits, inner, losses, iterations, step))
        progress.add(heads, losses)
    if not enough:
        progress.warn(
            f"{strengths.at_weakest} of {strengths.of_split.size} linear heads were best with the "
            f"weakest prior that is tried, a strength of {path_strength(MOST_STEPS - 1):g}; "
            "a weaker one may suit them better: config.head.strength sets one for all"
        )
    return strengths


def _metrics(
    values: np.ndarray,
    logits: np.ndarray,
    inner: Inner,
    losses: np.ndarray,
    iterations: np.ndarray,
    step: int,
) -> PathStep:
    shape = losses.shape
    cells = np.zeros(shape)
    train, accuracy, auc = np.zeros((2, *shape)), np.zeros(shape), np.full(shape, np.nan)
    for split, measured in enumerate(inner.measured):
        for _, rows in measured:
            cells[split] += (values[rows] >= 0).sum(axis=0)
        own = inner.rows[split]
        train[:, split] = _loss_and_accuracy(values[own], logits[own, split])
        _, rows = measured[0]
        z, observed = logits[rows, split], values[rows]
        _, accuracy[split] = _loss_and_accuracy(observed, z)
        for label in range(shape[1]):
            known = observed[:, label] >= 0
            auc[split, label] = roc_auc(observed[known, label] == 1, z[known, label])
    return PathStep(
        step,
        path_strength(step),
        train[0],
        train[1],
        losses / np.maximum(cells, 1),
        accuracy,
        auc,
        iterations,
    )


def _loss_and_accuracy(values: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over the known cells of each column, float64 [L] each."""
    known, positive, z = values >= 0, values == 1, logits.astype(np.float64)
    count = np.maximum(known.sum(axis=0), 1)
    losses = np.where(known, np.logaddexp(0.0, z) - positive * z, 0.0)
    return losses.sum(axis=0) / count, (known & ((z > 0) == positive)).sum(axis=0) / count


class Progress:
    """The path so far and the heads at its end, kept in checkpoints.

    Args:
      checkpoints: None for a fit that is part of a larger measurement and is repeated whole.
      path: the shapes of the path's heads, from `empty_heads`.
      fitted: those of the heads that are kept.
      warn: called with what is wrong with damaged checkpoints.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | None,
        path: Heads,
        fitted: Heads,
        warn: Callable[[str], None],
    ) -> None:
        self._checkpoints, self._path, self._empty = checkpoints, path, fitted
        self.warn = warn
        self.heads: Heads | None = None
        self.losses: list[np.ndarray] = []
        self.fitted: Heads | None = None
        self._saved = time.monotonic()
        like = {"path": checkpoint_tree(path), "fitted": checkpoint_tree(fitted)}
        restored = None if checkpoints is None else checkpoints.restore_latest(like, warn)
        if restored is not None:
            tree, record, _ = restored
            tree = jax.tree.map(np.asarray, tree)
            self.losses = [np.array(losses) for losses in record["losses"]]
            self.heads = path._replace(**tree["path"]) if self.losses else None
            self.fitted = fitted._replace(**tree["fitted"]) if record["fitted"] else None

    def add(self, heads: Heads, losses: np.ndarray) -> None:
        """Takes in a step of the path; saves it when it is due or a signal asks the run to stop.

        Raises:
          Interrupted: a signal; the step is saved.
        """
        self.heads = heads
        # Of the leader: they choose the strengths, and all processes must choose the same.
        self.losses.append(np.array(agreed(losses.tolist()), np.float64))
        stop = requested()
        if stop or time.monotonic() - self._saved > SAVE_SECONDS:
            self._save(self._empty)
        if stop:
            check()

    def finish(self, fitted: Heads) -> None:
        """Saves the heads that are kept."""
        self.fitted = fitted
        self._save(fitted)

    def _save(self, fitted: Heads) -> None:
        if self._checkpoints is None:
            return
        record = {
            "losses": [own.tolist() for own in self.losses],
            "fitted": self.fitted is not None,
        }
        path = self._path if self.heads is None else self.heads
        number = len(self.losses) + (self.fitted is not None)
        self._checkpoints.save(
            number, {"path": checkpoint_tree(path), "fitted": checkpoint_tree(fitted)}, record
        )
        self._saved = time.monotonic()


def checkpoint_tree(heads: Heads) -> dict[str, np.ndarray]:
    """Heads as a checkpoint keeps them: Orbax refuses arrays without elements."""
    return {name: leaf for name, leaf in heads._asdict().items() if leaf.size}


def empty_heads(splits: int, labels: int, channels: int, columns: int) -> Heads:
    """Heads of zeros."""
    return Heads(
        np.zeros((splits, labels, channels), np.float32),
        np.zeros((splits, labels, columns), np.float32),
        np.zeros((splits, labels), np.float32),
    )


def fit_linear(
    solver: LinearSolver,
    targets_of: TargetsOf,
    rows: np.ndarray,
    strength: np.ndarray,
    progress: Progress,
) -> LinearFit:
    """Fits the heads that are kept, or takes them from a checkpoint.

    Args:
      solver, targets_of: as for `follow_path`.
      rows: bool [S, N], the training rows of each split.
      strength: float64 [S, L].
      progress: where the heads are kept.
    """
    problems = solver.place(targets_of(rows), rows)
    if progress.fitted is None:
        heads, _, _ = solver.fit(problems, strength, None, TOLERANCE)
        short = solver.gradients > 100 * TOLERANCE
        if short.any():
            progress.warn(
                f"{short.sum()} of {short.size} linear heads stopped short of their minimum: the "
                f"gradient of the mean loss is {solver.gradients.max():.0e}, wanted {TOLERANCE:.0e}"
            )
        progress.finish(heads)
    assert progress.fitted is not None
    mean, std = solver.standardisation(rows)
    return LinearFit(progress.fitted, mean.astype(np.float32), std.astype(np.float32), problems)
