"""Features made inside the step, where part of the backbone may be trained.

The images of each step are read through the pipeline. For the same (row, view) they give the same
features as the store holds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlc_jax.data.dataset import ImageSet
from mlc_jax.data.pipeline import chosen_views, timed
from mlc_jax.data.sampling import Plan
from mlc_jax.models.backbones import Backbone
from mlc_jax.models.extraction import by_image, extract_passes
from mlc_jax.models.features import FeatureSpec, feature_shape, features_of
from mlc_jax.models.tuning import Trained, merged, split_params
from mlc_jax.training.features import (
    CELLS_PER_HEAD,
    Cells,
    extractor,
    gathered,
    row_means,
    row_moments,
    spread,
    take_batch,
    take_context,
)
from mlc_jax.training.parallel import Devices, united
from mlc_jax.training.step import (
    PER_HEAD,
    STATE_PER_HEAD,
    Frozen,
    Recipe,
    Sums,
    TrainState,
    head_network,
    make_train_step,
)

IMAGES_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class OnlineFeatures:
    """Features that are made anew whenever they are asked for; nothing of them is kept.

    Attributes:
      images: the prepared data set.
      backbone: the network.
      spec: what its features are.
      batch_size: passes per call where the backbone runs alone.
      trainable: the part of the backbone that is trained, one of `TRAINABLE`.
      devices: what runs the programs.
      waited: told of the seconds for which images were waited for.
    """

    images: ImageSet
    backbone: Backbone
    spec: FeatureSpec
    batch_size: int
    trainable: str
    devices: Devices
    waited: Callable[[float], None]

    @property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Features`."""
        means, squares, _ = self._statistics
        return means, squares

    @property
    def pooled(self) -> np.ndarray:
        """See `Features`."""
        pooled: np.ndarray = self._statistics[2]
        return pooled

    @cached_property
    def _statistics(self) -> np.ndarray:
        """The moments and the pooled features, float64 [3, N, C], in one pass of the backbone."""
        places = self.devices.places(len(self.images))
        rows = np.arange(len(self.images))[places]
        extract = extractor(self.backbone, self.spec, self.devices.own())
        found = np.zeros((3, len(self.images), feature_shape(self.backbone, self.spec)[-1]))
        passes = extract_passes(
            self.images,
            rows,
            self.spec.views,
            extract,
            self.batch_size,
            lambda _: None,
            self.waited,
        )
        done = places.start
        for made in by_image(passes, self.spec.views.augmented + 1, IMAGES_AT_ONCE):
            own = slice(done, done + len(made))
            found[:2, own] = row_moments(made)
            found[2, own] = row_means(made)
            done += len(made)
        return united(found)

    @property
    def filenames(self) -> Sequence[str]:
        """See `Features`."""
        return self.images.filenames

    def feed(self, recipe: Recipe) -> "OnlineFeed":
        """See `Features`."""
        return OnlineFeed(self, recipe)


class OnlineFeed:
    """The backbone inside the step: nothing is kept, every pass is made when it is asked for.

    The images of a step, one per head and place, are cut over the devices like any batch. Features
    are standardised by what the backbone gave before anything of it was trained.

    Args:
      source: what is read and run.
      recipe: how the heads are trained.
    """

    def __init__(self, source: OnlineFeatures, recipe: Recipe) -> None:
        devices = source.devices
        self._source, self._stack = source, recipe.stack
        self._tuned, self.frozen_backbone = split_params(source.backbone, source.trainable)
        head = head_network(recipe.stack)

        def network(
            params: Trained, frozen: Frozen, images: jax.Array, context: jax.Array
        ) -> jax.Array:
            whole = merged(frozen.backbone, params.backbone)
            made = features_of(source.backbone, source.spec, whole, images)
            return head(params, frozen, made, context)

        def build_step(axis_name: str | None) -> Callable[..., Any]:
            step = make_train_step(recipe, network, axis_name)

            def train_step(
                state: TrainState, frozen: Frozen, cells: Cells, images: jax.Array, plan: Plan
            ) -> tuple[TrainState, Sums]:
                return step(state, frozen, take_batch(images, cells, plan, state.step))

            return train_step

        def build_logits(axis_name: str | None) -> Callable[..., Any]:
            all_heads = jax.vmap(network, in_axes=(0, PER_HEAD, 0, 0))

            def logits(
                params: Trained, frozen: Frozen, cells: Cells, images: jax.Array, plan: Plan
            ) -> jax.Array:
                context = take_context(cells, plan)
                return gathered(all_heads(params, frozen, images, context), axis_name, 1)

            return logits

        batch, per_head = (None, None, None, 1, 1), (PER_HEAD, CELLS_PER_HEAD, 0, 0)
        self._train_step = devices.wrap(
            build_step, batch, (STATE_PER_HEAD, *per_head), (STATE_PER_HEAD, 0), donate=(0,)
        )
        self._logits = devices.wrap(build_logits, batch, (0, *per_head), 0)

    def init(self, seed: int, heads: int) -> Trained:
        """See `Feed`."""
        copies = jax.tree.map(lambda leaf: jnp.stack([leaf] * heads), self._tuned)
        return Trained(self._stack.init(seed, heads), copies)

    def train_epoch(
        self, state: TrainState, frozen: Frozen, cells: Cells, plan: Plan
    ) -> tuple[TrainState, Sums]:
        """See `Feed`."""
        sums = []
        for step, images in enumerate(self._images(plan)):
            part = jax.tree.map(lambda array, step=step: array[step], plan)
            state, own = self._train_step(state, frozen, cells, images, part)
            sums.append(jax.block_until_ready(own))  # or steps would queue up with their images
        return state, jax.tree.map(lambda *steps: jnp.stack(steps), *sums)

    def logits(self, params: Trained, frozen: Frozen, cells: Cells, plan: Plan) -> np.ndarray:
        """See `Feed`."""
        made = []
        for step, images in enumerate(self._images(plan)):
            part = jax.tree.map(lambda array, step=step: array[step], plan)
            made.append(np.asarray(self._logits(params, frozen, cells, images, part)))
        return np.stack(made)[:, :, : plan.rows.shape[2]]

    def _images(self, plan: Plan) -> Any:
        heads, batch = plan.rows.shape[1:]
        mine = self._source.devices.places(batch, heads)
        rows, views = plan.rows[:, :, mine], plan.views[:, :, mine]
        own = rows.shape[2]
        if not own:  # fewer places than devices
            size = (heads, batch, *self._source.images.image_size, 3)
            return (np.empty(size, np.uint8) for _ in rows)
        stream = chosen_views(
            self._source.images,
            rows.reshape(-1),
            views.reshape(-1),
            self._source.spec.views,
            heads * own,
        )
        return (
            spread(images.reshape(heads, own, *images.shape[1:]), mine, batch)
            for images in timed(stream, self._source.waited)
        )
