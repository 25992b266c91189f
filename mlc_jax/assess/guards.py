"""Guards of a filled table: are filled cells like those people gave, and blanks like the rest?"""

from dataclasses import dataclass

import numpy as np

from mlc_jax.assess.blankness import Blankness, judge_blankness
from mlc_jax.assess.copies import Agreement, agreement_of_copies
from mlc_jax.assess.learnability import LEVEL, holm
from mlc_jax.assess.prevalence import PrevalenceTest, compare_prevalence


@dataclass(frozen=True)
class Guards:
    """What the guards found for one label.

    Attributes:
      prevalence: filled against observed cells.
      prevalence_p: its p, Holm-adjusted over labels; NaN where nothing was filled.
      prevalence_differs: whether that is below `LEVEL`.
      blankness: whether the images tell which cells are blank.
      copies: how far the given labels of copies agree.
    """

    prevalence: PrevalenceTest
    prevalence_p: float
    prevalence_differs: bool
    blankness: Blankness
    copies: Agreement


def guard(
    labels: np.ndarray,
    human: np.ndarray,
    filled: np.ndarray,
    features: np.ndarray,
    folds: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int,
) -> list[Guards]:
    """Looks at every label of a completed table.

    Args:
      labels: int8 [N, L], of the completed table; 0 or 1 where `human` or `filled`.
      human: bool [N, L], cells that a person gave.
      filled: bool [N, L], cells that a model filled.
      features: float [N, C], one vector per image.
      folds, groups: int [N]; see `judge_blankness`.
      seed: of permutations and resamples.
    """
    tests = []
    for label in range(labels.shape[1]):
        given, made = human[:, label], filled[:, label]
        ones = labels[:, label] == 1
        tests.append(
            compare_prevalence(
                int((given & ones).sum()),
                int(given.sum()),
                int((made & ones).sum()),
                int(made.sum()),
            )
        )
    adjusted = holm(np.array([test.p for test in tests]))
    blankness = judge_blankness(features, ~human, folds, groups, seed=seed)
    copies = agreement_of_copies(labels, human, groups)
    return [
        Guards(test, float(p), bool(p < LEVEL), blank, agreement)
        for test, p, blank, agreement in zip(tests, adjusted, blankness, copies, strict=True)
    ]
