"""What training asks of the features of a data set, and what the sources of them share."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from mlc_jax.data.sampling import Plan
from mlc_jax.models.backbones import Backbone
from mlc_jax.models.features import Extract, FeatureSpec, features_of
from mlc_jax.models.tuning import Params, Trained
from mlc_jax.training.parallel import Devices
from mlc_jax.training.step import (
    Frozen,
    Recipe,
    Sums,
    TrainState,
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

    def train_epoch(
        self, state: TrainState, frozen: Frozen, cells: Cells, plan: Plan
    ) -> tuple[TrainState, Sums]:
        """One epoch; the sums of each of its steps, [steps, heads] each."""

    def logits(self, params: Trained, frozen: Frozen, plan: Plan) -> np.ndarray:
        """Logits of the planned rows, float32 [steps, heads, batch, outputs]."""


class Features(Protocol):
    """The features of a data set, whatever is trained on them: no label or fold is in them."""

    @property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and mean square over views and space, float64 [N, C] each."""

    def feed(self, recipe: Recipe) -> Feed:
        """Gives the features to the heads of a recipe."""


def row_moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and mean square over all but the first and last axis; [n, …, C] to float64 [n, C]."""
    flat = features.reshape(len(features), -1, features.shape[-1]).astype(np.float32)
    return flat.mean(axis=1, dtype=np.float64), np.square(flat).mean(axis=1, dtype=np.float64)


def take_cells(cells: Cells, plan: Plan) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Labels and weights [heads, B, outputs] of one step's places, and which are no padding."""
    places = plan.rows[..., None], cells.outputs[:, None, :]
    return cells.labels[places], cells.weights[places], jnp.asarray(plan.mask)


def gathered(array: jax.Array, axis_name: str | None, axis: int) -> jax.Array:
    """Puts the parts that devices hold together; under jit the compiler does it."""
    if axis_name is None:
        return array
    return jax.lax.all_gather(array, axis_name, axis=axis, tiled=True)


def extractor(backbone: Backbone, spec: FeatureSpec, devices: Devices) -> Extract:
    """Compiles the backbone over all devices: uint8 [B, H, W, 3] to features [B, h, w, C]."""

    def build(axis_name: str | None) -> Callable[..., Any]:
        def run(params: Any, images: jax.Array) -> jax.Array:
            return gathered(features_of(backbone, spec, params, images), axis_name, 0)

        return run

    return partial(devices.wrap(build, (None, 0)), devices.replicate(backbone.params))
