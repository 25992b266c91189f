"""Cross-fitting with linear heads that are solved exactly; see `linear_heads`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mlc_jax.data.folds import Split
from mlc_jax.data.sampling import as_they_are
from mlc_jax.models.heads import HeadStack
from mlc_jax.models.tuning import Trained
from mlc_jax.training.checkpoint import Checkpoints
from mlc_jax.training.crossfit import CrossFit, Head, Lesson
from mlc_jax.training.features import Features
from mlc_jax.training.linear_heads import (
    LinearFit,
    PathStep,
    Progress,
    empty_heads,
    fit_linear,
    follow_path,
)
from mlc_jax.training.linear_solver import (
    LinearSolver,
    Targets,
    balanced_weights,
    class_weights,
)
from mlc_jax.training.parallel import Devices
from mlc_jax.training.standards import label_statistics
from mlc_jax.training.step import Frozen
from mlc_jax.training.strengths import MOST_STEPS, Strengths, inner_folds

OnStep = Callable[[PathStep], None]


class LinearCrossFit:
    """The heads of all labels and folds of one table, fitted again in every round.

    Args:
      config: the run's configuration.
      values: int8 [N, L], observed cells; -1 elsewhere.
      labels: the columns to fit.
      assignments: per assignment of the images to folds, its splits, one per fold.
      features: of all images.
      devices: what computes.
    """

    def __init__(
        self,
        config: ConfigDict,
        values: np.ndarray,
        labels: Sequence[int],
        assignments: Sequence[Sequence[Split]],
        features: Features,
        devices: Devices,
    ) -> None:
        self._config, self._values, self._labels = config, values, list(labels)
        self._assignments = assignments
        pooled = features.moments[0]
        self.channels = pooled.shape[1]
        limit = round(config.features.memory * devices.memory())
        most = max(len(splits) for splits in assignments)
        self._solver = LinearSolver(pooled, devices, limit, most, len(labels), features.filenames)
        self.strengths: list[Strengths] = []

    def fit(
        self,
        lesson: Lesson,
        checkpoints_of: Callable[[int], Checkpoints | None],
        on_step: OnStep,
        warn: Callable[[str], None],
    ) -> CrossFit:
        """Fits the heads of a round; the first round chooses the strengths that all keep.

        Args:
          lesson: what the heads are fitted to, of all labels.
          checkpoints_of: the checkpoints of an assignment, by number.
          on_step: called with the metrics of each strength that is tried.
          warn: called with what is wrong with damaged checkpoints.
        """
        made = []
        for number in range(len(self._assignments)):
            checkpoints = checkpoints_of(number)
            try:
                made.append(self._fit_one(number, lesson, checkpoints, on_step, warn))
            finally:
                if checkpoints is not None:
                    checkpoints.close()
        return self._joined(lesson, made)

    def _fit_one(
        self,
        number: int,
        lesson: Lesson,
        checkpoints: Checkpoints | None,
        on_step: OnStep,
        warn: Callable[[str], None],
    ) -> tuple[LinearFit, np.ndarray]:
        """One assignment's heads, and the log odds [folds, L] that balancing added to them."""
        splits, solver = self._assignments[number], self._solver
        first = sum(len(own) for own in self._assignments[:number])
        targets = self._targets(lesson, slice(first, first + len(splits)))
        empty = empty_heads(
            len(splits), len(self._labels), self.channels, targets.context.shape[-1]
        )
        progress = Progress(checkpoints, empty, empty, warn)
        rows = fitted_rows(splits, len(self._values))
        ratio, shift = self._config.oversample_ratio, np.zeros((len(splits), len(self._labels)))
        balanced = self._config.oversample == "label" and not targets.context.shape[-1]
        if balanced:
            shift = balanced_weights(targets, rows, ratio)[1]

        def targets_of(rows: np.ndarray) -> Targets:
            if self._config.loss.name == "weighted_bce":
                return class_weights(targets, rows)
            return balanced_weights(targets, rows, ratio)[0] if balanced else targets

        if len(self.strengths) == number:
            self.strengths.append(
                given_strengths(self._config, len(splits), len(self._labels))
                or follow_path(
                    solver,
                    targets_of,
                    self._values[:, self._labels],
                    inner_folds(splits, len(self._values)),
                    progress,
                    # Steps of further assignments are numbered behind those of the first.
                    lambda step: on_step(replace(step, step=number * MOST_STEPS + step.step)),
                )
            )
        return fit_linear(
            solver, targets_of, rows, self.strengths[number].of_split, progress
        ), shift

    def _targets(self, lesson: Lesson, own: slice) -> Targets:
        def part(array: np.ndarray) -> np.ndarray:
            return (array[own] if len(array) > 1 else array)[:, :, self._labels]

        smoothing = self._config.loss.label_smoothing
        labels = part(lesson.labels) * (1 - smoothing) + smoothing / 2
        context = lesson.context
        if context.shape[-1]:
            # Standardised features have the norm sqrt(C); with the same, a few columns of context
            # are not penalised more than all features together.
            context = part(context) * math.sqrt(self.channels)
        return Targets(labels, part(lesson.weights), context)

    def _logits(self, fit: LinearFit) -> np.ndarray:
        """Of every row, float64 [S, N, L]; the same bits where the heads were restored."""
        logits = self._solver.logits(fit.problems, fit.heads)
        return logits.swapaxes(0, 1).astype(np.float64)

    def _joined(self, lesson: Lesson, made: list[tuple[LinearFit, np.ndarray]]) -> CrossFit:
        """The heads of all assignments as one cross-fit, all splits of a label side by side."""
        splits = [split for own in self._assignments for split in own]
        by_split = np.full((len(splits), *self._values.shape), np.nan)
        by_split[:, :, self._labels] = np.concatenate(
            [self._logits(fit) - shift[:, None] for fit, shift in made]
        )
        total, times = np.zeros(self._values.shape), np.zeros((len(self._values), 1))
        for number, split in enumerate(splits):
            total[split.predict] += by_split[number, split.predict]
            times[split.predict] += 1
        kernel, context, bias = (
            np.concatenate(leaves).swapaxes(0, 1).reshape(len(self._labels) * len(splits), -1, 1)
            for leaves in (
                [fit.heads.kernel for fit, _ in made],
                [fit.heads.context for fit, _ in made],
                [fit.heads.bias[..., None] for fit, _ in made],
            )
        )
        heads = tuple(
            Head(
                label,
                number,
                split,
                as_they_are(np.concatenate([split.train, split.stop])),
                np.zeros(0, np.int64),
            )
            for label in self._labels
            for number, split in enumerate(splits)
        )
        params: dict[str, Any] = {"dense": {"kernel": kernel, "bias": bias[:, 0]}}
        if context.shape[1]:
            params["context"] = context
        mean, std = (
            np.tile(np.concatenate(parts), (len(self._labels), 1))
            for parts in ([fit.mean for fit, _ in made], [fit.std for fit, _ in made])
        )
        statistics = label_statistics(
            self._values,
            [head.rows.rows for head in heads],
            np.array([[head.label] for head in heads]),
        )
        return CrossFit(
            total / times,
            by_split,
            None,
            heads,
            HeadStack("linear", (1, 1, self.channels), 1, context.shape[1]),
            Trained(params, {}),
            Frozen(jnp.asarray(mean), jnp.asarray(std), statistics, {}),
            self.strengths[0].final,
        )


def given_strengths(config: ConfigDict, splits: int, labels: int) -> Strengths | None:
    """`config.head.strength` for every head, or None where it is to be chosen."""
    strength = float(config.head.strength)
    if not strength:
        return None
    return Strengths(np.full((splits, labels), strength), np.full(labels, strength), 0)


def fitted_rows(splits: Sequence[Split], count: int) -> np.ndarray:
    """The rows that each split's heads may be fitted on, bool [S, count].

    Heads that are solved exactly need no stop rows, so these are fitted on too.
    """
    rows = np.zeros((len(splits), count), np.bool_)
    for number, split in enumerate(splits):
        rows[number, split.train] = rows[number, split.stop] = True
    return rows


def path_metrics(step: PathStep, labels: Sequence[int], names: Sequence[str]) -> dict[str, Any]:
    """One strength's metrics per label, means over the outer folds: a line of metrics.jsonl.

    Args:
      step: of the path.
      labels: the columns that were fitted.
      names: of all columns.
    """
    means = {
        "train_loss": step.train_loss.mean(axis=0),
        "train_accuracy": step.train_accuracy.mean(axis=0),
        "stop_loss": step.val_loss.mean(axis=0),
        "stop_accuracy": step.val_accuracy.mean(axis=0),
        "stop_auc": _mean_over_folds(step.val_auc),
        "iterations": step.iterations.max(axis=0),
    }
    return {
        "strength": step.strength,
        "labels": {
            names[label]: {name: float(own[place]) for name, own in means.items()}
            for place, label in enumerate(labels)
        },
    }


def _mean_over_folds(auc: np.ndarray) -> np.ndarray:
    defined = np.isfinite(auc)
    total = np.where(defined, auc, 0.0).sum(axis=0)
    return np.where(defined.any(axis=0), total / np.maximum(defined.sum(axis=0), 1), np.nan)
