"""Heads in parts, one part after the other: how a CPU trains many of them.

Heads have nothing to say to each other. An accelerator takes all of a step at once, to be busy; a
CPU that did so would write the inputs of hundreds of heads to memory and read them back, where
those of a few stay in its caches.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mlc_jax.training.parallel import Devices

CACHED_BYTES = 8 << 20
"""What a part's inputs may take in float32. Measured with 400 linear heads on two cores: 4 and 8
MiB are equally fast, and 2.8 times as fast as all heads at once. The same on every machine, since
processes of one run must compile the same program."""


def number_of_parts(heads: int, abreast: int, head_bytes: int) -> int:
    """The fewest equal parts whose inputs stay in the caches, or as many as there are heads.

    Args:
      heads: how many there are.
      abreast: into how many groups devices cut the heads; each group is parted alike.
      head_bytes: of one head's inputs of a step, on one device.
    """
    together = heads // abreast
    for parts in range(1, together):
        if together % parts == 0 and together // parts * head_bytes <= CACHED_BYTES:
            return parts
    return together


def in_parts(
    function: Callable[..., Any],
    head_axes: tuple[Any, ...],
    result_heads: Any,
    devices: Devices,
    place_bytes: int,
) -> Callable[..., Any]:
    """A function of heads that do not depend on each other, for a CPU a part of them at a time.

    Args:
      function: its last argument is a `Plan`.
      head_axes, result_heads: as `Devices.wrap` takes them. Results without an axis of heads must
        not depend on which heads are there.
      devices: what it will run on.
      place_bytes: of the inputs of one place of a batch, in float32.
    """
    if devices.platform != "cpu":
        return function

    def run(*arguments: Any) -> Any:
        heads, batch = arguments[-1].rows.shape[-2:]
        abreast = devices.abreast(heads)
        # Under pmap the batch has been cut already; under jit it will be, by the compiler.
        own = batch if devices.kind == "pmap" else -(-batch * abreast // devices.count)
        parts = number_of_parts(heads, abreast, own * place_bytes)
        if parts == 1:
            return function(*arguments)

        def one(part: Any) -> Any:
            return function(*_filled(head_axes, part, arguments))

        made = jax.lax.map(one, _parted(head_axes, parts, arguments))
        return _united(result_heads, made)

    return run


def _parted(axes: Any, parts: int, tree: Any) -> Any:
    """[…, heads, …] to [parts, …, heads / parts, …]; None in place of what has no axis of heads.

    Part p has heads p, p + parts, …: cut like this, a part lies on as many devices as the whole.
    """

    def one(axis: int | None, part: Any) -> Any:
        if axis is None:
            return None
        return jax.tree.map(
            lambda array: jnp.moveaxis(
                array.reshape(*array.shape[:axis], -1, parts, *array.shape[axis + 1 :]), axis + 1, 0
            ),
            part,
        )

    return _over(one, axes, tree)


def _filled(axes: Any, part: Any, tree: Any) -> Any:
    """A part of `tree`, with what has no axis of heads as it is there."""
    return _over(lambda axis, own, whole: whole if axis is None else own, axes, part, tree)


def _united(axes: Any, tree: Any) -> Any:
    """The inverse of `_parted`; of what has no axis of heads, that of the first part."""

    def one(axis: int | None, part: Any) -> Any:
        if axis is None:
            return jax.tree.map(lambda array: array[0], part)

        def whole(array: jax.Array) -> jax.Array:
            moved = jnp.moveaxis(array, 0, axis + 1)
            return moved.reshape(*moved.shape[:axis], -1, *moved.shape[axis + 2 :])

        return jax.tree.map(whole, part)

    return _over(one, axes, tree)


def _over(function: Callable[..., Any], axes: Any, *trees: Any) -> Any:
    return jax.tree.map(function, axes, *trees, is_leaf=lambda axis: axis is None)
