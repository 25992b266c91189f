"""Which labels go together: how often one is 1 where another is."""

from pathlib import Path

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from mlc_jax.data.table import MISSING
from mlc_jax.report.panels import BLUE, FAINT, INK, PAPER, drawable, save, square_panel

_SHADES = LinearSegmentedColormap.from_list("shades", [PAPER, BLUE])
_NAME_SIGNS = 20
_INCHES_PER_SIGN = 0.068


def given_shares(values: np.ndarray) -> np.ndarray:
    """P(column is 1 | row is 1), over images in which people gave both.

    Args:
      values: int8 [N, L] of 0, 1 and MISSING.

    Returns:
      float64 [L, L]; 1 on the diagonal; NaN where a row's label is never 1 beside a known column.
    """
    ones = (values == 1).astype(np.float64)
    known = (values != MISSING).astype(np.float64)
    together, given = ones.T @ ones, ones.T @ known
    return np.divide(together, given, out=np.full(given.shape, np.nan), where=given > 0)


def cooccurrence_map(path: Path, names: tuple[str, ...], values: np.ndarray) -> str:
    """Draws `given_shares` as a heat map.

    Args:
      path: of the PNG file.
      names: of the labels, [L].
      values: int8 [N, L] of 0, 1 and MISSING.

    Returns:
      the alt text.
    """
    shares = given_shares(values)
    side = max(1.6, 0.52 * len(names))
    shown = [drawable(name, _NAME_SIGNS) for name in names]
    room = 0.5 + _INCHES_PER_SIGN * max(map(len, shown))
    figure, axes = square_panel(side, room, room)
    axes.imshow(shares, cmap=_SHADES, vmin=0, vmax=1, aspect="auto")
    places = range(len(names))
    axes.set_xticks(places, shown, rotation=90, parse_math=False, color=INK)
    axes.set_yticks(places, shown, parse_math=False, color=INK)
    axes.tick_params(length=0)
    axes.set_xlabel("… this is 1 too")
    axes.set_ylabel("where this is 1 …")
    for row, column in np.ndindex(shares.shape):
        share = shares[row, column]
        text = "–" if np.isnan(share) else f"{share:.2f}"
        colour = FAINT if row == column or np.isnan(share) else INK
        if share > 0.55:
            colour = PAPER
        axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=colour)
    save(figure, path)
    said = [
        f"{name}: "
        + (", ".join(_said(names[j], shares[i, j]) for j in places if j != i) or "no other label")
        for i, name in enumerate(names)
    ]
    return f"Of the images with a label, the share with another. {'; '.join(said)}."


def _said(name: str, share: float) -> str:
    return f"{name} {'not known' if np.isnan(share) else f'{share:.2f}'}"
