"""From an opened image file to the pixels that a classifier sees: upright, RGB, 8 bits, resized.

Needs NumPy and Pillow only: an export carries a copy of this file, so that its program sees images
as `predict` does.
"""

import contextlib

import numpy as np
from PIL import Image, features

FORMATS = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"]
with contextlib.suppress(ImportError):
    import pillow_heif

    pillow_heif.register_heif_opener()
    FORMATS.append("HEIF")
if features.check("avif"):
    FORMATS.append("AVIF")

_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of a loaded image, 1 to 8; 1 where it has none that can be read."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        # EXIF beside sound pixels may be any rubbish, and raise anything.
        return 1


def to_rgb(image: Image.Image, turned: int) -> np.ndarray:
    """The pixels of a loaded image, upright, in RGB.

    Transparency is composited on white. 16-bit grey is scaled by its range: 0 to 4095 where no
    value is larger, as 12-bit cameras and scanners write it, else 0 to 65535. Other wide integers,
    and floats that do not fit [0, 1] or [0, 255], are stretched from their least to their greatest
    value.

    Args:
      image: of several frames or pages the first.
      turned: its `orientation`.

    Returns:
      uint8 [H, W, 3].

    Raises:
      TypeError: a mode of Pillow's that is not supported.
      ValueError: values that are not finite.
    """
    turn = _UPRIGHT.get(turned)
    upright = _rgb(image)
    return np.array(upright if turn is None else upright.transpose(turn))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("RGB")
    if image.mode not in ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"):
        raise TypeError(f"image mode {image.mode} is not supported; use RGB")
    return image.convert("RGB")


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Scales grey values of any width, [H, W], to uint8 by the range they are written in."""
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are not finite")
    low, high = float(values.min()), float(values.max())
    usual = (1.0, 255.0) if values.dtype.kind == "f" else (4095.0, 65535.0)
    fitting = [limit for limit in usual if low >= 0 and high <= limit]
    if fitting:
        low, high = 0.0, fitting[0]
    if high == low:
        return np.zeros(values.shape, np.uint8)
    scaled = (values.astype(np.float64) - low) * (255.0 / (high - low))
    return np.rint(scaled).astype(np.uint8)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes with a bilinear filter that is widened when shrinking, so nothing is aliased.

    Args:
      image: uint8 [H, W, 3].
      size: (height, width) in pixels.

    Returns:
      uint8 [height, width, 3].
    """
    height, width = size
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
