"""The pictures by which any model is judged, with their captions, and the labels they show."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlc_jax.report import numbers, plots
from mlc_jax.report.parts import Part, Picture, Text
from mlc_jax.report.run import JudgedCells

PLOTTED_LABELS = 12

_PR_CAPTION = (
    "Of the cells above a threshold, how many are ones (precision), and of all ones, how many are "
    "above it (recall). A rare label starts from a low line of chance."
)
_ROC_CAPTION = (
    "The share of ones found against the share of zeros mistaken for them. Blind to how rare a "
    "label is, so read it beside precision and recall."
)
_RELIABILITY_CAPTION = (
    "Of the cells that got a probability near 0.7, about 70 % should be ones. Points off the line "
    "matter where the bars below show many cells. Dashed, where it is drawn: before calibration."
)


def choose_labels(
    labels: Mapping[str, Mapping[str, Any]], cells: Mapping[str, JudgedCells]
) -> tuple[list[str], list[Part]]:
    """The labels to plot, and what to say of the others.

    Args:
      labels: labels of summary.json.
      cells: label to its cells; none for a label without a model.

    Returns:
      (the first `PLOTTED_LABELS` that have a model and cells of both classes, sentences).
    """
    both_classes = [
        name
        for name, label in labels.items()
        if label["fitted"] and 0 < cells[name].observed.sum() < cells[name].observed.size
    ]
    parts: list[Part] = []
    if len(both_classes) > PLOTTED_LABELS:
        parts.append(
            Text(
                f"The first {PLOTTED_LABELS} of {len(both_classes)} labels are plotted; the tables "
                "above hold all of them."
            )
        )
    unplotted = [name for name in labels if name not in both_classes]
    if unplotted:
        said = numbers.listed(unplotted)
        parts.append(Text(f"Without a plot, as there is nothing to judge: {said}."))
    return both_classes[:PLOTTED_LABELS], parts


def judging_pictures(
    folder: Path,
    cells: Mapping[str, JudgedCells],
    labels: Mapping[str, Mapping[str, Any]],
    before: Mapping[str, tuple[list[float], list[float]]],
) -> list[Part]:
    """Precision and recall, ROC, and reliability.

    Args:
      folder: where the PNG files go.
      cells: label to its cells, of both classes; at least one label.
      labels: labels of summary.json; the metrics there are of the same cells.
      before: see `reliability_diagram`.
    """
    metrics = {name: labels[name]["metrics"] for name in cells}
    parts: list[Part] = []
    file = folder / "pr_curves.png"
    points = {name: (m["recall"], m["precision"]) for name, m in metrics.items()}
    alt = plots.pr_curves(file, cells, points)
    parts.append(Picture(file, "Precision and recall", alt, _PR_CAPTION))
    file = folder / "roc_curves.png"
    points = {name: (_complement(m["specificity"]), m["recall"]) for name, m in metrics.items()}
    areas = {name: m["roc_auc"] for name, m in metrics.items()}
    alt = plots.roc_curves(file, cells, points, areas)
    parts.append(Picture(file, "ROC", alt, _ROC_CAPTION))
    file = folder / "reliability.png"
    alt = plots.reliability_diagram(file, cells, before)
    parts.append(Picture(file, "Reliability", alt, _RELIABILITY_CAPTION))
    return parts


def _complement(share: float | None) -> float | None:
    return None if share is None else 1 - share
