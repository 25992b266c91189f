"""Which filled cells to accept so that their error stays below a promise, and which to leave blank.

A filled cell's confidence is the probability of the value it got. Known cells, judged out of fold,
say how often cells of a given confidence are wrong; an upper bound turns their count into a promise
(selective classification: Geifman and El-Yaniv, 2017).

The promise is about blanks, and labels are not blank equally often: where a label that is hard to
learn has more blanks than others, its errors weigh more among the blanks than among known cells. So
a known cell weighs as many blanks as its label has for each known one. And cells of one group and
label are taken to be wrong together: the unit is the group, not the cell.

A bound of 2 % is one of the error that is to be expected. Of a small number of blanks more may turn
out wrong by chance: with the bound kept exactly, the share of one table exceeds it in a quarter to
a third of draws.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

LEVEL = 0.95
"""How sure the promise is."""

_STEP = 0.01
_STARTS: tuple[float, ...] = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class KnownCells:
    """Cells that people gave, judged out of fold, in any order.

    Attributes:
      confidence: float64 [K] in [0, 1], of the value that the cell would have got.
      wrong: bool [K], whether that differs from what a person gave.
      label: int [K], the column of each.
      group: int [K], equal for images that go together.
    """

    confidence: np.ndarray
    wrong: np.ndarray
    label: np.ndarray
    group: np.ndarray

    def where(self, chosen: np.ndarray) -> "KnownCells":
        """Those of them for which bool [K] is true."""
        parts = (self.confidence, self.wrong, self.label, self.group)
        return KnownCells(*(part[chosen] for part in parts))


@dataclass(frozen=True)
class ErrorBound:
    """How often known cells are wrong.

    Attributes:
      errors, count: how many are wrong and how many there are.
      bound: upper bound of their error at `LEVEL`; 1 without cells.
    """

    errors: int
    count: int
    bound: float


@dataclass(frozen=True)
class Acceptance:
    """A rule: accept a filled cell whose confidence is at least `cut`.

    Attributes:
      cut: in [0, 1]; infinity where no cell can be accepted, 0 where all can.
      coverage: share of the known cells that the rule would accept.
      errors, count: of those cells, how many are wrong and how many there are.
      bound: upper bound of the error of the accepted blanks; NaN where none is accepted.
      level: how sure that bound is by itself, so that the choice of it is as sure as `LEVEL`.
      reason: for people.
    """

    cut: float
    coverage: float
    errors: int
    count: int
    bound: float
    level: float
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


def weighted_upper_bound(cells: KnownCells, weights: np.ndarray, level: float = LEVEL) -> float:
    """One-sided upper bound of the mean of `cells.wrong` under weights.

    The gamma interval of Fay and Feuer (Statistics in Medicine 16:791, 1997) for standardised
    rates, with the beta distribution in the place of the gamma, so that with equal weights and
    groups of one it is that of Clopper and Pearson: with y the weighted sum of errors, v the sum
    of squares of what each group adds to it, and m the weight of one further error, the errors
    count as (y + m)² / (v + m²) and the cells as their weight over (v + m²) / (y + m). For m stands
    the size-weighted mean over groups and labels (after Tiwari, Clegg and Zou, 2006).

    Args:
      cells: K of them.
      weights: float64 [K], not negative.
      level: in (0, 1).
    """
    if not weights.any():
        return 1.0
    group = np.unique(cells.group, return_inverse=True)[1]
    events = np.bincount(group, weights * cells.wrong)
    errors, squares = float(events.sum()), float(np.dot(events, events))
    further = _further_error(cells, weights)
    size = (squares + further**2) / (errors + further)
    counted = (errors + further) ** 2 / (squares + further**2)
    rest = float(weights.sum()) / size - counted + 1
    return float(betaincinv(counted, rest, level)) if rest > 0 else 1.0


def _further_error(cells: KnownCells, weights: np.ndarray) -> float:
    """The weight of one further error: cells of one group and label are wrong together."""
    labels = int(cells.label.max()) + 1
    units = np.unique(cells.group.astype(np.int64) * labels + cells.label, return_inverse=True)[1]
    sums = np.bincount(units, weights)
    return float(np.dot(sums, sums) / sums.sum())


def accept_up_to(known: KnownCells, blanks: np.ndarray, max_error: float) -> Acceptance:
    """The widest rule whose promise holds, found on known cells.

    Cuts are tried from the most confident cells outwards, by one percent of all cells at a time,
    and the first that fails ends the search. As the order is fixed before the errors are looked at
    and every rule before it has passed its own test, the last one that passed holds without a
    correction for the number of trials (fixed-sequence testing: Angelopoulos et al., 2021, "Learn
    then Test", section 4). Such searches start at several places, since a few cells that people got
    wrong are the most confident errors there are and would end a single one at once; `LEVEL` is
    shared out among them. The first starts with as many cells as give a bound of `max_error` with
    half the errors that it allows, since fewer prove nothing; the others, where that is less than
    an eighth of all cells, with a quarter, a half and three quarters of them.

    Args:
      known: of all labels that share the promise.
      blanks: int [L], how many blanks each label has; where there are none at all, known cells of
        all labels count alike.
      max_error: the promise, in [0, 1]; 1 accepts everything.
    """
    total, nan = known.confidence.size, float("nan")
    if max_error >= 1:
        errors = int(known.wrong.sum())
        return Acceptance(0.0, 1.0, errors, total, nan, LEVEL, "every cell is accepted")
    weights = _weights(known, blanks)
    sorted_confidence = np.sort(known.confidence)[::-1]
    trials, starts = _trials(known, weights, max_error)
    level = 1 - (1 - LEVEL) / max(len(starts), 1)
    best = None
    # What a later start reaches takes more cells than what an earlier one reaches before it.
    for start in reversed(starts):
        for count in trials[start:]:
            # Equal confidences fall on one side of a cut.
            cut = sorted_confidence[count - 1]
            chosen = known.confidence >= cut
            taken = known.where(chosen)
            bound = weighted_upper_bound(taken, weights[chosen], level)
            if bound > max_error:
                break
            best = float(cut), taken, bound
        if best is not None:
            break
    if best is None:
        why = f"no group of cells has an error below {max_error:g}"
        return Acceptance(math.inf, 0.0, 0, 0, nan, LEVEL, why)
    cut, taken, bound = best
    size, wrongly = taken.wrong.size, int(taken.wrong.sum())
    # The outermost cut takes in the cells that are less sure than any known one as well.
    cut = 0.0 if size == total else cut
    reason = f"{wrongly} of {size} known cells wrong, blanks at most {bound:.2%} at {LEVEL:.0%}"
    return Acceptance(cut, size / total, wrongly, size, bound, level, reason)


def _weights(known: KnownCells, blanks: np.ndarray) -> np.ndarray:
    """float64 [K], for how many blanks of its label each known cell stands."""
    counts = np.bincount(known.label, minlength=blanks.size)
    if not blanks[counts > 0].any():
        return np.ones(known.label.size)
    return (blanks / np.maximum(counts, 1))[known.label]


def _trials(
    known: KnownCells, weights: np.ndarray, max_error: float
) -> tuple[list[int], list[int]]:
    """Numbers of cells, ascending, ending with all of them, and where in them searches start.

    Both are empty where there are too few cells. Neither looks at the errors.
    """
    total = known.confidence.size
    if not total:
        return [], []
    counts = np.arange(1, total + 1)
    # So many equal units are needed; each stands for so many cells on the average.
    together = _further_error(known, weights) / float(weights.mean())

    def needed(level: float) -> int:
        enough = upper_bound(np.floor(counts * max_error / 2), counts, level) <= max_error
        units = int(counts[np.argmax(enough)]) if enough.any() else total + 1
        return math.ceil(units * together - 1e-9)

    shares = _STARTS
    first = needed(1 - (1 - LEVEL) / (1 + len(shares)))
    if first > shares[0] * total / 2:
        # A share of `LEVEL` would cost more cells than further starts can win.
        shares, first = (), needed(LEVEL)
    if first > total:
        return [], []
    step = max(1, round(total * _STEP))
    trials = [*range(first, total, step), total]
    later = [int(np.searchsorted(trials, share * total)) for share in shares]
    return trials, sorted({0, *later})


def error_bound(cells: KnownCells) -> ErrorBound:
    """Errors of known cells of one kind, each counted alike, and their upper bound."""
    bound = weighted_upper_bound(cells, np.ones(cells.wrong.size))
    return ErrorBound(int(cells.wrong.sum()), cells.wrong.size, bound)
