"""The leading part of a design matrix's second moments: a preconditioner of all heads on it.

The Hessian of a logistic regression is Xᵀ D X + strength, with D between 0 and 1/4. With D taken as
a multiple of the identity, the directions in which X varies most tell the steep ones from the flat.
"""

from typing import NamedTuple

import numpy as np

RANK = 128
"""Directions. By hand, on MobileNetV2's features of 1,000 photographs, 400 heads along a path of
six strengths took 136 iterations without, 83 with 64, 75 with 128, 72 with 256 (tolerance 1e-4).
`scripts/solver_speed.py` prints those of drawn features."""

ROWS = 2048
"""Rows that they are estimated from, at equal distances."""

_PASSES = 2  # of subspace iteration


class Spectrum(NamedTuple):
    """Second moments as values along a few directions, and one value for all others.

    Attributes:
      basis: float32 [C, R], orthonormal; columns of zeros where there are fewer directions.
      values: float32 [R], mean squares along them.
      rest: float32, the mean square along every other direction.
    """

    basis: np.ndarray
    values: np.ndarray
    rest: np.ndarray


def leading_spectrum(rows: np.ndarray) -> Spectrum:
    """By subspace iteration (Halko, Martinsson and Tropp, SIAM Review 53:217, 2011, algorithm 4.4).

    Args:
      rows: float32 [n, C], a sample; equal rows give equal bits.
    """
    count, channels = rows.shape
    rank = min(RANK, count, channels)
    basis = np.random.default_rng(0).normal(size=(channels, rank)).astype(np.float32)
    for _ in range(_PASSES):
        basis = _orthonormal(rows.T @ (rows @ basis))
    projected = rows @ basis
    values, turn = np.linalg.eigh(projected.T @ projected / count)
    total = float(np.einsum("nc,nc->", rows, rows, dtype=np.float64)) / count
    rest = max(total - float(values.sum()), 0.0) / max(channels - rank, 1)
    return Spectrum(basis @ turn, np.maximum(values, 0.0), np.array(rest, np.float32))


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis, float32 [C, R], of what the columns span.

    By the square root of their Gram matrix in float64: beside other work on the same cores it is
    fifty times as fast as LAPACK's QR, and a preconditioner needs no more digits.
    """
    columns = columns.astype(np.float64)
    values, turn = np.linalg.eigh(columns.T @ columns)
    spanned = values > 1e-12 * max(float(values.max()), 1e-300)
    scale = np.where(spanned, 1 / np.sqrt(np.where(spanned, values, 1.0)), 0.0)
    basis: np.ndarray = (columns @ (turn * scale)).astype(np.float32)
    return basis
