"""One training step of a stack of heads: a pure function that jit and pmap wrap alike."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from mlc_jax.models.heads import HeadStack
from mlc_jax.models.tuning import Trained
from mlc_jax.training.losses import make_loss
from mlc_jax.training.optimizers import Optimizer
from mlc_jax.training.targets import LabelStatistics, Targets

Params = Any


@dataclass(frozen=True)
class Recipe:
    """How a stack is trained.

    Attributes:
      stack: the heads' architecture.
      optimizer: how gradients become updates.
      loss: `config.loss`.
      steps_per_epoch: for losses that change from epoch to epoch.
    """

    stack: HeadStack
    optimizer: Optimizer
    loss: ConfigDict
    steps_per_epoch: int


class TrainState(NamedTuple):
    """What a step changes. Every array has a leading axis of heads, but for `step`.

    Attributes:
      step: int32 scalar, steps done.
      params, opt_state: of all heads, stacked; `params` is a `Trained`.
      plateau: state of the per-epoch rule; `plateau.scale` multiplies the updates.
      active: bool [heads], false once a head has stopped early; its params stay as they are.
      best_params: the params of each head's best epoch so far.
    """

    step: jax.Array
    params: Trained
    opt_state: Any
    plateau: Any
    active: jax.Array
    best_params: Trained


class Frozen(NamedTuple):
    """What a step reads and never changes.

    Attributes:
      mean, std: float32 [heads, C], of the features in each head's training folds.
      statistics: float32 [heads, outputs] each, of the labels there.
      backbone: the backbone's frozen parameters, which all heads share; empty where features come
        from the store.
    """

    mean: jax.Array
    std: jax.Array
    statistics: LabelStatistics
    backbone: Params


class Batch(NamedTuple):
    """One step's data.

    Attributes:
      inputs: what the network of the feed takes: features [heads, B, h, w, C] of any float type,
        or images uint8 [heads, B, H, W, 3].
      labels: float32 [heads, B, outputs].
      weights: float32 [heads, B, outputs], 0 where a cell is not known.
      context: float32 [heads, B, context], what the heads are told of the other labels.
      valid: bool [heads, B], false where a place is padding.
    """

    inputs: jax.Array
    labels: jax.Array
    weights: jax.Array
    context: jax.Array
    valid: jax.Array


class Sums(NamedTuple):
    """Per-head sums, float32 [heads], to be divided once, at the end.

    Attributes:
      loss_sum, loss_count: their ratio is the mean loss, as the loss defines it.
      correct, known: their ratio is the accuracy over known cells, each by its weight.
      broken: above 0 where the loss or a gradient was not finite.
    """

    loss_sum: jax.Array
    loss_count: jax.Array
    correct: jax.Array
    known: jax.Array
    broken: jax.Array


TrainStep = Callable[[TrainState, Frozen, Batch], tuple[TrainState, Sums]]
Network = Callable[[Trained, Frozen, jax.Array, jax.Array], jax.Array]
"""One head's logits [B, outputs] from parameters, its part of `Frozen`, its inputs and context."""

PER_HEAD = Frozen(*cast(tuple[Any, ...], (0, 0, 0, None)))
STATE_PER_HEAD = TrainState(*cast(tuple[Any, ...], (None, 0, 0, 0, 0, 0)))
"""The axes of heads in `Frozen` and `TrainState`, as `jax.vmap` takes them."""


def standardise(features: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """(features − mean) / std per channel, in float32; features [..., C], the others [C]."""
    return (features.astype(jnp.float32) - mean) / std


def head_network(stack: HeadStack) -> Network:
    """The network over features that were made before: standardise, then the head."""

    def network(
        params: Trained, frozen: Frozen, features: jax.Array, context: jax.Array
    ) -> jax.Array:
        return stack.apply(params.head, standardise(features, frozen.mean, frozen.std), context)

    return network


def init_state(recipe: Recipe, params: Trained) -> TrainState:
    """The state before the first step, of heads with the given parameters [heads, …]."""
    optimizer = recipe.optimizer
    heads = jax.tree.leaves(params)[0].shape[0]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=jax.vmap(optimizer.tx.init)(params),
        plateau=jax.vmap(optimizer.plateau.init)(params),
        active=jnp.ones((heads,), jnp.bool_),
        best_params=jax.tree.map(jnp.copy, params),
    )


def make_train_step(recipe: Recipe, network: Network, axis_name: str | None = None) -> TrainStep:
    """Builds the step.

    Args:
      recipe: how the stack is trained.
      network: from a batch's inputs to logits.
      axis_name: the mapped axis over which sums are added under pmap; None under jit, where the
        compiler adds them.

    Returns:
      A pure function (state, frozen, batch) -> (state, sums over the whole batch of all devices).
    """
    optimizer = recipe.optimizer
    # Labels, weights and padding have an axis of heads; all heads are in the same epoch.
    per_head = Targets(*cast(tuple[Any, ...], (0, 0, 0, None)))

    def head_loss(
        params: Trained,
        frozen: Frozen,
        inputs: jax.Array,
        context: jax.Array,
        targets: Targets,
    ) -> tuple[jax.Array, Sums]:
        logits = network(params, frozen, inputs, context)
        loss = make_loss(recipe.loss, frozen.statistics, axis_name)
        loss_sum, loss_count = loss(logits, targets)
        weights = jnp.where(targets.known, targets.weights, 0.0)
        correct = jnp.sum(weights * ((logits > 0) == (targets.labels > 0.5)))
        broken = jnp.float32(~jnp.isfinite(loss_sum))
        return loss_sum, Sums(loss_sum, loss_count, correct, jnp.sum(weights), broken)

    def train_step(state: TrainState, frozen: Frozen, batch: Batch) -> tuple[TrainState, Sums]:
        epoch = state.step // recipe.steps_per_epoch
        targets = Targets(batch.labels, batch.weights, batch.valid, epoch)
        axes = (0, PER_HEAD, 0, 0, per_head)
        gradients, sums = jax.vmap(jax.grad(head_loss, has_aux=True), in_axes=axes)(
            state.params, frozen, batch.inputs, batch.context, targets
        )
        if axis_name is not None:
            sums, gradients = jax.lax.psum((sums, gradients), axis_name)
        # Sums first, then one division: devices hold different numbers of known cells.
        gradients = jax.vmap(lambda g, n: jax.tree.map(lambda x: x / jnp.maximum(n, 1.0), g))(
            gradients, sums.loss_count
        )
        if optimizer.l2:
            gradients = _penalised(gradients, state.params, frozen.statistics, optimizer.l2)
        # A dot product, since it costs half of what looking at each number does. Its overflow at
        # a norm of 1.8e19 is no false alarm: Adam squares gradients too.
        squares = jax.tree.leaves(jax.tree.map(jax.vmap(_squared_norm), gradients))
        broken = sums.broken + ~jnp.isfinite(sum(squares))
        updates, opt_state = jax.vmap(optimizer.tx.update)(gradients, state.opt_state, state.params)
        scale = jnp.where(state.active, state.plateau.scale, 0.0)
        updates = jax.vmap(lambda u, s: jax.tree.map(lambda x: s * x, u))(updates, scale)
        return state._replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
        ), sums._replace(broken=broken)

    return train_step


def _penalised(
    gradients: Trained, params: Trained, statistics: LabelStatistics, l2: float
) -> Trained:
    """Adds the gradient of l2/2 · ||kernels||² to gradients of the mean loss.

    The penalty is a Gaussian prior on a head's kernels (not on biases): it is set against the sum
    of the losses over the head's known cells, as scikit-learn's C = 1/l2 is, so a head that knows
    little stays near what its labels' shares say.
    """
    cells = (statistics.positives + statistics.negatives).sum(axis=-1)
    rate = l2 / jnp.maximum(cells, 1.0)

    def add(path: tuple[Any, ...], gradient: jax.Array, param: jax.Array) -> jax.Array:
        if path[-1].key != "kernel":
            return gradient
        return gradient + rate.reshape(-1, *[1] * (param.ndim - 1)) * param

    return gradients._replace(head=jax.tree.map_with_path(add, gradients.head, params.head))


def _squared_norm(array: jax.Array) -> jax.Array:
    flat = array.ravel()
    return jnp.vdot(flat, flat)


def end_epoch(
    optimizer: Optimizer,
    state: TrainState,
    stop_loss: jax.Array,
    improved: jax.Array,
    active: jax.Array,
) -> TrainState:
    """What happens between epochs, for every head: keep the best, adapt the rate, stop.

    Args:
      optimizer: whose plateau rule is asked.
      state: after the epoch's last step.
      stop_loss: float32 [heads], loss on the stop fold.
      improved: bool [heads], whether this epoch is the head's best so far.
      active: bool [heads], whether the head goes on.
    """

    def one(
        plateau: Any, loss: jax.Array, better: jax.Array, params: Trained, best: Trained
    ) -> tuple[Any, Trained]:
        _, plateau = optimizer.plateau.update({}, plateau, value=loss)
        return plateau, jax.tree.map(lambda new, old: jnp.where(better, new, old), params, best)

    plateau, best = jax.vmap(one)(
        state.plateau, stop_loss, improved, state.params, state.best_params
    )
    return state._replace(plateau=plateau, best_params=best, active=active)
