"""Heat maps laid over pictures: orange speaks for the label, blue against it."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from mlc_jax.errors import WorkdirError
from mlc_jax.files.atomic import write_bytes
from mlc_jax.report.panels import BLUE, ORANGE

STRENGTH = 0.85  # of the colour where the map is strongest
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def overlay(picture: np.ndarray, heat: np.ndarray, *, smooth: bool) -> np.ndarray:
    """Colours a picture, made grey so that its own colours are not mistaken for the map's.

    Args:
      picture: uint8 [H, W, 3].
      heat: float [h, w], positive for the label; its largest magnitude gets the full colour.
      smooth: whether to interpolate the map to the picture's size; false for maps of superpixels.

    Returns:
      uint8 [H, W, 3].
    """
    height, width = picture.shape[:2]
    filter_ = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    resized = Image.fromarray(heat.astype(np.float32)).resize((width, height), filter_)
    scaled = np.asarray(resized, np.float64) / max(float(np.abs(heat).max()), 1e-30)
    strength = STRENGTH * np.clip(np.abs(scaled), 0, 1)[..., None]
    colour = np.where(scaled[..., None] > 0, _rgb(ORANGE), _rgb(BLUE))
    grey = np.repeat((picture @ _LUMA)[..., None], 3, axis=2)
    return np.rint(grey + strength * (colour - grey)).astype(np.uint8)


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] as a PNG file.

    Raises:
      WorkdirError: it cannot be written.
    """
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "PNG")
    try:
        write_bytes(path, encoded.getvalue())
    except OSError as error:
        raise WorkdirError(f"{path}: {error.strerror}; choose another --workdir") from error


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)], np.float64)
