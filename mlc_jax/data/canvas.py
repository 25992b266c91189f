"""Painting polygons on a picture, with smooth edges. A picture is float32 [H, W, 3], 0 to 255."""

from collections.abc import Callable

import cv2
import numpy as np

FRACTION_BITS = 4  # cv2 takes polygon corners in sixteenths of a pixel

Points = np.ndarray  # float64 [N, 2]: (x, y), the corners of a shape in the drawer's own units
Place = Callable[[Points], Points]  # from those units to pixels


def _pixels(place: Place, points: Points) -> np.ndarray:
    return np.rint(place(points) * 2**FRACTION_BITS).astype(np.int32)


def cover(size: tuple[int, int], place: Place, shapes: list[Points]) -> np.ndarray:
    """How far each pixel is covered by shapes that do not overlap, 0 to 1; float32 [H, W]."""
    mask = np.zeros(size, np.uint8)
    corners = [_pixels(place, shape) for shape in shapes]
    cv2.fillPoly(mask, corners, 255, cv2.LINE_AA, FRACTION_BITS)
    return mask.astype(np.float32) / 255


def shadow(mask: np.ndarray, offset: float) -> np.ndarray:
    """What a covered area throws on what lies below it, 0 to 1; float32 [H, W, 1].

    Args:
      mask: float32 [H, W], from `cover`.
      offset: how far it falls down and right, as a share of the height.
    """
    height, width = mask.shape
    step = round(offset * height)
    fallen = np.pad(mask, ((step, 0), (step, 0)))[:height, :width]
    return cv2.blur(fallen, (width // 16, width // 16))[..., None]


def lay_over(below: np.ndarray, above: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`above` where `mask` is 1, `below` where it is 0; float32 [H, W, 3]."""
    return below + mask[..., None] * (above - below)


def paint(picture: np.ndarray, colour: np.ndarray, place: Place, shapes: list[Points]) -> None:
    """Fills shapes that do not overlap with a colour (RGB, 0 to 255), in place."""
    _blend(picture, colour, cover(picture.shape[:2], place, shapes))


def outline(
    picture: np.ndarray, colour: np.ndarray, place: Place, shapes: list[Points], width: float = 0
) -> None:
    """Draws closed lines around shapes, in place; `width` is a share of the picture's height."""
    line = np.zeros(picture.shape[:2], np.uint8)
    corners = [_pixels(place, shape) for shape in shapes]
    pixels = max(1, round(width * picture.shape[0]))
    cv2.polylines(line, corners, True, 255, pixels, cv2.LINE_AA, FRACTION_BITS)
    _blend(picture, colour, line.astype(np.float32) / 255)


def _blend(picture: np.ndarray, colour: np.ndarray, mask: np.ndarray) -> None:
    covered = mask > 0
    old = picture[covered]
    picture[covered] = old + mask[covered][:, None] * (colour.astype(np.float32) - old)
