"""Extraction: the frozen backbone over every view of some images, in calls of one size."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import jax
import numpy as np

from mlc_jax.data.dataset import ImageSet
from mlc_jax.data.pipeline import Views, timed, whole_images
from mlc_jax.errors import NumericsError
from mlc_jax.models.features import Extract


def extract_passes(
    images: ImageSet,
    rows: np.ndarray,
    views: Views,
    extract: Extract,
    batch_size: int,
    advance: Callable[[int], None],
    waited: Callable[[float], None],
) -> Iterator[np.ndarray]:
    """Features of every view of the given rows, in order.

    A call is handed over before the features of the one before it are taken, so that an accelerator
    has something to do while they are.

    Args:
      images, rows, views: as for `whole_images`.
      extract: uint8 [batch_size, H, W, 3] to features [batch_size, h, w, C].
      batch_size: images per call; the last call is padded, so one program serves them all.
      advance: called with the number of passes done.
      waited: called with the seconds for which there was nothing to do for want of images, but for
        the first.

    Yields:
      Features [b, h, w, C], host arrays; one pass per (row, view), views fastest.
    """
    waiting: list[np.ndarray] = []
    begun: list[tuple[jax.Array, int]] = []

    def begin(passes: list[np.ndarray]) -> None:
        padding = [passes[-1]] * (batch_size - len(passes))
        begun.append((extract(np.stack(passes + padding)), len(passes)))

    def end() -> np.ndarray:
        features, count = begun.pop(0)
        taken = np.asarray(features)[:count]
        advance(count)
        return taken

    def stood_still(seconds: float) -> None:
        if begun:  # there was something to do before
            busy = not cast(Any, begun[-1][0]).is_ready()  # not in jax's stubs
            waited(0.0 if busy else seconds)

    batches = whole_images(images, rows, views, -(-batch_size // (views.augmented + 1)))
    for batch in timed(batches, stood_still):
        waiting.extend(batch.reshape(-1, *batch.shape[2:]))
        while len(waiting) >= batch_size:
            begin(waiting[:batch_size])
            del waiting[:batch_size]
            if len(begun) > 1:
                yield end()
    if waiting:
        begin(waiting)
    while begun:
        yield end()


def by_image(passes: Iterable[np.ndarray], per_image: int, count: int) -> Iterator[np.ndarray]:
    """Passes [b, h, w, C] put together again, [n, per_image, h, w, C].

    Yields:
      `count` images at a time, and at the end those that are left and whole.
    """
    waiting: list[np.ndarray] = []
    for some in passes:
        waiting.extend(some)
        while len(waiting) >= count * per_image:
            yield _stacked(waiting[: count * per_image], per_image)
            del waiting[: count * per_image]
    whole = len(waiting) // per_image * per_image
    if whole:
        yield _stacked(waiting[:whole], per_image)


def _stacked(passes: list[np.ndarray], per_image: int) -> np.ndarray:
    return np.stack(passes).reshape(-1, per_image, *passes[0].shape)


def check_finite(features: np.ndarray, images: ImageSet, rows: np.ndarray) -> None:
    """Raises NumericsError, naming the image, where features [n, …] of `rows` are not finite."""
    finite = np.isfinite(features.astype(np.float32)).reshape(len(rows), -1).all(axis=1)
    if not finite.all():
        name = images.filenames[int(rows[int(np.argmin(finite))])]
        raise NumericsError(
            f"{name}: its features are not finite; use config.features.dtype=float32 or other "
            "weights"
        )
