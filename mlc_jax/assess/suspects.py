"""Cells that a person gave and the model contradicts: the ones to look at again.

Confident learning (Northcutt, Jiang and Chuang, 2021): a cell given as one class is suspect where
its out-of-fold probability of the other class reaches what that class's own cells have on average.
"""

from dataclasses import dataclass

import numpy as np

from mlc_jax.assess.known import known_probabilities, one_class_reason


@dataclass(frozen=True)
class Suspects:
    """The suspect cells of one label, the surest contradiction first.

    Attributes:
      rows: int64 [S], row numbers.
      confidence: float64 [S], the calibrated probability that the given value is wrong.
    """

    rows: np.ndarray
    confidence: np.ndarray


def find_suspects(labels: np.ndarray, mask: np.ndarray, probabilities: np.ndarray) -> Suspects:
    """One label's suspects.

    Args:
      labels: int8 [N], 0 or 1 where known.
      mask: bool [N], cells that a person gave.
      probabilities: float64 [N] in [0, 1], calibrated and out of fold.

    Returns:
      none where a person gave one class only.

    Raises:
      ValueError, NumericsError: see `known_probabilities`.
    """
    positive, known = known_probabilities(labels, mask, probabilities)
    if one_class_reason(positive) is not None:
        return Suspects(np.zeros(0, np.int64), np.zeros(0))
    usual_positive = known[positive].mean()
    usual_negative = (1 - known)[~positive].mean()
    other = np.where(positive, 1 - known, known)
    needed = np.where(positive, usual_negative, usual_positive)
    found = np.flatnonzero((other >= needed) & (other > 0.5))
    order = found[np.argsort(-other[found], kind="stable")]
    return Suspects(np.flatnonzero(mask)[order], other[order])
