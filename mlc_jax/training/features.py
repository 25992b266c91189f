"""What training asks of the features of a data set, and what the sources of them share."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np

from mlc_jax.data.sampling import Plan
from mlc_jax.models.backbones import Backbone
from mlc_jax.models.features import Extract, FeatureSpec, features_of
from mlc_jax.models.tuning import Params, Trained
from mlc_jax.models.winograd import with_winograd
from mlc_jax.training.parallel import Devices
from mlc_jax.training.step import (
    Batch,
    Frozen,
    Recipe,
    Sums,
    TrainState,
)


class Cells(NamedTuple):
    """The labels that a stack learns from; heads of one group are taught the same.

    Attributes:
      labels: float32 [groups, N, L] in [0, 1].
      weights: float32 [groups, N, L], 0 where a cell must not enter the loss.
      context: float32 [groups, N, L], what a head may be told of an image's other labels, from
        -2 to 2, 0 being nothing; or [groups, N, 0] where heads are told nothing at all.
      group: int32 [heads].
      outputs: int32 [heads, outputs], the label that each output of each head speaks of.
      number: int32 [heads], of each head in the stack.
    """

    labels: jax.Array
    weights: jax.Array
    context: jax.Array
    group: jax.Array
    outputs: jax.Array
    number: jax.Array


CELLS_PER_HEAD = Cells(*cast(tuple[Any, ...], (None, None, None, 0, 0, 0)))
"""The axes of heads in `Cells`, as `jax.vmap` takes them."""


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

    def logits(self, params: Trained, frozen: Frozen, cells: Cells, plan: Plan) -> np.ndarray:
        """Logits of the planned rows, float32 [steps, heads, batch, outputs]."""


class Features(Protocol):
    """The features of a data set, whatever is trained on them: no label or fold is in them."""

    @property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and mean square over views and space, float64 [N, C] each."""

    @property
    def pooled(self) -> np.ndarray:
        """Mean over space of each image as it is, without its augmented views, float64 [N, C]."""

    @property
    def filenames(self) -> Sequence[str]:
        """Of the N images, to name one of them by."""

    def feed(self, recipe: Recipe) -> Feed:
        """Gives the features to the heads of a recipe."""


def row_moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and mean square over all but the first and last axis; [n, …, C] to float64 [n, C]."""
    flat = features.reshape(len(features), -1, features.shape[-1]).astype(np.float32)
    return flat.mean(axis=1, dtype=np.float64), np.square(flat).mean(axis=1, dtype=np.float64)


def row_means(features: np.ndarray) -> np.ndarray:
    """Mean over space of the image itself, view 0; [n, 1 + views, h, w, C] to float64 [n, C]."""
    return row_moments(features[:, 0])[0]


def take_batch(inputs: jax.Array, cells: Cells, plan: Plan, step: jax.Array) -> Batch:
    """One training step's batch; some of the context is kept from the heads, see `withheld`."""
    places = cells.group[:, None, None], plan.rows[..., None], cells.outputs[:, None, :]
    told = withheld(take_context(cells, plan), cells.number, plan.rows, step)
    return Batch(inputs, cells.labels[places], cells.weights[places], told, jnp.asarray(plan.mask))


def take_context(cells: Cells, plan: Plan) -> jax.Array:
    """What heads are told of the other labels of their places, float32 [heads, B, L or 0].

    Of the labels that a head speaks of itself it is told nothing.
    """
    told = cells.context[cells.group[:, None], plan.rows]
    if not told.shape[-1]:
        return told
    own = jax.nn.one_hot(cells.outputs, told.shape[-1]).max(axis=1)
    return told * (1 - own)[:, None, :]


WITHHELD = 0.15
"""Share of an image's other labels that training keeps from a head, so that it can do without."""


def withheld(
    context: jax.Array, number: jax.Array, rows: jax.Array | np.ndarray, step: jax.Array
) -> jax.Array:
    """Sets a share of the context to 0, which tells nothing; [heads, B, K] to the same shape.

    Which entries is a function of (step, row, head, label), by the mixer of MurmurHash3: no hidden
    stream, and the same on any number of devices, under jit and pmap.
    """
    labels = context.shape[-1]
    if not labels:
        return context
    place = number.astype(jnp.uint32)[:, None, None] * jnp.uint32(0x9E3779B1)
    place ^= jnp.asarray(rows, jnp.uint32)[..., None] * jnp.uint32(0x85EBCA77)
    place ^= jnp.arange(labels, dtype=jnp.uint32) * jnp.uint32(0xC2B2AE3D)
    bits = _mixed(place ^ _mixed(step.astype(jnp.uint32) + jnp.uint32(1)))
    return jnp.where(bits < jnp.uint32(WITHHELD * 2**32), 0.0, context)


def _mixed(bits: jax.Array) -> jax.Array:
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


def gathered(array: jax.Array, axis_name: str | None, axis: int) -> jax.Array:
    """Puts the parts that devices hold together; under jit the compiler does it."""
    if axis_name is None:
        return array
    return jax.lax.all_gather(array, axis_name, axis=axis, tiled=True)


def spread(own: np.ndarray, places: slice, batch: int) -> np.ndarray:
    """A process's own places of a batch, [heads, b, …], in an array of all, [heads, batch, …].

    The others' are not looked at, and take no memory as long as nobody does.
    """
    if own.shape[1] == batch:
        return own
    whole = np.empty((own.shape[0], batch, *own.shape[2:]), own.dtype)
    whole[:, places] = own
    return whole


def extractor(backbone: Backbone, spec: FeatureSpec, devices: Devices) -> Extract:
    """Compiles the backbone over all devices: uint8 [B, H, W, 3] to features [B, h, w, C].

    A user's own features, float [B, 1, 1, C], stay what they are.
    """
    if backbone.given:
        return lambda features: jnp.asarray(features, spec.dtype)
    backbone = with_winograd(backbone, spec.algorithm.winograd)

    def build(axis_name: str | None) -> Callable[..., Any]:
        def run(params: Any, images: jax.Array) -> jax.Array:
            return gathered(features_of(backbone, spec, params, images), axis_name, 0)

        return run

    params = devices.replicate(backbone.params, alike=True)
    run = partial(devices.wrap(build, (None, 0)), params)
    if devices.platform != "cpu":
        return run
    # Two calls at once would share the caches that the maps of one are made to fit.
    return lambda images: jax.block_until_ready(run(images))
