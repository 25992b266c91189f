"""Self-training: a round fits all heads again with pseudo-labels and context.

In a round each head is fitted anew, on known cells and on blank ones, these by soft labels weighted
by their probability of being right; and the image's other labels stand beside its features: their
observed values, else how probable they are. Both come from heads of the same split, which never saw
the images that the split's heads are judged on.

The probability of a blank cell that stands in a context comes from the first fit, whose heads had
no context. Heads of later rounds had the value of the judged cell in theirs, and would hand it back
through the other labels: a head would be judged on what it was given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlc_jax.assess.calibration import cross_fitted_platt, sigmoid
from mlc_jax.data.folds import Split
from mlc_jax.training.crossfit import Lesson


@dataclass(frozen=True)
class Gain:
    """What a round did to one label's out-of-fold log loss on cells that people gave.

    Attributes:
      mean: the mean fall of the log loss, in nats per cell, paired cell by cell.
      error: its standard error.
      accepted: whether the fall is greater than its standard error.
    """

    mean: float
    error: float
    accepted: bool


def self_taught(
    values: np.ndarray,
    splits: Sequence[Split],
    by_split: np.ndarray,
    without_context: np.ndarray,
) -> Lesson:
    """The lesson of a round.

    What heads are told is centred on each label's share among the split's training rows: 0 is what
    one knows who is told nothing, and telling does the work of no bias.

    Args:
      values: int8 [N, L], cells that people gave; -1 elsewhere.
      splits: the parts the images play.
      by_split: float64 [splits, N, L], corrected logits of the round before; NaN for labels that
        have no model, which teach nothing.
      without_context: the same of the first fit, whose heads had no context.
    """
    known = np.broadcast_to(values >= 0, by_split.shape)
    given = np.broadcast_to(np.maximum(values, 0), by_split.shape).astype(np.float64)
    modelled = np.isfinite(by_split)
    probable = sigmoid(np.nan_to_num(by_split))
    labels = np.where(known, given, np.where(modelled, probable, 0.0))
    right = np.where(modelled, np.maximum(probable, 1 - probable), 0.0)
    shares = training_shares(values, splits)
    told = context_of(values, shares, without_context)
    return Lesson(labels, np.where(known, 1.0, right), told)


def context_of(values: np.ndarray, shares: np.ndarray, without_context: np.ndarray) -> np.ndarray:
    """What stands beside the features of each image: values, else probabilities, centred.

    Args:
      values: int8 [N, L], 0 or 1; -1 where the first fit's probability is to stand.
      shares: float64 [splits, L], of `training_shares`.
      without_context: float64 [splits, N, L], logits of the first fit; NaN without a model.

    Returns:
      float64 [splits, N, L], -2 to 2; 0 where there is neither value nor model.
    """
    known, centre = values >= 0, shares[:, None, :]
    likely = np.where(known, np.maximum(values, 0), sigmoid(np.nan_to_num(without_context)))
    return np.where(known | np.isfinite(without_context), 2 * (likely - centre), 0.0)


def training_shares(values: np.ndarray, splits: Sequence[Split]) -> np.ndarray:
    """Each label's share of positives among the split's training rows, float64 [splits, L]."""
    return np.stack([_shares(values[split.train]) for split in splits])


def _shares(values: np.ndarray) -> np.ndarray:
    """Share of positives among the known cells of each column, float64 [L]; 0.5 without any."""
    known = (values >= 0).sum(axis=0)
    return np.where(known > 0, (values == 1).sum(axis=0) / np.maximum(known, 1), 0.5)


def gains(
    values: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    folds: np.ndarray,
    groups: np.ndarray,
    fitted: list[int],
) -> dict[int, Gain]:
    """Compares the out-of-fold log losses of two rounds, both calibrated on other folds.

    Args:
      values: int8 [N, L], cells that people gave; -1 elsewhere.
      before, after: float64 [N, L], out-of-fold logits.
      folds: int [N].
      groups: int [N], equal for copies of an image, whose cells count as one observation.
      fitted: the labels to compare.
    """
    known = values >= 0
    only = np.zeros_like(known)
    only[:, fitted] = known[:, fitted]
    losses = []
    for logits in (before, after):
        p, _ = cross_fitted_platt(np.nan_to_num(logits), values, only, folds)
        right = np.where(values == 1, p, 1 - p)
        losses.append(-np.log(np.clip(right, 1e-12, 1.0)))
    found = {}
    for label in fitted:
        own = known[:, label]
        fall = (losses[0] - losses[1])[own, label]
        mean, error = clustered_mean(fall, groups[own])
        found[label] = Gain(mean, error, bool(mean > error))
    return found


def clustered_mean(values: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Mean of float64 [K] and its standard error when values of a group (int [K]) go together.

    The cluster-robust error of a mean (Liang and Zeger, 1986) with the correction G / (G - 1).
    """
    mean = float(values.mean())
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], values - mean)
    count = len(sums)
    if count < 2:
        return mean, float("inf")
    error = np.sqrt(np.sum(sums**2) * count / (count - 1)) / len(values)
    return mean, float(error)
