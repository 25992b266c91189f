"""Losses that give unknown cells a meaning, reduced as a sum and a count.

Each takes (logits [..., outputs], targets) and returns (loss_sum, count). The count is the weight
of all known cells plus one for every unknown cell of a real row, dropped or not: what large loss
divides by, and what turns the batch sums that the other papers minimise into means whose scale
depends on no prediction. Which unknown cells are dropped is a question to the whole batch, so it is
asked across devices; sums and counts are those of this device, for the caller to add up.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mlc_jax.training.cell_losses import (
    BCE,
    FOCAL_2,
    FOCAL_MARGIN,
    HILL,
    CellLoss,
)
from mlc_jax.training.targets import Targets

Loss = Callable[[jax.Array, Targets], tuple[jax.Array, jax.Array]]


def class_selective(
    known: CellLoss,
    unknown: CellLoss,
    weight: float,
    prior: jax.Array,
    max_prior: float,
    likeliest: float,
    axis_name: str | None,
) -> Loss:
    """Class-aware selective loss (CSL, arXiv 2110.10955).

    Unknown cells are negatives, except for those of labels that are frequent and those that the
    network itself finds likely: both kinds are dropped. As in the authors' code, the likeliest are
    sought among all unknown cells, those of frequent labels included.

    Args:
      known, unknown: the loss of known cells, and of unknown ones as negatives.
      weight: of unknown cells.
      prior: float32 [outputs], each label's estimated share of positives.
      max_prior: a label whose prior is higher is frequent.
      likeliest: this many times the rows of the batch are dropped as likely.
      axis_name: the mapped axis that holds the parts of the batch; None where it is in one piece.
    """

    def loss(logits: jax.Array, targets: Targets) -> tuple[jax.Array, jax.Array]:
        rows = _over_devices(jnp.sum(targets.valid > 0), axis_name)
        likely = _largest(logits, targets.unknown, jnp.round(likeliest * rows), axis_name)
        kept = ~likely & (prior <= max_prior)
        return _all_cells(logits, targets, known, lambda z: weight * kept * unknown.negative(z))

    return loss


def hill_of_all(logits: jax.Array, targets: Targets) -> tuple[jax.Array, jax.Array]:
    """Hill loss as in arXiv 2112.07368, where an unknown cell is a negative."""
    return _all_cells(logits, targets, HILL, HILL.negative)


def splc(threshold: float, first_epoch: int) -> Loss:
    """Self-paced loss correction on the focal margin loss (SPLC, arXiv 2112.07368).

    An unknown cell is a negative; from `first_epoch` on (counted from 0: 1 is the paper's "after
    the first epoch") one whose probability is above `threshold` is a positive. As in the authors'
    code a positive found in this way gets no margin, and a known negative is never turned.
    """

    def loss(logits: jax.Array, targets: Targets) -> tuple[jax.Array, jax.Array]:
        def unknown(z: jax.Array) -> jax.Array:
            turned = (jax.nn.sigmoid(z) > threshold) & (targets.epoch >= first_epoch)
            return jnp.where(turned, FOCAL_2.positive(z), FOCAL_2.negative(z))

        return _all_cells(logits, targets, FOCAL_MARGIN, unknown)

    return loss


def large_loss(delta: float, axis_name: str | None) -> Loss:
    """Large loss rejection, LL-R (arXiv 2206.03740).

    Unknown cells are negatives under BCE, and the ⌈cells · δ · epoch⌉ of them that lose most are
    dropped: cells of all devices, epochs from 0, which is the paper's epoch minus one. The authors'
    code drops everything, known positives included, once that number exceeds the unknown cells;
    here known cells always stay, and of equal losses the earlier row goes first.

    Args:
      delta: share of the cells by which the number grows per epoch.
      axis_name: the mapped axis that holds the parts of the batch; None where it is in one piece.
    """

    def loss(logits: jax.Array, targets: Targets) -> tuple[jax.Array, jax.Array]:
        outputs = logits.shape[-1]
        cells = _over_devices(jnp.sum(targets.valid > 0), axis_name) * outputs
        # A hair less, so that what is whole but for rounding does not become one more.
        number = jnp.ceil(cells * targets.epoch * delta * (1.0 - 1e-6))
        # The loss of a negative grows with its logit.
        dropped = _largest(logits, targets.unknown, number, axis_name)
        return _all_cells(logits, targets, BCE, lambda z: ~dropped * BCE.negative(z))

    return loss


def _all_cells(
    logits: jax.Array,
    targets: Targets,
    known: CellLoss,
    unknown: Callable[[jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array]:
    logits = jnp.where(targets.known | targets.unknown, logits, 0.0)
    weights = jnp.where(targets.known, targets.weights, 0.0)
    labels = jnp.where(targets.known, targets.labels, 0.0)
    loss_sum = jnp.sum(weights * known.of(logits, labels))
    loss_sum += jnp.sum(targets.unknown * unknown(logits))
    return loss_sum, jnp.sum(weights) + jnp.sum(targets.unknown)


def _over_devices(number: jax.Array, axis_name: str | None) -> jax.Array:
    return number if axis_name is None else jax.lax.psum(number, axis_name)


def _largest(
    values: jax.Array, among: jax.Array, number: jax.Array, axis_name: str | None
) -> jax.Array:
    """Marks the largest values of the whole batch; the parts lie on the devices in its order.

    Args:
      values: float32 [B, ...], those of this device.
      among: bool, same shape; others are never marked.
      number: scalar, how many to mark.
      axis_name: the mapped axis; None where `values` holds the whole batch.

    Returns:
      Bool, same shape.
    """
    mine = jnp.where(among, jax.lax.stop_gradient(values), -jnp.inf).reshape(-1)
    if axis_name is None:
        ranks = _ranks(mine)
    else:
        ranks = _ranks(jax.lax.all_gather(mine, axis_name, tiled=True))
        start = jax.lax.axis_index(axis_name) * mine.size
        ranks = jax.lax.dynamic_slice_in_dim(ranks, start, mine.size)
    return among & (ranks.reshape(values.shape) < number)


def _ranks(values: jax.Array) -> jax.Array:
    # Sorting twice gives every value its place without a scatter; stable, so that ties are settled.
    return jnp.argsort(jnp.argsort(-values, stable=True))
