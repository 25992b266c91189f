"""Is blankness itself predictable? If so, cells are not missing at random, and what known cells say
about a model need not hold for blank ones.

A ridge regression of the blank cells on the images' features, fitted on other folds, gives scores
that are judged as a label's are. In closed form it costs one factorisation a fold for all labels.
"""

from dataclasses import dataclass

import numpy as np

from mlc_jax.assess.calibration import cross_fitted_platt
from mlc_jax.assess.intervals import NOT_DEFINED, Interval, macro_roc_auc_interval
from mlc_jax.assess.learnability import LEVEL, holm, permutation_p

_RIDGE = 1.0
FEWEST = 10
"""With fewer blank (or known) cells than this there is nothing to test."""


@dataclass(frozen=True)
class Blankness:
    """What the images tell about which cells of one label are blank.

    Attributes:
      auc: out-of-fold ROC AUC of predicting that a cell is blank, with a 95 % interval over groups;
        NaN where it was not tested.
      p_holm: by `permutation_p`, Holm-adjusted over labels.
      predictable: whether p is below `LEVEL`.
      reason: for people.
    """

    auc: Interval
    p_holm: float
    predictable: bool
    reason: str


def judge_blankness(
    scores: np.ndarray,
    blank: np.ndarray,
    folds: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int,
) -> list[Blankness]:
    """Tests every label.

    Args:
      scores: float64 [N, L], by `ridge_scores` of the blank cells.
      blank: bool [N, L], cells that nobody gave.
      folds: int [N]; each fold is scored by a fit on the others.
      groups: int [N], equal for copies of an image, which go together.
      seed: of permutations.
    """
    counts = blank.sum(axis=0)
    tested = (np.minimum(counts, len(blank) - counts) >= FEWEST).tolist()
    everything = np.ones(len(blank), np.bool_)
    p_values = np.full(blank.shape[1], np.nan)
    for label in np.flatnonzero(tested).tolist():
        own = blank[:, label].astype(np.int8)
        _, p_values[label], _, _ = permutation_p(
            own, everything, scores[:, label], folds, groups, seed=seed + label
        )
    adjusted = holm(p_values)
    found = []
    for label, is_tested in enumerate(tested):
        if not is_tested:
            nan = float("nan")
            few = f"{counts[label]} of {len(blank)} cells are blank: nothing to test"
            found.append(Blankness(NOT_DEFINED, nan, False, few))
            continue
        column = blank[:, label : label + 1].astype(np.int8)
        column_scores = scores[:, label : label + 1]
        area = macro_roc_auc_interval(column, everything[:, None], column_scores, folds, groups)
        p = float(adjusted[label])
        told = f"AUC {area.value:.2f} ({area.low:.2f} to {area.high:.2f}), p {p:.2g} after Holm"
        found.append(Blankness(area, p, p < LEVEL, told))
    return found


def known_chances(scores: np.ndarray, blank: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """The chance that a cell is known, float64 [N, L], from its image and out of fold.

    Args:
      scores, blank, folds: see `judge_blankness`. Where too few cells are blank or known for a
        test, the chance is their share.
    """
    counts = blank.sum(axis=0)
    tested = np.minimum(counts, len(blank) - counts) >= FEWEST
    chances = np.broadcast_to(1 - counts / len(blank), blank.shape).copy()
    everything = np.broadcast_to(tested, blank.shape)
    # The scores are no log odds, so their slope has no likeliest value.
    calibrated, maps = cross_fitted_platt(
        scores, blank.astype(np.int8), everything.copy(), folds, slope_prior=0.0
    )
    fitted = [label for label in np.flatnonzero(tested).tolist() if label not in maps.reasons]
    chances[:, fitted] = 1 - calibrated[:, fitted]
    return chances


def ridge_scores(features: np.ndarray, targets: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Out-of-fold ridge regression (Hoerl and Kennard, 1970), all targets at once.

    Features are standardised on the fitted folds, and the penalty is `_RIDGE` times the number of
    fitted rows, which is strong: what this must not do is to overfit.

    Args:
      features: float [N, C].
      targets: float64 [N, T].
      folds: int [N].

    Returns:
      float64 [N, T]; each row by a fit on the other folds.
    """
    scores = np.empty(targets.shape)
    for fold in np.unique(folds):
        own = folds == fold
        fitted, asked = features[~own].astype(np.float64), features[own].astype(np.float64)
        mean, spread = fitted.mean(axis=0), fitted.std(axis=0)
        spread[spread <= 1e-12 * (1 + np.abs(mean))] = 1.0
        fitted, asked = (fitted - mean) / spread, (asked - mean) / spread
        level = targets[~own].mean(axis=0)
        penalty = _RIDGE * len(fitted)
        if len(fitted) < fitted.shape[1]:
            gram = fitted @ fitted.T + penalty * np.eye(len(fitted))
            weights = fitted.T @ np.linalg.solve(gram, targets[~own] - level)
        else:
            gram = fitted.T @ fitted + penalty * np.eye(fitted.shape[1])
            weights = np.linalg.solve(gram, fitted.T @ (targets[~own] - level))
        scores[own] = asked @ weights + level
    return scores
