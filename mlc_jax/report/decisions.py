"""What each threshold would mean: precision, recall and F1 of a label against its threshold."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mlc_jax.assess.ranks import group_by_score
from mlc_jax.report.panels import (
    BLUE,
    FAINT,
    GRID,
    INK,
    ORANGE,
    label_edges,
    legend,
    name_panel,
    panel_grid,
    save,
)
from mlc_jax.report.run import JudgedCells

_COLUMNS = 4


def threshold_curves(
    path: Path,
    cells: Mapping[str, JudgedCells],
    thresholds: Mapping[str, float | None],
    spreads: Mapping[str, tuple[float | None, float | None] | None],
) -> str:
    """Precision, recall and F1 against the threshold.

    A cell is predicted 1 above the threshold, so the curves are steps, each closed at its left.
    Above the highest probability nothing is predicted 1: there is no precision, and the line ends.

    Args:
      path: of the PNG file.
      cells: label to the cells that its threshold was chosen on; at least one is 1.
      thresholds: label to the chosen threshold; None where it has none.
      spreads: label to the lowest and highest threshold over folds; None where it has none.

    Returns:
      the alt text.
    """
    figure, panels = panel_grid(len(cells), _COLUMNS, height=1.9)
    said = []
    for (axes,), (label, own) in zip(panels, cells.items(), strict=True):
        threshold, (low, high) = thresholds[label], spreads[label] or (None, None)
        if low is not None and high is not None:
            axes.axvspan(low, high, color=GRID, linewidth=0)
        at, precision, recall, f1 = _steps(own)
        for values, colour, style, width in (
            (precision, ORANGE, "--", 1.3),
            (recall, FAINT, "-.", 1.3),
            (f1, BLUE, "-", 1.8),
        ):
            axes.step(at, values, where="post", color=colour, linestyle=style, linewidth=width)
        axes.set_xlim(0, 1)
        axes.set_ylim(-0.03, 1.03)
        name_panel(axes, label, f"best F1 {f1.max():.3f}")
        if threshold is not None:
            axes.axvline(threshold, color=INK, linewidth=1.2, linestyle=":")
            there = f1[int(np.searchsorted(at, threshold, side="right")) - 1]
            said.append(f"{label} {there:.3f} at its threshold {threshold:.3f}")
        else:
            said.append(f"{label} without a threshold")
    label_edges([axes for (axes,) in panels], _COLUMNS, "threshold", "")
    legend(
        figure,
        [
            Line2D([], [], color=BLUE, linewidth=1.8, label="F1"),
            Line2D([], [], color=ORANGE, linewidth=1.3, linestyle="--", label="precision"),
            Line2D([], [], color=FAINT, linewidth=1.3, linestyle="-.", label="recall"),
            Line2D([], [], color=INK, linewidth=1.2, linestyle=":", label="chosen threshold"),
            Patch(color=GRID, label="its spread over folds"),
        ],
    )
    save(figure, path)
    return f"Precision, recall and F1 against the threshold. F1: {'; '.join(said)}."


def _steps(cells: JudgedCells) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds [G + 2], ascending, and the figures from each up to the next."""
    groups = group_by_score(cells.observed, cells.probabilities)
    # A cell of probability 0 is predicted 1 below 0 only.
    at = np.concatenate([[-1.0], groups.scores, [1.0]])
    positives = np.concatenate([[0], np.cumsum(groups.positives)])
    negatives = np.concatenate([[0], np.cumsum(groups.negatives)])
    tp, fp = positives[-1] - positives, negatives[-1] - negatives
    predicted = tp + fp
    precision = np.divide(tp, predicted, out=np.full(tp.size, np.nan), where=predicted > 0)
    recall, f1 = tp / positives[-1], 2 * tp / (predicted + positives[-1])
    # Nothing changes from the highest probability on.
    precision, recall, f1 = (np.append(own, own[-1]) for own in (precision, recall, f1))
    return at, precision, recall, f1
