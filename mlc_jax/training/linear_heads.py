"""Linear heads of all labels and splits, fitted exactly on one design matrix.

For each outer split: strengths are chosen by heads that leave out its fold and a neighbour, then a
head is fitted on everything but its fold at the chosen strength. No part of the choice, the fit or
the standardisation sees a value of the fold that judges the head.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from mlc_jax.assess.metrics import roc_auc
from mlc_jax.errors import NumericsError
from mlc_jax.interrupt import check
from mlc_jax.processes import agreed, requested
from mlc_jax.training.checkpoint import Checkpoints
from mlc_jax.training.logistic import PROBLEM_AXES, Design, Heads, Problem, logits_of, solve
from mlc_jax.training.loop import SAVE_SECONDS
from mlc_jax.training.parallel import Devices
from mlc_jax.training.strengths import (
    MOST_STEPS,
    Inner,
    Strengths,
    choose_strengths,
    path_strength,
    rarer_cells,
    validation_losses,
)

PATH_TOLERANCE = 1e-4
"""Of the gradient of the mean loss, where heads only compare strengths."""

TOLERANCE = 1e-6
"""The same for heads that are kept."""

LOOSEST = 1e-2
"""What is accepted, with a warning, of a head that does not reach its tolerance: where a few rows
of many channels are told apart perfectly under a weak prior, float32 makes no headway before."""

_ROWS = 4096  # rows of features that are looked at together on the host
_LOGITS = 1 << 25
"""Logits [N, S, L] that are solved for at once; more labels go in several calls."""


@dataclass(frozen=True)
class Targets:
    """What linear heads are fitted to.

    Attributes:
      labels: float64 [G, N, L] in [0, 1]; G is 1, or the number of splits.
      weights: float64 [G, N, L], 0 where a cell must not enter the loss.
      context: float64 [G, N, K], columns beside the features; K is 0 or L.
    """

    labels: np.ndarray
    weights: np.ndarray
    context: np.ndarray


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
      logits: float64 [S, N, L], of every row.
    """

    heads: Heads
    mean: np.ndarray
    std: np.ndarray
    logits: np.ndarray


class LinearSolver:
    """Fits linear heads on one set of features.

    A set of splits is given by its training rows, bool [S, N].

    Args:
      features: float [N, C], one vector per image.
      devices: what computes.
      limit: bytes that the design matrix may take on the devices.
      splits, labels: how many are fitted together at most.
      filenames: of the rows, for the message when a feature is not finite.

    Attributes:
      gradients: float64 [S, L], of the heads of the latest fit, over the sum of their cell weights.

    Raises:
      NumericsError: a feature is not finite.
    """

    gradients: np.ndarray

    def __init__(
        self,
        features: np.ndarray,
        devices: Devices,
        limit: int,
        splits: int,
        labels: int,
        filenames: Sequence[str],
    ) -> None:
        self._features, self._label_count = features, labels
        for start in range(0, len(features), _ROWS):
            finite = np.isfinite(features[start : start + _ROWS]).all(axis=1)
            if not finite.all():
                raise NumericsError(
                    f"{filenames[start + int(np.argmin(finite))]}: its features are not finite; "
                    "use config.features.dtype=float32 or other weights"
                )
        (self._centre,), (self._scale,) = self.standardisation(
            np.ones((1, len(features)), np.bool_)
        )
        most = max(1, _LOGITS // (len(features) * splits))
        self._parts = np.array_split(np.arange(labels), -(-labels // most))
        width = len(self._parts[0])
        self.design = Design(features, devices, width, limit, self._centre, self._scale)

    def standardisation(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard deviations over each split's training rows, float64 [S, C] each."""
        weights = rows.astype(np.float64)
        total = np.zeros((len(rows), self._features.shape[1]))
        squares = np.zeros_like(total)
        for start in range(0, len(self._features), _ROWS):
            part = self._features[start : start + _ROWS].astype(np.float64)
            own = weights[:, start : start + _ROWS]
            total += own @ part
            squares += own @ np.square(part)
        count = np.maximum(weights.sum(axis=1), 1)[:, None]
        mean, square = total / count, squares / count
        variance = np.maximum(square - mean**2, 0.0)
        constant = variance <= 1e-12 * np.maximum(square, 1e-30)
        return mean, np.where(constant, 1.0, np.sqrt(np.where(constant, 1.0, variance)))

    def fit(
        self,
        targets: Targets,
        rows: np.ndarray,
        strength: np.ndarray,
        start: Heads | None,
        tolerance: float,
    ) -> tuple[Heads, np.ndarray, np.ndarray]:
        """Solves the heads of some splits.

        Args:
          targets: with G = 1 or the number of splits.
          rows: bool [S, N], the training rows of each split.
          strength: float64 [S, L].
          start, tolerance: see `solve`.

        Returns:
          (heads, logits float32 [N, S, L], iterations int [S, L]).

        Raises:
          NumericsError: a head whose gradient does not reach `LOOSEST`.
        """
        made = []
        self.gradients = np.zeros(strength.shape)
        for part in self._parts:
            problem = self._problem(targets, rows, strength, part)
            begin = None if start is None else Heads(*(leaf[:, part] for leaf in start))
            solution = solve(self.design, problem, begin, tolerance)
            worst = max(tolerance, LOOSEST)
            if not (solution.gradient <= worst).all():
                split, label = np.argwhere(~(solution.gradient <= worst))[0]
                raise NumericsError(
                    f"linear head of label {part[label]}, split {split}: after "
                    f"{solution.iterations[split, label]} iterations its gradient is "
                    f"{solution.gradient[split, label]:.1e} of its cells, above {worst:.0e}; "
                    "give a larger config.head.strength"
                )
            self.gradients[:, part] = solution.gradient
            made.append((solution.heads, solution.logits, solution.iterations))
        heads, logits, iterations = zip(*made, strict=True)
        joined = Heads(*(np.concatenate(leaves, axis=1) for leaves in zip(*heads, strict=True)))
        return joined, np.concatenate(logits, axis=2), np.concatenate(iterations, axis=1)

    def logits(self, targets: Targets, rows: np.ndarray, heads: Heads) -> np.ndarray:
        """Logits of heads for every row, float32 [N, S, L], from the heads alone."""
        made = []
        for part in self._parts:
            problem = self._problem(targets, rows, np.ones(heads.bias.shape), part)
            own = Heads(*(leaf[:, part] for leaf in heads))
            made.append(logits_of(self.design, problem, own))
        return np.concatenate(made, axis=2)

    def usable(self, targets: Targets, rows: np.ndarray) -> np.ndarray:
        """bool [S, L], whether a split's training cells weigh something for both classes."""
        positive = _per_split(rows, targets.weights * targets.labels)
        negative = _per_split(rows, targets.weights * (1 - targets.labels))
        return (positive > 0) & (negative > 0)

    def _problem(
        self,
        targets: Targets,
        rows: np.ndarray,
        strength: np.ndarray,
        part: np.ndarray,
    ) -> Problem:
        mean, std = self.standardisation(rows)
        columns = targets.context.shape[-1]
        own = 1.0 - np.eye(self._label_count, columns)[part] if columns else np.ones((part.size, 0))
        arrays = {
            "targets": self._padded(targets.labels[:, :, part]),
            "weights": self._padded(targets.weights[:, :, part]),
            "rows": self._padded(rows[:, :, None])[..., 0],
            # A head that saw one class only has no finite minimum.
            "usable": self.usable(targets, rows)[:, part],
            "context": self._padded(targets.context),
            "own": own,
            "mean": (mean - self._centre) / self._scale,
            "std": std / self._scale,
            "strength": strength[:, part],
        }
        return Problem(
            **{
                name: self.design.place(np.ascontiguousarray(array, np.float32), PROBLEM_AXES[name])
                for name, array in arrays.items()
            }
        )

    def _padded(self, array: np.ndarray) -> np.ndarray:
        """[G, N, X] to [N, G, X], with rows of zeros up to the number that devices divide."""
        rows = np.zeros((self.design.padded, array.shape[0], array.shape[2]), np.float32)
        rows[: array.shape[1]] = array.swapaxes(0, 1)
        return rows


def _per_split(rows: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Sums of cells [G, N, L] over the training rows [S, N] of each split: float64 [S, L]."""
    if len(cells) == 1:
        return rows.astype(np.float64) @ cells[0]
    return np.stack([cells[number][own].sum(axis=0) for number, own in enumerate(rows)])


def balanced_weights(
    targets: Targets, rows: np.ndarray, ratio: float
) -> tuple[Targets, np.ndarray]:
    """Weighs each label's rarer class up until it makes up `ratio` of a split's training cells.

    What oversampling does in expectation (King and Zeng, 2001, equation 7).

    Args:
      targets: hard labels with G = 1.
      rows: bool [S, N], the training rows of each split.
      ratio: in (0, 0.5].

    Returns:
      (targets with G = S, the log odds that this adds to logits, [S, L]).
    """
    positive = _per_split(rows, targets.weights * targets.labels)
    negative = _per_split(rows, targets.weights * (1 - targets.labels))
    rarer, other = np.minimum(positive, negative), np.maximum(positive, negative)
    up = np.maximum(other * ratio / (1 - ratio) / np.maximum(rarer, 1e-12), 1.0)
    up = np.where(rarer > 0, up, 1.0)
    rare = np.where((positive < negative)[:, None], targets.labels, 1 - targets.labels)
    factor = np.where(rare > 0.5, up[:, None], 1.0)
    shift = np.where(positive < negative, np.log(up), -np.log(up))
    return Targets(targets.labels, targets.weights * factor, targets.context), shift


def class_weights(targets: Targets, rows: np.ndarray) -> Targets:
    """Weighs both classes of each label alike, n / (2 · cells of the class), as scikit-learn."""
    positive = _per_split(rows, targets.weights * targets.labels)[:, None]
    negative = _per_split(rows, targets.weights * (1 - targets.labels))[:, None]
    total = positive + negative
    factor = np.where(
        targets.labels > 0.5,
        total / (2 * np.maximum(positive, 1)),
        total / (2 * np.maximum(negative, 1)),
    )
    return Targets(targets.labels, targets.weights * factor, targets.context)


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
    usable = solver.usable(targets, inner.rows)
    rarer = rarer_cells(values, inner)
    while True:
        if progress.losses:
            strengths, enough = choose_strengths(np.array(progress.losses), rarer)
            if enough or len(progress.losses) == MOST_STEPS:
                return strengths
        step = len(progress.losses)
        strength = np.full(usable.shape, path_strength(step))
        heads, logits, iterations = solver.fit(
            targets, inner.rows, strength, progress.heads, PATH_TOLERANCE
        )
        losses = validation_losses(values, logits, inner, usable)
        on_step(_metrics(values, logits, inner, losses, iterations, step))
        progress.add(heads, losses)


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
    targets = targets_of(rows)
    if progress.fitted is None:
        heads, _, _ = solver.fit(targets, rows, strength, None, TOLERANCE)
        short = solver.gradients > 100 * TOLERANCE
        if short.any():
            progress.warn(
                f"{short.sum()} of {short.size} linear heads stopped short of their minimum: the "
                f"gradient of the mean loss is {solver.gradients.max():.0e}, wanted {TOLERANCE:.0e}"
            )
        progress.finish(heads)
    assert progress.fitted is not None
    mean, std = solver.standardisation(rows)
    # From the heads alone, so that a run that restored them has the same bits.
    logits = solver.logits(targets, rows, progress.fitted)
    return LinearFit(
        progress.fitted,
        mean.astype(np.float32),
        std.astype(np.float32),
        logits.swapaxes(0, 1).astype(np.float64),
    )
