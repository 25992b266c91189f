"""Feature maps of several backbones side by side."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

AT_ONCE = 64  # images


def joined(maps: Sequence[jax.Array | np.ndarray]) -> jax.Array:
    """Maps of the same images, joined along channels.

    Maps of another size are brought to the smallest height and the smallest width among them: a
    cell of the new map is the mean over the area of the old one that it covers, so the mean over a
    whole map stays what it was.

    Args:
      maps: [..., h, w, C] each, of one type; h, w and C may differ.

    Returns:
      [..., min h, min w, sum of C], of that type.
    """
    height, width = (min(part.shape[axis] for part in maps) for axis in (-3, -2))
    return jnp.concatenate([_resized(part, height, width) for part in maps], axis=-1)


def joined_on_host(maps: Sequence[np.ndarray]) -> np.ndarray:
    """The same of many images in memory, [N, ..., h, w, C] each, a few at a time."""
    starts = range(0, len(maps[0]), AT_ONCE)
    pieces = (np.asarray(joined([part[i : i + AT_ONCE] for part in maps])) for i in starts)
    first = next(pieces)
    out = np.empty((len(maps[0]), *first.shape[1:]), first.dtype)
    for start, piece in zip(starts, itertools.chain([first], pieces), strict=True):
        out[start : start + AT_ONCE] = piece
    return out


def _resized(features: jax.Array | np.ndarray, height: int, width: int) -> jax.Array:
    if features.shape[-3:-1] == (height, width):
        return jnp.asarray(features)
    rows, columns = _shares(features.shape[-3], height), _shares(features.shape[-2], width)
    resized = jnp.einsum(
        "ih,jw,...hwc->...ijc", rows, columns, features, preferred_element_type=jnp.float32
    )
    return resized.astype(features.dtype)


def _shares(old: int, new: int) -> np.ndarray:
    """Which share each of `old` equal parts of a line has in each of `new`, float32 [new, old]."""
    old_edges, new_edges = np.linspace(0, 1, old + 1), np.linspace(0, 1, new + 1)
    low = np.maximum(new_edges[:-1, None], old_edges[:-1])
    high = np.minimum(new_edges[1:, None], old_edges[1:])
    return (np.maximum(high - low, 0) * new).astype(np.float32)
