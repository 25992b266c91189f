"""The linear classifier of all labels, solved exactly, with one head per fold that judges it.

The classifier's heads are fitted on every row of the train/dev split. For fold k further heads are
fitted without it, at strengths that fold k did not help to choose: they give the out-of-fold logits
from which calibration, thresholds and out-of-fold metrics are made.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mlc_jax.data.folds import Split
from mlc_jax.models.heads import HeadStack
from mlc_jax.models.tuning import Trained
from mlc_jax.training.checkpoint import Checkpoints
from mlc_jax.training.features import Features
from mlc_jax.training.jointfit import JointFit, Teaching, sample
from mlc_jax.training.linear_crossfit import fitted_rows, given_strengths
from mlc_jax.training.linear_heads import (
    LinearFit,
    PathStep,
    Progress,
    empty_heads,
    fit_linear,
    follow_path,
)
from mlc_jax.training.linear_solver import LinearSolver, Targets, class_weights
from mlc_jax.training.parallel import Devices
from mlc_jax.training.step import standardise
from mlc_jax.training.strengths import inner_folds


def linear_joint_fit(
    config: ConfigDict,
    teaching: Teaching,
    held_in: np.ndarray,
    splits: Sequence[Split],
    features: Features,
    devices: Devices,
    checkpoints: Checkpoints | None,
    on_step: Callable[[PathStep], None],
    warn: Callable[[str], None],
) -> JointFit:
    """Fits the classifier and the heads that judge it.

    Args:
      config: the run's configuration.
      teaching: the targets.
      held_in: int64 rows that the classifier is fitted on.
      splits: of these rows, one per fold.
      features: of all images.
      devices: what computes.
      checkpoints: where progress is kept; None for a part of a larger measurement.
      on_step: called with the metrics of each strength that is tried.
      warn: called with what is wrong with damaged checkpoints.
    """
    count, labels = teaching.human.shape
    pooled = features.moments[0]
    solver = LinearSolver(
        pooled,
        devices,
        round(config.features.memory * devices.memory()),
        len(splits) + 1,
        labels,
        features.filenames,
    )
    known = joint_targets(config, teaching)

    def targets_of(rows: np.ndarray) -> Targets:
        if config.oversample != "none":
            copies = np.stack([_copies(config, teaching, own)[0] for own in rows])
            return Targets(known.labels, known.weights * copies[:, :, None], known.context)
        return class_weights(known, rows) if config.loss.name == "weighted_bce" else known

    path, kept = (
        empty_heads(number, labels, pooled.shape[1], 0) for number in (len(splits), len(splits) + 1)
    )
    progress = Progress(checkpoints, path, kept, warn)
    inner = inner_folds(splits, count)
    strengths = given_strengths(config, len(splits), labels) or follow_path(
        solver, targets_of, teaching.human, inner, progress, on_step
    )
    everything = np.zeros((1, count), np.bool_)
    everything[0, held_in] = True
    rows = np.concatenate([fitted_rows(splits, count), everything])
    strength = np.concatenate([strengths.of_split, strengths.final[None]])
    fit = fit_linear(solver, targets_of, rows, strength, progress)

    shifts = np.zeros((len(rows), labels))
    if config.oversample != "none":
        shifts = np.stack([_copies(config, teaching, own)[1] for own in rows])
    # Of images as they are, without their augmented views: what the classifier will be given.
    plain = plain_logits(fit, features.pooled)
    out_of_fold = np.full(teaching.human.shape, np.nan)
    for number, split in enumerate(splits):
        out_of_fold[split.predict] = plain[number, split.predict] - shifts[number]
    params = Trained(_head(fit, -1), {})
    return JointFit(
        params=params,
        last_params=params,
        mean=fit.mean[-1],
        std=fit.std[-1],
        shift=shifts[-1],
        out_of_fold=out_of_fold,
        raw_logits=plain[-1],
        best_epoch=None,
    )


def plain_logits(fit: LinearFit, features: np.ndarray) -> np.ndarray:
    """Logits float64 [S, n, L] of every split's heads for features float [n, C].

    In float32, by the functions that a restored classifier uses: evaluation repeats them.
    """
    channels, labels = fit.heads.kernel.shape[-1], fit.heads.bias.shape[-1]
    apply = jax.jit(HeadStack("linear", (1, 1, channels), labels).apply)
    maps = jnp.asarray(features, jnp.float32)[:, None, None]
    made = []
    for split, (mean, std) in enumerate(zip(fit.mean, fit.std, strict=True)):
        standard = standardise(maps, jnp.asarray(mean), jnp.asarray(std))
        made.append(np.asarray(apply(_head(fit, split), standard), np.float64))
    return np.stack(made)


def _head(fit: LinearFit, split: int) -> dict[str, Any]:
    """The parameters of one split's heads, as `HeadStack` has them."""
    return {"dense": {"kernel": fit.heads.kernel[split].T.copy(), "bias": fit.heads.bias[split]}}


def joint_targets(config: ConfigDict, teaching: Teaching) -> Targets:
    """The targets of a joint fit before anything is balanced."""
    smoothing = config.loss.label_smoothing
    labels = np.maximum(teaching.labels, 0.0) * (1 - smoothing) + smoothing / 2
    weights = np.asarray(teaching.weights, np.float64)
    if config.loss.name == "partial_bce":
        # g(s) of partial BCE (arXiv 1902.09720), scaled to a mean of one over known cells.
        share = (weights > 0).mean(axis=1, keepdims=True)
        scaled = weights * (-4.45 * share + 5.45)
        weights = scaled * weights.sum() / max(float(scaled.sum()), 1e-12)
    return Targets(labels[None], weights[None], np.zeros((1, len(labels), 0)))


def _copies(
    config: ConfigDict, teaching: Teaching, train: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How often oversampling shows each row, float64 [N], and the log odds [L] that this adds."""
    rows = np.flatnonzero(train)
    own = sample(config, rows, teaching.human[rows])
    copies = np.zeros(len(train))
    copies[own.rows] = (own.shown / np.bincount(own.strata))[own.strata]
    return copies, own.log_odds_shift(teaching.human[own.rows])
