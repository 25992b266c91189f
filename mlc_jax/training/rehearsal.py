"""A dry run: every phase once on a few images, and what the whole run will take.

The data have been scanned by then, all of them. Here one call of the backbone, one step of
training, one look at the stop folds, one save and one restore are made and timed, each a second
time where the first one compiles. Nothing of it is kept.
"""

import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mlc_jax.data.collection import Collection
from mlc_jax.data.sampling import HeadRows, Plan, PlanSource, plan_of_rows
from mlc_jax.data.table import MISSING
from mlc_jax.errors import CheckpointError
from mlc_jax.files.machine import folder_size, memory
from mlc_jax.journal import Journal
from mlc_jax.models.backbones import Backbone
from mlc_jax.models.extraction import extract_passes
from mlc_jax.models.feature_store import FeatureStore
from mlc_jax.models.heads import HeadStack
from mlc_jax.settings import cache_folder, solves_exactly
from mlc_jax.training.cached import CachedFeatures
from mlc_jax.training.checkpoint import Checkpoints
from mlc_jax.training.features import Cells, Features, extractor
from mlc_jax.training.feeds import (
    feature_shape_of,
    make_spec,
    open_features,
    passes_per_call,
    stored_spec,
)
from mlc_jax.training.linear_heads import PATH_TOLERANCE, checkpoint_tree
from mlc_jax.training.linear_solver import LinearSolver, Targets
from mlc_jax.training.optimizers import backbone_rate, make_optimizer
from mlc_jax.training.parallel import Devices
from mlc_jax.training.standards import freeze
from mlc_jax.training.step import Recipe, init_state

GIB = 2**30
KEPT = 2  # checkpoints that a run keeps

TYPICAL_STRENGTH = 100.0
TYPICAL_STEPS = 8
"""A strength that is often chosen, and how many the path to it has; estimates, not limits."""


@dataclass(frozen=True)
class Course:
    """What the run would train.

    Attributes:
      samples: the rows of each head.
      outputs: int [heads, outputs], the label of each output of each head.
      watched: how many rows the largest stop fold has.
    """

    samples: tuple[HeadRows, ...]
    outputs: np.ndarray
    watched: int


def rehearse(
    config: ConfigDict,
    workdir: Path,
    collection: Collection,
    backbone: Backbone,
    course: Course,
    journal: Journal,
) -> dict[str, Any]:
    """Tries every phase, and says what the run will take and whether there is room for it.

    Args:
      config: the run's configuration.
      workdir: owned by this process; left as it was.
      collection, backbone, course: what would be trained.
      journal: told of every figure.

    Returns:
      The figures: `seconds`, `disk_bytes`, `memory_bytes`, each with its parts.

    Raises:
      CheckpointError: what was saved does not come back.
    """
    devices = Devices(config.parallel)
    passes = config.features.views + 1
    with journal.phase("try: extract features", 0, ""):
        features, pass_seconds = _some_features(config, collection, backbone, devices)
    sample = CachedFeatures(features, devices)
    source: Features = sample
    if not config.features.cache:
        source = open_features(
            config, collection.images, backbone, devices, cache_folder(), journal
        )
    with journal.phase("try: train, look, save, restore", 0, ""):
        if solves_exactly(config):
            training, state_bytes, saved_bytes = _solved_once(
                config, workdir, collection, course, sample, devices
            )
        else:
            training, state_bytes, saved_bytes = _trained_once(
                config, workdir, collection, backbone, course, sample, source, devices
            )
    images = len(collection.images)
    whole_bytes = images * features[0].nbytes
    missing, stored_bytes = 0, 0
    if config.features.cache:
        store = FeatureStore(
            cache_folder(),
            stored_spec(config, backbone, cache_folder()),
            feature_shape_of(config, backbone),
            journal.warn,
        )
        missing = len(store.missing(collection.images))
        stored_bytes = missing * features[0].nbytes
    # Without the store every pass is made once for its moments, and again in each step.
    extracted = missing if config.features.cache else images
    parts = {"extract": extracted * passes * pass_seconds} | training
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    # The host holds the features, and on a CPU the device holds them again.
    held = whole_bytes * (2 if devices.platform == "cpu" else 1) if config.features.cache else 0
    figures = {
        "seconds": parts,
        "disk_bytes": {"features": stored_bytes, "checkpoints": KEPT * saved_bytes},
        "memory_bytes": {"features": held, "state": state_bytes, "now": peak},
    }
    _say(figures, config, workdir, journal)
    return {"finished": False, "stage": config.stage, "dry_run": figures}


def _some_features(
    config: ConfigDict, collection: Collection, backbone: Backbone, devices: Devices
) -> tuple[np.ndarray, float]:
    """Features [n, 1 + views, h, w, C] of a few images, and the seconds that one pass takes."""
    spec = make_spec(config, backbone)
    batch_size = config.features.batch_size or passes_per_call(spec.image_size, devices)
    passes = config.features.views + 1
    count = min(len(collection.images), max(2, -(-2 * batch_size // passes)))
    extract = extractor(backbone, spec, devices)

    def run() -> np.ndarray:
        made = extract_passes(
            collection.images,
            np.arange(count),
            spec.views,
            extract,
            batch_size,
            lambda _: None,
            lambda _: None,
        )
        return np.concatenate(list(made))

    made, seconds = _twice(run)
    return made.reshape(count, passes, *made.shape[1:]), seconds / (count * passes)


def _solved_once(
    config: ConfigDict,
    workdir: Path,
    collection: Collection,
    course: Course,
    sample: Features,
    devices: Devices,
) -> tuple[dict[str, float], int, int]:
    """Seconds that solving will take; bytes of the heads, and of them on disk.

    One strength is solved for on all rows, with features of the sample in place of all.
    """
    table, pooled = collection.table, sample.moments[0]
    labels = np.unique(course.outputs)
    values = np.where(table.human, table.values, np.int8(MISSING))[:, labels]
    rows = len(values)
    features = np.resize(pooled, (rows, pooled.shape[1]))
    limit = round(config.features.memory * devices.memory())
    solver = LinearSolver(features, devices, limit, config.folds, labels.size, table.filenames)
    targets = Targets(
        np.maximum(values, 0.0)[None], (values >= 0)[None].astype(float), np.zeros((1, rows, 0))
    )
    fold = np.arange(rows) % config.folds
    fitted = fold != np.arange(config.folds)[:, None]
    strength = np.full((config.folds, labels.size), TYPICAL_STRENGTH)
    problems = solver.place(targets, fitted)
    (heads, _, _), seconds = _twice(lambda: solver.fit(problems, strength, None, PATH_TOLERANCE))
    size, save_seconds = _saved(workdir, checkpoint_tree(heads))
    rounds = config.impute.rounds if config.stage == "impute" else 0
    return (
        {"train": (TYPICAL_STEPS + 2 * (rounds + 1)) * seconds, "save": save_seconds},
        sum(leaf.nbytes for leaf in heads),
        size,
    )


def _saved(workdir: Path, tree: Any) -> tuple[int, float]:
    """Saves a tree and restores it: its bytes on disk, and the seconds that saving it takes.

    Raises:
      CheckpointError: what was saved does not come back.
    """
    folder = Path(tempfile.mkdtemp(prefix=".dry_run-", dir=workdir))
    checkpoints = Checkpoints(folder, {"dry_run": True})
    try:
        started = time.perf_counter()
        checkpoints.save(1, tree, {})
        seconds = time.perf_counter() - started
        restored = checkpoints.restore_latest(tree, lambda _: None)
        size = folder_size(folder)
    finally:
        checkpoints.close()
        shutil.rmtree(folder, ignore_errors=True)
    if restored is None:
        raise CheckpointError(f"{workdir}: what was saved there does not come back; choose another")
    return size, seconds


def _trained_once(
    config: ConfigDict,
    workdir: Path,
    collection: Collection,
    backbone: Backbone,
    course: Course,
    sample: CachedFeatures,
    source: Features,
    devices: Devices,
) -> tuple[dict[str, float], int, int]:
    """Seconds that training will take; bytes of the state, and of it on disk."""
    plans = PlanSource(
        course.samples, config.batch_size, config.features.views, config.epochs, config.seed
    )
    heads, outputs = course.outputs.shape
    recipe = Recipe(
        HeadStack(config.head.name, feature_shape_of(config, backbone), outputs),
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
    feed = source.feed(recipe)
    rows = len(sample.moments[0])
    values = collection.table.values[:rows]
    frozen = devices.replicate(
        freeze(sample, feed, values, [np.arange(rows)] * heads, course.outputs)
    )
    cells = devices.replicate(
        Cells(
            jnp.asarray(np.maximum(values, 0), jnp.float32)[None],
            jnp.ones((1, *values.shape), jnp.float32),
            jnp.zeros((1, rows, 0)),
            jnp.zeros(heads, jnp.int32),
            jnp.asarray(course.outputs, jnp.int32),
            jnp.arange(heads),
        )
    )
    first = Plan(*(part[:1] for part in plans[0]))
    step = first._replace(rows=first.rows % rows)
    look = plan_of_rows((np.arange(config.batch_size) % rows,) * heads, config.batch_size)
    state = devices.replicate(init_state(recipe, feed.init(config.seed, heads)))

    def train() -> Any:
        # A copy, since the step takes over what it is given.
        given = jax.tree.map(jnp.copy, state)
        return jax.block_until_ready(feed.train_epoch(given, frozen, cells, step))[0]

    trained, step_seconds = _twice(train)
    _, look_seconds = _twice(lambda: feed.logits(trained.params, frozen, cells, look))
    size, save_seconds = _saved(workdir, trained)
    watched_steps = -(-course.watched // config.batch_size)
    seconds = {
        "train": config.epochs * plans.steps * step_seconds,
        "look": config.epochs * watched_steps * look_seconds,
        "save": -(-config.epochs // config.save_every) * save_seconds,
    }
    return seconds, sum(leaf.nbytes for leaf in jax.tree.leaves(trained)), size


def _twice(run: Callable[[], Any]) -> tuple[Any, float]:
    """What `run` gives, and the seconds of its second go; the first one compiles."""
    run()
    started = time.perf_counter()
    made = run()
    return made, time.perf_counter() - started


def _say(figures: dict[str, Any], config: ConfigDict, workdir: Path, journal: Journal) -> None:
    seconds, disk, held = (figures[name] for name in ("seconds", "disk_bytes", "memory_bytes"))

    def told(parts: dict[str, float], unit: str, scale: float) -> str:
        words = ", ".join(f"{name} {value / scale:.1f}" for name, value in parts.items())
        return f"{sum(parts.values()) / scale:.1f} {unit} ({words})"

    journal.line(
        f"time: about {told(seconds, 's', 1.0)}"
        + (f", if all {config.epochs} epochs are run" if config.epochs else "")
        + "; compiling, judging and the report come on top"
    )
    journal.line(f"disk: about {told(disk, 'GiB', GIB)}")
    journal.line(f"memory: about {told(held, 'GiB', GIB)}")
    room = {
        f"the cache {cache_folder()}": (disk["features"], shutil.disk_usage(cache_folder()).free),
        f"{workdir}": (disk["checkpoints"], shutil.disk_usage(workdir).free),
        "memory": (held["features"] + held["state"], memory()[1]),
    }
    for place, (needed, free) in room.items():
        if needed > free:
            journal.warn(
                f"{place} has room for {free / GIB:.1f} GiB, and the run needs "
                f"{needed / GIB:.1f} GiB; see config.features.views and config.head.name=linear"
            )
    journal.line("nothing was trained or kept; the prepared images stay in the cache")
