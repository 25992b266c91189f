"""What heads are told of their training folds: channel statistics and label counts."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from mlc_jax.errors import NumericsError
from mlc_jax.training.features import Features, Feed
from mlc_jax.training.step import Frozen
from mlc_jax.training.targets import LabelStatistics


def channel_statistics(
    means: np.ndarray, squares: np.ndarray, train: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Channel means and standard deviations over each head's training rows.

    Args:
      means, squares: float64 [N, C], each image's mean and mean square.
      train: per head, its training rows. Heads that share an array share the computation.

    Returns:
      (mean, std), float32 [heads, C]; the std of a constant channel is 1.

    Raises:
      NumericsError: a moment that is not finite.
    """
    finite = (np.isfinite(means) & np.isfinite(squares)).all(axis=1)
    if not finite.all():
        raise NumericsError(
            f"image {int(np.argmin(finite))} of the usable ones: its features are not finite; use "
            "config.features.dtype=float32 or other weights"
        )
    made: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for rows in train:
        if id(rows) not in made:
            mean, square = means[rows].mean(axis=0), squares[rows].mean(axis=0)
            variance = np.maximum(square - mean**2, 0.0)
            constant = variance <= 1e-12 * np.maximum(square, 1e-30)
            made[id(rows)] = mean, np.where(constant, 1.0, np.sqrt(variance))
    mean, std = zip(*(made[id(rows)] for rows in train), strict=True)
    return np.stack(mean).astype(np.float32), np.stack(std).astype(np.float32)


def label_statistics(
    human: np.ndarray, train: Sequence[np.ndarray], outputs: np.ndarray
) -> LabelStatistics:
    """Counts of the cells that people gave in each head's training rows.

    Args:
      human: int8 [N, L], 0 or 1 where a person gave the cell, -1 elsewhere.
      train: per head, its training rows.
      outputs: int [heads, outputs], the label of each output.

    Returns:
      float32 [heads, outputs] each; the observed share stands for the prior.
    """
    cells = [human[rows][:, own] for rows, own in zip(train, outputs, strict=True)]
    positives = np.array([(own == 1).sum(axis=0) for own in cells], np.float32)
    negatives = np.array([(own == 0).sum(axis=0) for own in cells], np.float32)
    prior = positives / np.maximum(positives + negatives, 1.0)
    return LabelStatistics(jnp.asarray(positives), jnp.asarray(negatives), jnp.asarray(prior))


def freeze(
    features: Features,
    feed: Feed,
    human: np.ndarray,
    train: Sequence[np.ndarray],
    outputs: np.ndarray,
) -> Frozen:
    """What a stack's steps read and never change; arguments as above."""
    mean, std = channel_statistics(*features.moments, train)
    statistics = label_statistics(human, train, outputs)
    return Frozen(jnp.asarray(mean), jnp.asarray(std), statistics, feed.frozen_backbone)
