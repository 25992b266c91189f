"""The training loop of a stack of heads: epochs, early stopping, checkpoints, in that order."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlc_jax.data.pipeline import PlanIterator
from mlc_jax.data.sampling import Plan, PlanSource
from mlc_jax.errors import NumericsError
from mlc_jax.models.tuning import Trained
from mlc_jax.training.checkpoint import Checkpoints
from mlc_jax.training.early_stopping import EarlyStopping
from mlc_jax.training.features import Cells, Feed
from mlc_jax.training.parallel import Devices
from mlc_jax.training.step import Frozen, Recipe, end_epoch, init_state


@dataclass(frozen=True)
class EpochFigures:
    """What one epoch showed, float64 [heads] each.

    Attributes:
      epoch: its number, from 0.
      train_loss, train_accuracy: over the epoch's own batches, while the heads were changing.
      stop_loss, stop_accuracy, stop_auc: on the stop folds, known cells only, afterwards.
      rate_scale: factor of the plateau rule during the epoch.
      active: whether the head was still trained; a stopped head's figures no longer move.
    """

    epoch: int
    train_loss: np.ndarray
    train_accuracy: np.ndarray
    stop_loss: np.ndarray
    stop_accuracy: np.ndarray
    stop_auc: np.ndarray
    rate_scale: np.ndarray
    active: np.ndarray


@dataclass(frozen=True)
class Course:
    """Everything that decides how a stack is trained, but for the features.

    Attributes:
      recipe: how the stack is trained.
      plans: the index plan of every epoch.
      stop: the plan of the stop folds.
      stop_figures: float [steps, heads, batch, outputs] logits of `stop` to (loss, accuracy, AUC),
        each [heads].
      seed: seed of the initial parameters.
      patience: epochs without improvement before a head stops.
      save_every: epochs between checkpoints.
    """

    recipe: Recipe
    plans: PlanSource
    stop: Plan
    stop_figures: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
    seed: int
    patience: int
    save_every: int


@dataclass(frozen=True)
class Fitted:
    """The result of a course: each head's best parameters, when it had them, and its last ones."""

    params: Trained
    stopping: EarlyStopping
    last_params: Trained


def fit(
    course: Course,
    feed: Feed,
    frozen: Frozen,
    cells: Cells,
    devices: Devices,
    checkpoints: Checkpoints | None,
    on_epoch: Callable[[EpochFigures], None],
    warn: Callable[[str], None],
) -> Fitted:
    """Trains until every head has stopped or the epochs are over; goes on from a checkpoint.

    Args:
      course, feed, frozen, cells, devices: what is trained, on what, by what.
      checkpoints: where the state is saved; the newest intact one is continued. None for a fit that
        is part of a larger measurement and is repeated whole.
      on_epoch: told of each epoch, before a checkpoint of it is made, so that a run which is
        stopped in between repeats the epoch and tells of it again.
      warn: told of damaged checkpoints.

    Raises:
      NumericsError: a loss that is not finite; the checkpoints stay as they were.
    """
    heads = len(course.plans.heads)
    state = init_state(course.recipe, feed.init(course.seed, heads))
    stopping = EarlyStopping.start(course.patience, heads)
    plans = PlanIterator(course.plans)
    first = 0
    restored = None if checkpoints is None else checkpoints.restore_latest(state, warn)
    if restored is not None:
        state, progress, first = restored
        stopping = EarlyStopping(
            course.patience, **{k: np.array(v) for k, v in progress["stopping"].items()}
        )
        plans.seek(progress["plans"])
    # A copy, since donating a replicated array may delete the array it was made from.
    state = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))(devices.replicate(state))
    finish = jax.jit(lambda *args: end_epoch(course.recipe.optimizer, *args), donate_argnums=0)
    for epoch in range(first, course.plans.epochs):
        if not stopping.active.any():
            break
        active, scale = stopping.active, np.asarray(state.plateau.scale)
        state, sums = feed.train_epoch(state, frozen, cells, next(plans))
        logits = feed.logits(state.params, frozen, cells, course.stop)
        loss_sum, loss_count, correct, known = (np.asarray(part, np.float64) for part in sums)
        if not (np.isfinite(loss_sum).all() and np.isfinite(logits).all()):
            raise NumericsError(
                f"the loss is not finite in epoch {epoch}; lower config.optimizer.learning_rate"
            )
        loss, accuracy, auc = course.stop_figures(logits)
        improved = stopping.update(epoch, auc, loss)
        state = finish(
            state,
            jnp.asarray(loss, jnp.float32),
            jnp.asarray(improved),
            jnp.asarray(stopping.active),
        )
        on_epoch(
            EpochFigures(
                epoch, loss_sum / loss_count, correct / known, loss, accuracy, auc, scale, active
            )
        )
        over = epoch + 1 == course.plans.epochs or not stopping.active.any()
        if checkpoints is not None and (over or (epoch + 1) % course.save_every == 0):
            checkpoints.save(epoch + 1, state, _progress(stopping, plans))
    return Fitted(state.best_params, stopping, state.params)


def _progress(stopping: EarlyStopping, plans: PlanIterator) -> dict[str, Any]:
    arrays = {k: v.tolist() for k, v in asdict(stopping).items() if isinstance(v, np.ndarray)}
    return {"stopping": arrays, "plans": plans.position()}
