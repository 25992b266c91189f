"""Writing labels on a picture."""

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mlc_jax.errors import WorkdirError
from mlc_jax.files.atomic import write_bytes

SMALLEST, LARGEST = 9, 64  # font size in pixels
JPEG_QUALITY = 92
_PANEL = (0, 0, 0, 170)
_GIVEN, _NOT_GIVEN = (255, 255, 255, 255), (190, 190, 190, 255)


@lru_cache(maxsize=64)
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    # The font that matplotlib brings along has the letters of most European languages.
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


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
    lines = [
        (f"{'■' if given[at] else '□'} {one_line(names[at])} {probabilities[at]:.0%}", given[at])
        for at in order
    ]
    size = _font_size(lines, height, width)
    line_height = round(size * 1.3)
    room = max(1, height // line_height)
    if len(lines) > room:
        lines = [*lines[: room - 1], (f"… {len(lines) - room + 1} more", False)]
    fonts = [_font(size, bold) for _, bold in lines]
    widest = max(font.getlength(text) for font, (text, _) in zip(fonts, lines, strict=True))
    margin = size // 3
    panel = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(panel)
    draw.rectangle((0, 0, widest + 2 * margin, len(lines) * line_height + margin), _PANEL)
    for place, (font, (text, bold)) in enumerate(zip(fonts, lines, strict=True)):
        middle = (place + 0.5) * line_height + margin / 2
        draw.text((margin, middle), text, _GIVEN if bold else _NOT_GIVEN, font, anchor="lm")
    over = Image.alpha_composite(Image.fromarray(image).convert("RGBA"), panel)
    return np.array(over.convert("RGB"))


def one_line(name: str) -> str:
    """A name without line breaks and other signs that have no shape."""
    return " ".join("".join(s if s.isprintable() else " " for s in name).split())


def _font_size(lines: Sequence[tuple[str, bool]], height: int, width: int) -> int:
    """A twenty-fifth of the height, less where the widest line would leave the picture."""
    size = min(LARGEST, max(SMALLEST, height // 25))
    widest = max(_font(size, bold).getlength(text) for text, bold in lines)
    return max(SMALLEST, min(size, int(size * 0.9 * width / widest)))
