"""Tables of labels: every figure, or a dash with the reason why there is none."""

from collections.abc import Callable, Mapping
from typing import Any

from mlc_jax.report import numbers
from mlc_jax.report.parts import Cell, Column, Facts, Folded, Table, Tile

_COUNTS = ("count", "labels_judged", "positives", "tp", "fp", "tn", "fn")
_SHARES = ("prevalence",)

METRICS = {
    "count": Column("Known", "cells that people gave"),
    "positives": Column("Ones", "known cells that are 1"),
    "prevalence": Column("Prevalence", "share of known cells that are 1"),
    "tp": Column("TP", "ones predicted 1, at the threshold"),
    "fp": Column("FP", "zeros predicted 1"),
    "tn": Column("TN", "zeros predicted 0"),
    "fn": Column("FN", "ones predicted 0"),
    "precision": Column("Precision", "TP / (TP + FP)"),
    "recall": Column("Recall", "TP / (TP + FN), also called sensitivity"),
    "specificity": Column("Specificity", "TN / (TN + FP)"),
    "accuracy": Column("Accuracy", "(TP + TN) / known"),
    "balanced_accuracy": Column("Balanced acc.", "mean of recall and specificity"),
    "f1": Column("F1", "harmonic mean of precision and recall"),
    "g_mean": Column("G-mean", "geometric mean of recall and specificity"),
    "mcc": Column("MCC", "Matthews correlation: 1 perfect, 0 chance"),
    "roc_auc": Column("ROC AUC", "chance that a one ranks above a zero: 1 perfect, 0.5 chance"),
    "pr_auc": Column("PR AUC", "average precision: 1 perfect, the prevalence is chance"),
    "log_loss": Column("Log loss", "mean of −log of the probability of what was observed, in nats"),
    "brier": Column("Brier", "mean squared error of the probabilities"),
    "ece": Column("ECE", "expected calibration error in 10 bins"),
}
WHOLE = {
    "macro_roc_auc": Column("Macro ROC AUC", "mean over labels: 1 perfect, 0.5 chance"),
    "map": Column("mAP", "mean of the labels' average precision (PR AUC)"),
    "micro_f1": Column("Micro F1", "of all cells pooled; frequent labels weigh more"),
    "macro_f1": Column("Macro F1", "mean over labels; rare labels weigh as much as frequent ones"),
    "hamming_score": Column("Hamming score", "share of cells that are right"),
    "subset_accuracy": Column("Subset accuracy", "share of images right in all known cells"),
    "lrap": Column("LRAP", "label ranking average precision: are an image's labels ranked first?"),
    "count": Column("Cells", "test cells that people gave, of labels with a model"),
    "labels_judged": Column("Labels judged", "labels with both classes among their test cells"),
    "micro_precision": Column("Micro precision", "of all cells predicted 1, the share that are"),
    "micro_recall": Column("Micro recall", "of all ones, the share predicted 1"),
    "macro_precision": Column("Macro precision", "mean over labels"),
    "macro_recall": Column("Macro recall", "mean over labels"),
    "macro_jaccard": Column("Macro Jaccard", "mean over labels of TP / (TP + FP + FN)"),
    "sample_precision": Column("Sample precision", "mean over images"),
    "sample_recall": Column("Sample recall", "mean over images"),
    "sample_f1": Column("Sample F1", "mean over images"),
    "sample_jaccard": Column("Sample Jaccard", "mean over images"),
    "ranking_loss": Column("Ranking loss", "share of an image's label pairs in the wrong order"),
    "coverage_error": Column("Coverage error", "how far down an image's ranking its labels reach"),
    "brier": Column("Brier", "mean squared error of the probabilities"),
    "ece": Column("ECE", "expected calibration error in 10 bins"),
}
_MAIN = 7  # of those, that are shown at once
P_VALUE = Column(
    "p", "how often, at most, labels dealt at random would rank as well; adjusted for all labels"
)
THRESHOLD = Column("Threshold", "1 is said above it; below, its spread over folds")


def cell(value: float | None, show: Callable[[float], str], why_not: str, detail: str = "") -> Cell:
    """A figure, or a dash with the reason.

    Args:
      value: the figure; None where it is not defined.
      show: how it is written.
      why_not: the reason where there is none.
      detail: a second line below the figure.
    """
    if value is None:
        return Cell(numbers.DASH, note=why_not)
    return Cell(show(value), detail=detail)


def reason(label: Mapping[str, Any], name: str) -> str:
    """Why a label has no figure of that name: its own reason, else the verdict on the label."""
    return str(label.get("undefined", {}).get(name) or label["verdict"])


def metric_cell(label: Mapping[str, Any], name: str) -> Cell:
    """One of `METRICS`, as summary.json has it under labels.NAME; none without a model."""
    show: Callable[[float], str] = numbers.figure
    if name in _COUNTS:
        show = numbers.count
    elif name in _SHARES:
        show = numbers.percent
    return cell(label.get("metrics", {}).get(name), show, reason(label, name))


def verdict_cell(label: Mapping[str, Any]) -> Cell:
    """Whether a label can be learned, and why."""
    if label["learnable"]:
        return Cell("", badge="learnable", tone="good", detail=label["verdict"])
    if label["fitted"]:
        return Cell("", badge="not learnable", tone="bad", detail=label["verdict"])
    return Cell("", badge="not fitted", detail=label["verdict"])


def threshold_cell(label: Mapping[str, Any]) -> Cell:
    """A label's threshold, and below it the spread over folds; both may be null."""
    low, high = label.get("threshold_spread") or (None, None)
    return cell(
        label.get("threshold"),
        numbers.figure,
        reason(label, "threshold"),
        numbers.span(low, high) if low is not None and high is not None else "",
    )


def log_loss_cell(label: Mapping[str, Any], loss: float | None) -> Cell:
    """A log loss, and below it the one of knowing nothing but the prevalence."""
    prior = label.get("prior_log_loss")
    return cell(
        loss,
        numbers.figure,
        reason(label, "log_loss"),
        f"prior {numbers.figure(prior)}" if prior is not None else "",
    )


def metrics_table(labels: Mapping[str, Mapping[str, Any]], p_values: Mapping[str, Column]) -> Table:
    """All figures of all labels.

    Args:
      labels: labels of summary.json.
      p_values: keys of a label there that hold a p value, to their columns.
    """
    return Table(
        (Column("Label", words=True), *METRICS.values(), *p_values.values()),
        tuple(
            (
                Cell(name),
                *(metric_cell(label, metric) for metric in METRICS),
                *(cell(label.get(key), numbers.p_value, reason(label, key)) for key in p_values),
            )
            for name, label in labels.items()
        ),
    )


def whole_tables(
    intervals: Mapping[str, Mapping[str, float | None]], undefined: Mapping[str, str]
) -> tuple[Table, Folded]:
    """The figures of all labels together: the main ones, and the others folded.

    Args:
      intervals: each of `WHOLE` as `value`, `low` and `high`, null where not defined.
      undefined: why a figure is not.
    """
    rows = []
    for name, column in WHOLE.items():
        value = intervals[name]["value"]
        show = numbers.count if name in _COUNTS else numbers.figure
        why_not = undefined.get(name, "not defined")
        bounds = interval_text(intervals[name], show)
        if value is not None:
            why_not = "not defined in most resamples of the test images"
        interval = Cell(bounds) if bounds else Cell(numbers.DASH, note=why_not)
        rows.append((Cell(column.title), cell(value, show, why_not), interval, Cell(column.hint)))
    columns = (
        Column("Figure", words=True),
        Column("Value"),
        Column("95\u202f% interval", "bootstrap over test images, copies drawn together"),
        Column("What it is", words=True),
    )
    return (
        Table(columns, tuple(rows[:_MAIN])),
        Folded("Further figures", (Table(columns, tuple(rows[_MAIN:])),)),
    )


def interval_tile(interval: Mapping[str, float | None], meaning: str) -> Tile:
    """A main figure with its 95 % interval, as far as they are defined.

    Args:
      interval: `value`, `low` and `high`, null where not defined.
      meaning: what the figure is.
    """
    value, bounds = interval["value"], interval_text(interval)
    return Tile(
        numbers.DASH if value is None else numbers.figure(value),
        meaning,
        f"95\u202f% interval {bounds}" if bounds else "",
    )


def interval_text(
    interval: Mapping[str, float | None], show: Callable[[float], str] = numbers.figure
) -> str:
    """The bounds of a figure's 95 % interval; nothing where they are not defined."""
    low, high = interval["low"], interval["high"]
    return "" if low is None or high is None else f"{show(low)}{numbers.DASH}{show(high)}"


def glossary(columns: tuple[Column, ...]) -> Folded:
    """What the figures mean, for those who cannot point at a column's head."""
    rows = tuple((column.title, column.hint) for column in columns if column.hint)
    return Folded("What the figures mean", (Facts(rows),))
