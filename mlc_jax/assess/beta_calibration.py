"""Calibration that may bend: Platt's map, or the beta map where it is better on folds it never saw.

With s = sigmoid(logit) the beta map (Kull, Silva Filho and Flach, AISTATS 2017) is
p = sigmoid(a · log s − b · log(1 − s) + c) with a, b ≥ 0. Platt's is the case a = b, which is right
for scores that are normal in each class; where they are skewed, it is off at both ends. Which map a
fold's cells get is chosen by the log loss on the other folds, each predicted by maps that were
fitted without it and without the fold: no cell chooses the map that it is judged by.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mlc_jax.assess.calibration import (
    FEW,
    PlattMaps,
    apply_platt,
    cross_fitted_platt,
    sigmoid,
)

_STEPS = 50
_RIDGE = 1e-9  # keeps a feature that is constant, or left out, at zero
_TOLERANCE = 1e-7


@dataclass(frozen=True)
class Calibration:
    """The maps of a cross-fit.

    Attributes:
      platt: Platt's maps, of all labels.
      beta: float64 [F, L, 3], (a, b, c) of the beta map for the cells of each fold; NaN where
        Platt's is used.
    """

    platt: PlattMaps
    beta: np.ndarray

    def by_fold(self, logits: np.ndarray, label: int) -> np.ndarray:
        """float64 [F, N], what each fold's map makes of the logits float64 [N] of one label."""
        slopes, intercepts = self.platt.slopes[:, label], self.platt.intercepts[:, label]
        plain = apply_platt(logits, slopes[:, None], intercepts[:, None])
        bent = apply_beta(logits, self.beta[:, label].T[:, :, None])
        return np.where(np.isnan(bent), plain, bent)

    def apply(self, logits: np.ndarray, folds: np.ndarray) -> np.ndarray:
        """Probabilities float64 [N, L] of logits [N, L], each row by the maps of its fold [N]."""
        fold, rows = np.searchsorted(self.platt.folds, folds), np.arange(len(logits))
        columns = range(logits.shape[1])
        return np.stack([self.by_fold(logits[:, c], c)[fold, rows] for c in columns], axis=1)


ALIKE = 3.0
"""A label whose logits spread more than this many times as far in one fold as in another keeps
Platt's map, whose slope has a prior."""


def apply_beta(logits: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Probabilities of logits under maps (a, b, c), of shapes that broadcast with the logits."""
    log_s, minus_log_rest = -np.logaddexp(0.0, -logits), np.logaddexp(0.0, logits)
    return sigmoid(beta[0] * log_s + beta[1] * minus_log_rest + beta[2])


def cross_fitted_calibration(
    logits: np.ndarray, labels: np.ndarray, mask: np.ndarray, folds: np.ndarray
) -> tuple[np.ndarray, Calibration]:
    """Probabilities of all cells, none of which helped to choose or to fit its own map.

    Labels with fewer than `FEW` cells in their rarer class outside of some two folds keep Platt's
    map, since a bend from a handful of positives is noise; and so do all with fewer than three
    folds, and labels whose logits are not alike in scale, see `ALIKE`.

    Args:
      logits: float [N, L], out-of-fold; finite at least where known.
      labels: int8 [N, L], 0 or 1 where known.
      mask: bool [N, L], True where a person gave the cell.
      folds: int [N]; at least 2.

    Returns:
      (probabilities float64 [N, L], maps); see `cross_fitted_platt`.

    Raises:
      ValueError, NumericsError: see `cross_fitted_platt`.
    """
    probabilities, platt = cross_fitted_platt(logits, labels, mask, folds)
    count = platt.folds.size
    beta = np.full((count, labels.shape[1], 3), np.nan)
    fold = np.searchsorted(platt.folds, folds)
    ones, zeros = mask & (labels == 1), mask & (labels == 0)
    enough = np.ones(labels.shape[1], np.bool_)
    for pair in combinations(range(count), 2):
        others = ~np.isin(fold, pair)
        rarer = np.minimum(ones[others].sum(axis=0), zeros[others].sum(axis=0))
        enough &= rarer >= FEW
    # Logits of very different scales in different folds come of priors of different strength: a
    # bend that suits the small ones makes the large ones extreme.
    finite = np.nan_to_num(logits)
    spread = np.stack([finite[fold == number].std(axis=0) for number in range(count)])
    enough &= spread.max(axis=0) <= ALIKE * spread.min(axis=0)
    enough[list(platt.reasons)] = False
    columns = np.flatnonzero(enough)
    if not columns.size:
        return probabilities, Calibration(platt, beta)

    values, known = np.nan_to_num(logits[:, columns]), mask[:, columns]
    hits = ones[:, columns].astype(np.float64)
    gain = np.zeros((count, columns.size))  # of the beta map over Platt's, nats on other folds
    for first, second in combinations(range(count), 2):
        others = known & ~np.isin(fold, (first, second))[:, None]
        plain, bent = _fit(values, hits, others, bent=False), _fit(values, hits, others, bent=True)
        for chooser, judged in ((first, second), (second, first)):
            own = known & (fold == judged)[:, None]
            gain[chooser] += _losses(values, hits, own, plain) - _losses(values, hits, own, bent)
    for number in range(count):
        better = gain[number] > 0
        if better.any():
            own, chosen = fold == number, columns[better]
            maps = _fit(values[:, better], hits[:, better], known[:, better] & ~own[:, None], True)
            beta[number, chosen] = maps.T
            probabilities[np.ix_(own, chosen)] = apply_beta(values[own][:, better], maps[:, None])
    return probabilities, Calibration(platt, beta)


def _losses(
    logits: np.ndarray, hits: np.ndarray, known: np.ndarray, maps: np.ndarray
) -> np.ndarray:
    """float64 [L], summed log loss over the known cells, in nats."""
    p = np.clip(apply_beta(logits, maps[:, None]), 1e-15, 1 - 1e-15)
    return np.where(known, -np.log(np.where(hits == 1, p, 1 - p)), 0.0).sum(axis=0)


def _fit(logits: np.ndarray, hits: np.ndarray, known: np.ndarray, bent: bool) -> np.ndarray:
    """(a, b, c) float64 [3, L] of every label at once, on Platt's smoothed targets."""
    positives, count = (hits * known).sum(axis=0), known.sum(axis=0)
    targets = np.where(hits == 1, (positives + 1) / (positives + 2), 1 / (count - positives + 2))
    log_s, minus_log_rest = -np.logaddexp(0.0, -logits), np.logaddexp(0.0, logits)
    if not bent:
        slope, intercept = _newton(np.stack([logits]), targets, known)
        return np.stack([slope, slope, intercept])
    features = np.stack([log_s, minus_log_rest])
    used = np.ones((2, 1, logits.shape[1]))
    maps = _newton(features, targets, known)
    for _ in range(2):  # a negative part is left out, and the other fitted again
        if not (maps[:2] < 0).any():
            break
        used[maps[:2, None] < 0] = 0.0
        maps = _newton(features * used, targets, known)
        maps[:2] *= used[:, 0]
    return maps


def _newton(features: np.ndarray, targets: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Logistic regressions of all labels by Newton's method with step halving.

    Args:
      features: float64 [P, N, L].
      targets: float64 [N, L] in [0, 1].
      known: bool [N, L], the cells that are fitted.

    Returns:
      float64 [P + 1, L], P ≥ 0 slopes for P ≤ 1 (clipped at zero), and the intercept.
    """
    count = known.sum(axis=0)
    centre = (features * known).sum(axis=1) / count
    scale = np.sqrt((((features - centre[:, None]) * known) ** 2).sum(axis=1) / count)
    scale = np.where(scale > 1e-12, scale, 1.0)
    standard = (features - centre[:, None]) / scale[:, None] * known
    design = np.concatenate([standard, known[None].astype(np.float64)])
    mean = (targets * known).sum(axis=0) / count
    found = np.zeros((len(design), count.size))
    found[-1] = np.log(mean) - np.log1p(-mean)

    def loss(at: np.ndarray) -> np.ndarray:
        z = np.einsum("pnl,pl->nl", design, at)
        cells = np.logaddexp(0.0, z) - targets * z
        return (cells * known).sum(axis=0) + _RIDGE * count * (at[:-1] ** 2).sum(axis=0)

    value = loss(found)
    for _ in range(_STEPS):
        p = sigmoid(np.einsum("pnl,pl->nl", design, found))
        gradient = np.einsum("pnl,nl->pl", design, p - targets)
        gradient[:-1] += 2 * _RIDGE * count * found[:-1]
        if np.abs(gradient).max() <= _TOLERANCE * count.max():
            break
        curvature = np.einsum("pnl,qnl,nl->lpq", design, design, p * (1 - p), optimize=True)
        curvature += 2 * _RIDGE * count[:, None, None] * np.eye(len(design))
        step = np.linalg.solve(curvature, gradient.T[:, :, None])[:, :, 0].T
        length = np.ones(count.size)
        for _ in range(30):
            nearer = loss(found - length * step)
            worse = nearer > value + 1e-12 * count
            if not worse.any():
                break
            length[worse] /= 2
        length[worse] = 0.0
        if not length.any():
            break
        found = found - length * step
        value = loss(found)
    slopes = found[:-1] / scale
    if len(slopes) == 1:
        slopes = np.maximum(slopes, 0.0)
        flat = slopes[0] == 0
        found[-1] = np.where(flat, np.log(mean) - np.log1p(-mean), found[-1])
    return np.concatenate([slopes, (found[-1] - (slopes * centre).sum(axis=0))[None]])
