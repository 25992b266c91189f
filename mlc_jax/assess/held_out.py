"""Judging a classifier on a test split: figures, intervals, and whether they beat chance."""

from dataclasses import dataclass

import numpy as np

from mlc_jax.assess.intervals import Interval, macro_roc_auc_interval
from mlc_jax.assess.learnability import LEVEL, holm, permutation_p
from mlc_jax.assess.multilabel import MultilabelMetrics, multilabel_metrics

_RESAMPLED_CELLS = 2_000_000


@dataclass(frozen=True)
class TestFigures:
    """What a classifier is worth on images it never saw.

    Attributes:
      metrics: of all labels together and of each.
      intervals: 95 % intervals over groups of the figures of all labels together; by
        `macro_roc_auc_interval` of the macro ROC AUC, by the bootstrap of the others.
      p_values: float64 [L], of each AUC by `permutation_p`, Holm-adjusted; NaN without a test.
      verdict: for people, whether the ranking is better than chance.
    """

    metrics: MultilabelMetrics
    intervals: dict[str, Interval]
    p_values: np.ndarray
    verdict: str


def judge_test(
    labels: np.ndarray,
    mask: np.ndarray,
    probabilities: np.ndarray,
    thresholds: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int,
) -> TestFigures:
    """Measures a classifier on a test split.

    Args:
      labels: int8 [N, L], 0 or 1 where known.
      mask: bool [N, L], cells that a person gave, of labels that have a model.
      probabilities: float64 [N, L].
      thresholds: float64 [L].
      groups: int [N], equal for copies of an image, which are resampled together.
      seed: of resamples and permutations.
    """
    metrics = multilabel_metrics(labels, mask, probabilities, thresholds)
    one_fold = np.zeros(len(labels), np.int64)
    p_values = holm(
        np.array(
            [
                permutation_p(
                    labels[:, column],
                    mask[:, column],
                    probabilities[:, column],
                    one_fold,
                    groups,
                    seed=seed + column,
                )[1]
                for column in range(labels.shape[1])
            ]
        )
    )
    intervals = _intervals(labels, mask, probabilities, thresholds, groups, metrics, seed)
    area = macro_roc_auc_interval(labels, mask, probabilities, one_fold, groups)
    intervals["macro_roc_auc"] = area
    better = int((p_values < LEVEL).sum())
    told = f"macro AUC {area.value:.3f} (95 % interval {area.low:.3f} to {area.high:.3f})"
    tested = int((~np.isnan(p_values)).sum())
    if better:
        verdict = f"test {told}: {better} of {tested} labels are ranked better than chance"
    else:
        verdict = f"test {told} is no better than chance"
    return TestFigures(metrics, intervals, p_values, verdict)


def _intervals(
    labels: np.ndarray,
    mask: np.ndarray,
    probabilities: np.ndarray,
    thresholds: np.ndarray,
    groups: np.ndarray,
    metrics: MultilabelMetrics,
    seed: int,
) -> dict[str, Interval]:
    """Percentile intervals of all figures at once; fewer resamples where the split is large."""
    resamples = int(np.clip(_RESAMPLED_CELLS // labels.size, 100, 1000))
    rng = np.random.default_rng([seed, 0xB007])
    numbers, members = np.unique(groups, return_inverse=True)
    by_group = np.split(np.argsort(members, kind="stable"), np.cumsum(np.bincount(members))[:-1])
    drawn: dict[str, list[float]] = {name: [] for name in metrics.values}
    for _ in range(resamples):
        picked = rng.integers(numbers.size, size=numbers.size)
        rows = np.concatenate([by_group[group] for group in picked])
        again = multilabel_metrics(labels[rows], mask[rows], probabilities[rows], thresholds)
        for name, value in again.values.items():
            drawn[name].append(value)
    intervals = {}
    for name, value in metrics.values.items():
        defined = np.array(drawn[name])[~np.isnan(drawn[name])]
        low, high = (float("nan"), float("nan"))
        if not np.isnan(value) and 2 * defined.size >= resamples:
            low, high = np.quantile(defined, [0.025, 0.975]).tolist()
        intervals[name] = Interval(value, low, high)
    return intervals
