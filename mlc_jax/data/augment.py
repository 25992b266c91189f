"""Random views of an image: rotation, shear, zoom, shifts, flips and brightness, edges repeated.

The ranges and their meaning are those of Keras's ImageDataGenerator, which the original recipe used
(shear is in degrees there, so its 0.2 is almost none). A view is a pure function of the seed, the
image's content and the number of the view: the same on every machine, in every order, for ever.
"""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random transform.

    Attributes:
      rotation: largest turn, degrees.
      shear: largest shear, degrees.
      zoom: height and width are each scaled by a factor from [1 - zoom, 1 + zoom].
      shift: largest shift, as a share of height and of width.
      horizontal_flip, vertical_flip: whether half of the views are mirrored.
      brightness: (low, high) range of the factor on the grey values.
    """

    rotation: float
    shear: float
    zoom: float
    shift: float
    horizontal_flip: bool
    vertical_flip: bool
    brightness: tuple[float, float]


def view_rng(seed: int, digest: str, view: int) -> np.random.Generator:
    """The generator of one view: counter-based, keyed by seed, image content and view number."""
    key = np.random.SeedSequence([seed, int(digest[:32], 16), view])
    return np.random.Generator(np.random.Philox(key))


def affine_matrix(
    theta: float, shear: float, zoom: tuple[float, float], shift: tuple[float, float]
) -> np.ndarray:
    """The map from output to input coordinates (x, y, 1) about the origin.

    Args:
      theta: rotation, radians.
      shear: shear, radians.
      zoom: factors on (x, y).
      shift: offsets in pixels of (x, y).

    Returns:
      float64 [3, 3]: rotation, shift, shear and zoom, composed in Keras's order.
    """
    cos, sin = np.cos(theta), np.sin(theta)
    rotate = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    move = np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]])
    slant = np.array([[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]])
    scale = np.diag([zoom[0], zoom[1], 1.0])
    return rotate @ move @ slant @ scale


def warp(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Applies `matrix` about the image's centre, bilinear, edge pixels repeated.

    Args:
      image: uint8 [H, W, 3].
      matrix: float64 [3, 3] on (x, y, 1), from output to input coordinates.

    Returns:
      uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    # Keras takes the height for x here, and so turns a picture that is not square about a point
    # beside its centre.
    centre = np.array([[1, 0, width / 2 - 0.5], [0, 1, height / 2 - 0.5], [0, 0, 1]])
    return cv2.warpAffine(
        image,
        (centre @ matrix @ np.linalg.inv(centre))[:2],
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def draw_view(
    image: np.ndarray, augmentation: Augmentation, *, seed: int, digest: str, view: int
) -> np.ndarray:
    """View number `view` of an image; view 0 is the image itself.

    Args:
      image: uint8 [H, W, 3], RGB.
      augmentation: the ranges.
      seed: the run's seed.
      digest: hexadecimal digest of the image's content.
      view: 0, 1, 2, …

    Returns:
      uint8 [H, W, 3].
    """
    if view == 0:
        return image
    height, width = image.shape[:2]
    rng = view_rng(seed, digest, view)
    # Every number is drawn, used or not, so that one range never shifts the draws of another.
    turn, slant, zoom_x, zoom_y, shift_x, shift_y = rng.uniform(-1, 1, 6)
    flip_left, flip_up, light = rng.uniform(0, 1, 3)
    matrix = affine_matrix(
        np.deg2rad(turn * augmentation.rotation),
        np.deg2rad(slant * augmentation.shear),
        (1 + zoom_x * augmentation.zoom, 1 + zoom_y * augmentation.zoom),
        (shift_x * augmentation.shift * width, shift_y * augmentation.shift * height),
    )
    seen = warp(image, matrix)
    if augmentation.horizontal_flip and flip_left < 0.5:
        seen = cv2.flip(seen, 1)
    if augmentation.vertical_flip and flip_up < 0.5:
        seen = cv2.flip(seen, 0)
    low, high = augmentation.brightness
    table = np.clip(np.arange(256) * (low + light * (high - low)), 0, 255).astype(np.uint8)
    return cv2.LUT(seen, table)
