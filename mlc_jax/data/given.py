"""Images that a caller has in hand: paths one by one, or pixels."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlc_jax.data.pixels import resize_image
from mlc_jax.data.stream import ImageBatch
from mlc_jax.errors import ImageError


@dataclass(frozen=True)
class NamedFiles:
    """Files that were named one by one, for `stream_images`; rows are numbered from 0.

    Attributes:
      root: the folder that all of them lie below. Links are followed: each was meant as it is.
      names: relative to it.
    """

    root: Path
    names: tuple[str, ...]
    follow_links: bool = True

    @staticmethod
    def of(paths: Sequence[str]) -> "NamedFiles":
        """The files of these paths, in their order."""
        files = [Path(os.path.realpath(path)) for path in paths]
        root = Path(os.path.commonpath([file.parent for file in files])) if files else Path()
        return NamedFiles(root, tuple(str(file.relative_to(root)) for file in files))

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return enumerate(self.names)


def checked_pixels(images: np.ndarray) -> np.ndarray:
    """Pixels as uint8 [N, H, W, 3], from those or from one image [H, W, 3].

    Raises:
      ImageError: another dtype or shape, or no pixels.
    """
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[-1] != 3:
        raise ImageError(
            "not_an_image",
            f"an array of dtype {images.dtype} and shape {images.shape} is no image; give uint8 "
            "[H, W, 3] or [N, H, W, 3], RGB from 0 to 255",
        )
    if 0 in images.shape[-3:]:
        raise ImageError("empty", f"an array of shape {images.shape} has no pixels; leave it out")
    return images if images.ndim == 4 else images[None]


def pixel_batches(
    images: np.ndarray, image_size: tuple[int, int], batch_size: int
) -> Iterator[ImageBatch]:
    """Resizes pixels, uint8 [N, H, W, 3], batch by batch; rows are numbered from 0."""
    for start in range(0, len(images), batch_size):
        some = images[start : start + batch_size]
        numbers = tuple(range(start, start + len(some)))
        resized = np.stack([resize_image(image, image_size) for image in some])
        yield ImageBatch(numbers, tuple(map(str, numbers)), resized, ())
