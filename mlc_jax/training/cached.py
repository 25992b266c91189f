"""Features that the devices hold: an epoch is one compiled program."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np

from mlc_jax.data.sampling import Plan
from mlc_jax.models.tuning import Params, Trained
from mlc_jax.training.features import (
    CELLS_PER_HEAD,
    Cells,
    gathered,
    row_means,
    row_moments,
    take_batch,
    take_context,
)
from mlc_jax.training.parallel import Devices
from mlc_jax.training.parts import in_parts
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


class CachedFeatures:
    """Features [N, 1 + views, h, w, C], held by every device.

    Args:
      features: host array.
      devices: what holds them and runs the programs.
      filenames: of the N images.
    """

    def __init__(
        self, features: np.ndarray, devices: Devices, filenames: Sequence[str] = ()
    ) -> None:
        self._host, self._devices = features, devices
        self.filenames = filenames or [f"row {row}" for row in range(len(features))]
        self._replicated = devices.replicate(features, alike=True)

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Features`; in pieces, since float32 copies of all features may not fit."""
        pieces = [row_moments(self._host[i : i + 64]) for i in range(0, len(self._host), 64)]
        means, squares = zip(*pieces, strict=True)
        return np.concatenate(means), np.concatenate(squares)

    @cached_property
    def pooled(self) -> np.ndarray:
        """See `Features`."""
        return np.concatenate(
            [row_means(self._host[i : i + 64]) for i in range(0, len(self._host), 64)]
        )

    def feed(self, recipe: Recipe) -> "CachedFeed":
        """See `Features`."""
        return CachedFeed(self._replicated, recipe, self._devices)


class CachedFeed:
    """Features [N, 1 + views, h, w, C] on the devices; an epoch is one compiled program.

    Args:
      features: device array, replicated.
      recipe: how the heads are trained.
      devices: what runs the programs.
    """

    def __init__(self, features: jax.Array, recipe: Recipe, devices: Devices) -> None:
        self.frozen_backbone: Params = {}
        self._stack = recipe.stack
        self._features = features
        network = head_network(recipe.stack)
        parted = partial(in_parts, devices=devices, place_bytes=4 * math.prod(features.shape[2:]))
        batch, per_head = (None, None, None, None, 2), (PER_HEAD, CELLS_PER_HEAD, None, 1)
        of_epoch, of_logits = (STATE_PER_HEAD, *per_head), (0, *per_head)

        def build_epoch(axis_name: str | None) -> Callable[..., Any]:
            step = make_train_step(recipe, network, axis_name)

            def train_epoch(
                state: TrainState, frozen: Frozen, cells: Cells, features: jax.Array, plan: Plan
            ) -> tuple[TrainState, Sums]:
                def one(state: TrainState, plan: Plan) -> tuple[TrainState, Sums]:
                    inputs = features[plan.rows, plan.views]
                    return step(state, frozen, take_batch(inputs, cells, plan, state.step))

                return jax.lax.scan(one, state, plan)

            return parted(train_epoch, of_epoch, (STATE_PER_HEAD, 1))

        def build_logits(axis_name: str | None) -> Callable[..., Any]:
            all_heads = jax.vmap(network, in_axes=(0, PER_HEAD, 0, 0))

            def logits(
                params: Trained, frozen: Frozen, cells: Cells, features: jax.Array, plan: Plan
            ) -> jax.Array:
                def one(plan: Plan) -> jax.Array:
                    inputs = features[plan.rows, plan.views]
                    return all_heads(params, frozen, inputs, take_context(cells, plan))

                return gathered(jax.lax.map(one, plan), axis_name, 2)

            return parted(logits, of_logits, 1)

        self._train_epoch = devices.wrap(
            build_epoch, batch, of_epoch, (STATE_PER_HEAD, 1), donate=(0,)
        )
        self._logits = devices.wrap(build_logits, batch, of_logits, 1)

    def init(self, seed: int, heads: int) -> Trained:
        """See `Feed`."""
        return Trained(self._stack.init(seed, heads), {})

    def train_epoch(
        self, state: TrainState, frozen: Frozen, cells: Cells, plan: Plan
    ) -> tuple[TrainState, Sums]:
        """See `Feed`."""
        return self._train_epoch(state, frozen, cells, self._features, plan)

    def logits(self, params: Trained, frozen: Frozen, cells: Cells, plan: Plan) -> np.ndarray:
        """See `Feed`."""
        made = np.asarray(self._logits(params, frozen, cells, self._features, plan))
        return made[:, :, : plan.rows.shape[2]]
