"""Frozen 3x3 convolutions by Winograd's minimal filtering, F(4x4, 3x3), for CPUs.

Each tile of 4x4 outputs takes 36 products per pair of channels instead of 144 (arXiv:1509.09308,
section 4.1). The filters never change, so they are transformed once; what is left of a convolution
is additions and 36 matrix products. It pays on a CPU where channels are many; an accelerator has
convolutions of its own.

The arithmetic is float32. Features differ from those of `lax.conv` by some 1e-5 of their norm, so a
layer's algorithm is part of what features depend on.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental.xla_metadata import set_xla_metadata

from mlc_jax.models.backbones import Backbone
from mlc_jax.models.layers import Conv
from mlc_jax.models.preprocess import PREPROCESS

TILE = 4
WINDOW = TILE + 2

# Points 0, ±1, ±2 and infinity; d [6], g [3] to the 4 outputs OUT((FILTER g) · (IN d)).
IN = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float32,
)
FILTER = (
    np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], np.float64)
    / 24
)
OUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    np.float32,
)

# Tiles that go through at once: enough rows for a fast matrix product, few enough that the
# transformed tiles stay in the caches (192 tiles of 64 to 64 channels: 3.5 MB; of 512: 28 MB).
TILES_AT_ONCE = 192


def transform_filters(kernel: np.ndarray) -> tuple[np.ndarray, ...]:
    """float32 [3, 3, C, features] to 36 matrices float32 [C, features]; computed in float64."""
    wide = np.asarray(kernel, np.float64)
    transformed = np.einsum("ai,bj,ijcf->abcf", FILTER, FILTER, wide).astype(np.float32)
    return tuple(transformed.reshape(WINDOW * WINDOW, *kernel.shape[2:]))


def convolve(x: jax.Array, filters: tuple[jax.Array, ...]) -> jax.Array:
    """A 3x3 convolution, stride 1, padding SAME.

    Args:
      x: float32 [B, H, W, C].
      filters: of `transform_filters`.

    Returns:
      float32 [B, H, W, features].
    """
    batch, height, width, channels = x.shape
    down, across = -(-height // TILE), -(-width // TILE)
    # Whole images or strips of one, whichever comes closer to the wished number of tiles.
    images = _largest_divisor(batch, max(1, TILES_AT_ONCE // (down * across)))
    strips = max(1, round(down * across / TILES_AT_ONCE))
    rows = -(-down // strips)
    strips = -(-down // rows)

    def pad(x: jax.Array) -> jax.Array:
        below, right = rows * strips * TILE + 1 - height, across * TILE + 1 - width
        return jnp.pad(x, ((0, 0), (1, below), (1, right), (0, 0)))

    padded = _apart(pad)(x)
    part = (images, rows * TILE + 2, across * TILE + 2, channels)

    def one(number: jax.Array) -> jax.Array:
        corner = (number // strips * images, number % strips * rows * TILE, 0, 0)
        return _convolve_part(jax.lax.dynamic_slice(padded, corner, part), filters)

    parts = jax.lax.map(one, jnp.arange(batch // images * strips))
    whole = parts.reshape(batch // images, strips, images, rows * TILE, across * TILE, -1)
    whole = whole.swapaxes(1, 2).reshape(batch, strips * rows * TILE, across * TILE, -1)
    return whole[:, :height, :width]


def _convolve_part(x: jax.Array, filters: tuple[jax.Array, ...]) -> jax.Array:
    """Padded [b, 4·rows + 2, 4·columns + 2, C] to [b, 4·rows, 4·columns, features]."""
    batch, height, width, channels = x.shape
    rows, columns = height // TILE, width // TILE

    def down(x: jax.Array) -> list[jax.Array]:
        lines = [x[:, i : i + TILE * (rows - 1) + 1 : TILE] for i in range(WINDOW)]
        return [_combine(weights, lines) for weights in IN]

    def across(lines: list[jax.Array]) -> list[jax.Array]:
        tiles = []
        for line in lines:
            places = [line[:, :, j : j + TILE * (columns - 1) + 1 : TILE] for j in range(WINDOW)]
            tiles += [_combine(weights, places).reshape(-1, channels) for weights in IN]
        return tiles

    def back_across(products: list[jax.Array]) -> list[list[jax.Array]]:
        lines = [products[i : i + WINDOW] for i in range(0, len(products), WINDOW)]
        return [[_combine(weights, line) for weights in OUT] for line in lines]

    def back_down(lines: list[list[jax.Array]]) -> jax.Array:
        pixels = [
            [_combine(weights, list(column)) for column in zip(*lines, strict=True)]
            for weights in OUT
        ]
        shape = (batch, rows, columns, -1)
        tiles = [jnp.stack([p.reshape(shape) for p in line], axis=3) for line in pixels]
        whole = jnp.stack(tiles, axis=2)  # [b, rows, 4, columns, 4, features]
        return whole.reshape(batch, rows * TILE, columns * TILE, -1)

    # Fused into one loop, these four passes take three times as long: each output would gather and
    # transform its own 36 inputs.
    tiles = _apart(across)(_apart(down)(x))
    products = [tile @ own for tile, own in zip(tiles, filters, strict=True)]
    return _apart(back_down)(_apart(back_across)(products))


def _combine(weights: np.ndarray, arrays: list[jax.Array]) -> jax.Array:
    """The weighted sum, without the terms of weight 0."""
    total: jax.Array | None = None
    for weight, array in zip(weights.tolist(), arrays, strict=True):
        if weight:
            term = array if weight == 1 else array * jnp.float32(weight)
            total = term if total is None else total + term
    assert total is not None
    return total


def _apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function as a program of its own within a program, which XLA does not fuse."""
    compiled = jax.jit(function)

    def call(*arguments: Any) -> Any:
        with set_xla_metadata(inlineable="false"):
            return compiled(*arguments)

    return call


def _largest_divisor(number: int, most: int) -> int:
    return next(d for d in range(min(number, most), 0, -1) if number % d == 0)


class WinogradConv(nnx.Module):
    """Stands where a frozen `Conv` stood; its variables are the transformed filters."""

    def __init__(self, kernel: np.ndarray, bias: jax.Array | None) -> None:
        for number, matrix in enumerate(transform_filters(kernel)):
            setattr(self, f"filter{number}", nnx.Param(jnp.asarray(matrix)))
        self.bias = nnx.data(None) if bias is None else nnx.Param(bias)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, H, W, features]."""
        filters = tuple(getattr(self, f"filter{n}")[...] for n in range(WINDOW * WINDOW))
        x = convolve(x, filters)
        return x if self.bias is None else x + self.bias[...]


def with_winograd(backbone: Backbone, layers: Collection[str]) -> Backbone:
    """The same frozen network with Winograd's algorithm in some layers: another graph and params.

    Args:
      backbone: as it was loaded; its gradient and its fine-tuning need that one.
      layers: names such as "block3_conv1", of `eligible` layers.
    """
    if not layers:
        return backbone
    network = nnx.merge(backbone.graphdef, backbone.params)
    for name, parent, attribute, conv in list(_convolutions(network)):
        if name in layers:
            bias = None if conv.bias is None else conv.bias[...]
            setattr(parent, attribute, WinogradConv(np.asarray(conv.kernel[...]), bias))
    graphdef, state = nnx.split(network)
    return dataclasses.replace(backbone, graphdef=graphdef, params=nnx.to_pure_dict(state))


def _convolutions(
    module: nnx.Module, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, nnx.Module, str, Conv]]:
    """Every `Conv` below a module: its name, its parent, the attribute it is there, itself."""
    for attribute, child in vars(module).items():
        if isinstance(child, Conv):
            yield "_".join((*path, attribute)), module, attribute, child
        elif isinstance(child, nnx.Module):
            yield from _convolutions(child, (*path, attribute))


def eligible(backbone: Backbone, image_size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """The layers that `with_winograd` can change, and the shape of each one's work.

    Args:
      backbone: as it was loaded.
      image_size: (height, width).

    Returns:
      Layer name to (height, width, channels in, channels out), in the order of the network; the
      3x3 convolutions of stride 1, padded SAME.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    network = nnx.merge(backbone.graphdef, backbone.params)

    def watched(name: str, conv: Conv) -> Callable[[jax.Array], jax.Array]:
        def call(x: jax.Array) -> jax.Array:
            out = conv(x)
            size, same = conv.kernel.shape[:2], x.shape[1:3] == out.shape[1:3]
            if size == (3, 3) and conv.stride == 1 and same:
                shapes[name] = (*x.shape[1:], out.shape[-1])
            return out

        return call

    for name, parent, attribute, conv in list(_convolutions(network)):
        setattr(parent, attribute, watched(name, conv))
    jax.eval_shape(
        lambda images: network(PREPROCESS[backbone.preprocess](images)),
        jax.ShapeDtypeStruct((1, *image_size, 3), jnp.uint8),
    )
    return shapes
