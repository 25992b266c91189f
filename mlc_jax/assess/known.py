"""The cells a person gave: the only ones that any figure in this folder looks at."""

import numpy as np

from mlc_jax.errors import NumericsError


def known_cells(
    labels: np.ndarray, mask: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Picks the known cells; what stands in the others is never read.

    Args:
      labels: int8 of any shape, 0 or 1 where known.
      mask: bool, same shape, True where a person gave the cell.
      scores: float, same shape.

    Returns:
      (labels, scores) of the K known cells in row-major order: bool [K], float64 [K].

    Raises:
      ValueError: the shapes differ, or a known label is neither 0 nor 1: a defect of the caller.
      NumericsError: the score of a known cell is not finite.
    """
    if not labels.shape == mask.shape == scores.shape:
        raise ValueError(f"shapes differ: {labels.shape}, {mask.shape}, {scores.shape}")
    given, values = labels[mask], scores[mask].astype(np.float64)
    positive = given == 1
    if not np.all(positive | (given == 0)):
        raise ValueError(f"known labels must be 0 or 1; found {np.unique(given)[:5].tolist()}")
    finite = np.isfinite(values)
    if not finite.all():
        row = int(np.argwhere(mask)[np.flatnonzero(~finite)[0]][0])
        raise NumericsError(
            f"row {row}: the score of a known cell is {values[~finite][0]}; mask out labels that "
            "have no model"
        )
    return positive, values


def known_probabilities(
    labels: np.ndarray, mask: np.ndarray, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As `known_cells`, and also raises NumericsError for a value outside [0, 1]."""
    positive, values = known_cells(labels, mask, probabilities)
    if values.size and (values.min() < 0 or values.max() > 1):
        raise NumericsError(
            f"probabilities reach from {values.min():.4g} to {values.max():.4g}; give "
            "probabilities, not logits"
        )
    return positive, values


def one_class_reason(positive: np.ndarray) -> str | None:
    """Why a label's known cells (bool [K]) cannot judge a model; None where they can."""
    if not positive.size:
        return "no human label"
    if positive.all() or not positive.any():
        return f"all {positive.size} human labels are {int(positive[0])}"
    return None
