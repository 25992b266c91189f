"""Cross-fitting: a head per label and fold, all trained at once, asked about what they never saw.

Head (label, fold) is fitted on the known cells of the fold's training rows, stopped on those of the
next fold, and gives the out-of-fold logit of every image in its own fold, blank or not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mlc_jax.assess.metrics import roc_auc
from mlc_jax.data.folds import Split
from mlc_jax.data.sampling import HeadRows, PlanSource, as_they_are, balanced_label, plan_of_rows
from mlc_jax.models.heads import HeadStack
from mlc_jax.models.tuning import Trained
from mlc_jax.training.checkpoint import Checkpoints
from mlc_jax.training.features import Cells, Features
from mlc_jax.training.loop import Course, EpochFigures, check_logits, fit
from mlc_jax.training.optimizers import backbone_rate, make_optimizer
from mlc_jax.training.parallel import Devices
from mlc_jax.training.standards import freeze
from mlc_jax.training.step import Frozen, Recipe


@dataclass(frozen=True)
class Head:
    """One head of the stack: its label, its split, by number, and the part each image plays."""

    label: int
    number: int
    split: Split
    rows: HeadRows
    stop: np.ndarray


@dataclass(frozen=True)
class Lesson:
    """What the heads of each split are taught; splits of one lesson are taught the same.

    Attributes:
      labels: float64 [1 or splits, N, L] in [0, 1].
      weights: float64, same shape; 0 where a cell must not enter the loss.
      context: float64 [1 or splits, N, L], what a head may be told of an image's other labels, -2
        to 2, 0 being nothing; or [1, N, 0] where heads are told nothing at all.
    """

    labels: np.ndarray
    weights: np.ndarray
    context: np.ndarray


@dataclass(frozen=True)
class CrossFit:
    """What the heads said about images they never saw.

    Attributes:
      logits: float64 [N, L], out of fold and corrected for oversampling; means over the image's
        views and, where images were dealt into folds more than once, over the deals. NaN for labels
        not fitted.
      by_split: float64 [splits, N, L], what the heads of each split say about every image, those
        they were fitted on too.
      best_epoch: int64 [heads], the epoch whose parameters each head kept; None where heads were
        solved exactly.
      heads: the heads, in the order of the stack.
      stack: their architecture.
      params: of all heads, stacked, at their best epochs.
      frozen: what the heads were told of their training folds.
      strengths: float64 [labels fitted], the prior's that a head on all rows would have; None where
        heads were trained step by step.
    """

    logits: np.ndarray
    by_split: np.ndarray
    best_epoch: np.ndarray | None
    heads: tuple[Head, ...]
    stack: HeadStack
    params: Trained
    frozen: Frozen
    strengths: np.ndarray | None

    def of_blanks(self) -> np.ndarray:
        """Logits for blank cells, float64 [N, L]: the mean over the heads of all splits.

        No head has seen the value of a blank cell, so all may predict it: together they were fitted
        on every known cell, and an average of models is better than one (Breiman, 1996).
        """
        mean: np.ndarray = self.by_split.mean(axis=0)
        return mean


def unfit_reason(labels: np.ndarray, splits: Sequence[Split], exact: bool) -> str | None:
    """Why a label cannot be fitted, or None where it can.

    Args:
      labels: int8 [N], 0, 1 or -1 for not known.
      splits: of the rows, one per fold.
      exact: whether heads are solved exactly, on all but the fold that judges them, which must then
        hold both classes. Heads that are trained step by step need both among the training rows of
        every split, and a known cell among its stop rows.
    """
    known = labels[labels >= 0]
    positives = int(known.sum())
    negatives = known.size - positives
    if known.size == 0:
        return "no cell is known"
    if positives == 0 or negatives == 0:
        return f"all {known.size} known cells are {int(known[0])}"
    for split in splits:
        if exact:
            fitted = np.concatenate([labels[split.train], labels[split.stop]])
            if not {0, 1} <= set(fitted.tolist()):
                rarer = "positives" if positives < negatives else "negatives"
                return (
                    f"all {min(positives, negatives)} {rarer} lie in one fold, and the head that "
                    "is judged there would be fitted without any"
                )
            continue
        if len({0, 1} & set(labels[split.train].tolist())) < 2:
            return (
                f"{positives} positives and {negatives} negatives are too few for {len(splits)} "
                "folds"
            )
        if not (labels[split.stop] >= 0).any():
            return f"{known.size} known cells are too few for {len(splits)} folds"
    return None


def left_out_warnings(names: Sequence[str], unfit: Mapping[int, str]) -> list[str]:
    """One warning per reason for the labels that are not fitted.

    Args:
      names: of all labels.
      unfit: per column that is not fitted, its `unfit_reason`.
    """
    columns: dict[str, list[int]] = {}
    for column, reason in unfit.items():
        columns.setdefault(reason, []).append(column)
    warnings = []
    for reason, own in columns.items():
        which = "label" if len(own) == 1 else f"{len(own)} labels"
        listed = ", ".join(repr(names[column]) for column in own)
        warnings.append(f"{which} {listed}: left out of fitting, {reason}")
    return warnings


def human_lesson(values: np.ndarray) -> Lesson:
    """Known cells as they are, int8 [N, L] with -1 for missing; blank ones teach nothing."""
    known = values >= 0
    nothing = np.zeros((1, len(values), 0))
    return Lesson(np.maximum(values, 0.0)[None], known[None].astype(np.float64), nothing)


def make_heads(
    values: np.ndarray, labels: Sequence[int], splits: Sequence[Split], ratio: float
) -> tuple[Head, ...]:
    """The heads of the given labels, all splits of a label side by side, fitted on known cells.

    Args:
      values: int8 [N, L], cells that may be learned from; -1 where not known.
      labels: columns to fit.
      splits: made before anything else.
      ratio: share to which the minority class is oversampled; 0 for none.
    """
    heads = []
    for label in labels:
        column = values[:, label]
        for number, split in enumerate(splits):
            train = split.train[column[split.train] >= 0]
            stop = split.stop[column[split.stop] >= 0]
            rows = balanced_label(train, column[train], ratio) if ratio else as_they_are(train)
            heads.append(Head(label, number, split, rows, stop))
    return tuple(heads)


def taught_heads(
    values: np.ndarray, labels: Sequence[int], splits: Sequence[Split]
) -> tuple[Head, ...]:
    """As `make_heads`, but fitted on blank cells of the training rows too, each row once."""
    heads = []
    for label in labels:
        for number, split in enumerate(splits):
            stop = split.stop[values[split.stop, label] >= 0]
            heads.append(Head(label, number, split, as_they_are(split.train), stop))
    return tuple(heads)


def cross_fit(
    config: ConfigDict,
    values: np.ndarray,
    lesson: Lesson,
    heads: tuple[Head, ...],
    features: Features,
    feature_shape: tuple[int, int, int],
    devices: Devices,
    checkpoints: Checkpoints | None,
    on_epoch: Callable[[EpochFigures], None],
    warn: Callable[[str], None],
    *,
    correct: bool = True,
) -> CrossFit:
    """Trains all heads and asks each about its own fold.

    Args:
      config: the run's configuration.
      values: int8 [N, L], the cells that people gave; -1 elsewhere. Heads are stopped on them.
      lesson: what the heads are fitted to.
      heads: from `make_heads` or `taught_heads`.
      features: of all images.
      feature_shape: (h, w, C) of one view.
      devices, checkpoints, on_epoch, warn: see `fit`.
      correct: whether logits are corrected for oversampling, as the original recipe did not.
    """
    plans = PlanSource(
        tuple(head.rows for head in heads),
        config.batch_size,
        config.features.views,
        config.epochs,
        config.seed,
    )
    recipe = Recipe(
        HeadStack(config.head.name, feature_shape, outputs=1, context=lesson.context.shape[-1]),
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
    outputs = np.array([[head.label] for head in heads])
    train = [head.split.train for head in heads]
    frozen = devices.replicate(freeze(features, feed, values, train, outputs))
    own_split = np.array([head.number for head in heads])
    cells = devices.replicate(cells_of(lesson, own_split, outputs))
    stop_rows = tuple(head.stop for head in heads)
    stop_labels = tuple(values[head.stop, head.label] for head in heads)
    course = Course(
        recipe=recipe,
        plans=plans,
        stop=plan_of_rows(stop_rows, config.batch_size),
        stop_figures=lambda logits: _stop_figures(logits, stop_labels),
        seed=config.seed,
        patience=config.patience,
        save_every=config.save_every,
        filenames=features.filenames,
    )
    fitted = fit(course, feed, frozen, cells, devices, checkpoints, on_epoch, warn)

    everyone = np.arange(len(values))
    asked = (everyone,) * len(heads)
    seen = [
        plan_of_rows(asked, config.batch_size, view) for view in range(config.features.views + 1)
    ]
    by_view = [feed.logits(fitted.params, frozen, cells, plan) for plan in seen]
    for logits, plan in zip(by_view, seen, strict=True):
        check_logits(logits, plan, features.filenames)
    answers = np.mean([by_head(logits) for logits in by_view], axis=0)
    total, times = np.zeros(values.shape), np.zeros(values.shape)
    by_split = np.full((own_split.max() + 1, *values.shape), np.nan)
    for head, own in zip(heads, answers, strict=True):
        said = own[: len(values), 0] - (_shift(head, values) if correct else 0.0)
        mine = head.split.predict
        total[mine, head.label] += said[mine]
        times[mine, head.label] += 1
        by_split[head.number, :, head.label] = said
    logits = np.where(times > 0, total / np.maximum(times, 1), np.nan)
    return CrossFit(
        logits, by_split, fitted.stopping.epoch, heads, recipe.stack, fitted.params, frozen, None
    )


def _shift(head: Head, values: np.ndarray) -> float:
    """Log odds that the head's sampling added."""
    return float(head.rows.log_odds_shift(values[head.rows.rows, head.label, None])[0])


def cells_of(lesson: Lesson, own_split: np.ndarray, outputs: np.ndarray) -> Cells:
    """A lesson as the devices hold it.

    Args:
      lesson: what heads are taught.
      own_split: int [heads], the split of each.
      outputs: int [heads, outputs], the labels that each speaks of.
    """
    groups = max(len(lesson.labels), len(lesson.context))

    def of_groups(part: np.ndarray) -> jax.Array:
        return jnp.asarray(np.broadcast_to(part, (groups, *part.shape[1:])), jnp.float32)

    return Cells(
        of_groups(lesson.labels),
        of_groups(lesson.weights),
        of_groups(lesson.context),
        jnp.asarray(own_split if groups > 1 else np.zeros_like(own_split), jnp.int32),
        jnp.asarray(outputs, jnp.int32),
        jnp.arange(len(outputs)),
    )


def by_head(logits: np.ndarray) -> np.ndarray:
    """Logits of a plan, [steps, heads, batch, outputs], to float64 [heads, places, outputs]."""
    swapped = logits.swapaxes(0, 1).astype(np.float64)
    return swapped.reshape(swapped.shape[0], -1, swapped.shape[-1])


def _stop_figures(
    logits: np.ndarray, labels: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Loss, accuracy and AUC of each head on its stop rows, float64 [heads] each."""
    figures = np.empty((3, len(labels)))
    for number, (own, known) in enumerate(zip(by_head(logits), labels, strict=True)):
        z = own[: known.size, 0]
        figures[0, number] = np.mean(np.logaddexp(0.0, z) - known * z)
        figures[1, number] = np.mean((z > 0) == (known == 1))
        figures[2, number] = roc_auc(known, z)
    return figures[0], figures[1], figures[2]


def figures_for_people(
    figures: EpochFigures, heads: Sequence[Head], names: Sequence[str]
) -> dict[str, Any]:
    """One epoch's figures per label, averaged over its folds: a line of metrics.jsonl."""
    of_label = np.array([head.label for head in heads])
    labels: dict[str, Any] = {}
    for label in dict.fromkeys(of_label.tolist()):
        own = of_label == label
        labels[names[label]] = {
            "train_loss": float(figures.train_loss[own].mean()),
            "train_accuracy": float(figures.train_accuracy[own].mean()),
            "stop_loss": float(figures.stop_loss[own].mean()),
            "stop_accuracy": float(figures.stop_accuracy[own].mean()),
            "stop_auc": float(np.mean(figures.stop_auc[own])),
            "rate_scale": float(figures.rate_scale[own].mean()),
        }
    return {"active_heads": int(figures.active.sum()), "labels": labels}
