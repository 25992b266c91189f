"""The grain pipelines: images to the accelerator, and index plans to the loop.

Images are read through the TFDS data source, decoded and augmented in threads (OpenCV lets go of
the GIL), and batched; each process asks for rows of its own. Index plans are the records of a
random-access source, so an iterator over them resumes from its position alone.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grain
import numpy as np

from mlc_jax.data.augment import Augmentation, draw_view
from mlc_jax.data.dataset import ImageSet
from mlc_jax.data.sampling import Plan, PlanSource
from mlc_jax.data.watch import watched


class Views(NamedTuple):
    """How the views of an image are drawn: see `draw_view`.

    Attributes:
      augmentation: the ranges.
      seed: the run's seed.
      augmented: views per image beside the image itself.
    """

    augmentation: Augmentation
    seed: int
    augmented: int


class _Passes:
    """A source whose record i is one image, in the views `numbers[i]`: uint8 [v, H, W, 3]."""

    def __init__(
        self, images: ImageSet, rows: np.ndarray, numbers: np.ndarray, views: Views
    ) -> None:
        self._images, self._rows, self._numbers, self._views = images, rows, numbers, views

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> np.ndarray:
        row = int(self._rows[place])
        image = self._images[row]
        return np.stack(
            [
                draw_view(
                    image,
                    self._views.augmentation,
                    seed=self._views.seed,
                    digest=self._images.digests[row],
                    view=int(number),
                )
                for number in self._numbers[place]
            ]
        )


def _stream(source: Any, batch_size: int) -> Iterator[np.ndarray]:
    threads = os.cpu_count() or 1
    # Batches are made behind the reading, or grain's prefetch would hold that many batches.
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * batch_size)
    batches = grain.MapDataset.source(source).to_iter_dataset(options).batch(batch_size)
    return watched(iter(batches), "the prepared images")


def whole_images(
    images: ImageSet,
    rows: np.ndarray,
    views: Views,
    batch_size: int,
) -> Iterator[np.ndarray]:
    """Every view of the given rows, in order: what the feature cache is made from.

    Args:
      images: the prepared data set.
      rows: int [n].
      views: how views are drawn.
      batch_size: images per batch; the last batch may be smaller.

    Yields:
      uint8 [b, 1 + views.augmented, H, W, 3].
    """
    numbers = np.tile(np.arange(views.augmented + 1), (len(rows), 1))
    return _stream(_Passes(images, rows, numbers, views), batch_size)


def chosen_views(
    images: ImageSet, rows: np.ndarray, numbers: np.ndarray, views: Views, batch_size: int
) -> Iterator[np.ndarray]:
    """The given view of each given row, in order: what a step without a cache is fed.

    Args:
      images: the prepared data set.
      rows, numbers: int [n], row and view number of each pass.
      views: how views are drawn.
      batch_size: passes per batch.

    Yields:
      uint8 [b, H, W, 3].
    """
    source = _Passes(images, rows, numbers[:, None], views)
    return (batch[:, 0] for batch in _stream(source, batch_size))


def timed(batches: Iterator[np.ndarray], waited: Callable[[float], None]) -> Iterator[np.ndarray]:
    """Hands batches on; `waited` is told how many seconds each was waited for, but the first."""
    for number in itertools.count():
        began = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        if number:
            waited(time.perf_counter() - began)
        yield batch


class PlanIterator:
    """The plans of an endless run of epochs, one per epoch, with a position that can be saved."""

    def __init__(self, source: PlanSource) -> None:
        # One plan is made ahead of the loop; it takes milliseconds, but on the same two cores.
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
        self._iterator = iter(grain.MapDataset.source(source).to_iter_dataset(options))

    def __next__(self) -> Plan:
        return next(self._iterator)

    def position(self) -> dict[str, Any]:
        """Where the iterator stands, as JSON."""
        return self._iterator.get_state()

    def seek(self, position: dict[str, Any]) -> None:
        """Goes to a saved position."""
        self._iterator.set_state(position)
