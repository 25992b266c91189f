"""Laws of copies: pairs are counted as by hand, and the ceiling is what can be reached."""

from itertools import combinations

import numpy as np
import pytest

from mlc_jax.assess.copies import FEWEST_PAIRS, Agreement, agreement_of_copies


@pytest.mark.parametrize("seed", range(5))
def test_pairs_are_counted_as_by_hand(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (60, 3)).astype(np.int8)
    mask = rng.random((60, 3)) < 0.7
    groups = rng.integers(100, 120, 60)  # of one to several images, with numbers that are not used
    given = np.where(mask, labels, -1).astype(np.int8)
    for label, found in enumerate(agreement_of_copies(given, mask, groups)):
        pairs = [
            (labels[i, label], labels[j, label])
            for i, j in combinations(range(60), 2)
            if groups[i] == groups[j] and mask[i, label] and mask[j, label]
        ]
        assert found.pairs == len(pairs) > 0
        assert found.disagree == sum(bool(one != other) for one, other in pairs)


@pytest.mark.parametrize("error", [0.02, 0.1, 0.25])
def test_the_ceiling_is_the_accuracy_of_a_model_that_knows_the_truth(error: float) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(40_000) < 0.3
    given = np.repeat(truth, 2) ^ (rng.random(80_000) < error)
    (found,) = agreement_of_copies(
        given[:, None].astype(np.int8), np.ones((80_000, 1), np.bool_), np.repeat(range(40_000), 2)
    )
    reached = np.mean(np.repeat(truth, 2) == given)
    assert found.pairs == 40_000
    assert found.ceiling == pytest.approx(reached, abs=0.01)


def test_copies_that_always_agree_set_no_limit_and_no_copies_say_nothing() -> None:
    labels = np.array([[1], [1], [0], [0], [1]], np.int8)
    known = np.ones((5, 1), np.bool_)
    (agree,) = agreement_of_copies(labels, known, np.array([0, 0, 1, 1, 2]))
    assert (agree.pairs, agree.disagree, agree.ceiling) == (2, 0, 1.0)
    (alone,) = agreement_of_copies(labels, known, np.arange(5))
    assert alone.pairs == alone.disagree == 0
    assert np.isnan(alone.ceiling)
    (opposed,) = agreement_of_copies(labels, known, np.array([0, 1, 0, 1, 2]))
    assert (opposed.pairs, opposed.disagree, opposed.ceiling) == (2, 2, 0.5)


@pytest.mark.parametrize(
    ("pairs", "disagree", "expected"),
    [(FEWEST_PAIRS - 1, 4, False), (FEWEST_PAIRS, 1, True), (FEWEST_PAIRS, 0, False)],
)
def test_few_pairs_are_no_evidence(pairs: int, disagree: int, expected: bool) -> None:
    assert Agreement(pairs, disagree, 0.9).contradictory == expected
