"""Learning curves: loss, accuracy and AUC against the epoch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mlc_jax.report.panels import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    label_edges,
    legend,
    name_panel,
    panel_grid,
    save,
)

COURSE = ("train_loss", "stop_loss", "train_accuracy", "stop_accuracy", "stop_auc")


PATH_CAPTION = (
    "Linear heads are solved exactly, once for each strength of their prior, from the strongest "
    "downwards. The strength with the lowest loss on inner validation folds is taken, for each "
    "label and fold; the fold that judges a head has no part in it. Means over folds."
)


def path_strengths(epochs: Sequence[Mapping[str, Any]]) -> tuple[float, ...]:
    """The strengths of a path, from the lines of metrics.jsonl; empty where these are epochs."""
    return tuple(line["strength"] for line in epochs if "strength" in line)


def learning_curves(
    path: Path,
    courses: Mapping[str, Mapping[str, np.ndarray]],
    *,
    trained: str = "training folds",
    watched: str = "stop fold",
    kept: int | None = None,
    strengths: Sequence[float] = (),
    height: float = 1.05,
) -> str:
    """Loss, accuracy and AUC against the epoch or the strength: a row of three panels per label.

    Args:
      path: of the PNG file.
      courses: label to float64 [epochs] under the names of `COURSE`.
      trained, watched: what the figures train_* and stop_* are of.
      kept: the epoch, counted from 0, whose parameters were kept for all; None where each head
        has its own.
      strengths: of the prior, one per entry of a course, where these are no epochs.
      height: of a panel, in inches.

    Returns:
      the alt text.
    """
    figure, panels = panel_grid(3 * len(courses), 3, height=height)
    said = []
    for row, (label, course) in enumerate(courses.items()):
        loss, accuracy, auc = (axes for (axes,) in panels[3 * row : 3 * row + 3])
        _course(loss, course["train_loss"], course["stop_loss"])
        _course(accuracy, course["train_accuracy"], course["stop_accuracy"])
        _course(auc, None, course["stop_auc"])
        auc.axhline(0.5, color=FAINT, linewidth=1, linestyle=":")
        if kept is not None:
            for axes in (loss, accuracy, auc):
                axes.axvline(kept + 1, color=INK, linewidth=1.2, linestyle="-.")
        name_panel(loss, label, "loss, nats")
        name_panel(accuracy, "", "accuracy")
        name_panel(auc, "", "ROC AUC")
        best = course["stop_auc"][~np.isnan(course["stop_auc"])]
        said.append(f"{label} {best.max():.3f}" if best.size else f"{label} not defined")
    label_edges([axes for (axes,) in panels], 3, "strength" if strengths else "epoch", "")
    if strengths:
        for (axes,) in panels:
            # Every other one, or their names overlap.
            shown = range(0, len(strengths), 2)
            axes.set_xticks([step + 1 for step in shown], [f"{strengths[s]:.0f}" for s in shown])
    entries = [
        Line2D([], [], color=BLUE, linewidth=1.8, label=watched),
        Line2D([], [], color=ORANGE, linewidth=1.4, linestyle="--", label=trained),
        Line2D([], [], color=FAINT, linewidth=1, linestyle=":", label="AUC of chance"),
    ]
    end = ""
    if kept is not None:
        entries.append(Line2D([], [], color=INK, linewidth=1.2, linestyle="-.", label="kept epoch"))
        end = f" Kept: epoch {kept + 1}."
    legend(figure, entries)
    save(figure, path)
    per = "Metrics per strength of the prior" if strengths else "Learning curves per epoch"
    return f"{per}. Highest ROC AUC on the {watched}: {', '.join(said)}.{end}"


def _course(axes: Axes, train: np.ndarray | None, stop: np.ndarray) -> None:
    epochs = np.arange(1, stop.size + 1)
    # A line through one point cannot be seen, and a short course is clearer with its points.
    marker = "." if stop.size <= 20 else ""
    if train is not None:
        axes.plot(epochs, train, color=ORANGE, linewidth=1.4, linestyle="--", marker=marker)
    axes.plot(epochs, stop, color=BLUE, linewidth=1.8, marker=marker)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
