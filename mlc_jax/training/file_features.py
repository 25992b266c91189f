"""A user's own features as the features of a data set: mapped from disk, whatever their number."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from mlc_jax.data.embeddings import EmbeddingSet
from mlc_jax.training.features import Feed
from mlc_jax.training.parallel import Devices
from mlc_jax.training.step import Recipe
from mlc_jax.training.streamed import StreamedFeatures


class RowSquares:
    """The squares of a mapped array, made of the rows that are asked for."""

    def __init__(self, array: np.ndarray) -> None:
        self._array, self.shape = array, array.shape

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.square(self._array[rows], dtype=np.float64)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy
        return np.square(self._array, dtype=np.float64).astype(dtype or np.float64)


@dataclass(frozen=True, eq=False)
class FileFeatures:
    """Features of one view per image, read from the map when they are asked for.

    Attributes:
      images: whose vectors they are.
      devices: what runs the programs.
      waited: told of the seconds that a step waited for its features.
    """

    images: EmbeddingSet
    devices: Devices
    waited: Callable[[float], None]

    @property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Features`; of one view the mean is the view. Nothing is copied into memory."""
        return self.pooled, cast(np.ndarray, RowSquares(self.pooled))

    @property
    def pooled(self) -> np.ndarray:
        """See `Features`; in the type of the file."""
        return self.images.array[:, 0]

    @property
    def filenames(self) -> Sequence[str]:
        """See `Features`."""
        return self.images.filenames

    def feed(self, recipe: Recipe) -> Feed:
        """See `Features`."""
        reader = cast(Any, self.images)
        return StreamedFeatures(reader, self.devices, self.filenames, self.waited).feed(recipe)
