"""Joint fitting: one head for all labels on every held-in image, and siblings that judge it.

Sibling k is fitted on some of the held-in folds, watched on the next one and asked about fold k.
The last head of the stack sees every held-in image. All train in lockstep and stop as one, at the
epoch that was best for the siblings on the folds they were watched on. So the number of epochs, the
calibration and the thresholds of the last head come from images its siblings did not fit, and it
gives up no image for them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mlc_jax.assess.metrics import roc_auc
from mlc_jax.data.folds import Split
from mlc_jax.data.sampling import (
    HeadRows,
    PlanSource,
    as_they_are,
    balanced_labelsets,
    balanced_rarest,
    plan_of_rows,
)
from mlc_jax.models.heads import HeadStack
from mlc_jax.models.tuning import Trained
from mlc_jax.training.checkpoint import Checkpoints
from mlc_jax.training.crossfit import by_head
from mlc_jax.training.features import Cells, Features
from mlc_jax.training.loop import Course, EpochFigures, check_logits, fit
from mlc_jax.training.optimizers import backbone_rate, make_optimizer
from mlc_jax.training.parallel import Devices
from mlc_jax.training.standards import freeze
from mlc_jax.training.step import Recipe


@dataclass(frozen=True)
class Teaching:
    """What a joint fit learns from and is watched on.

    Attributes:
      human: int8 [N, L], 0 or 1 where a person gave the cell, -1 elsewhere.
      labels: int8 [N, L], those and the filled cells.
      weights: float64 [N, L], of each cell in the loss: 1 for human ones, 0 for blanks.
    """

    human: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class JointFit:
    """A trained classifier and what its siblings said about images they never saw.

    Attributes:
      params, last_params: of the classifier at its best epoch and after its last one, without the
        axis of heads.
      mean, std: float32 [C], the classifier's standardisation.
      shift: float64 [L], log odds that the classifier's sampling added; subtract from its logits.
      out_of_fold: float64 [N, L], the siblings' corrected logits; NaN outside the held-in rows.
      raw_logits: float64 [N, L], the classifier's own logits for all images.
      best_epoch: the epoch whose parameters were kept; None for heads that are solved exactly.
    """

    params: Trained
    last_params: Trained
    mean: np.ndarray
    std: np.ndarray
    shift: np.ndarray
    out_of_fold: np.ndarray
    raw_logits: np.ndarray
    best_epoch: int | None


def sample(config: ConfigDict, rows: np.ndarray, labels: np.ndarray) -> HeadRows:
    """The rows of a head of all labels, oversampled as `config.oversample` says."""
    if config.oversample == "labelset":
        return balanced_labelsets(rows, labels)
    if config.oversample == "label":
        return balanced_rarest(rows, labels, config.oversample_ratio)
    return as_they_are(rows)


def joint_samples(
    config: ConfigDict, human: np.ndarray, held_in: np.ndarray, splits: Sequence[Split]
) -> tuple[HeadRows, ...]:
    """The rows of every sibling, and last those of the classifier; see `joint_fit`."""
    train = [*(split.train for split in splits), held_in]
    return tuple(sample(config, rows, human[rows]) for rows in train)


def joint_fit(
    config: ConfigDict,
    teaching: Teaching,
    held_in: np.ndarray,
    splits: Sequence[Split],
    features: Features,
    feature_shape: tuple[int, int, int],
    devices: Devices,
    checkpoints: Checkpoints | None,
    on_epoch: Callable[[EpochFigures], None],
    warn: Callable[[str], None],
) -> JointFit:
    """Trains the classifier and its siblings.

    Args:
      config: the run's configuration.
      teaching: what is learned.
      held_in: int64 rows that may be learned from; none of the test split.
      splits: of the held-in rows, one per fold.
      features: of all images.
      feature_shape, devices, checkpoints, on_epoch, warn: see `fit`.
    """
    labels_count = teaching.human.shape[1]
    train = [*(split.train for split in splits), held_in]
    samples = joint_samples(config, teaching.human, held_in, splits)
    plans = PlanSource(
        samples, config.batch_size, config.features.views, config.epochs, config.seed
    )
    recipe = Recipe(
        HeadStack(config.head.name, feature_shape, outputs=labels_count),
        make_optimizer(
            config.optimizer,
            config.schedule,
            plans.steps,
            config.epochs,
            backbone_rate(config),
        ),
        config.loss,
        plans.steps,
    )
    feed = features.feed(recipe)
    outputs = np.tile(np.arange(labels_count), (len(train), 1))
    frozen = devices.replicate(freeze(features, feed, teaching.human, train, outputs))
    cells = devices.replicate(
        Cells(
            jnp.asarray(np.maximum(teaching.labels, 0), jnp.float32)[None],
            jnp.asarray(teaching.weights, jnp.float32)[None],
            jnp.zeros((1, len(teaching.labels), 0)),
            jnp.zeros(len(train), jnp.int32),
            jnp.asarray(outputs, jnp.int32),
            jnp.arange(len(train)),
        )
    )
    watched = tuple(split.stop for split in splits)
    nothing = np.zeros(0, np.int64)
    course = Course(
        recipe=recipe,
        plans=plans,
        stop=plan_of_rows((*watched, nothing), config.batch_size),
        stop_figures=lambda logits: _figures_as_one(logits, watched, teaching.human),
        seed=config.seed,
        patience=config.patience,
        save_every=config.save_every,
        filenames=features.filenames,
    )
    fitted = fit(course, feed, frozen, cells, devices, checkpoints, on_epoch, warn)

    everything = np.arange(len(teaching.human))
    asked = (*(split.predict for split in splits), everything)
    asked_plan = plan_of_rows(asked, config.batch_size)
    logits = feed.logits(fitted.params, frozen, cells, asked_plan)
    check_logits(logits, asked_plan, features.filenames)
    answers = by_head(logits)
    shifts = [own.log_odds_shift(teaching.human[own.rows]) for own in samples]
    out_of_fold = np.full(teaching.human.shape, np.nan)
    for rows, own, shift in zip(asked[:-1], answers, shifts, strict=False):
        out_of_fold[rows] = own[: rows.size] - shift
    return JointFit(
        params=jax.tree.map(lambda leaf: np.asarray(leaf[-1]), fitted.params),
        last_params=jax.tree.map(lambda leaf: np.asarray(leaf[-1]), fitted.last_params),
        mean=np.asarray(frozen.mean[-1]),
        std=np.asarray(frozen.std[-1]),
        shift=shifts[-1],
        out_of_fold=out_of_fold,
        raw_logits=answers[-1][: everything.size],
        best_epoch=int(fitted.stopping.epoch[-1]),
    )


def _figures_as_one(
    logits: np.ndarray, watched: Sequence[np.ndarray], human: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Loss, accuracy and macro AUC, means over the siblings, the same for every head."""
    figures: list[np.ndarray] = []
    for own, rows in zip(by_head(logits), watched, strict=False):
        z, labels = own[: rows.size], human[rows]
        known = labels >= 0
        positive = labels == 1
        losses = (np.logaddexp(0.0, z) - positive * z)[known]
        hits = ((z > 0) == positive)[known]
        areas = [
            roc_auc(positive[known[:, column], column], z[known[:, column], column])
            for column in range(labels.shape[1])
        ]
        defined = [area for area in areas if not np.isnan(area)]
        macro = np.mean(defined) if defined else np.nan
        figures.append(np.array([losses.mean(), hits.mean(), macro]))
    loss, right, area = (np.full(len(watched) + 1, mean) for mean in np.mean(figures, axis=0))
    return loss, right, area


def figures_as_one(figures: EpochFigures) -> dict[str, Any]:
    """One epoch's figures: a line of metrics.jsonl."""
    return {
        "train_loss": float(figures.train_loss[-1]),
        "train_accuracy": float(figures.train_accuracy[-1]),
        "validation_loss": float(figures.stop_loss[0]),
        "validation_accuracy": float(figures.stop_accuracy[0]),
        "validation_auc": float(figures.stop_auc[0]),
        "rate_scale": float(figures.rate_scale[-1]),
    }
