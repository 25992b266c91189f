"""Figures of all labels together, over the cells a person gave."""

from dataclasses import dataclass

import numpy as np

from mlc_jax.assess.known import known_probabilities
from mlc_jax.assess.metrics import (
    BinaryMetrics,
    Reliability,
    binary_metrics,
    calibration_error,
    ratio,
    reliability,
)
from mlc_jax.assess.rowwise import row_means

_MACRO = {
    "macro_precision": "precision",
    "macro_recall": "recall",
    "macro_f1": "f1",
    "macro_roc_auc": "roc_auc",
    "map": "pr_auc",
}


@dataclass(frozen=True)
class MultilabelMetrics:
    """Figures of all labels together.

    Attributes:
      values: name to value; NaN where not defined.
      reasons: for each NaN, why.
      per_label: the figures of each label, in the order of the columns; those that are NaN here
        are the ones that the macro means leave out.
    """

    values: dict[str, float]
    reasons: dict[str, str]
    per_label: tuple[BinaryMetrics, ...]


def multilabel_metrics(
    labels: np.ndarray, mask: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray
) -> MultilabelMetrics:
    """All figures of a multi-label prediction.

    What the mask means: `macro_*` and `map` are means over labels of figures over the label's known
    cells, labels without a defined figure left out; `micro_*`, `hamming_score` (share of cells that
    are right), `brier` and `ece` pool all known cells; the others are means over images of figures
    over the image's known cells, images without any left out (see `row_means`). Where nothing is
    masked they equal scikit-learn's with `zero_division=np.nan`.

    Args:
      labels: int8 [N, L], 0 or 1 where known.
      mask: bool [N, L], True where a person gave the cell. All False for a label without a model.
      probabilities: float [N, L] in [0, 1].
      thresholds: float [L]; or [N, L] where each fold has its own. Greater is positive.

    Returns:
      values under `count` (known cells), `labels_judged` (labels that have both classes),
      `macro_precision`, `macro_recall`, `macro_f1`, `macro_jaccard`, `macro_roc_auc`, `map`,
      `micro_precision`, `micro_recall`, `micro_f1`, `hamming_score`, `sample_precision`,
      `sample_recall`, `sample_f1`, `sample_jaccard`, `subset_accuracy`, `ranking_loss`,
      `coverage_error`, `lrap`, `brier` and `ece`.

    Raises:
      ValueError: the shapes differ, or a known label is neither 0 nor 1.
      NumericsError: a probability of a known cell is not finite, or outside [0, 1].
    """
    limits = np.broadcast_to(thresholds, mask.shape)
    per_label = []
    squares, bins = 0.0, np.zeros((3, 10))
    for column in range(mask.shape[1]):
        cells = labels[:, column], mask[:, column], probabilities[:, column]
        per_label.append(binary_metrics(*cells, limits[:, column]))
        # Pooled figures take in the labels of one class too, for which those above are NaN.
        positive, known = known_probabilities(*cells)
        squares += float(np.sum((known - positive) ** 2))
        own = reliability(positive, known)
        bins += np.stack([own.count, own.probability_sum, own.positive_sum])

    count = {
        name: sum(int(label.values[name]) for label in per_label)
        for name in ("count", "tp", "fp", "tn", "fn")
    }
    judged = [label for label in per_label if not np.isnan(label.values["recall"])]
    values = {
        "count": float(count["count"]),
        "labels_judged": float(len(judged)),
        **{name: _mean([label.values[key] for label in judged]) for name, key in _MACRO.items()},
        "macro_jaccard": _mean([_jaccard(label.values) for label in judged]),
        "micro_precision": ratio(count["tp"], count["tp"] + count["fp"]),
        "micro_recall": ratio(count["tp"], count["tp"] + count["fn"]),
        "micro_f1": ratio(2 * count["tp"], 2 * count["tp"] + count["fp"] + count["fn"]),
        "hamming_score": ratio(count["tp"] + count["tn"], count["count"]),
        **row_means(labels, mask, probabilities, limits),
        "brier": ratio(squares, count["count"]),
        "ece": calibration_error(Reliability(*bins)),
    }
    undefined = [name for name, value in values.items() if np.isnan(value)]
    return MultilabelMetrics(
        values, {name: _reason(name, count) for name in undefined}, tuple(per_label)
    )


def _mean(figures: list[float]) -> float:
    defined = [figure for figure in figures if not np.isnan(figure)]
    return float(np.mean(defined)) if defined else float("nan")


def _jaccard(values: dict[str, float]) -> float:
    return values["tp"] / (values["tp"] + values["fp"] + values["fn"])


def _reason(name: str, count: dict[str, int]) -> str:
    if not count["count"]:
        return "no human label"
    if name.endswith("recall") and not name.startswith("macro"):
        return "no human label is 1"
    if name.endswith("precision") and not name.startswith("macro"):
        return "no known cell is predicted positive"
    if name.startswith("macro") or name == "map":
        return "no label has both classes among its human labels, or none for which it is defined"
    return "no known cell is positive or predicted so"
