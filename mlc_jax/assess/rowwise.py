"""Sums over images of what is measured image by image, over the known cells of each.

Images without a known cell are left out. Rows are taken in blocks, so that memory stays flat
however many there are.
"""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

_BLOCK_CELLS = 1 << 19


def row_means(
    labels: np.ndarray, mask: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray
) -> dict[str, float]:
    """Means over images.

    With tp, fp, fn counted over an image's known cells, `sample_precision`, `sample_recall`,
    `sample_f1` and `sample_jaccard` = tp/(tp+fp+fn) leave out images where the denominator is zero
    (scikit-learn's `zero_division=np.nan`); `subset_accuracy` is the share of images whose known
    cells are all right. `ranking_loss`, `coverage_error` and `lrap` are those of Tsoumakas, Katakis
    and Vlahavas (Mining multi-label data, 2010), with scikit-learn's handling of ties (a label
    ranks below all that share its score) and of images with one class only: their ranking loss is
    0, their `lrap` 1, their coverage 0 without positives.

    Args:
      labels: int8 [N, L], 0 or 1 where known.
      mask: bool [N, L].
      probabilities: float [N, L], finite where known.
      thresholds: float, of a shape that broadcasts to [N, L].

    Returns:
      the means; NaN where no image counts.
    """
    sums: defaultdict[str, float] = defaultdict(float)
    counts: defaultdict[str, int] = defaultdict(int)
    limits = np.broadcast_to(thresholds, mask.shape)
    for rows in _blocks(*mask.shape):
        known, scores = mask[rows], probabilities[rows]
        relevant = known & (labels[rows] == 1)
        counted = known.any(axis=1)
        figures = _ranking(relevant, known, scores)
        figures |= _overlap(relevant, known & (scores > limits[rows]))
        for name, figure in figures.items():
            defined = counted & ~np.isnan(figure)
            sums[name] += float(figure[defined].sum())
            counts[name] += int(np.count_nonzero(defined))
    return {name: sums[name] / counts[name] if counts[name] else float("nan") for name in sums}


def _blocks(rows: int, labels: int) -> Iterator[slice]:
    step = max(1, _BLOCK_CELLS // max(labels, 1))
    # One block even without rows, so that every figure has its name.
    return (slice(start, start + step) for start in range(0, max(rows, 1), step))


def _overlap(relevant: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Counts of known cells that are positive, predicted so, or both, and ratios of them [rows]."""
    both = np.count_nonzero(relevant & predicted, axis=1)
    truth = np.count_nonzero(relevant, axis=1)
    guess = np.count_nonzero(predicted, axis=1)
    either = truth + guess - both
    with np.errstate(invalid="ignore"):
        return {
            "sample_precision": both / guess,
            "sample_recall": both / truth,
            "sample_f1": 2 * both / (truth + guess),
            "sample_jaccard": both / either,
            "subset_accuracy": (both == either).astype(np.float64),
        }


def _ranking(relevant: np.ndarray, known: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
    """Ranking loss, coverage and ranking precision of each row [rows]."""
    labels = known.shape[1]
    # Unknown cells sort behind all known ones, so they are counted by no rank that is looked at.
    # The values to sort are negated scores, whose order is the descending one.
    keys = np.where(known, -scores, np.inf)
    order = np.argsort(keys, axis=1)
    keys = np.take_along_axis(keys, order, axis=1)
    hits = np.take_along_axis(relevant, order, axis=1)

    # The last place of each run of equal scores is the rank, ties included, of all in the run.
    last = np.full(keys.shape, labels - 1, np.int64)
    np.copyto(last[:, :-1], np.arange(labels - 1), where=keys[:, :-1] != keys[:, 1:])
    last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]

    row, place = np.nonzero(hits)
    rank = last[row, place] + 1
    at_or_above = np.cumsum(hits, axis=1, dtype=np.int32)[row, rank - 1]
    rows = len(known)
    truth = np.count_nonzero(relevant, axis=1)
    false = np.count_nonzero(known, axis=1) - truth
    mixed = (truth > 0) & (false > 0)
    wrong = np.bincount(row, rank - at_or_above, minlength=rows)
    precision = np.bincount(row, at_or_above / rank, minlength=rows)
    # Positives come in descending order within a row, so the row's last one ranks lowest.
    coverage = np.zeros(rows)
    coverage[row] = rank
    return {
        "ranking_loss": np.where(mixed, wrong / np.maximum(truth * false, 1), 0.0),
        "coverage_error": coverage,
        "lrap": np.where(mixed, precision / np.maximum(truth, 1), 1.0),
    }
