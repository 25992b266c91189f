"""Small JPEG pictures for a page that has to hold them all."""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from mlc_jax.data.images import decode_image, resolve_image
from mlc_jax.data.pixels import resize_image

QUALITY = 72
SMALLEST = 96  # pixels of the longer side
_SAMPLE = 64
_SHRINK = 0.75


@dataclass(frozen=True)
class Thumbnail:
    """A picture as JPEG, with its size in pixels."""

    jpeg: bytes
    width: int
    height: int


def thumbnail(path: Path, side: int) -> Thumbnail:
    """A picture whose longer side has at most so many pixels.

    Raises:
      ImageError: the file cannot be read.
    """
    picture = decode_image(path)
    height, width = picture.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(scale * height)), max(1, round(scale * width)))
    packed = io.BytesIO()
    Image.fromarray(resize_image(picture, size)).save(packed, "JPEG", quality=QUALITY)
    return Thumbnail(packed.getvalue(), width=size[1], height=size[0])


def fitting_thumbnails(
    folder: Path,
    filenames: Sequence[str],
    side: int,
    budget: int,
    advance: Callable[[int], None],
    follow_links: bool = False,
) -> dict[str, Thumbnail]:
    """Thumbnails of pictures, as large as fit together, from the first on.

    All have the same longer side: the largest that should fit by a sample of them, but no less than
    SMALLEST. Should even these not fit, the last pictures get none.

    Args:
      folder: the image folder.
      filenames: distinct, most wanted first.
      side: the most pixels of the longer side.
      budget: bytes of all together, in base64.
      advance: called with the number of pictures done.
      follow_links: whether links in the folder may lead out of it; else no file outside is opened.

    Raises:
      ImageError: a picture cannot be read.
    """
    paths = [resolve_image(folder, filename, follow_links=follow_links) for filename in filenames]
    sample = paths[:: max(1, len(paths) // _SAMPLE)]
    while side > SMALLEST:
        mean = sum(_base64_length(thumbnail(path, side).jpeg) for path in sample) / len(sample)
        if mean * len(paths) <= 0.9 * budget:
            break
        side = max(SMALLEST, round(_SHRINK * side))
    made: dict[str, Thumbnail] = {}
    spent = 0
    for filename, picture in zip(filenames, _in_threads(paths, side), strict=True):
        spent += _base64_length(picture.jpeg)
        if spent > budget:
            break
        made[filename] = picture
        advance(1)
    return made


def _base64_length(data: bytes) -> int:
    return 4 * -(-len(data) // 3)


def _in_threads(paths: Sequence[Path], side: int) -> Iterator[Thumbnail]:
    """In order, a few ahead of the consumer; decoding lets go of the GIL."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(paths), 8 * workers):
            yield from pool.map(
                lambda path: thumbnail(path, side), paths[start : start + 8 * workers]
            )
