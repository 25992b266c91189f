"""How common a label really is, and whether blank cells are expected to be like the given ones."""

import math
from typing import NamedTuple

import numpy as np

from mlc_jax.assess.intervals import NOT_DEFINED, Interval, group_sums, linear_interval
from mlc_jax.assess.known import known_probabilities

LEAST_CHANCE = 0.02
"""No cell is taken to be known with a smaller chance: its weight would be above 49."""


class PrevalenceTest(NamedTuple):
    """Blank against observed cells of one label.

    Attributes:
      observed: share of ones among cells that people gave.
      expected: mean probability of the blank cells.
      z: of expected − observed, in standard errors by groups.
      p: two-sided; these four NaN where one kind of cell is missing, or no model answers.
    """

    observed: float
    expected: float
    z: float
    p: float


def population_prevalence(
    labels: np.ndarray,
    mask: np.ndarray,
    probabilities: np.ndarray,
    known_chance: np.ndarray,
    groups: np.ndarray,
) -> Interval:
    """The share of positives among all images, known and blank, with a 95 % interval over groups.

    Known cells count as they are, blank ones by their probabilities and by what the probabilities
    miss on known cells, each weighed by the odds (1 − e) / e that a cell like it is blank:
    augmented inverse probability weighting (Robins, Rotnitzky and Zhao, 1994), with the weights
    normalised (Hájek). It is right if either the probabilities or the chances e are, so a
    miscalibrated model does not move it where blanks depend on the image. Where e is the same for
    all it is prediction-powered inference (Angelopoulos et al., 2023). The interval is symmetric in
    the log odds. Where blanks depend on the value itself, no estimate of this kind is right.

    Args:
      labels: int8 [N], 0 or 1 where known.
      mask: bool [N], cells that a person gave.
      probabilities: float64 [N] in [0, 1]; out of fold where known.
      known_chance: float64 [N], e of each cell; out of fold.
      groups: int [N], equal for images that go together.

    Returns:
      NaN where no cell is known.

    Raises:
      ValueError, NumericsError: see `known_probabilities`.
    """
    known_probabilities(labels, mask, probabilities)
    if not mask.any():
        return NOT_DEFINED
    given = np.where(mask, labels, 0).astype(np.float64)
    chance = np.clip(known_chance, LEAST_CHANCE, 1.0)
    odds = np.where(mask, (1 - chance) / chance, 0.0)
    if not odds.any():  # nothing is ever blank
        odds = mask.astype(np.float64)
    missed_of_cell = np.where(mask, given - probabilities, 0.0)
    missed = float(np.dot(odds, missed_of_cell) / odds.sum())
    count, blanks = len(labels), int((~mask).sum())
    share_of_cell = np.where(mask, given, probabilities + missed)
    share = float(share_of_cell.mean())
    corrections = blanks * odds * (missed_of_cell - np.where(mask, missed, 0.0)) / odds.sum()
    moved = (share_of_cell - share + corrections) / count
    low, high = linear_interval(share, moved, groups)[1:]
    inside = min(max(share, 0.0), 1.0)
    if not 0 < share < 1 or math.isnan(low):
        return Interval(inside, max(low, 0.0), min(high, 1.0))
    reach = (high - share) / (share * (1 - share))
    centre = math.log(share / (1 - share))
    return Interval(inside, *(1 / (1 + math.exp(-(centre + end))) for end in (-reach, reach)))


def compare_prevalence(
    labels: np.ndarray, mask: np.ndarray, probabilities: np.ndarray, groups: np.ndarray
) -> PrevalenceTest:
    """Whether blank cells are expected to be 1 as often as given cells are.

    The difference of two means over different cells, z by the sandwich variance over groups. What
    is compared is what the model expects of the blanks, not what a threshold makes of it: cut at
    0.5 the cells of a label that is hard to learn come out nearly all alike, and nothing is wrong.

    Args:
      labels, mask, probabilities, groups: [N] each, see `population_prevalence`; probabilities NaN
        where the label has no model.
    """
    blank = ~mask
    observed = float((labels[mask] == 1).mean()) if mask.any() else float("nan")
    expected = float(probabilities[blank].mean()) if blank.any() else float("nan")
    gap = expected - observed
    if math.isnan(gap):
        return PrevalenceTest(observed, expected, float("nan"), float("nan"))
    moved = np.where(
        mask, -((labels == 1) - observed) / mask.sum(), (probabilities - expected) / blank.sum()
    )
    error = math.sqrt(float(np.sum(group_sums(moved, groups) ** 2)))
    z = gap / error if error else 0.0
    return PrevalenceTest(observed, expected, z, math.erfc(abs(z) / math.sqrt(2)))
