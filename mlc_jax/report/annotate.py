"""Writing labels on a picture."""

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mlc_jax.errors import WorkdirError
from mlc_jax.files.atomic import write_bytes
from mlc_jax.report.fonts import drawn_by, font_for, one_line

SMALLEST, LARGEST = 9, 64  # font size in pixels
JPEG_QUALITY = 92
_PANEL = (0, 0, 0, 170)
_GIVEN, _NOT_GIVEN = (255, 255, 255, 255), (190, 190, 190, 255)


class _Line(NamedTuple):
    """A label as it is drawn: in the font that has its letters, bold where it is given."""

    text: str
    font: str
    given: bool


@lru_cache(maxsize=256)
def _font(size: int, file: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


def write_annotated(
    path: Path,
    image: np.ndarray,
    names: Sequence[str],
    probabilities: np.ndarray,
    given: np.ndarray,
) -> None:
    """Saves a picture with its labels on it; arguments as for `write_labels_on`.

    A name that is none of a JPEG or PNG file gets `.png` added.

    Raises:
      WorkdirError: it cannot be written.
    """
    picture = Image.fromarray(write_labels_on(image, names, probabilities, given))
    encoded = io.BytesIO()
    if path.suffix.lower() in (".jpg", ".jpeg"):
        picture.save(encoded, "JPEG", quality=JPEG_QUALITY)
    else:
        picture.save(encoded, "PNG", compress_level=3)
        if path.suffix.lower() != ".png":
            path = path.with_name(f"{path.name}.png")
    try:
        write_bytes(path, encoded.getvalue())
    except OSError as error:
        raise WorkdirError(f"{path}: {error.strerror}; choose another --workdir") from error


def write_labels_on(
    image: np.ndarray, names: Sequence[str], probabilities: np.ndarray, given: np.ndarray
) -> np.ndarray:
    """Writes the labels on the upper left corner: first those given, each by probability.

    The letters are as large as the picture allows, and never smaller than can be read; lines that
    do not fit below one another are counted in the last one.

    Args:
      image: uint8 [H, W, 3].
      names: of the labels.
      probabilities: float [L].
      given: bool [L], in bold with a mark.

    Returns:
      uint8 [H, W, 3], of the same size.
    """
    height, width = image.shape[:2]
    order = np.lexsort((-probabilities, ~given))
    marks = np.where(given, "■", "□")
    lines = [
        _line(f"{marks[at]} {one_line(names[at])} {probabilities[at]:.0%}", given[at])
        for at in order
    ]
    size = _font_size(lines, height, width)
    line_height = round(size * 1.3)
    room = max(1, height // line_height)
    if len(lines) > room:
        lines = [*lines[: room - 1], _line(f"… {len(lines) - room + 1} more", False)]
    widest = max(_font(size, line.font).getlength(line.text) for line in lines)
    margin = size // 3
    panel = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(panel)
    draw.rectangle((0, 0, widest + 2 * margin, len(lines) * line_height + margin), _PANEL)
    for place, line in enumerate(lines):
        middle = (place + 0.5) * line_height + margin / 2
        colour = _GIVEN if line.given else _NOT_GIVEN
        draw.text((margin, middle), line.text, colour, _font(size, line.font), anchor="lm")
    over = Image.alpha_composite(Image.fromarray(image).convert("RGBA"), panel)
    return np.array(over.convert("RGB"))


def _line(text: str, given: bool) -> _Line:
    font = font_for(text, bool(given))
    return _Line(drawn_by(text, font), font, bool(given))


def _font_size(lines: Sequence[_Line], height: int, width: int) -> int:
    """A twenty-fifth of the height, less where the widest line would leave the picture."""
    size = min(LARGEST, max(SMALLEST, height // 25))
    widest = max(_font(size, line.font).getlength(line.text) for line in lines)
    return max(SMALLEST, min(size, int(size * 0.9 * width / widest)))
