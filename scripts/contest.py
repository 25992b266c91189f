"""What every contestant of `benchmark.py` is given, and what it gives."""

from collections.abc import Callable
from typing import NamedTuple

Run = Callable[[], float | None]
PER_BATCH = 4  # photographs of the input path, each with all its views


class Settings(NamedTuple):
    """The size of the work, JSON-able.

    Attributes:
      height, width: of the images.
      batch: images per call of a network.
      train_batch: images per training step of the original recipe.
      heads: size of a stack.
      photographs: images of the input path, a multiple of PER_BATCH for each core.
      views: augmented views of each beside itself.
    """

    height: int
    width: int
    batch: int
    train_batch: int
    heads: int
    photographs: int
    views: int
