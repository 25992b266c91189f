"""A cross-fit over features that are drawn, not extracted: seconds, and its truth is known."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from configs.impute import get_config
from mlc_jax.data.folds import assign_folds, rotations
from mlc_jax.settings import resolve
from mlc_jax.training.cached import CachedFeatures
from mlc_jax.training.checkpoint import Checkpoints
from mlc_jax.training.crossfit import (
    CrossFit,
    cross_fit,
    figures_for_people,
    human_lesson,
    make_heads,
)
from mlc_jax.training.features import Feed
from mlc_jax.training.loop import EpochFigures
from mlc_jax.training.parallel import Devices
from mlc_jax.training.step import Recipe
from mlc_jax.training.writer import MetricsWriter

ROWS, CHANNELS, FOLDS = 180, 6, 3
NAMES = ("sign", "noise", "rare")


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features float16 [N, 2, 1, 1, C] and labels int8 [N, 3], all known.

    Label 0 is the sign of a channel, label 1 is noise, label 2 is positive where another channel is
    high, which is the case for a sixth of the rows.
    """
    rng = np.random.default_rng(seed)
    seen = rng.normal(size=(ROWS, CHANNELS))
    both = seen[:, None] + 0.1 * rng.normal(size=(ROWS, 2, CHANNELS))
    labels = np.stack([seen[:, 2] > 0, rng.random(ROWS) < 0.5, seen[:, 4] > 0.97], axis=1)
    # Scales and offsets that heads must not depend on.
    features = both * np.geomspace(0.1, 50, CHANNELS) + np.linspace(-20, 20, CHANNELS)
    return features[:, :, None, None].astype(np.float16), labels.astype(np.int8)


def configuration(**changes: Any) -> ConfigDict:
    """A small linear run; `changes` with __ for the dots in a key.

    Its loss is binary cross-entropy under the name of focal loss (γ = 0), so that heads are trained
    step by step; with `loss__name="bce"` they are solved exactly.
    """
    config = get_config()
    keys = {
        "loss.name": "focal",
        "loss.gamma": 0.0,
        "loss.alpha": -1.0,
        "features.views": 1,
        "head.name": "linear",
        "optimizer.learning_rate": 0.1,
        "optimizer.l2": 0.0,
        "schedule.name": "plateau",
        "epochs": 8,
        "patience": 5,
        "folds": FOLDS,
        "batch_size": 8,
        "save_every": 3,
    } | {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict(keys)
    return resolve(config, lambda _: None)


class Wrapped(CachedFeatures):
    """Features with something around the feed."""

    def __init__(
        self, features: np.ndarray, devices: Devices, wrap: Callable[[Feed], Feed]
    ) -> None:
        super().__init__(features, devices)
        self._wrap = wrap

    def feed(self, recipe: Recipe) -> Any:
        return self._wrap(super().feed(recipe))


def fitted(
    workdir: Path,
    features: np.ndarray,
    values: np.ndarray,
    *,
    labels: tuple[int, ...] = (0, 1, 2),
    ratio: float = 0.0,
    on_epoch: Callable[[EpochFigures], None] = lambda _: None,
    wrap: Callable[[Feed], Feed] = lambda feed: feed,
    fold_of: np.ndarray | None = None,
    warn: Callable[[str], None] = print,
    **changes: Any,
) -> CrossFit:
    """One cross-fit with its checkpoints and metrics.jsonl in `workdir`; goes on with one there.

    `on_epoch` is called behind the writer; `wrap` may put something around the feed.
    """
    config = configuration(**changes)
    if fold_of is None:
        fold_of = assign_folds(np.arange(len(values)), values, FOLDS, 0)
    heads = make_heads(values, labels, rotations(fold_of, int(fold_of.max()) + 1), ratio)
    devices = Devices("jit", jax.local_devices()[:1])
    workdir.mkdir(exist_ok=True)
    writer = MetricsWriter(workdir, warnings.warn)
    checkpoints = Checkpoints(workdir / "checkpoints", {"keys": config.to_json()})

    def told(figures: EpochFigures) -> None:
        writer.write(figures.epoch, figures_for_people(figures, heads, NAMES))
        on_epoch(figures)

    try:
        return cross_fit(
            config,
            values,
            human_lesson(values),
            heads,
            Wrapped(features, devices, wrap),
            features.shape[2:],
            devices,
            checkpoints,
            told,
            warn,
        )
    finally:
        writer.close()
        checkpoints.close()
