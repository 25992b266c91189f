"""Figures of one label, over the cells a person gave.

A figure that is not defined is NaN and has a reason beside it, never 0 or 1:

- A label whose human labels are all alike judges nothing, because a constant answer would be
  perfect. All its figures but the counts and the prevalence are NaN.
- A ratio with denominator zero (the precision where nothing is predicted positive) is NaN. This is
  scikit-learn's `zero_division=np.nan`; its default would put 0 and a warning there.
"""

from dataclasses import dataclass

import numpy as np

from mlc_jax.assess.known import known_probabilities, one_class_reason
from mlc_jax.assess.ranks import auc_of_groups, average_precision_of_groups, group_by_score

_EPSILON = float(np.finfo(np.float64).eps)
_JUDGEMENTS = (
    "precision",
    "recall",
    "specificity",
    "accuracy",
    "balanced_accuracy",
    "f1",
    "g_mean",
    "mcc",
    "roc_auc",
    "pr_auc",
    "log_loss",
    "brier",
    "ece",
)


@dataclass(frozen=True)
class BinaryMetrics:
    """Figures of one label.

    Attributes:
      values: name to value; counts are whole numbers as floats; NaN where not defined.
      reasons: for each NaN, why.
    """

    values: dict[str, float]
    reasons: dict[str, str]


@dataclass(frozen=True)
class Reliability:
    """Sums over equal-width bins of probability [b/B, (b+1)/B), the last one closed.

    Attributes:
      count: int64 [B], cells in the bin.
      probability_sum, positive_sum: float64 [B]; their ratio to `count` is the mean prediction and
        the share observed, which a reliability diagram plots against one another.
    """

    count: np.ndarray
    probability_sum: np.ndarray
    positive_sum: np.ndarray


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve by ranks, ties counted half; NaN with one class only.

    Args:
      labels: bool or 0/1 [K], known cells only.
      scores: float [K], finite, on any scale.
    """
    return auc_of_groups(group_by_score(labels, scores))


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the precision-recall steps, as scikit-learn's; NaN with one class only.

    Args:
      labels: bool or 0/1 [K], known cells only.
      scores: float [K], finite, on any scale.
    """
    return average_precision_of_groups(group_by_score(labels, scores))


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of −log of the probability of what was observed, in nats; NaN without cells.

    Args:
      labels: bool or 0/1 [K], known cells only.
      probabilities: float64 [K] in [0, 1], kept off 0 and 1 by 2.2e-16, as scikit-learn does.
    """
    if not labels.size:
        return float("nan")
    inside = np.clip(probabilities, _EPSILON, 1 - _EPSILON)
    return float(-np.mean(np.log(np.where(labels, inside, 1 - inside))))


def reliability(labels: np.ndarray, probabilities: np.ndarray, bins: int = 10) -> Reliability:
    """Sorts known cells into bins of equal width; see `Reliability`.

    Args:
      labels: bool or 0/1 [K], known cells only.
      probabilities: float64 [K] in [0, 1].
      bins: how many.
    """
    bin_of_cell = np.minimum((probabilities * bins).astype(np.intp), bins - 1)
    return Reliability(
        np.bincount(bin_of_cell, minlength=bins),
        np.bincount(bin_of_cell, probabilities, bins),
        np.bincount(bin_of_cell, labels, bins),
    )


def calibration_error(bins: Reliability) -> float:
    """Expected calibration error: Σ_b n_b/n |mean probability − share positive| (Guo et al., 2017).

    Here of the positive class, not of the likelier one. NaN without cells.
    """
    if not bins.count.sum():
        return float("nan")
    gaps = np.abs(bins.probability_sum - bins.positive_sum)
    return float(gaps.sum() / bins.count.sum())


def binary_metrics(
    labels: np.ndarray, mask: np.ndarray, probabilities: np.ndarray, threshold: float | np.ndarray
) -> BinaryMetrics:
    """All figures of one label.

    Args:
      labels: int8 [N], 0 or 1 where known.
      mask: bool [N], True where a person gave the cell.
      probabilities: float [N] in [0, 1].
      threshold: a cell counts as positive where its probability is greater; one for all, or
        float [N] where each fold has its own.

    Returns:
      values under `count` (known cells), `positives`, `prevalence`, `tp`, `fp`, `tn`, `fn`,
      `precision`, `recall` (sensitivity), `specificity`, `accuracy`, `balanced_accuracy` (mean of
      recall and specificity), `f1`, `g_mean` (geometric mean of the two), `mcc` (Matthews),
      `roc_auc`, `pr_auc` (average precision), `log_loss` (nats), `brier` (mean squared error) and
      `ece` (10 bins).

    Raises:
      ValueError: the shapes differ, or a known label is neither 0 nor 1.
      NumericsError: a probability of a known cell is not finite, or outside [0, 1].
    """
    positive, known = known_probabilities(labels, mask, probabilities)
    predicted = known > np.broadcast_to(threshold, mask.shape)[mask]
    count, positives = positive.size, int(np.count_nonzero(positive))
    tp = int(np.count_nonzero(predicted & positive))
    fp = int(np.count_nonzero(predicted)) - tp
    fn = positives - tp
    tn = count - positives - fp
    values = {
        "count": float(count),
        "positives": float(positives),
        "prevalence": ratio(positives, count),
        "tp": float(tp),
        "fp": float(fp),
        "tn": float(tn),
        "fn": float(fn),
    }

    reason = one_class_reason(positive)
    if reason is not None:
        nan = float("nan")
        values |= dict.fromkeys(_JUDGEMENTS, nan)
        return BinaryMetrics(
            values, {name: reason for name, value in values.items() if np.isnan(value)}
        )

    recall, specificity = tp / positives, tn / (count - positives)
    sides = float(tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    groups = group_by_score(positive, known)
    values |= {
        "precision": ratio(tp, tp + fp),
        "recall": recall,
        "specificity": specificity,
        "accuracy": (tp + tn) / count,
        "balanced_accuracy": (recall + specificity) / 2,
        "f1": 2 * tp / (2 * tp + fp + fn),
        "g_mean": float(np.sqrt(recall * specificity)),
        "mcc": ratio(float(tp) * tn - float(fp) * fn, np.sqrt(sides)),
        "roc_auc": auc_of_groups(groups),
        "pr_auc": average_precision_of_groups(groups),
        "log_loss": log_loss(positive, known),
        "brier": float(np.mean((known - positive) ** 2)),
        "ece": calibration_error(reliability(positive, known)),
    }
    constant = f"all {count} known cells are predicted {'positive' if tp + fp else 'negative'}"
    return BinaryMetrics(
        values, {name: constant for name, value in values.items() if np.isnan(value)}
    )


def ratio(numerator: float, denominator: float) -> float:
    """The quotient; NaN where the denominator is zero."""
    return float(numerator / denominator) if denominator else float("nan")
