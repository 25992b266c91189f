"""The training loop of a stack of heads: epochs, early stopping, checkpoints, in that order."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlc_jax.data.delimited import shown
from mlc_jax.data.pipeline import PlanIterator
from mlc_jax.data.sampling import Plan, PlanSource
from mlc_jax.errors import NumericsError
from mlc_jax.interrupt import check, deferred
from mlc_jax.models.tuning import Trained
from mlc_jax.processes import agreed, requested
from mlc_jax.training.checkpoint import Checkpoints
from mlc_jax.training.early_stopping import EarlyStopping
from mlc_jax.training.features import Cells, Feed
from mlc_jax.training.parallel import Devices
from mlc_jax.training.step import Frozen, Recipe, end_epoch, init_state

NAMED = 64
SAVE_SECONDS = 30.0
"""An epoch that ends so long after the last checkpoint is saved, whatever its number."""


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
      save_every: epochs between checkpoints; fewer where they take long, see `SAVE_SECONDS`.
      filenames: of all rows, for the message when something is not finite.
    """

    recipe: Recipe
    plans: PlanSource
    stop: Plan
    stop_figures: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
    seed: int
    patience: int
    save_every: int
    filenames: Sequence[str]


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

    A signal is heard at the end of the epoch in progress, behind a checkpoint of it.

    Args:
      course, feed, frozen, cells, devices: what is trained, on what, by what.
      checkpoints: where the state is saved; the newest intact one is continued. None for a fit that
        is part of a larger measurement and is repeated whole.
      on_epoch: told of each epoch, before a checkpoint of it is made, so that a run which is
        stopped in between repeats the epoch and tells of it again.
      warn: told of damaged checkpoints.

    Raises:
      NumericsError: a loss, gradient, logit or metric that is not finite; names the images it came
        from, and the checkpoints stay as they were.
      Interrupted: a signal; what was done is saved.
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
    saved = time.monotonic()
    with deferred():
        for epoch in range(first, course.plans.epochs):
            if not stopping.active.any():
                break
            active, scale = stopping.active, np.asarray(state.plateau.scale)
            plan = next(plans)
            state, sums = feed.train_epoch(state, frozen, cells, plan)
            check_steps(np.asarray(sums.broken), epoch, plan, course.filenames)
            logits = feed.logits(state.params, frozen, cells, course.stop)
            check_logits(logits, course.stop, course.filenames)
            # Of the leader: they decide who goes on, and all processes must do the same.
            loss, accuracy, auc = np.array(
                agreed([part.tolist() for part in course.stop_figures(logits)]), np.float64
            )
            check_figures(loss, accuracy, epoch, course.stop, course.filenames)
            loss_sum, loss_count, correct, known, _ = (
                np.asarray(part, np.float64).sum(axis=0) for part in sums
            )
            improved = stopping.update(epoch, auc, loss)
            state = finish(
                state,
                # On the host, since the state may lie on devices of other processes as well.
                loss.astype(np.float32),
                improved,
                stopping.active,
            )
            train_loss, train_accuracy = loss_sum / loss_count, correct / known
            on_epoch(
                EpochFigures(epoch, train_loss, train_accuracy, loss, accuracy, auc, scale, active)
            )
            over = epoch + 1 == course.plans.epochs or not stopping.active.any()
            due = (epoch + 1) % course.save_every == 0 or time.monotonic() - saved > SAVE_SECONDS
            asked = requested()
            if checkpoints is not None and (over or due or asked):
                checkpoints.save(epoch + 1, state, _progress(stopping, plans))
                saved = time.monotonic()
            if asked:
                check()
    return Fitted(state.best_params, stopping, state.params)


def check_steps(broken: np.ndarray, epoch: int, plan: Plan, filenames: Sequence[str]) -> None:
    """Finds the first step whose loss or gradient was not finite.

    Args:
      broken: float32 [steps, heads], see `Sums`.
      epoch: its number, for the message.
      plan: of the epoch.
      filenames: of all rows.

    Raises:
      NumericsError: there is one; names the images of the batch.
    """
    if not broken.any():
        return
    step, head = (int(place[0]) for place in np.nonzero(broken))
    rows = plan.rows[step, head][plan.mask[step, head]]
    raise NumericsError(
        f"the loss or a gradient is not finite in epoch {epoch}, step {step}, head {head}; lower "
        f"config.optimizer.learning_rate, or look at its images: {_named(rows, filenames)}"
    )


def check_logits(logits: np.ndarray, plan: Plan, filenames: Sequence[str]) -> None:
    """Raises NumericsError, naming images, where logits are not finite.

    Args:
      logits: [steps, heads, batch, outputs].
      plan: of the rows they belong to.
      filenames: of all rows.
    """
    broken = ~np.isfinite(logits).all(axis=-1) & plan.mask
    if broken.any():
        raise NumericsError(
            "logits are not finite; lower config.optimizer.learning_rate, or look at the images: "
            f"{_named(plan.rows[broken], filenames)}"
        )


def check_figures(
    loss: np.ndarray, accuracy: np.ndarray, epoch: int, plan: Plan, filenames: Sequence[str]
) -> None:
    """Raises NumericsError, naming images, where a head's figures on its stop fold are not finite.

    Args:
      loss, accuracy: float [heads].
      epoch: its number, for the message.
      plan: of the stop folds.
      filenames: of all rows.
    """
    broken = ~(np.isfinite(loss) & np.isfinite(accuracy))
    if broken.any():
        rows = plan.rows[:, broken][plan.mask[:, broken]]
        raise NumericsError(
            f"the loss on the stop folds is not finite in epoch {epoch}; lower "
            f"config.optimizer.learning_rate, or look at the images: {_named(rows, filenames)}"
        )


def _named(rows: np.ndarray, filenames: Sequence[str]) -> str:
    names = [shown(filenames[row]) for row in dict.fromkeys(rows.tolist())]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _progress(stopping: EarlyStopping, plans: PlanIterator) -> dict[str, Any]:
    arrays = {k: v.tolist() for k, v in asdict(stopping).items() if isinstance(v, np.ndarray)}
    return {"stopping": arrays, "plans": plans.position()}
