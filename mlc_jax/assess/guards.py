"""Diagnostics of a filled table: are blanks like the rest, and how common is each label really?"""

from dataclasses import dataclass

import numpy as np

from mlc_jax.assess.blankness import Blankness, judge_blankness, known_chances, ridge_scores
from mlc_jax.assess.copies import Agreement, agreement_of_copies
from mlc_jax.assess.intervals import NOT_DEFINED, Interval
from mlc_jax.assess.learnability import LEVEL, holm
from mlc_jax.assess.prevalence import PrevalenceTest, compare_prevalence, population_prevalence


@dataclass(frozen=True)
class Guards:
    """What the diagnostics found for one label.

    Attributes:
      prevalence: blank against observed cells.
      prevalence_p: its p, Holm-adjusted over labels; NaN where there is no blank or no model.
      prevalence_differs: whether that is below `LEVEL`.
      blankness: whether the images tell which cells are blank.
      copies: how far the given labels of copies agree.
      all_images: the share of positives among all images; NaN where the label has no model.
    """

    prevalence: PrevalenceTest
    prevalence_p: float
    prevalence_differs: bool
    blankness: Blankness
    copies: Agreement
    all_images: Interval


def guard(
    labels: np.ndarray,
    mask: np.ndarray,
    probabilities: np.ndarray,
    features: np.ndarray,
    folds: np.ndarray,
    groups: np.ndarray,
    copies: np.ndarray,
    *,
    seed: int,
) -> list[Guards]:
    """Looks at every label of a table.

    Args:
      labels: int8 [N, L], 0 or 1 where known.
      mask: bool [N, L], cells that a person gave.
      probabilities: float64 [N, L], out of fold; NaN for a label without a model.
      features: float [N, C], one vector per image.
      folds, groups: int [N]; see `judge_blankness`.
      copies: int [N], equal for copies of one image alone, whose labels ought to agree.
      seed: of permutations.
    """
    columns = range(labels.shape[1])
    tests = [
        compare_prevalence(labels[:, c], mask[:, c], probabilities[:, c], groups) for c in columns
    ]
    adjusted = holm(np.array([test.p for test in tests]))
    scores = ridge_scores(features, (~mask).astype(np.float64), folds)
    blankness = judge_blankness(scores, ~mask, folds, groups, seed=seed)
    chances = known_chances(scores, ~mask, folds)
    shares = [
        population_prevalence(labels[:, c], mask[:, c], probabilities[:, c], chances[:, c], groups)
        if np.isfinite(probabilities[:, c]).all()
        else NOT_DEFINED
        for c in columns
    ]
    agreements = agreement_of_copies(labels, mask, copies)
    return [
        Guards(test, float(p), bool(p < LEVEL), blank, agreement, share)
        for test, p, blank, agreement, share in zip(
            tests, adjusted, blankness, agreements, shares, strict=True
        )
    ]
