"""Cross-fitting: a head per label and fold, all trained at once, asked about what they never saw.

Head (label, fold) is fitted on the known cells of the fold's training rows, stopped on those of the
next fold, and gives the out-of-fold logit of every image in its own fold, blank or not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mlc_jax.assess.metrics import roc_auc
from mlc_jax.data.collection import Collection
from mlc_jax.data.folds import Split
from mlc_jax.data.sampling import HeadRows, PlanSource, as_they_are, balanced_label, plan_of_rows
from mlc_jax.data.table import LabelTable
from mlc_jax.journal import Journal
from mlc_jax.models.backbones import Backbone
from mlc_jax.models.heads import HeadStack
from mlc_jax.settings import cache_folder
from mlc_jax.training.checkpoint import Checkpoints
from mlc_jax.training.features import Cells, Features
from mlc_jax.training.feeds import feature_shape_of, open_features
from mlc_jax.training.loop import Course, EpochFigures, check_logits, fit
from mlc_jax.training.optimizers import backbone_rate, make_optimizer
from mlc_jax.training.parallel import Devices
from mlc_jax.training.provenance import run_inputs
from mlc_jax.training.standards import freeze
from mlc_jax.training.step import Recipe
from mlc_jax.training.writer import MetricsWriter


@dataclass(frozen=True)
class Head:
    """One head of the stack: the label it speaks of and the part each image plays for it."""

    label: int
    split: Split
    rows: HeadRows
    stop: np.ndarray


@dataclass(frozen=True)
class CrossFit:
    """What the heads said about images they never saw.

    Attributes:
      logits: float64 [N, L], out of fold and corrected for oversampling; NaN for labels not fitted.
      best_epoch: int64 [heads], the epoch whose parameters each head kept.
      heads: the heads, in the order of the stack.
    """

    logits: np.ndarray
    best_epoch: np.ndarray
    heads: tuple[Head, ...]


def unfit_reason(labels: np.ndarray, splits: Sequence[Split]) -> str | None:
    """Why a label cannot be fitted, or None where it can.

    Args:
      labels: int8 [N], 0, 1 or -1 for not known.
      splits: every fold's training rows must hold both classes, and its stop rows one known cell.
    """
    known = labels[labels >= 0]
    positives = int(known.sum())
    negatives = known.size - positives
    if known.size == 0:
        return "no cell is known"
    if positives == 0 or negatives == 0:
        return f"all {known.size} known cells are {int(known[0])}"
    for split in splits:
        if len({0, 1} & set(labels[split.train].tolist())) < 2:
            return (
                f"{positives} positives and {negatives} negatives are too few for {len(splits)} "
                "folds"
            )
        if not (labels[split.stop] >= 0).any():
            return f"{known.size} known cells are too few for {len(splits)} folds"
    return None


def make_heads(
    values: np.ndarray, labels: Sequence[int], splits: Sequence[Split], ratio: float
) -> tuple[Head, ...]:
    """The heads of the given labels, all folds of a label side by side.

    Args:
      values: int8 [N, L], cells that may be learned from; -1 where not known.
      labels: columns to fit.
      splits: one per fold, made before anything else.
      ratio: share to which the minority class is oversampled; 0 for none.
    """
    heads = []
    for label in labels:
        column = values[:, label]
        for split in splits:
            train = split.train[column[split.train] >= 0]
            stop = split.stop[column[split.stop] >= 0]
            rows = balanced_label(train, column[train], ratio) if ratio else as_they_are(train)
            heads.append(Head(label, split, rows, stop))
    return tuple(heads)


def cross_fit(
    config: ConfigDict,
    values: np.ndarray,
    heads: tuple[Head, ...],
    features: Features,
    feature_shape: tuple[int, int, int],
    filenames: Sequence[str],
    devices: Devices,
    checkpoints: Checkpoints,
    on_epoch: Callable[[EpochFigures], None],
    warn: Callable[[str], None],
) -> CrossFit:
    """Trains all heads and asks each about its own fold.

    Args:
      config: the run's configuration.
      values: int8 [N, L], the cells that may be learned from; -1 elsewhere.
      heads: from `make_heads`.
      features: of all images.
      feature_shape: (h, w, C) of one view.
      filenames: of the rows of `values`.
      devices, checkpoints, on_epoch, warn: see `fit`.
    """
    plans = PlanSource(
        tuple(head.rows for head in heads),
        config.batch_size,
        config.features.views,
        config.epochs,
        config.seed,
    )
    recipe = Recipe(
        HeadStack(config.head.name, feature_shape, outputs=1),
        make_optimizer(
            config.optimizer,
            config.schedule,
            plans.steps,
            config.epochs,
            backbone_rate=backbone_rate(config),
        ),
        config.loss,
        plans.steps,
    )
    feed = features.feed(recipe)
    outputs = np.array([[head.label] for head in heads])
    train = [head.split.train for head in heads]
    frozen = devices.replicate(freeze(features, feed, values, train, outputs))
    cells = devices.replicate(
        Cells(
            jnp.asarray(np.maximum(values, 0), jnp.float32),
            jnp.asarray(values >= 0, jnp.float32),
            jnp.asarray(outputs, jnp.int32),
        )
    )
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
        filenames=filenames,
    )
    fitted = fit(course, feed, frozen, cells, devices, checkpoints, on_epoch, warn)
    predicted = tuple(head.split.predict for head in heads)
    asked = plan_of_rows(predicted, config.batch_size)
    answers = feed.logits(fitted.params, frozen, asked)
    check_logits(answers, asked, filenames)
    logits = np.full(values.shape, np.nan)
    for head, rows, own in zip(heads, predicted, by_head(answers), strict=True):
        shift = head.rows.log_odds_shift(values[head.rows.rows, head.label, None])
        logits[rows, head.label] = own[: rows.size, 0] - shift
    return CrossFit(logits, fitted.stopping.epoch, heads)


def table_heads(
    config: ConfigDict, table: LabelTable, splits: Sequence[Split], unfit: Mapping[int, str]
) -> tuple[Head, ...]:
    """The heads of every label of a table but the `unfit` columns."""
    labels = [column for column in range(len(table.names)) if column not in unfit]
    ratio = config.oversample_ratio if config.oversample == "label" else 0.0
    return make_heads(table.values, labels, splits, ratio)


def cross_fit_table(
    config: ConfigDict,
    workdir: Path,
    collection: Collection,
    backbone: Backbone,
    splits: Sequence[Split],
    unfit: Mapping[int, str],
    journal: Journal,
) -> CrossFit:
    """Extracts the features of a collection and cross-fits every label of it that can be fitted.

    Args:
      config: the run's configuration.
      workdir: holds the checkpoints, which are continued, and metrics.jsonl. From the checkpoint of
        a finished run nothing is trained: its heads are asked again.
      collection, backbone, splits: what is learned.
      unfit: columns to leave out.
      journal: told of every phase.
    """
    table = collection.table
    devices = Devices(config.parallel)
    features = open_features(config, collection.images, backbone, devices, cache_folder(), journal)
    heads = table_heads(config, table, splits, unfit)
    journal.note(
        f"{len(heads)} {config.head.name} heads ({len(heads) // config.folds} labels x "
        f"{config.folds} folds) on "
        f"{devices.count} {devices.platform} device(s) under {config.parallel}"
    )
    checkpoints = Checkpoints(workdir / "checkpoints", run_inputs(config, collection, backbone))
    writer = MetricsWriter(workdir)
    try:
        with journal.phase("train heads", config.epochs, "epochs") as advance:

            def on_epoch(figures: EpochFigures) -> None:
                writer.write(figures.epoch, figures_for_people(figures, heads, table.names))
                advance(1)

            return cross_fit(
                config,
                table.values,
                heads,
                features,
                feature_shape_of(config, backbone),
                table.filenames,
                devices,
                checkpoints,
                on_epoch,
                journal.warn,
            )
    finally:
        writer.close()
        checkpoints.close()


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
