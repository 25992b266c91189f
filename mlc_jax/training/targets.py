"""What a loss is told about the cells of a batch, and about the labels of the training set."""

from typing import NamedTuple

import jax


class Targets(NamedTuple):
    """The cells of one batch, of one head; `jax.vmap` with axes (0, 0, 0, None) adds heads.

    Attributes:
      labels: float32 [..., outputs] in [0, 1]; any value where the cell is not known.
      weights: float32 [..., outputs], 0 where the cell is not known; below 1 for one that is
        trusted less.
      valid: bool or float32 [...], false where the row is padding, whose cells are neither known
        nor unknown.
      epoch: int32 scalar, counted from 0: the papers' epoch 1 is 0 here, and what they do after
        the first epoch is done where `epoch` is at least 1.
    """

    labels: jax.Array
    weights: jax.Array
    valid: jax.Array
    epoch: jax.Array

    @property
    def known(self) -> jax.Array:
        """Bool [..., outputs], the labelled cells of real rows."""
        return (self.weights > 0) & (self.valid > 0)[..., None]

    @property
    def unknown(self) -> jax.Array:
        """Bool [..., outputs], the cells of real rows that have no label."""
        return ~(self.weights > 0) & (self.valid > 0)[..., None]


class LabelStatistics(NamedTuple):
    """What is known about each output's label, from the cells people gave in the training folds.

    Attributes:
      positives, negatives: float32 [outputs], numbers of cells.
      prior: float32 [outputs], the estimated share of positives among all cells: by 2110.10955 the
        mean prediction of a model trained with masked BCE; the observed share stands in for it.
    """

    positives: jax.Array
    negatives: jax.Array
    prior: jax.Array
