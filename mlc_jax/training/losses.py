"""Losses over the cells of a batch, reduced as a sum and a count.

A caller divides once, after the sums of all devices have been added: means of means would be wrong,
since the parts of a batch hold different numbers of missing labels.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mlc_jax.loss_settings import check_loss_config
from mlc_jax.training.cell_losses import BCE, HILL, CellLoss, asymmetric, focal
from mlc_jax.training.partial_losses import (
    Loss,
    class_selective,
    hill_of_all,
    large_loss,
    splc,
)
from mlc_jax.training.targets import LabelStatistics, Targets


def make_loss(config: ConfigDict, statistics: LabelStatistics, axis_name: str | None) -> Loss:
    """Builds the loss that `config.loss` describes.

    | name            | a cell costs                        | count                             |
    |-----------------|-------------------------------------|-----------------------------------|
    | bce             | −log p_t                            | weight of the known cells         |
    | weighted_bce    | BCE · n / (2 · cells of that class) | weight of the known cells         |
    | focal           | see `cell_losses.focal`             | weight of the known cells         |
    | asymmetric      | see `cell_losses.asymmetric`        | weight of the known cells         |
    | hill            | see `cell_losses.HILL`              | weight of the known cells, or all |
    | partial_bce     | see `partial_bce`                   | rows                              |
    | class_selective | see `partial_losses`                | weight of known cells + unknown   |
    | splc            | see `partial_losses`                | weight of known cells + unknown   |
    | large_loss      | see `partial_losses`                | weight of known cells + unknown   |

    Focal, asymmetric, Hill, SPLC and class-aware selective loss are published as sums over a batch;
    the count makes them means. The losses up to hill leave unknown cells out.

    Args:
      config: `config.loss`, see `loss_config`.
      statistics: of the training cells, float32 [outputs] each; read by weighted_bce and
        class_selective. Traced arrays will do, so that heads with statistics of their own call
        this function inside their `jax.vmap`.
      axis_name: the mapped axis that holds the parts of the batch under pmap; None under jit.

    Returns:
      A pure function (logits float32 [..., outputs], targets) -> (loss_sum, count) of the cells it
      is given; under pmap the caller adds both over the devices. Known labels are smoothed first:
      y (1 − s) + s / 2, as Keras does.

    Raises:
      ConfigError: an unknown name, or a value out of its range.
    """
    check_loss_config(config)
    builders: dict[str, Callable[[], Loss]] = {
        "bce": lambda: _known_cells(BCE),
        "weighted_bce": lambda: _known_cells(_balanced(statistics)),
        "focal": lambda: _known_cells(focal(config.gamma, config.alpha)),
        "asymmetric": lambda: _known_cells(
            asymmetric(config.gamma_positive, config.gamma_negative, config.margin)
        ),
        "partial_bce": lambda: partial_bce,
        "class_selective": lambda: _selective(config, statistics, axis_name),
        "hill": lambda: hill_of_all if config.hill_unknown == "negative" else _known_cells(HILL),
        "splc": lambda: splc(config.splc_threshold, config.splc_epoch),
        "large_loss": lambda: large_loss(config.large_loss_delta, axis_name),
    }
    loss, smoothing = builders[config.name](), config.label_smoothing

    def smoothed(logits: jax.Array, targets: Targets) -> tuple[jax.Array, jax.Array]:
        labels = targets.labels * (1.0 - smoothing) + 0.5 * smoothing
        return loss(logits, targets._replace(labels=labels))

    return smoothed


def partial_bce(logits: jax.Array, targets: Targets) -> tuple[jax.Array, jax.Array]:
    """Partial BCE, g(share known) · sum over known BCE / C per row (arXiv 1902.09720).

    g(s) = −4.45 · s + 5.45 is 1 for a fully labelled row of C cells and 5 for one of which a tenth
    is known. The count is the number of real rows, also of those without a known cell.
    """
    known = targets.known
    losses = BCE.of(jnp.where(known, logits, 0.0), jnp.where(known, targets.labels, 0.0))
    rows = jnp.mean(jnp.where(known, targets.weights * losses, 0.0), axis=-1)
    share = jnp.mean(known, axis=-1)
    return jnp.sum((-4.45 * share + 5.45) * rows), jnp.sum(targets.valid > 0, dtype=rows.dtype)


def _known_cells(cell: CellLoss) -> Loss:
    def loss(logits: jax.Array, targets: Targets) -> tuple[jax.Array, jax.Array]:
        known = targets.known
        weights = jnp.where(known, targets.weights, 0.0)
        losses = cell.of(jnp.where(known, logits, 0.0), jnp.where(known, targets.labels, 0.0))
        return jnp.sum(weights * losses), jnp.sum(weights)

    return loss


def _balanced(statistics: LabelStatistics) -> CellLoss:
    """BCE with scikit-learn's "balanced" class weights; a class without a cell counts as one."""
    cells = statistics.positives + statistics.negatives
    positive = cells / (2.0 * jnp.maximum(statistics.positives, 1.0))
    negative = cells / (2.0 * jnp.maximum(statistics.negatives, 1.0))
    return CellLoss(lambda z: positive * BCE.positive(z), lambda z: negative * BCE.negative(z))


def _selective(config: ConfigDict, statistics: LabelStatistics, axis_name: str | None) -> Loss:
    gammas = config.selective_gamma_negative, config.selective_gamma_unknown
    known, unknown = (
        asymmetric(config.selective_gamma_positive, gamma, config.selective_margin)
        for gamma in gammas
    )
    return class_selective(
        known,
        unknown,
        weight=config.selective_weight,
        prior=statistics.prior,
        max_prior=config.selective_prior,
        likeliest=config.selective_likeliest,
        axis_name=axis_name,
    )
