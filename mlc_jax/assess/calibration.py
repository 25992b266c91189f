"""From scores to probabilities: Platt's map per label, fitted on cells that a person gave.

p = sigmoid(slope · logit + intercept), slope ≥ 0: a map may flatten a ranking but never turn it
round. It is fitted to Platt's smoothed targets, which keep it finite where a score parts the
classes perfectly (Platt, 1999), by Newton's method with step halving (Lin, Lin and Weng, 2007).
"""

from dataclasses import dataclass

import numpy as np

from mlc_jax.assess.known import known_cells, one_class_reason

SLOPE_PRIOR = 1.0
"""The precision of the Gaussian prior on a slope, whose mean is 1: logits that were fitted by
likelihood are nearly calibrated. A few hundred cells outweigh it. Where logits show nothing, and
those of one fold are a hundred times larger than those of the others, it keeps their noise from
becoming a slope that makes the one fold's probabilities extreme."""

FEW = 30
"""A label with fewer cells than this in its rarer class borrows its slope from all labels."""

_STEPS = 100
_TOLERANCE = 1e-10


@dataclass(frozen=True)
class PlattMaps:
    """The maps of a cross-fit.

    Attributes:
      folds: int [F], ascending; row f maps the cells of fold `folds[f]` and was fitted on the rest.
      slopes, intercepts: float64 [F, L]; NaN for a label in `reasons`.
      shared: bool [F, L], where the slope is the one that all labels have in common.
      reasons: column to why that label has no map and NaN probabilities.
    """

    folds: np.ndarray
    slopes: np.ndarray
    intercepts: np.ndarray
    shared: np.ndarray
    reasons: dict[int, str]


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(−logits)) in float64, without overflow."""
    logits = np.asarray(logits, np.float64)
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, small) / (1.0 + small)


def apply_platt(logits: np.ndarray, slopes: np.ndarray, intercepts: np.ndarray) -> np.ndarray:
    """Probabilities float64 [N, L] of logits [N, L] under maps [L] (or one per row, [N, L])."""
    return sigmoid(slopes * logits + intercepts)


def fit_platt_per_label(
    logits: np.ndarray,
    labels: np.ndarray,
    mask: np.ndarray,
    slope_prior: float = SLOPE_PRIOR,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every label's map; labels with few positives or few negatives share a slope.

    A slope from a handful of positives is mostly noise, so such a label takes the slope that fits
    all labels jointly, each with an intercept of its own.

    Args:
      logits: float [N, L].
      labels: int8 [N, L], 0 or 1 where known.
      mask: bool [N, L].
      slope_prior: see `SLOPE_PRIOR`; 0 for plain maximum likelihood.

    Returns:
      (slopes, intercepts, shared): float64 [L], float64 [L], bool [L]. NaN for a label without a
      known cell.

    Raises:
      ValueError, NumericsError: see `known_cells`.
    """
    columns = labels.shape[1]
    cells = []
    for column in range(columns):
        positive, known = known_cells(labels[:, column], mask[:, column], logits[:, column])
        cells.append((known, positive))
    shared = np.array(
        [min(np.sum(positive), np.sum(~positive)) < FEW for _, positive in cells], bool
    )
    slopes, intercepts = np.full(columns, np.nan), np.full(columns, np.nan)
    if shared.any():
        slope, intercepts = _fit_common_slope(cells, slope_prior)
        slopes[~np.isnan(intercepts)] = slope
    for column in np.flatnonzero(~shared).tolist():
        slopes[column], (intercepts[column],) = _fit_common_slope([cells[column]], slope_prior)
    return slopes, intercepts, shared


def cross_fitted_platt(
    logits: np.ndarray,
    labels: np.ndarray,
    mask: np.ndarray,
    folds: np.ndarray,
    slope_prior: float = SLOPE_PRIOR,
) -> tuple[np.ndarray, PlattMaps]:
    """Probabilities of all cells, none of which helped to calibrate itself.

    Args:
      logits: float [N, L], out-of-fold; finite at least where known.
      labels: int8 [N, L], 0 or 1 where known.
      mask: bool [N, L], True where a person gave the cell.
      folds: int [N]. The cells of a fold, known or not, are mapped by what the known cells of all
        other folds fitted. At least 2 folds.
      slope_prior: see `SLOPE_PRIOR`; 0 for plain maximum likelihood.

    Returns:
      (probabilities float64 [N, L], maps). A label with one class only, or with all
      its known cells in one fold, has NaN and a reason.

    Raises:
      ValueError: fewer than 2 folds, or see `known_cells`.
      NumericsError: see `known_cells`.
    """
    numbers, fold_of_image = np.unique(folds, return_inverse=True)
    if numbers.size < 2:
        raise ValueError("cross-fitting needs at least 2 folds")
    columns = labels.shape[1]
    reasons = {}
    for column in range(columns):
        known = mask[:, column]
        reason = one_class_reason(labels[known, column] == 1)
        if reason is None and np.unique(folds[known]).size < 2:
            reason = f"all {np.count_nonzero(known)} human labels are in one fold"
        if reason is not None:
            reasons[column] = reason
    usable = mask.copy()
    usable[:, list(reasons)] = False

    slopes, intercepts = np.empty((2, numbers.size, columns))
    shared = np.empty((numbers.size, columns), bool)
    probabilities = np.empty(logits.shape)
    for fold in range(numbers.size):
        own = fold_of_image == fold
        slopes[fold], intercepts[fold], shared[fold] = fit_platt_per_label(
            logits[~own], labels[~own], usable[~own], slope_prior
        )
        probabilities[own] = apply_platt(logits[own], slopes[fold], intercepts[fold])
    return probabilities, PlattMaps(numbers, slopes, intercepts, shared, reasons)


def _smoothed_targets(positive: np.ndarray) -> np.ndarray:
    """(P+1)/(P+2) for positives, 1/(N+2) for negatives (Platt, 1999)."""
    count = int(np.sum(positive))
    return np.where(positive, (count + 1) / (count + 2), 1 / (positive.size - count + 2))


def _fit_common_slope(
    cells: list[tuple[np.ndarray, np.ndarray]], slope_prior: float
) -> tuple[float, np.ndarray]:
    """Minimises the cross-entropy of all labels over one slope ≥ 0 and an intercept for each.

    Newton's matrix has the slope's row, the intercepts' diagonal and nothing else, so a step costs
    one pass over the cells however many labels there are. The problem is convex: where the best
    slope is negative, the constrained best is slope 0 with each label's mean target.

    Args:
      cells: for each label (logits float64 [K], positive bool [K]), known cells only.
      slope_prior: the precision of the slope's prior, of mean 1.

    Returns:
      (slope, intercepts float64 [labels]), NaN intercept for a label without cells and NaN slope
      where no label has any.
    """
    intercepts = np.full(len(cells), np.nan)
    fitted = [number for number, (logits, _) in enumerate(cells) if logits.size]
    if not fitted:
        return float("nan"), intercepts
    targets = [_smoothed_targets(cells[number][1]) for number in fitted]
    shares = np.array([target.mean() for target in targets])
    flat = np.log(shares) - np.log1p(-shares)

    # Centred per label and scaled in common, so that tolerances mean the same on any logit scale.
    centres = np.array([cells[number][0].mean() for number in fitted])
    centred = [cells[number][0] - centre for number, centre in zip(fitted, centres, strict=True)]
    total = sum(logits.size for logits in centred)
    scale = np.sqrt(sum(float(np.dot(logits, logits)) for logits in centred) / total)
    slope, offsets = 0.0, flat
    if scale > 1e-12 * (1 + np.abs(centres).max()):
        scaled = [logits / scale for logits in centred]
        slope, offsets = _newton(scaled, targets, flat, float(scale), slope_prior)
        slope /= scale
    if slope <= 0:
        slope, offsets = 0.0, flat
    intercepts[fitted] = offsets - slope * centres
    return slope, intercepts


def _newton(
    logits: list[np.ndarray],
    targets: list[np.ndarray],
    start: np.ndarray,
    likeliest: float,
    precision: float,
) -> tuple[float, np.ndarray]:
    """Newton's method with step halving from slope 0; returns (slope, intercepts [labels]).

    Args:
      logits, targets: of each label's cells.
      start: float64 [labels], the first intercepts.
      likeliest: the slope at which its prior is largest.
      precision: of the prior, for a slope in units of `likeliest`.
    """
    slope, intercepts = 0.0, start

    def objective(slope: float, intercepts: np.ndarray) -> float:
        prior = precision * (slope / likeliest - 1) ** 2 / 2
        return _cross_entropy(logits, targets, slope, intercepts) + prior

    loss = objective(slope, intercepts)
    total = sum(values.size for values in logits)
    for _ in range(_STEPS):
        gradient = np.zeros((len(logits), 2))
        curvature = np.zeros((len(logits), 3))
        for number, (values, target) in enumerate(zip(logits, targets, strict=True)):
            p = sigmoid(slope * values + intercepts[number])
            weight = p * (1 - p)
            weighted = weight * values
            gradient[number] = np.dot(p - target, values), np.sum(p - target)
            curvature[number] = np.dot(weighted, values), np.sum(weighted), np.sum(weight)
        of_slope = gradient[:, 0].sum() + precision * (slope / likeliest - 1) / likeliest
        if np.abs(gradient[:, 1]).max() + abs(of_slope) < _TOLERANCE * total:
            break
        cross, own = curvature[:, 1], curvature[:, 2] + 1e-12
        schur = np.sum(curvature[:, 0] - cross**2 / own) + precision / likeliest**2 + 1e-12
        step = (of_slope - np.sum(cross * gradient[:, 1] / own)) / schur
        steps = (gradient[:, 1] - cross * step) / own
        descent = step * of_slope + float(np.dot(steps, gradient[:, 1]))
        length = 1.0
        while length > 1e-10:
            nearer = slope - length * step, intercepts - length * steps
            value = objective(*nearer)
            # Close to the minimum the gain drowns in rounding; a full step is right there.
            if value <= loss - 1e-4 * length * descent + 1e-13 * total:
                slope, intercepts = nearer
                loss = value
                break
            length /= 2
        else:
            break
    return slope, intercepts


def _cross_entropy(
    logits: list[np.ndarray], targets: list[np.ndarray], slope: float, intercepts: np.ndarray
) -> float:
    """−Σ t log p + (1−t) log(1−p), without overflow."""
    loss = 0.0
    for values, target, intercept in zip(logits, targets, intercepts, strict=True):
        z = slope * values + intercept
        loss += float(np.sum(np.logaddexp(0.0, z) - target * z))
    return loss
