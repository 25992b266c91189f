"""How common a label really is, and whether what was filled agrees with what a person gave."""

import math
from typing import NamedTuple

import numpy as np

from mlc_jax.assess.intervals import Interval, bootstrap_interval
from mlc_jax.assess.known import known_probabilities


class PrevalenceTest(NamedTuple):
    """Filled against observed cells of one label.

    Attributes:
      observed, filled: shares of positives; NaN where there is no cell.
      z: of the difference filled − observed, in standard errors under equal shares; NaN likewise.
      p: two-sided.
    """

    observed: float
    filled: float
    z: float
    p: float


def honest_prevalence(
    labels: np.ndarray,
    mask: np.ndarray,
    probabilities: np.ndarray,
    *,
    seed: int,
    groups: np.ndarray | None = None,
) -> Interval:
    """The share of positives among all images, known and blank, with a 95 % interval over images.

    Known cells count as they are. Blank ones count by their probabilities, corrected by what the
    out-of-fold probabilities of known cells miss on average, so that a model which says too much or
    too little does not move the figure (prediction-powered inference: Angelopoulos et al., 2023).
    It assumes, as every figure does, that blank cells are like known ones.

    Args:
      labels: int8 [N], 0 or 1 where known.
      mask: bool [N], cells that a person gave.
      probabilities: float64 [N] in [0, 1]; out of fold where known.
      seed: of the resamples.
      groups: int [N], equal for copies of an image, which are resampled together.

    Returns:
      NaN where no cell is known.

    Raises:
      ValueError, NumericsError: see `known_probabilities`.
    """
    known_probabilities(labels, mask, probabilities)
    if not mask.any():
        return Interval(float("nan"), float("nan"), float("nan"))
    known, blank = mask.astype(np.float64), (~mask).astype(np.float64)
    given = np.where(mask, labels, 0).astype(np.float64)
    said = np.where(mask | np.isfinite(probabilities), probabilities, 0.0)

    def statistic(weights: np.ndarray) -> np.ndarray:
        count = weights @ known
        missed = np.full(len(weights), np.nan)
        np.divide(weights @ (given - known * said), count, out=missed, where=count > 0)
        blanks = weights @ blank
        share = (weights @ given + weights @ (blank * said) + blanks * missed) / (count + blanks)
        return np.clip(share, 0.0, 1.0)

    return bootstrap_interval(statistic, len(labels), seed=seed, groups=groups)


def compare_prevalence(
    observed_positives: int, observed: int, filled_positives: int, filled: int
) -> PrevalenceTest:
    """The pooled two-sample z test of equal shares (Fleiss, Levin and Paik, 2003, section 3.1)."""
    nan = float("nan")
    first = observed_positives / observed if observed else nan
    second = filled_positives / filled if filled else nan
    if not observed or not filled:
        return PrevalenceTest(first, second, nan, nan)
    pooled = (observed_positives + filled_positives) / (observed + filled)
    error = math.sqrt(pooled * (1 - pooled) * (1 / observed + 1 / filled))
    z = (second - first) / error if error else 0.0
    return PrevalenceTest(first, second, z, math.erfc(abs(z) / math.sqrt(2)))
