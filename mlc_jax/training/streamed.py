"""Features that stay on disk, for data sets whose features do not fit into memory.

Each step's features are read while the step before is computed. They are the ones that
`CachedFeatures` would hold; what is held here is two steps of them.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlc_jax.data.sampling import Plan
from mlc_jax.data.watch import result_of, watched
from mlc_jax.models.feature_store import FeatureReader
from mlc_jax.models.tuning import Params, Trained
from mlc_jax.training.features import (
    CELLS_PER_HEAD,
    Cells,
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

ROWS_AT_ONCE = 64
FEATURES = "the features on disk"


@dataclass(frozen=True, eq=False)
class StreamedFeatures:
    """Features [N, 1 + views, h, w, C] that are read when they are asked for.

    Attributes:
      reader: of the store.
      devices: what runs the programs.
      filenames: of the N images.
      waited: told of the seconds that a step waited for its features.
    """

    reader: FeatureReader
    devices: Devices
    filenames: Sequence[str]
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
        """The moments and the pooled features, float64 [3, N, C], in one pass over the disk."""
        count, views = self.reader.shape[:2]
        found = np.zeros((3, count, self.reader.shape[-1]))
        mine = np.arange(count)[self.devices.places(count)]
        for rows, made in watched(self._read(mine, views), FEATURES):
            found[:2, rows] = row_moments(made)
            found[2, rows] = row_means(made)
        return united(found)

    def _read(self, rows: np.ndarray, views: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All views of the given rows, some rows at a time, and which rows they are."""
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[start : start + ROWS_AT_ONCE]
            yield some, self.reader.take(*np.broadcast_arrays(some[:, None], np.arange(views)))

    def feed(self, recipe: Recipe) -> "StreamedFeed":
        """See `Features`."""
        return StreamedFeed(self, recipe)


class StreamedFeed:
    """One compiled step, fed from disk.

    Args:
      source: what is read.
      recipe: how the heads are trained.
    """

    def __init__(self, source: StreamedFeatures, recipe: Recipe) -> None:
        self.frozen_backbone: Params = {}
        self._source, self._stack = source, recipe.stack
        network = head_network(recipe.stack)

        def build_step(axis_name: str | None) -> Callable[..., Any]:
            step = make_train_step(recipe, network, axis_name)

            def train_step(
                state: TrainState, frozen: Frozen, cells: Cells, features: jax.Array, plan: Plan
            ) -> tuple[TrainState, Sums]:
                return step(state, frozen, take_batch(features, cells, plan, state.step))

            return train_step

        def build_logits(axis_name: str | None) -> Callable[..., Any]:
            all_heads = jax.vmap(network, in_axes=(0, PER_HEAD, 0, 0))

            def logits(
                params: Trained, frozen: Frozen, cells: Cells, features: jax.Array, plan: Plan
            ) -> jax.Array:
                context = take_context(cells, plan)
                return gathered(all_heads(params, frozen, features, context), axis_name, 1)

            return logits

        wrap = source.devices.wrap
        batch, per_head = (None, None, None, 1, 1), (PER_HEAD, CELLS_PER_HEAD, 0, 0)
        self._train_step = wrap(
            build_step, batch, (STATE_PER_HEAD, *per_head), (STATE_PER_HEAD, 0), donate=(0,)
        )
        self._logits = wrap(build_logits, batch, (0, *per_head), 0)

    def init(self, seed: int, heads: int) -> Trained:
        """See `Feed`."""
        return Trained(self._stack.init(seed, heads), {})

    def train_epoch(
        self, state: TrainState, frozen: Frozen, cells: Cells, plan: Plan
    ) -> tuple[TrainState, Sums]:
        """See `Feed`."""
        sums = []
        for features, part in self._steps(plan):
            state, own = self._train_step(state, frozen, cells, features, part)
            sums.append(jax.block_until_ready(own))  # or steps would queue up with their features
        return state, jax.tree.map(lambda *steps: jnp.stack(steps), *sums)

    def logits(self, params: Trained, frozen: Frozen, cells: Cells, plan: Plan) -> np.ndarray:
        """See `Feed`."""
        made = [
            np.asarray(self._logits(params, frozen, cells, features, part))
            for features, part in self._steps(plan)
        ]
        return np.stack(made)[:, :, : plan.rows.shape[2]]

    def _steps(self, plan: Plan) -> Iterator[tuple[np.ndarray, Plan]]:
        """The features [heads, B, h, w, C] and the plan of each step; the next is being read."""
        parts = [Plan(*(array[step] for array in plan)) for step in range(len(plan.rows))]
        reader, (_, heads, batch) = self._source.reader, plan.rows.shape
        mine = self._source.devices.places(batch, heads)

        def take(rows: np.ndarray, views: np.ndarray) -> np.ndarray:
            own = reader.take(rows[:, mine], views[:, mine])
            return spread(own, mine, batch)

        reading = ThreadPoolExecutor(1)
        try:
            coming = reading.submit(take, parts[0].rows, parts[0].views)
            for step, part in enumerate(parts):
                started = time.perf_counter()
                features = result_of(coming, FEATURES)
                if step:  # nothing was computed while the first was read
                    self._source.waited(time.perf_counter() - started)
                if step + 1 < len(parts):
                    following = parts[step + 1]
                    coming = reading.submit(take, following.rows, following.views)
                yield features, part
        finally:
            reading.shutdown(wait=False)  # a reader that hangs would be waited for
