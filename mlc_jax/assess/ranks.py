"""Counts of the two classes at each distinct score: one sort from which every ranking figure comes.

Ties need care in each of them (a pair of equal scores is half right in an AUC, and no threshold
can part it), so they are grouped here, once.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ScoreGroups:
    """The distinct scores, ascending, and how many cells of each class have them.

    Attributes:
      scores: float [G].
      positives, negatives: int64 [G].
    """

    scores: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray


def tie_starts(sorted_scores: np.ndarray) -> np.ndarray:
    """int64 [G], where each run of equal values starts in float [K] sorted values."""
    changes = np.ones(sorted_scores.size, bool)
    changes[1:] = sorted_scores[1:] != sorted_scores[:-1]
    return np.flatnonzero(changes)


def group_by_score(labels: np.ndarray, scores: np.ndarray) -> ScoreGroups:
    """Sorts and counts.

    Args:
      labels: bool or 0/1 [K], known cells only.
      scores: float [K], finite.
    """
    order = np.argsort(scores)
    ordered = scores[order]
    starts = tie_starts(ordered)
    below = np.append(0, np.cumsum(labels[order], dtype=np.int64))
    ends = np.append(starts[1:], scores.size)
    positives = below[ends] - below[starts]
    return ScoreGroups(ordered[starts], positives, ends - starts - positives)


def auc_of_groups(groups: ScoreGroups) -> float:
    """Area under the ROC curve: the share of (positive, negative) pairs in order, ties half.

    The Mann-Whitney statistic over P·N (Hanley and McNeil, 1982). NaN with one class only.
    """
    positives, negatives = groups.positives, groups.negatives
    pairs = int(positives.sum()) * int(negatives.sum())
    if not pairs:
        return float("nan")
    doubled = 2 * np.cumsum(negatives) - negatives
    return int(np.dot(positives, doubled)) / (2 * pairs)


def average_precision_of_groups(groups: ScoreGroups) -> float:
    """Σ (R_n − R_{n−1}) P_n over the thresholds, without interpolation, as scikit-learn has it.

    NaN with one class only: with no positive it has no recall, with no negative it is always 1.
    """
    positives, negatives = groups.positives[::-1], groups.negatives[::-1]
    if not positives.sum() or not negatives.sum():
        return float("nan")
    hits = np.cumsum(positives)
    precision = hits / (hits + np.cumsum(negatives))
    return float(np.dot(positives, precision) / hits[-1])
