"""What the labels of copies say about the labels: two people, one image, two answers."""

from dataclasses import dataclass

import numpy as np

FEWEST_PAIRS = 5
"""Of fewer pairs one that differs may be one slip, and says nothing of the labels."""


@dataclass(frozen=True)
class Agreement:
    """How far the given labels of copies agree, for one label.

    Attributes:
      pairs: pairs of copies whose cells are both known.
      disagree: how many of them differ.
      ceiling: the accuracy that a model could reach at best if labels are wrong as often as that
        implies: with each cell wrong independently at rate e, a pair differs at rate 2e(1 − e), and
        no model can agree with more than 1 − e of the cells. NaN without pairs.
    """

    pairs: int
    disagree: int
    ceiling: float

    @property
    def contradictory(self) -> bool:
        """Whether copies disagree, on the evidence of `FEWEST_PAIRS` pairs at least."""
        return self.disagree > 0 and self.pairs >= FEWEST_PAIRS


def agreement_of_copies(
    labels: np.ndarray, mask: np.ndarray, groups: np.ndarray
) -> list[Agreement]:
    """Counts, per label, over all pairs of images of one group.

    Args:
      labels: int8 [N, L], 0 or 1 where known.
      mask: bool [N, L], cells that a person gave.
      groups: int [N], equal for copies.
    """
    found = []
    number = np.unique(groups, return_inverse=True)[1]
    for label in range(labels.shape[1]):
        own = mask[:, label]
        known = np.bincount(number[own], minlength=int(np.max(number, initial=-1)) + 1)
        ones = np.bincount(number[own], labels[own, label] == 1, len(known))
        pairs = int(np.sum(known * (known - 1) // 2))
        disagree = int(np.sum(ones * (known - ones)))
        ceiling = float("nan")
        if pairs:
            share = min(disagree / pairs, 0.5)
            ceiling = (1 + float(np.sqrt(1 - 2 * share))) / 2
        found.append(Agreement(pairs, disagree, ceiling))
    return found
