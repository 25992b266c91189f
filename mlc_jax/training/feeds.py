"""Where a stack of heads gets its features from: the cache, or the backbone at every step.

Both feeds give the same features for the same (row, view), so a run may use either. The cached one
holds all features on the device, and an epoch is one compiled program. The online one reads the
images of each step through the pipeline and runs the backbone inside the step, where part of it may
be trained.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mlc_jax.data.augment import Augmentation
from mlc_jax.data.dataset import ImageSet
from mlc_jax.data.pipeline import Views, chosen_views
from mlc_jax.data.sampling import Plan
from mlc_jax.errors import WeightsError
from mlc_jax.journal import Journal
from mlc_jax.models.backbones import Backbone, load_backbone
from mlc_jax.models.features import (
    Extract,
    FeatureSpec,
    FeatureStore,
    extract_passes,
    feature_shape,
    features_of,
)
from mlc_jax.models.tuning import Params, Trained, merged, split_params
from mlc_jax.settings import is_demo
from mlc_jax.training.parallel import Devices
from mlc_jax.training.step import (
    PER_HEAD,
    Batch,
    Frozen,
    Recipe,
    Sums,
    TrainState,
    head_network,
    make_train_step,
)


class Cells(NamedTuple):
    """The labels that a stack learns from.

    Attributes:
      labels: float32 [N, L].
      weights: float32 [N, L], 0 where a cell must not enter the loss.
      outputs: int32 [heads, outputs], the label that each output of each head speaks of.
    """

    labels: jax.Array
    weights: jax.Array
    outputs: jax.Array


class Feed(Protocol):
    """What the loop asks of a source of features."""

    frozen_backbone: Params
    """What `Frozen.backbone` must hold."""

    def init(self, seed: int, heads: int) -> Trained:
        """Parameters of `heads` heads before the first step, each leaf with an axis of heads."""

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and mean square over views and space, float64 [N, C] each."""

    def train_epoch(
        self, state: TrainState, frozen: Frozen, cells: Cells, plan: Plan
    ) -> tuple[TrainState, Sums]:
        """One epoch; the sums are over all its steps."""

    def logits(self, params: Trained, frozen: Frozen, plan: Plan) -> np.ndarray:
        """Logits of the planned rows, float32 [steps, heads, batch, outputs]."""


def row_moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and mean square over all but the first and last axis; [n, …, C] to float64 [n, C]."""
    flat = features.reshape(len(features), -1, features.shape[-1]).astype(np.float32)
    return flat.mean(axis=1, dtype=np.float64), np.square(flat).mean(axis=1, dtype=np.float64)


def _take_cells(cells: Cells, plan: Plan) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Labels and weights [heads, B, outputs] of one step's places, and which are no padding."""
    places = plan.rows[..., None], cells.outputs[:, None, :]
    return cells.labels[places], cells.weights[places], jnp.asarray(plan.mask)


def _gathered(array: jax.Array, axis_name: str | None, axis: int) -> jax.Array:
    """Puts the parts that devices hold together; under jit the compiler does it."""
    if axis_name is None:
        return array
    return jax.lax.all_gather(array, axis_name, axis=axis, tiled=True)


def extractor(backbone: Backbone, spec: FeatureSpec, devices: Devices) -> Extract:
    """Compiles the backbone over all devices: uint8 [B, H, W, 3] to features [B, h, w, C]."""

    def build(axis_name: str | None) -> Callable[..., Any]:
        def run(params: Any, images: jax.Array) -> jax.Array:
            return _gathered(features_of(backbone, spec, params, images), axis_name, 0)

        return run

    return partial(devices.wrap(build, (None, 0)), devices.replicate(backbone.params))


class CachedFeed:
    """Features [N, 1 + views, h, w, C], held by every device.

    Args:
      features: host array.
      recipe: how the heads are trained.
      devices: what runs the programs.
    """

    def __init__(self, features: np.ndarray, recipe: Recipe, devices: Devices) -> None:
        self.frozen_backbone: Params = {}
        self._stack = recipe.stack
        self._host = features
        self._features = devices.replicate(features)
        network = head_network(recipe.stack)

        def build_epoch(axis_name: str | None) -> Callable[..., Any]:
            step = make_train_step(recipe, network, axis_name)

            def train_epoch(
                state: TrainState, frozen: Frozen, cells: Cells, features: jax.Array, plan: Plan
            ) -> tuple[TrainState, Sums]:
                def one(state: TrainState, plan: Plan) -> tuple[TrainState, Sums]:
                    batch = Batch(features[plan.rows, plan.views], *_take_cells(cells, plan))
                    return step(state, frozen, batch)

                state, sums = jax.lax.scan(one, state, plan)
                return state, jax.tree.map(lambda s: s.sum(axis=0), sums)

            return train_epoch

        def build_logits(axis_name: str | None) -> Callable[..., Any]:
            all_heads = jax.vmap(network, in_axes=(0, PER_HEAD, 0))

            def logits(
                params: Trained, frozen: Frozen, features: jax.Array, plan: Plan
            ) -> jax.Array:
                def one(plan: Plan) -> jax.Array:
                    return all_heads(params, frozen, features[plan.rows, plan.views])

                return _gathered(jax.lax.map(one, plan), axis_name, 2)

            return logits

        self._train_epoch = devices.wrap(build_epoch, (None, None, None, None, 2), donate=(0,))
        self._logits = devices.wrap(build_logits, (None, None, None, 2))

    def init(self, seed: int, heads: int) -> Trained:
        """See `Feed`."""
        return Trained(self._stack.init(seed, heads), {})

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Feed`; in pieces, since float32 copies of all features may not fit."""
        pieces = [row_moments(self._host[i : i + 64]) for i in range(0, len(self._host), 64)]
        means, squares = zip(*pieces, strict=True)
        return np.concatenate(means), np.concatenate(squares)

    def train_epoch(
        self, state: TrainState, frozen: Frozen, cells: Cells, plan: Plan
    ) -> tuple[TrainState, Sums]:
        """See `Feed`."""
        return self._train_epoch(state, frozen, cells, self._features, plan)

    def logits(self, params: Trained, frozen: Frozen, plan: Plan) -> np.ndarray:
        """See `Feed`."""
        made = np.asarray(self._logits(params, frozen, self._features, plan))
        return made[:, :, : plan.rows.shape[2]]


@dataclass(frozen=True)
class OnlineSource:
    """What the online feed reads and runs.

    Attributes:
      images: the prepared data set.
      backbone: the frozen network.
      spec: what its features are.
      batch_size: passes per call where the backbone runs alone.
      trainable: the part of the backbone that is trained, one of `TRAINABLE`.
    """

    images: ImageSet
    backbone: Backbone
    spec: FeatureSpec
    batch_size: int
    trainable: str


class OnlineFeed:
    """The backbone inside the step: nothing is kept, every pass is made when it is asked for.

    The images of a step, one per head and place, are cut over the devices like any batch. Features
    are standardised by what the backbone gave before anything of it was trained.

    Args:
      source: what is read and run.
      recipe: how the heads are trained.
      devices: what runs the programs.
    """

    def __init__(self, source: OnlineSource, recipe: Recipe, devices: Devices) -> None:
        self._source, self._stack = source, recipe.stack
        self._tuned, self.frozen_backbone = split_params(source.backbone, source.trainable)
        head = head_network(recipe.stack)

        def network(params: Trained, frozen: Frozen, images: jax.Array) -> jax.Array:
            whole = merged(frozen.backbone, params.backbone)
            return head(params, frozen, features_of(source.backbone, source.spec, whole, images))

        def build_step(axis_name: str | None) -> Callable[..., Any]:
            step = make_train_step(recipe, network, axis_name)

            def train_step(
                state: TrainState, frozen: Frozen, cells: Cells, images: jax.Array, plan: Plan
            ) -> tuple[TrainState, Sums]:
                return step(state, frozen, Batch(images, *_take_cells(cells, plan)))

            return train_step

        def build_logits(axis_name: str | None) -> Callable[..., Any]:
            all_heads = jax.vmap(network, in_axes=(0, PER_HEAD, 0))

            def logits(params: Trained, frozen: Frozen, images: jax.Array) -> jax.Array:
                return _gathered(all_heads(params, frozen, images), axis_name, 1)

            return logits

        self._train_step = devices.wrap(build_step, (None, None, None, 1, 1), donate=(0,))
        self._logits = devices.wrap(build_logits, (None, None, 1))
        self._extract = extractor(source.backbone, source.spec, devices)

    def init(self, seed: int, heads: int) -> Trained:
        """See `Feed`."""
        copies = jax.tree.map(lambda leaf: jnp.stack([leaf] * heads), self._tuned)
        return Trained(self._stack.init(seed, heads), copies)

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Feed`; one run of the backbone over every view of every image."""
        source = self._source
        rows = np.arange(len(source.images))
        pieces = []
        waiting: list[np.ndarray] = []
        passes = source.spec.views.augmented + 1
        for features in extract_passes(
            source.images, rows, source.spec.views, self._extract, source.batch_size, lambda _: None
        ):
            waiting.extend(features)
            whole = len(waiting) // passes * passes
            if whole:
                pieces.append(
                    row_moments(np.stack(waiting[:whole]).reshape(-1, passes, *features.shape[1:]))
                )
                del waiting[:whole]
        means, squares = zip(*pieces, strict=True)
        return np.concatenate(means), np.concatenate(squares)

    def train_epoch(
        self, state: TrainState, frozen: Frozen, cells: Cells, plan: Plan
    ) -> tuple[TrainState, Sums]:
        """See `Feed`."""
        total: Sums | None = None
        for step, images in enumerate(self._images(plan)):
            part = jax.tree.map(lambda array, step=step: array[step], plan)
            state, sums = self._train_step(state, frozen, cells, images, part)
            total = sums if total is None else jax.tree.map(jnp.add, total, sums)
        assert total is not None
        return state, total

    def logits(self, params: Trained, frozen: Frozen, plan: Plan) -> np.ndarray:
        """See `Feed`."""
        made = [self._logits(params, frozen, images) for images in self._images(plan)]
        return np.stack([np.asarray(step) for step in made])[:, :, : plan.rows.shape[2]]

    def _images(self, plan: Plan) -> Any:
        heads, batch = plan.rows.shape[1:]
        stream = chosen_views(
            self._source.images,
            plan.rows.reshape(-1),
            plan.views.reshape(-1),
            self._source.spec.views,
            heads * batch,
        )
        return (images.reshape(heads, batch, *images.shape[1:]) for images in stream)


def make_spec(config: ConfigDict, backbone: Backbone) -> FeatureSpec:
    """What the features of a run depend on, from its configuration."""
    augment = config.augment
    augmentation = Augmentation(
        rotation=augment.rotation,
        shear=augment.shear,
        zoom=augment.zoom,
        shift=augment.shift,
        horizontal_flip=augment.horizontal_flip,
        vertical_flip=augment.vertical_flip,
        brightness=tuple(augment.brightness),
    )
    return FeatureSpec(
        backbone=(backbone.name, backbone.digest),
        image_size=tuple(config.data.image_size),
        pooled=config.head.name == "linear",
        dtype=config.features.dtype,
        views=Views(augmentation, config.seed, config.features.views),
    )


def open_feed(
    config: ConfigDict,
    images: ImageSet,
    backbone: Backbone,
    devices: Devices,
    cache: Path,
    journal: Journal,
) -> Callable[[Recipe], Feed]:
    """Prepares the features that the configuration asks for; extracts those that are missing.

    Returns:
      A function that gives them to a recipe.
    """
    spec = make_spec(config, backbone)
    batch_size = config.features.batch_size or passes_per_call(spec.image_size, devices)
    trainable = config.backbone.trainable
    if not config.features.cache:
        journal.note("features.cache=false: the backbone runs inside every step")
        source = OnlineSource(images, backbone, spec, batch_size, trainable)
        if trainable != "none":
            tuned = sum(leaf.size for leaf in jax.tree.leaves(split_params(backbone, trainable)[0]))
            journal.note(
                f"backbone.trainable={trainable}: {tuned:,} parameters of {backbone.name} are "
                "trained, a copy for every head"
            )
        return lambda recipe: OnlineFeed(source, recipe, devices)
    store = FeatureStore(cache, spec, feature_shape(backbone, spec), journal.warn)
    missing = len(store.missing(images))
    held = len(set(images.digests)) - missing
    if held:
        journal.note(f"feature cache: {held} images are there already, {missing} to extract")
    if missing:
        extract = extractor(backbone, spec, devices)
        with journal.phase(
            "extract features", missing * (spec.views.augmented + 1), "views"
        ) as advance:
            store.extract(images, extract, batch_size, advance)
    with journal.phase("load features", len(images), "images") as advance:
        features = store.load(images)
        advance(len(images))
    return lambda recipe: CachedFeed(features, recipe, devices)


def passes_per_call(image_size: tuple[int, int], devices: Devices) -> int:
    """How many passes one call of the backbone takes where the configuration leaves it open."""
    # A CPU is fastest while the widest maps stay in its caches, an accelerator when it is full.
    if devices.platform == "cpu":
        return max(2, min(8, round(200_000 / (image_size[0] * image_size[1]))))
    return 64 * devices.count


def feature_shape_of(config: ConfigDict, backbone: Backbone) -> tuple[int, int, int]:
    """(h, w, C) of the features that `open_feed` gives."""
    return feature_shape(backbone, make_spec(config, backbone))


def choose_backbone(config: ConfigDict, journal: Journal) -> Backbone:
    """Loads the backbone; only the embedded demo may do without its ImageNet weights.

    Raises:
      WeightsError: the weights cannot be had; the message says where to put them.
    """
    name, weights = config.backbone.name, config.backbone.weights
    try:
        backbone = load_backbone(name, weights, seed=config.seed)
    except WeightsError as error:
        if weights != "imagenet" or not is_demo(config):
            raise
        journal.note(str(error))
        backbone = load_backbone(name, "random", seed=config.seed)
    if backbone.random:
        journal.warn(
            f"{name} has RANDOM weights: nothing in it was ever learned, and results on real "
            "photographs would be worse than ImageNet weights give"
        )
    return backbone
