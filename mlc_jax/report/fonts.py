"""Fonts for labels in any script: the one that matplotlib brings along, else the machine's."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import matplotlib
from matplotlib.font_manager import fontManager, get_font

_LAST_RESORT = "LastResort"  # a font of boxes that has every sign, and the shape of none
_LEAST_WEIGHT = 600  # from which a font counts as bold


def one_line(text: str) -> str:
    """A text without line breaks and other signs that have no shape."""
    return " ".join("".join(s if s.isprintable() else " " for s in text).split())


@lru_cache(maxsize=256)
def font_for(text: str, bold: bool = False) -> str:
    """The file of the font that has the most signs of a text; DejaVu Sans where several have."""
    usual = _usual(bold)
    signs = frozenset(map(ord, text)) - {ord(" ")}
    if signs <= _signs_of(usual):
        return usual
    # As bold as is wanted if possible, and the same one in every run.
    others = sorted({(_is_bold(font.weight) != bold, font.fname) for font in fontManager.ttflist})
    found = [usual, *(file for _, file in others if _LAST_RESORT not in Path(file).name)]
    return min(found, key=lambda file: len(signs - _signs_of(file)))


def lacking(texts: Iterable[str]) -> list[str]:
    """Those of the texts of which no font of this machine has every sign."""
    return [
        text
        for text in texts
        if not frozenset(map(ord, one_line(text))) - {ord(" ")} <= _signs_of(font_for(text))
    ]


def drawn_by(text: str, font: str) -> str:
    """A text with a box in the place of every sign that a font has not."""
    signs = _signs_of(font)
    return "".join(
        sign if sign.isprintable() and (ord(sign) in signs or sign == " ") else "□" for sign in text
    )


def _usual(bold: bool) -> str:
    # It has the letters of most European languages.
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name)


def _is_bold(weight: str | int) -> bool:
    return weight >= _LEAST_WEIGHT if isinstance(weight, int) else "bold" in weight


@lru_cache(maxsize=4096)
def _signs_of(file: str) -> frozenset[int]:
    try:
        return frozenset(get_font(file).get_charmap())
    except (OSError, RuntimeError):  # gone since matplotlib listed it, or damaged
        return frozenset()
