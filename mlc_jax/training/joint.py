"""The one door to fitting the classifier of stage 2: solved exactly, or trained step by step."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mlc_jax.data.folds import Split
from mlc_jax.settings import solves_exactly
from mlc_jax.training.checkpoint import Checkpoints
from mlc_jax.training.features import Features
from mlc_jax.training.jointfit import JointFit, Teaching, figures_as_one, joint_fit
from mlc_jax.training.linear_heads import PathStep
from mlc_jax.training.linear_jointfit import linear_joint_fit
from mlc_jax.training.parallel import Devices


def fit_joint(
    config: ConfigDict,
    teaching: Teaching,
    held_in: np.ndarray,
    splits: Sequence[Split],
    features: Features,
    feature_shape: tuple[int, int, int],
    devices: Devices,
    checkpoints: Checkpoints | None,
    on_epoch: Callable[[int, dict[str, Any]], None],
    warn: Callable[[str], None],
) -> JointFit:
    """Fits a classifier; arguments as of `joint_fit`.

    Args:
      on_epoch: called with the number of each epoch, or of each step of the strength path, and its
        metrics: a line of metrics.jsonl.
    """
    if solves_exactly(config):
        return linear_joint_fit(
            config,
            teaching,
            held_in,
            splits,
            features,
            devices,
            checkpoints,
            lambda step: on_epoch(step.step, path_means(step)),
            warn,
        )
    return joint_fit(
        config,
        teaching,
        held_in,
        splits,
        features,
        feature_shape,
        devices,
        checkpoints,
        lambda figures: on_epoch(figures.epoch, figures_as_one(figures)),
        warn,
    )


def path_means(step: PathStep) -> dict[str, Any]:
    """One strength's metrics, means over labels and folds."""
    auc = step.val_auc[np.isfinite(step.val_auc)]
    return {
        "strength": step.strength,
        "train_loss": float(step.train_loss.mean()),
        "train_accuracy": float(step.train_accuracy.mean()),
        "validation_loss": float(step.val_loss.mean()),
        "validation_accuracy": float(step.val_accuracy.mean()),
        "validation_auc": float(auc.mean()) if auc.size else float("nan"),
        "iterations": int(step.iterations.max()),
    }
