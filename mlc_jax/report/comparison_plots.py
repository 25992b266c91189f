"""The plots of a comparison: paired differences, and figures against the share of hidden cells."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlc_jax.report.panels import BLUE, FAINT, INK, ORANGE, drawable, panel_grid, save

_MARKERS = ("o", "s", "^", "D")
_COLOURS = (BLUE, ORANGE, INK, FAINT)


def gap_plot(path: Path, rows: Sequence[Mapping[str, Any]], reference: str) -> str:
    """Each row's macro AUC minus the reference's, with its paired interval.

    Args:
      path: of the PNG file.
      rows: with `name` and `auc_gap` {value, low, high}; None where not defined.
      reference: the name whose difference is 0.

    Returns:
      the alt text.
    """
    shown = [row for row in rows if row["auc_gap"]["value"] is not None][::-1]
    figure, panels = panel_grid(1, 1, height=0.24 * len(shown) + 0.3, top=0.2)
    axes = panels[0][0]
    height = float(figure.get_size_inches()[1])
    figure.set_size_inches(8.6, height)
    axes.set_position((3.1 / 8.6, 0.5 / height, 5.2 / 8.6, (height - 0.7) / height))
    axes.axvline(0, color=FAINT, linewidth=1, linestyle=":")
    said = []
    reach = _reach([row["auc_gap"] for row in shown])
    for place, row in enumerate(shown):
        gap = row["auc_gap"]
        own = row["name"] == reference
        said.append(f"{row['name']} {gap['value']:+.3f}")
        if abs(gap["value"]) > reach:
            edge, side = (0.0, "left") if gap["value"] < 0 else (1.0, "right")
            axes.text(
                edge,
                place,
                f" {gap['value']:+.3f}, beyond this axis ".replace("-", "−"),
                transform=axes.get_yaxis_transform(),
                horizontalalignment=side,
                verticalalignment="center",
                fontsize=8,
                color=BLUE,
            )
            continue
        if gap["low"] is not None:
            axes.plot([gap["low"], gap["high"]], [place, place], color=BLUE, linewidth=1.6)
        axes.plot(gap["value"], place, "o", color=ORANGE if own else BLUE, markersize=4.5)
    axes.set_yticks(range(len(shown)), [drawable(row["name"], 44) for row in shown])
    axes.set_ylim(-0.7, len(shown) - 0.3)
    axes.set_xlabel(f"macro AUC minus that of {reference}")
    save(figure, path)
    return f"Macro AUC minus that of {reference}: {', '.join(reversed(said))}."


def _reach(gaps: Sequence[Mapping[str, Any]]) -> float:
    """How large a difference may be and still be drawn: one far away would hide all the others."""
    sizes = sorted(abs(gap["value"]) for gap in gaps if gap["value"] != 0)
    return 5 * sizes[len(sizes) // 2] if sizes else 0.0


def share_lines(
    path: Path,
    series: Mapping[str, Sequence[tuple[float, Mapping[str, float | None]]]],
    across: str,
    up: str,
) -> str:
    """Lines of figures with whiskers against a share.

    Args:
      path: of the PNG file.
      series: name to (share, {value, low, high}) pairs; None where not defined.
      across, up: what the axes are.

    Returns:
      the alt text.
    """
    figure, panels = panel_grid(1, 1, height=2.6, top=0.3)
    axes = panels[0][0]
    figure.set_size_inches(7.4, figure.get_size_inches()[1])
    said = []
    for number, (name, points) in enumerate(series.items()):
        defined = [
            (share, float(value), point["low"], point["high"])
            for share, point in points
            if (value := point["value"]) is not None
        ]
        shares = [share for share, *_ in defined]
        values = [value for _, value, *_ in defined]
        colour = _COLOURS[number % len(_COLOURS)]
        axes.plot(
            shares,
            values,
            color=colour,
            marker=_MARKERS[number % len(_MARKERS)],
            linewidth=1.5,
            markersize=4.5,
            label=drawable(name, 30),
        )
        for share, _, low, high in defined:
            if low is not None and high is not None and low != high:
                axes.plot([share, share], [low, high], color=colour, linewidth=1)
        told = ", ".join(f"{v:.3f} at {s:.0%}" for s, v in zip(shares, values, strict=True))
        said.append(f"{name}: {told}")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    save(figure, path)
    return f"{up or 'Figures'} against the {across}. {'; '.join(said)}."
