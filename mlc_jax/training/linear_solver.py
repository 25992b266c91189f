"""Linear heads of all labels and splits, solved exactly on one design matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from mlc_jax.errors import NumericsError
from mlc_jax.training.logistic import PROBLEM_AXES, Design, Heads, Problem, logits_of, solve
from mlc_jax.training.parallel import Devices

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

    def place(self, targets: Targets, rows: np.ndarray) -> list[Problem]:
        """Puts what the heads of some splits are fitted to on the devices, in parts of the labels.

        Args:
          targets: with G = 1 or the number of splits.
          rows: bool [S, N], the training rows of each split.

        Returns:
          Problems, one per part, whose strengths `fit` sets.
        """
        mean, std = self.standardisation(rows)
        usable = self.usable(targets, rows)
        padded_rows = self._padded(rows[:, :, None])[..., 0]
        context = self._padded(targets.context)
        columns = targets.context.shape[-1]
        problems = []
        for part in self._parts:
            own = np.ones((part.size, 0))
            if columns:
                own = 1.0 - np.eye(self._label_count, columns)[part]
            arrays = {
                "targets": self._padded(targets.labels[:, :, part]),
                "weights": self._padded(targets.weights[:, :, part]),
                "rows": padded_rows,
                # A head that saw one class only has no finite minimum.
                "usable": usable[:, part],
                "context": context,
                "own": own,
                "mean": (mean - self._centre) / self._scale,
                "std": std / self._scale,
                "strength": np.ones((len(rows), part.size)),
            }
            placed = {name: self._placed(array, name) for name, array in arrays.items()}
            problems.append(Problem(**placed))
        return problems

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
        problems: list[Problem],
        strength: np.ndarray,
        start: Heads | None,
        tolerance: float,
    ) -> tuple[Heads, np.ndarray, np.ndarray]:
        """Solves the heads of some splits.

        Args:
          problems: from `place`.
          strength: float64 [S, L], positive.
          start, tolerance: see `solve`.

        Returns:
          (heads, logits float32 [N, S, L], iterations int [S, L]).

        Raises:
          NumericsError: a head whose gradient does not reach `LOOSEST`.
        """
        made = []
        self.gradients = np.zeros(strength.shape)
        for part, placed in zip(self._parts, problems, strict=True):
            problem = placed._replace(strength=self._placed(strength[:, part], "strength"))
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

    def logits(self, problems: list[Problem], heads: Heads) -> np.ndarray:
        """Logits of heads for every row, float32 [N, S, L], from the heads alone."""
        made = []
        for part, problem in zip(self._parts, problems, strict=True):
            own = Heads(*(leaf[:, part] for leaf in heads))
            made.append(logits_of(self.design, problem, own))
        return np.concatenate(made, axis=2)

    def usable(self, targets: Targets, rows: np.ndarray) -> np.ndarray:
        """bool [S, L], whether a split's training cells weigh something for both classes."""
        positive = _per_split(rows, targets.weights * targets.labels)
        negative = _per_split(rows, targets.weights * (1 - targets.labels))
        return (positive > 0) & (negative > 0)

    def _placed(self, array: np.ndarray, name: str) -> jax.Array:
        return self.design.place(np.ascontiguousarray(array, np.float32), PROBLEM_AXES[name])

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
