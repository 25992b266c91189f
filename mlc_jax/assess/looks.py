"""Which cells a person should look at first: those that are most probably wrong."""

import numpy as np


def estimated_error(values: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """How probably each cell is wrong, by its out-of-fold probability.

    Args:
      values: int8 [K], 0, 1, or -1 for a blank.
      probabilities: float64 [K], calibrated, of a 1; NaN where no model speaks of the cell.

    Returns:
      float64 [K]: the probability of the other value. A blank has no value yet, so it gets the
      error of the better guess, min(p, 1 − p), which is largest at a coin toss. NaN stays NaN.
    """
    guess = np.minimum(probabilities, 1 - probabilities)
    other = np.where(values == 1, 1 - probabilities, probabilities)
    return np.where(values < 0, guess, other)


def most_useful_first(errors: np.ndarray, learnable: np.ndarray) -> np.ndarray:
    """The order in which to look at cells; int64 [K].

    A look pays by the probability that it corrects something. The errors of a label that cannot be
    learned say nothing of a single cell, so its cells come last, and among them those that no model
    speaks of. Equal cells keep their order.

    Args:
      errors: float64 [K], of `estimated_error`.
      learnable: bool [K], of the cell's label.
    """
    silent = np.isnan(errors)
    return np.lexsort((np.where(silent, 0.0, -errors), silent, ~learnable))
