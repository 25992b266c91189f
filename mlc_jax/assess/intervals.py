"""Bootstrap intervals over images: how far a figure would move if other images had been drawn.

A resample is a count per image rather than a list of images, so a ranking figure needs one sort in
all, with the counts as weights, where re-sorting each resample would need a thousand.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mlc_jax.assess.known import known_cells
from mlc_jax.assess.ranks import tie_starts

Statistic = Callable[[np.ndarray], np.ndarray]
"""From weights float64 [R, n], how often each of n images counts in each of R resamples, to R
values, NaN where not defined."""

_BLOCK_WEIGHTS = 1 << 20


class Interval(NamedTuple):
    """A figure and its 95 % interval, in the figure's units; NaN where not defined."""

    value: float
    low: float
    high: float


def bootstrap_interval(
    statistic: Statistic,
    n: int,
    *,
    seed: int,
    resamples: int = 1000,
    groups: np.ndarray | None = None,
) -> Interval:
    """Percentile bootstrap (Efron and Tibshirani, 1993, chapter 13) at 95 %.

    Resamples in which the figure is not defined (none of them drew a rare class) are left out; the
    interval is NaN where that is more than half of them.

    Args:
      statistic: of weights; for a mean of per-image figures f [n] it is
        `lambda weights: weights @ f / weights.sum(axis=1)`.
      n: how many images.
      seed: of the draws; the same seed gives the same draws whatever the statistic, so that the
        difference of two figures can be a statistic as well.
      resamples: how many.
      groups: int [n]; images of equal number are copies and are drawn together. None: no copies.

    Returns:
      the value on all images, and the 2.5 % and 97.5 % quantiles of the resampled ones.
    """
    value = float(statistic(np.ones((1, n)))[0])
    if np.isnan(value):
        return Interval(value, value, value)
    members = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    drawn = int(np.max(members)) + 1
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK_WEIGHTS // n)
    figures = []
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        # n draws with replacement, counted: the multinomial with equal shares, and faster to make.
        picks = rng.integers(drawn, size=(rows, drawn)) + drawn * np.arange(rows)[:, None]
        counts = np.bincount(picks.ravel(), minlength=rows * drawn).reshape(rows, drawn)
        figures.append(statistic(counts[:, members].astype(np.float64)))
    resampled = np.concatenate(figures)
    defined = resampled[~np.isnan(resampled)]
    if 2 * defined.size < resamples:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(defined, [0.025, 0.975])
    return Interval(value, float(low), float(high))


def macro_roc_auc_statistic(labels: np.ndarray, mask: np.ndarray, scores: np.ndarray) -> Statistic:
    """The mean over labels of the ROC AUC over known cells, as a statistic to bootstrap.

    Labels that have one class only, in all or in a resample, are left out of the mean there.

    Args:
      labels: int8 [N, L], 0 or 1 where known; one label's own AUC with L = 1.
      mask: bool [N, L].
      scores: float [N, L], on any scale.

    Raises:
      ValueError, NumericsError: see `known_cells`.
    """
    per_label = [
        _weighted_auc(labels[:, column], mask[:, column], scores[:, column])
        for column in range(labels.shape[1])
    ]

    def statistic(weights: np.ndarray) -> np.ndarray:
        areas = np.full((len(per_label), len(weights)), np.nan)
        for row, area in enumerate(per_label):
            areas[row] = area(weights)
        defined = np.count_nonzero(~np.isnan(areas), axis=0)
        mean = np.full(len(weights), np.nan)
        np.divide(np.nansum(areas, axis=0), defined, out=mean, where=defined > 0)
        return mean

    return statistic


def macro_roc_auc_interval(
    labels: np.ndarray,
    mask: np.ndarray,
    scores: np.ndarray,
    *,
    seed: int,
    resamples: int = 1000,
    groups: np.ndarray | None = None,
) -> Interval:
    """`bootstrap_interval` of `macro_roc_auc_statistic`; arguments as there."""
    statistic = macro_roc_auc_statistic(labels, mask, scores)
    return bootstrap_interval(statistic, len(labels), seed=seed, resamples=resamples, groups=groups)


def _weighted_auc(labels: np.ndarray, mask: np.ndarray, scores: np.ndarray) -> Statistic:
    """The AUC of one label [N] as a function of the images' weights; NaN with one class only."""
    positive, known = known_cells(labels, mask, scores)
    order = np.argsort(known)
    images, positive = np.flatnonzero(mask)[order], positive[order]
    starts = tie_starts(known[order])
    hits, misses = images[positive], images[~positive]
    # The run of equal scores that each cell is in, and the runs' first cells among the negatives.
    run = np.repeat(np.arange(starts.size), np.diff(np.append(starts, images.size)))
    before = np.searchsorted(run[~positive], run[positive], side="left")
    through = np.searchsorted(run[~positive], run[positive], side="right")

    def statistic(weights: np.ndarray) -> np.ndarray:
        below = np.zeros((len(weights), misses.size + 1))
        np.cumsum(weights[:, misses], axis=1, out=below[:, 1:])
        own = weights[:, hits]
        pairs = own.sum(axis=1) * below[:, -1]
        in_order = np.einsum("rk,rk->r", own, below[:, before] + below[:, through]) / 2
        area = np.full(len(weights), np.nan)
        np.divide(in_order, pairs, out=area, where=pairs > 0)
        return area

    return statistic
