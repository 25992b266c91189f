"""Optimizers and learning-rate schedules, all of optax, chosen by name."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from mlc_jax.errors import ConfigError
from mlc_jax.models.tuning import Trained

OPTIMIZERS = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "adadelta": optax.adadelta,
    "adagrad": optax.adagrad,
    "rmsprop": optax.rmsprop,
    "sgd": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
    "lion": optax.lion,
}

SCHEDULES = ("constant", "cosine", "exponential", "piecewise", "one_cycle", "plateau", "notebook")


class Optimizer(NamedTuple):
    """How gradients become updates.

    Attributes:
      tx: applied at every step.
      plateau: applied once per epoch to the validation loss; its state's `scale` multiplies the
        updates of the next epoch.
      l2: the penalty l2/2 · ||kernels||² on the sum of a head's losses over its known cells.
    """

    tx: optax.GradientTransformation
    plateau: optax.GradientTransformationExtraArgs
    l2: float


class NotebookState(NamedTuple):
    """State of `notebook_plateau`: the factor on the updates, and the loss one epoch ago."""

    scale: jax.Array
    previous: jax.Array


def notebook_plateau(factor: float, rtol: float) -> optax.GradientTransformationExtraArgs:
    """The original recipe's rule: multiply the rate by `factor` when one epoch gains too little.

    Too little is a fall of the validation loss by at most `rtol` of what it is now, as in the
    public Keras callback `LossLearningRateScheduler`. Unlike `optax.contrib.reduce_on_plateau` it
    looks at the epoch before, not at the best one.
    """

    def init(params: Any) -> NotebookState:
        del params
        return NotebookState(jnp.ones(()), jnp.full((), jnp.inf))

    def update(
        updates: Any, state: NotebookState, params: Any = None, *, value: jax.Array, **_: Any
    ) -> tuple[Any, NotebookState]:
        del params
        gain = state.previous - value
        too_little = jnp.isfinite(state.previous) & (gain <= rtol * jnp.abs(value))
        scale = jnp.where(too_little, state.scale * factor, state.scale)
        return jax.tree.map(lambda u: scale * u, updates), NotebookState(scale, value)

    return optax.GradientTransformationExtraArgs(init, update)


def make_optimizer(
    optimizer: ConfigDict,
    schedule: ConfigDict,
    steps_per_epoch: int,
    epochs: int,
    backbone_rate: float | None = None,
) -> Optimizer:
    """Builds the optimizer that `config.optimizer` and `config.schedule` describe.

    Args:
      optimizer: `name`, `learning_rate` and `l2`.
      schedule: `name`; `factor` and `rtol` for the two plateau rules; `warmup` (share of all steps)
        for cosine and one_cycle; `rate` (per epoch) for exponential; `boundaries` (shares of all
        steps) and `factor` for piecewise.
      steps_per_epoch, epochs: the length of the run, for the schedules that span it.
      backbone_rate: learning rate of the backbone's part of a `Trained`, which follows the same
        schedule and is not penalised; None where nothing of it is trained.

    Raises:
      ConfigError: an unknown name, or plateau with an `rtol` of 0, which optax refuses.
    """
    if optimizer.name not in OPTIMIZERS:
        raise ConfigError(
            f"config.optimizer.name={optimizer.name!r}: choose one of {', '.join(OPTIMIZERS)}"
        )
    if schedule.name not in SCHEDULES:
        raise ConfigError(
            f"config.schedule.name={schedule.name!r}: choose one of {', '.join(SCHEDULES)}"
        )
    if schedule.name == "plateau" and not schedule.rtol > 0:
        raise ConfigError(f"config.schedule.rtol={schedule.rtol!r}: plateau needs one above 0")
    if schedule.name == "plateau":
        plateau = optax.contrib.reduce_on_plateau(schedule.factor, patience=1, rtol=schedule.rtol)
    else:
        # A factor of 1 is the rule that never acts, so that every run has the same state.
        factor = schedule.factor if schedule.name == "notebook" else 1.0
        plateau = notebook_plateau(factor, schedule.rtol)
    head = OPTIMIZERS[optimizer.name](
        _rate(schedule, optimizer.learning_rate, steps_per_epoch, epochs)
    )
    if backbone_rate is None:
        return Optimizer(head, plateau, optimizer.l2)
    tuned = OPTIMIZERS[optimizer.name](_rate(schedule, backbone_rate, steps_per_epoch, epochs))
    parts = {"head": head, "backbone": tuned}
    return Optimizer(optax.partition(parts, Trained("head", "backbone")), plateau, optimizer.l2)


def _rate(
    schedule: ConfigDict, peak: float, steps_per_epoch: int, epochs: int
) -> float | optax.Schedule:
    total = steps_per_epoch * epochs
    rates = {
        "cosine": lambda: _warmed_cosine(peak, schedule.warmup, total),
        "exponential": lambda: optax.exponential_decay(peak, steps_per_epoch, schedule.rate),
        "piecewise": lambda: _piecewise(peak, schedule.boundaries, schedule.factor, total),
        "one_cycle": lambda: optax.cosine_onecycle_schedule(total, peak, schedule.warmup),
    }
    return rates[schedule.name]() if schedule.name in rates else peak


def backbone_rate(config: ConfigDict) -> float | None:
    """The learning rate of the backbone, or None where it is frozen whole."""
    tuned = config.backbone.trainable != "none"
    return float(config.backbone.learning_rate) if tuned else None


def _warmed_cosine(peak: float, warmup: float, total: int) -> optax.Schedule:
    # Optax wants at least one step of warming up, and one of cooling down.
    steps = min(round(warmup * total), total - 1)
    if steps == 0:
        return optax.cosine_decay_schedule(peak, total)
    return optax.warmup_cosine_decay_schedule(0.0, peak, steps, total)


def _piecewise(
    peak: float, boundaries: Sequence[float], factor: float, total: int
) -> optax.Schedule:
    # In a short run two boundaries may fall on one step, where both factors must act.
    scales: dict[int, float] = {}
    for share in boundaries:
        step = round(share * total)
        scales[step] = scales.get(step, 1.0) * factor
    return optax.piecewise_constant_schedule(peak, scales)
