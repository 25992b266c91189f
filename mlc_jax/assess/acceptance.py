"""Which filled cells to accept so that their error stays below a promise, and which to leave blank.

A filled cell's confidence is the probability of the value it got. Known cells, judged out of fold,
say how often cells of a given confidence are wrong; a binomial upper bound turns their count into a
promise (selective classification: Geifman and El-Yaniv, 2017).
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

LEVEL = 0.95
"""How sure the promise is."""

_STEP = 0.01


@dataclass(frozen=True)
class Acceptance:
    """A rule: accept a filled cell whose confidence is at least `cut`.

    Attributes:
      cut: in [0, 1]; infinity where no cell can be accepted, 0 where all can.
      coverage: share of the known cells that the rule would accept.
      errors, count: of those cells, how many are wrong and how many there are.
      bound: upper bound of their error; NaN where none is accepted.
      reason: for people.
    """

    cut: float
    coverage: float
    errors: int
    count: int
    bound: float
    reason: str


def confidence_of(values: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The probability of the value, 0 or 1, that each cell got; float64, same shape."""
    return np.where(values == 1, probabilities, 1.0 - probabilities)


def upper_bound(
    errors: np.ndarray | int, count: np.ndarray | int, level: float = LEVEL
) -> np.ndarray:
    """One-sided upper bound of a binomial share (Clopper and Pearson, 1934); 1 where count is 0.

    Args:
      errors, count: whole numbers, errors at most count; shapes that broadcast.
      level: in (0, 1).
    """
    errors, count = np.broadcast_arrays(np.asarray(errors, float), np.asarray(count, float))
    inside = errors < count
    bound = np.ones(errors.shape)
    bound[inside] = betaincinv(errors[inside] + 1, (count - errors)[inside], level)
    return bound


def accept_up_to(confidence: np.ndarray, wrong: np.ndarray, max_error: float) -> Acceptance:
    """The widest rule whose promise holds, found on known cells.

    Cuts are tried in an order that is fixed before the errors are looked at, from the most
    confident cells outwards by one percent of all cells at a time, and the first that fails ends
    the search. So, as every rule before it has passed its own test, the last one that passed holds
    at `LEVEL` without a correction for the number of trials (fixed-sequence testing: Angelopoulos
    et al., 2021, "Learn then Test", section 4). The first trial takes as many cells as give a bound
    of `max_error` with half the errors that it allows, since fewer prove nothing.

    Args:
      confidence: float64 [K] in [0, 1], of known cells, out of fold.
      wrong: bool [K], whether the value that the cell would have got differs from what a person
        gave.
      max_error: the promise, in [0, 1]; 1 accepts everything.
    """
    total = confidence.size
    if max_error >= 1:
        return Acceptance(0.0, 1.0, int(wrong.sum()), total, float("nan"), "every cell is accepted")
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence = confidence[order]
    errors = np.append(0, np.cumsum(wrong[order]))
    best = None
    for count in _trials(total, max_error):
        # Equal confidences fall on one side of a cut.
        cut = sorted_confidence[count - 1]
        taken = int(np.searchsorted(-sorted_confidence, -cut, side="right"))
        bound = float(upper_bound(errors[taken], taken))
        if bound > max_error:
            break
        best = float(cut), taken, int(errors[taken]), bound
    if best is None:
        return Acceptance(
            math.inf, 0.0, 0, 0, float("nan"), f"no group of cells has an error below {max_error:g}"
        )
    cut, taken, wrongly, bound = best
    # The outermost cut takes in the cells that are less sure than any known one as well.
    cut = 0.0 if taken == total else cut
    told = f"{wrongly} of {taken} known cells wrong, at most {bound:.2%} at {LEVEL:.0%}"
    return Acceptance(cut, taken / total, wrongly, taken, bound, told)


def _trials(total: int, max_error: float) -> list[int]:
    """Numbers of cells, ascending, ending with all of them; empty where all are too few."""
    counts = np.arange(1, total + 1)
    enough = upper_bound(np.floor(counts * max_error / 2), counts) <= max_error
    if not enough.any():
        return []
    first = int(counts[np.argmax(enough)])
    step = max(1, round(total * _STEP))
    return [*range(first, total, step), total]
