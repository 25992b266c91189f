"""From probabilities to decisions. A cell is positive where its probability is above the threshold.

Thresholds lie half-way between neighbouring values, so that a probability that was rounded on its
way through a file still falls on the same side.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from mlc_jax.assess.known import known_probabilities, one_class_reason
from mlc_jax.assess.ranks import group_by_score

Rule = Literal["fixed", "matched", "f1", "g_mean", "youden", "recall", "cost"]


def matched_threshold(probabilities: np.ndarray, target_positive_share: float) -> float:
    """The threshold whose share of positives is nearest to a target (prevalence matching).

    Values that are equal fall on the same side, so under ties the share may miss the target; it
    is the nearest that can be had, the smaller of two equally near. It may be 0 or 1.

    Args:
      probabilities: float [K] in [0, 1], at least one: of the cells that are to be decided.
      target_positive_share: in [0, 1], such as the mean of calibrated probabilities.

    Raises:
      ValueError: no probabilities, or a target outside [0, 1].
    """
    if not probabilities.size or not 0 <= target_positive_share <= 1:
        raise ValueError(f"{probabilities.size} values, target share {target_positive_share}")
    distinct, counts = np.unique(probabilities.astype(np.float64), return_counts=True)
    above = np.append(0, np.cumsum(counts[::-1]))
    distance = np.abs(above - target_positive_share * probabilities.size)
    return float(_cuts(distinct)[np.argmin(distance)])


def choose_threshold(
    rule: Rule,
    labels: np.ndarray,
    mask: np.ndarray,
    probabilities: np.ndarray,
    *,
    min_recall: float = 0.9,
    cost_ratio: float = 1.0,
) -> float:
    """One label's threshold, from its known cells. Of equally good ones, the highest.

    The rules:
      fixed: 0.5.
      matched: as many positives as a person gave (`matched_threshold`).
      f1: the highest F1, after a running mean over about sqrt(cuts) / 2 neighbouring cuts; the bare
        maximum is one cell's luck where positives are few (Lipton, Elkan and Narayanaswamy, 2014).
      g_mean: the highest recall · specificity.
      youden: the highest recall + specificity − 1 (Youden, 1950).
      recall: the highest specificity among those with recall at least `min_recall`.
      cost: r / (1 + r), r the cost of a false positive in false negatives (Elkan, 2001, equation
        2), which is the cheapest where probabilities are calibrated.

    Args:
      rule: see above.
      labels: int8 [N], 0 or 1 where known.
      mask: bool [N].
      probabilities: float [N] in [0, 1]; out-of-fold, or the choice flatters itself.
      min_recall: for `recall`, in [0, 1].
      cost_ratio: for `cost`, r > 0.

    Returns:
      the threshold; NaN where the rule looks at labels and they have one class only.

    Raises:
      ValueError: the shapes differ, or a known label is neither 0 nor 1.
      NumericsError: a probability of a known cell is not finite, or outside [0, 1].
    """
    if rule == "fixed":
        return 0.5
    if rule == "cost":
        return cost_ratio / (1 + cost_ratio)
    positive, known = known_probabilities(labels, mask, probabilities)
    if one_class_reason(positive) is not None:
        return float("nan")
    if rule == "matched":
        return matched_threshold(known, float(positive.mean()))

    # From no positives to nothing but positives: one entry per cut, as `_cuts` has them.
    groups = group_by_score(positive, known)
    tp = np.append(0, np.cumsum(groups.positives[::-1]))
    fp = np.append(0, np.cumsum(groups.negatives[::-1]))
    recall, specificity = tp / tp[-1], 1 - fp / fp[-1]
    score = {
        "f1": lambda: _running_mean(2 * tp / (tp + fp + tp[-1])),
        "g_mean": lambda: recall * specificity,
        "youden": lambda: recall + specificity,
        "recall": lambda: np.where(recall >= min_recall, specificity, -1.0),
    }[rule]()
    return float(_cuts(groups.scores)[np.argmax(score)])


def fold_thresholds(
    choose: Callable[[np.ndarray, np.ndarray, np.ndarray], float],
    labels: np.ndarray,
    mask: np.ndarray,
    probabilities: np.ndarray,
    folds: np.ndarray,
) -> np.ndarray:
    """The threshold for each fold, chosen on the cells of all other folds.

    Args:
      choose: from (labels, mask, probabilities) to a threshold, such as
        `functools.partial(choose_threshold, "f1")`.
      labels, mask: [N], one label's.
      probabilities: float [N], or [F, N] with the ones to choose by for each fold: those that the
        fold's own labels did not help to calibrate.
      folds: int [N].

    Returns:
      float64 [F], in ascending order of the folds' numbers.
    """
    numbers = np.unique(folds)
    by_fold = np.broadcast_to(probabilities, (numbers.size, folds.size))
    return np.array(
        [
            choose(labels[others], mask[others], own[others])
            for own, others in zip(by_fold, (folds != fold for fold in numbers), strict=True)
        ]
    )


def spread_over_folds(thresholds: np.ndarray) -> tuple[float, float]:
    """(lowest, highest) of `fold_thresholds`, those that are NaN left out; NaN where all are.

    How far a threshold moves when a fold of the data is taken away says how much to trust it.
    """
    defined = thresholds[~np.isnan(thresholds)]
    if not defined.size:
        return float("nan"), float("nan")
    return float(defined.min()), float(defined.max())


def _cuts(distinct: np.ndarray) -> np.ndarray:
    """Thresholds [G+1] that part ascending distinct values [G], from none above to all above."""
    below_all = distinct[0] / 2 if distinct[0] > 0 else -0.5
    between = (distinct[:-1] + distinct[1:]) / 2
    # Half-way between neighbouring floats rounds to one of them; the upper one would not be above.
    between = np.where(between < distinct[1:], between, distinct[:-1])
    return np.concatenate([[(distinct[-1] + 1) / 2], between[::-1], [below_all]])


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the neighbours within sqrt(G) / 4 of G on each side, fewer at the ends.

    Of fewer than 16 values each stands for itself: where scores are few there is nothing to smooth.
    """
    reach = int(values.size**0.5 / 4)
    sums = np.append(0.0, np.cumsum(values))
    places = np.arange(values.size)
    first = np.maximum(places - reach, 0)
    last = np.minimum(places + reach + 1, values.size)
    return (sums[last] - sums[first]) / (last - first)
