"""The common ground of the plots: one panel per label on a grid, its style, and the PNG file.

Figures are made without pyplot, so they share no state: several can be drawn at once, and a program
that uses this one keeps its own backend and settings.
"""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ticker import MaxNLocator

from mlc_jax.files.atomic import replacing
from mlc_jax.report.fonts import drawn_by, font_for, one_line

DPI = 160
PAPER = "#f7f6f2"  # a card of its own, so that a plot reads on a light page and on a dark one
INK = "#2a2c30"
FAINT = "#6f7176"
GRID = "#e4e2db"
BLUE = "#1d6597"
ORANGE = "#cf6a16"  # beside the blue it keeps its contrast under every common colour blindness
_PANEL_SIGNS = 28  # that fit into the line above a panel

_WIDTHS = {1: 4.6, 2: 7.4, 3: 9.4}  # fewer panels get more room each, but not all of the page's
_FULL_WIDTH = 10.6

# Margins in inches. Matplotlib's own layout engines would take half the time of a plot.
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.62, 0.16, 0.72, 0.5
_BESIDE, _BETWEEN, _STACKED = 0.42, 0.52, 0.1


def panel_grid(
    panels: int,
    columns: int,
    *,
    height: float,
    ratios: Sequence[float] = (1.0,),
    top: float = _TOP,
) -> tuple[Figure, list[list[Axes]]]:
    """A figure of equal panels, filled row by row.

    Args:
      panels: how many, at least 1.
      columns: at most so many beside one another.
      height: of a panel, in inches.
      ratios: relative heights of the axes that are stacked in one panel.
      top: room above the panels, in inches; by default for a legend and the panels' names.

    Returns:
      (figure, for each panel its axes from top to bottom).
    """
    columns = min(columns, panels)
    rows = -(-panels // columns)
    width = _WIDTHS.get(columns, _FULL_WIDTH)
    total = top + rows * height + (rows - 1) * _BETWEEN + _BOTTOM
    figure = Figure(figsize=(width, total), dpi=DPI, facecolor=PAPER)
    across = (width - _LEFT - _RIGHT - (columns - 1) * _BESIDE) / columns
    cells = figure.add_gridspec(
        rows,
        columns,
        left=_LEFT / width,
        right=1 - _RIGHT / width,
        top=1 - top / total,
        bottom=_BOTTOM / total,
        wspace=_BESIDE / across,
        hspace=_BETWEEN / height,
    )
    stacks = []
    for panel in range(panels):
        cell = cells[panel // columns, panel % columns]
        levels = cell.subgridspec(len(ratios), 1, height_ratios=ratios, hspace=_STACKED)
        stacks.append([_styled(figure.add_subplot(levels[level])) for level in range(len(ratios))])
    return figure, stacks


def square_panel(side: float, left: float, below: float) -> tuple[Figure, Axes]:
    """A figure of one square panel, without a grid.

    Args:
      side: of the panel, in inches.
      left, below: room for what stands beside the axes, in inches.
    """
    width, height = left + side + _RIGHT, _RIGHT + side + below
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER)
    room = (left / width, below / height, side / width, side / height)
    axes = _styled(figure.add_axes(room))
    axes.grid(False)
    return figure, axes


def label_edges(panels: Sequence[Axes], columns: int, across: str, up: str) -> None:
    """Names the axes once: `up` at the left edge of the grid, `across` below each column."""
    columns = min(columns, len(panels))
    for number, axes in enumerate(panels):
        if number % columns == 0:
            axes.set_ylabel(up)
        if number + columns >= len(panels):
            axes.set_xlabel(across)


def name_panel(axes: Axes, name: str, detail: str = "") -> None:
    """Writes a label's name above its panel, and a quieter detail at the right end of the line."""
    text = cut(one_line(name), _PANEL_SIGNS - len(detail))
    font = font_for(text, bold=True)
    axes.set_title(
        drawn_by(text, font),
        loc="left",
        font=FontProperties(fname=font, size=9),
        color=INK,
        parse_math=False,
    )
    if detail:
        axes.set_title(detail, loc="right", fontsize=8, color=FAINT, parse_math=False)


def drawable(name: str, longest: int) -> str:
    """A name without what the plots' font cannot draw, cut to a number of signs."""
    return cut(drawn_by(name, findfont("DejaVu Sans")), longest)


def cut(text: str, longest: int) -> str:
    """A text, cut to a number of signs."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def legend(figure: Figure, entries: Sequence[Artist]) -> None:
    """One legend for all panels, above them."""
    width, height = figure.get_size_inches()
    figure.legend(
        handles=list(entries),
        loc="upper left",
        bbox_to_anchor=((_LEFT - 0.06) / width, 1 - 0.1 / height),
        borderaxespad=0,
        borderpad=0,
        # In two lines where one would be wider than the figure.
        ncols=len(entries) if width > _WIDTHS[1] else -(-len(entries) // 2),
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
        handlelength=1.6,
        columnspacing=1.6,
    )


def save(figure: Figure, path: Path) -> None:
    """Writes the figure as PNG, atomically; equal figures give equal bytes."""
    canvas = FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        # Not savefig: it draws everything once more beforehand, for layouts that need it.
        canvas.print_png(temporary, metadata={"Software": None})


def _styled(axes: Axes) -> Axes:
    axes.set_facecolor(PAPER)
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7.5, labelcolor=FAINT, color=GRID, length=2.5)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(fontsize=8, color=FAINT)
    return axes
