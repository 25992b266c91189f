"""The plots: each takes data, writes one PNG file, and returns the text that stands for it.

Every figure has one panel per label. Curves and bins come from cells that people gave, with
probabilities from models that had not seen their images; filled cells are shown beside them, and
never judged.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mlc_jax.assess.metrics import average_precision, reliability
from mlc_jax.assess.ranks import group_by_score
from mlc_jax.report.cell_scores import LabelScores
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
_BINS = 20


def pr_curves(
    path: Path,
    scores: Mapping[str, JudgedCells],
    points: Mapping[str, tuple[float | None, float | None]],
) -> str:
    """Precision against recall, in the steps whose area is the average precision.

    Args:
      path: of the PNG file.
      scores: label to its cells; both classes among those observed.
      points: label to (recall, precision) at the threshold in use; None where not defined.

    Returns:
      the alt text.
    """
    figure, panels = panel_grid(len(scores), _COLUMNS, height=2.1)
    said = []
    for (axes,), (label, cells) in zip(panels, scores.items(), strict=True):
        groups = group_by_score(cells.observed, cells.probabilities)
        hits = np.cumsum(groups.positives[::-1])
        precision = hits / np.cumsum((groups.positives + groups.negatives)[::-1])
        recall = hits / hits[-1]
        prevalence = float(cells.observed.mean())
        axes.axhline(prevalence, color=FAINT, linewidth=1, linestyle=":")
        axes.step(
            np.append(0.0, recall),
            np.append(precision[0], precision),
            where="pre",
            color=BLUE,
            linewidth=1.8,
        )
        _point(axes, points[label])
        _square(axes)
        area = average_precision(cells.observed, cells.probabilities)
        name_panel(axes, label, f"AP {area:.3f}")
        said.append(f"{label} {area:.3f} at a prevalence of {prevalence:.3f}")
    label_edges([axes for (axes,) in panels], _COLUMNS, "recall", "precision")
    legend(figure, _curve_legend("prevalence (chance)"))
    save(figure, path)
    return f"Precision-recall curves. Average precision: {'; '.join(said)}."


def roc_curves(
    path: Path,
    scores: Mapping[str, JudgedCells],
    points: Mapping[str, tuple[float | None, float | None]],
    areas: Mapping[str, float],
) -> str:
    """True positive rate against false positive rate.

    Args:
      path: of the PNG file.
      scores: label to its cells; both classes among those observed.
      points: label to (false positive rate, recall) at the threshold in use; None where not
        defined.
      areas: label to the area that is written beside the curve; out of fold it is that within
        folds, where the curve pools them.

    Returns:
      the alt text.
    """
    figure, panels = panel_grid(len(scores), _COLUMNS, height=2.1)
    said = []
    for (axes,), (label, cells) in zip(panels, scores.items(), strict=True):
        groups = group_by_score(cells.observed, cells.probabilities)
        hits = np.append(0, np.cumsum(groups.positives[::-1]))
        misses = np.append(0, np.cumsum(groups.negatives[::-1]))
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=":")
        axes.plot(misses / misses[-1], hits / hits[-1], color=BLUE, linewidth=1.8)
        _point(axes, points[label])
        _square(axes)
        name_panel(axes, label, f"AUC {areas[label]:.3f}")
        said.append(f"{label} {areas[label]:.3f}")
    label_edges([axes for (axes,) in panels], _COLUMNS, "1 − specificity", "recall")
    legend(figure, _curve_legend("chance"))
    save(figure, path)
    return f"ROC curves. Area under the curve: {'; '.join(said)}."


def reliability_diagram(
    path: Path,
    scores: Mapping[str, JudgedCells],
    before: Mapping[str, tuple[list[float], list[float]]],
) -> str:
    """The share that is positive against the probability given, in ten bins, with their counts.

    The bars of a point are the 95 % interval of its share (Wilson, 1927).

    Args:
      path: of the PNG file.
      scores: label to its cells; at least one observed.
      before: label to (mean probabilities, shares of ones) per bin, before calibration; may lack
        labels.

    Returns:
      the alt text.
    """
    figure, panels = panel_grid(len(scores), _COLUMNS, height=2.9, ratios=(3, 1))
    said = []
    for (axes, below), (label, cells) in zip(panels, scores.items(), strict=True):
        bins = reliability(cells.observed, cells.probabilities)
        used = bins.count > 0
        count = bins.count[used]
        mean, share = bins.probability_sum[used] / count, bins.positive_sum[used] / count
        low, high = _wilson(share, count)
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=":")
        if label in before:
            axes.plot(*before[label], color=ORANGE, linewidth=1.1, linestyle="--")
        axes.vlines(mean, low, high, color=BLUE, linewidth=1.2, alpha=0.45)
        axes.plot(mean, share, color=BLUE, linewidth=1.2, marker="o", markersize=4)
        _square(axes)
        axes.tick_params(labelbottom=False)
        name_panel(axes, label)

        centres = (np.arange(bins.count.size) + 0.5) / bins.count.size
        below.bar(centres, bins.count, width=0.085, color=BLUE, alpha=0.45)
        for centre, number in zip(centres[used], count.tolist(), strict=True):
            text = str(number) if number < 10_000 else f"{number / 1000:.0f}k"
            below.text(centre, number, text, ha="center", va="bottom", fontsize=6, color=INK)
        below.set_xlim(-0.03, 1.03)
        below.set_ylim(0, 1.35 * count.max())
        below.set_yticks([])
        below.grid(visible=False)
        gap = float(np.abs(mean - share) @ count / count.sum())
        said.append(f"{label} {gap:.3f}")
    label_edges([axes for axes, _ in panels], _COLUMNS, "", "share of ones")
    label_edges([below for _, below in panels], _COLUMNS, "probability", "cells")
    legend(
        figure,
        [
            Line2D(
                [],
                [],
                color=BLUE,
                marker="o",
                markersize=4,
                label="observed share, with its 95 % interval",
            ),
            Line2D([], [], color=FAINT, linewidth=1, linestyle=":", label="perfect calibration"),
        ],
    )
    save(figure, path)
    return f"Reliability diagrams. Mean gap of share and probability: {'; '.join(said)}."


def probability_histograms(
    path: Path,
    scores: Mapping[str, LabelScores],
    thresholds: Mapping[str, float | None],
    spreads: Mapping[str, tuple[float, float] | None],
) -> str:
    """How the probabilities of observed ones, observed zeros and filled cells are spread.

    Each group's bars add up to 1, since there are far fewer filled cells than observed ones.

    Args:
      path: of the PNG file.
      scores: label to its cells.
      thresholds: label to its threshold; None where it has none.
      spreads: label to the lowest and highest threshold over folds; None where it has none.

    Returns:
      the alt text.
    """
    figure, panels = panel_grid(len(scores), _COLUMNS, height=1.7)
    edges = np.linspace(0, 1, _BINS + 1)
    said = []
    for (axes,), (label, cells) in zip(panels, scores.items(), strict=True):
        spread, threshold = spreads[label], thresholds[label]
        if spread is not None:
            axes.axvspan(*spread, color=GRID, linewidth=0)
        for values, colour in (
            (cells.probabilities[~cells.observed], ORANGE),
            (cells.probabilities[cells.observed], BLUE),
        ):
            axes.stairs(_shares(values, edges), edges, fill=True, color=colour, alpha=0.45)
        axes.stairs(_shares(cells.filled, edges), edges, color=INK, linewidth=1.3)
        if threshold is not None:
            axes.axvline(threshold, color=INK, linewidth=1.2, linestyle="--")
            said.append(f"{label} {threshold:.3f}")
        axes.set_xlim(0, 1)
        name_panel(axes, label)
    label_edges([axes for (axes,) in panels], _COLUMNS, "probability", "share of group")
    legend(
        figure,
        [
            Patch(color=ORANGE, alpha=0.45, label="observed 0"),
            Patch(color=BLUE, alpha=0.45, label="observed 1"),
            Patch(facecolor="none", edgecolor=INK, linewidth=1.3, label="filled"),
            Line2D([], [], color=INK, linewidth=1.2, linestyle="--", label="threshold"),
            Patch(color=GRID, label="its spread over folds"),
        ],
    )
    save(figure, path)
    return f"Histograms of probabilities. Thresholds: {'; '.join(said) or 'none'}."


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.histogram(values, edges)[0] / max(values.size, 1)


def _wilson(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % score interval of shares [B] among counts [B] (Wilson, 1927)."""
    square = 1.96**2 / count
    centre = (share + square / 2) / (1 + square)
    half = np.sqrt(square * share * (1 - share) + square**2 / 4) / (1 + square)
    return centre - half, centre + half


def _point(axes: Axes, point: tuple[float | None, float | None]) -> None:
    across, up = point
    if across is not None and up is not None:
        axes.plot([across], [up], "o", markersize=6, color=ORANGE, clip_on=False, zorder=5)


def _square(axes: Axes) -> None:
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks(np.linspace(0, 1, 6))


def _curve_legend(chance: str) -> list[Line2D]:
    return [
        Line2D([], [], color=BLUE, linewidth=1.8, label="cells that people gave"),
        Line2D([], [], color=ORANGE, marker="o", linestyle="", label="at the threshold"),
        Line2D([], [], color=FAINT, linewidth=1, linestyle=":", label=chance),
    ]
