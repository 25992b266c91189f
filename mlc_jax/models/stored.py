"""Arrays in a weight file that are not read yet, and what conversion makes of them.

Shapes are known before any value is read, so that a file of another architecture is refused first.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

OIHW_TO_HWIO = (2, 3, 1, 0)  # PyTorch's kernels to ours
TRANSPOSED = (1, 0)


class Stored(NamedTuple):
    """An array in a file, not yet read."""

    shape: tuple[int, ...]
    floating: bool
    read: Callable[[], np.ndarray]


def transposed(stored: Stored, axes: Sequence[int]) -> Stored:
    """The array with its axes in another order; as it is where it has another number of axes."""
    if len(stored.shape) != len(axes):
        return stored
    shape = tuple(stored.shape[axis] for axis in axes)
    return Stored(shape, stored.floating, lambda: stored.read().transpose(axes))


def without_leading_axes(stored: Stored) -> Stored:
    """The array without its leading axes of length 1; the last axis stays."""
    shape = stored.shape
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return Stored(shape, stored.floating, lambda: stored.read().reshape(shape))


def rows(stored: Stored, start: int, stop: int | None = None) -> Stored:
    """Some rows of an array."""
    count = len(range(stored.shape[0])[start:stop]) if stored.shape else 0
    return Stored((count, *stored.shape[1:]), stored.floating, lambda: stored.read()[start:stop])


def concatenated(parts: Sequence[Stored]) -> Stored:
    """Arrays one after the other along the first axis.

    Where the other axes differ the shape is one that no layer has, so that it is refused.
    """
    rest = {part.shape[1:] for part in parts}
    if len(rest) != 1 or not all(part.shape for part in parts):
        return Stored((-1,), False, parts[0].read)
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    floating = all(part.floating for part in parts)
    return Stored(shape, floating, lambda: np.concatenate([part.read() for part in parts]))


def added(first: Stored, second: Stored) -> Stored:
    """The sum of two arrays of one shape."""
    shape = first.shape if first.shape == second.shape else (-1,)
    floating = first.floating and second.floating
    return Stored(shape, floating, lambda: first.read() + second.read())


def zeros(shape: tuple[int, ...]) -> Stored:
    """An array that the file leaves out because it is zero."""
    return Stored(shape, True, partial(np.zeros, shape, np.float32))
