"""Is blankness itself predictable? If so, cells are not missing at random, and what known cells say
about a model need not hold for blank ones.

A ridge regression of the blank cells on the images' features, fitted on other folds, gives scores
that are judged as a label's are. In closed form it costs one factorisation a fold for all labels.
"""

from dataclasses import dataclass

import numpy as np

from mlc_jax.assess.intervals import Interval, bootstrap_interval, macro_roc_auc_statistic
from mlc_jax.assess.learnability import LEVEL, holm, permutation_p

_RIDGE = 1.0
FEWEST = 10
"""With fewer blank (or known) cells than this there is nothing to test."""


@dataclass(frozen=True)
class Blankness:
    """What the images tell about which cells of one label are blank.

    Attributes:
      auc: out-of-fold ROC AUC of predicting that a cell is blank, with a 95 % interval over images;
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
    features: np.ndarray,
    blank: np.ndarray,
    folds: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int,
) -> list[Blankness]:
    """Tests every label.

    Args:
      features: float [N, C], one vector per image; labels have no part in them.
      blank: bool [N, L], cells that nobody gave.
      folds: int [N]; each fold is scored by a fit on the others.
      groups: int [N], equal for copies of an image, which are resampled together.
      seed: of permutations and resamples.
    """
    counts = blank.sum(axis=0)
    tested = (np.minimum(counts, len(blank) - counts) >= FEWEST).tolist()
    scores = ridge_scores(features, blank.astype(np.float64), folds)
    everything = np.ones(len(blank), np.bool_)
    p_values = np.full(blank.shape[1], np.nan)
    for label in np.flatnonzero(tested).tolist():
        own = blank[:, label].astype(np.int8)
        _, p_values[label], _, _ = permutation_p(
            own, everything, scores[:, label], folds, seed=seed + label
        )
    adjusted = holm(p_values)
    found = []
    for label, is_tested in enumerate(tested):
        if not is_tested:
            nan = float("nan")
            few = f"{counts[label]} of {len(blank)} cells are blank: nothing to test"
            found.append(Blankness(Interval(nan, nan, nan), nan, False, few))
            continue
        column = blank[:, label : label + 1].astype(np.int8)
        area = bootstrap_interval(
            macro_roc_auc_statistic(column, everything[:, None], scores[:, label : label + 1]),
            len(blank),
            seed=seed,
            groups=groups,
        )
        p = float(adjusted[label])
        told = f"AUC {area.value:.2f} ({area.low:.2f} to {area.high:.2f}), p {p:.2g} after Holm"
        found.append(Blankness(area, p, p < LEVEL, told))
    return found


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
