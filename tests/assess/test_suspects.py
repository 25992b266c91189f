"""Laws of suspects: those of confident learning, written out class by class as in its paper."""

import numpy as np
import pytest

from mlc_jax.assess.calibration import sigmoid
from mlc_jax.assess.suspects import find_suspects


def confident_learning(labels: np.ndarray, probabilities: np.ndarray) -> dict[int, float]:
    """Rows off the diagonal of the confident joint (Northcutt et al., 2021, section 3.1).

    The thresholds are the mean self-confidence of each class; an example counts into the likeliest
    of the classes whose threshold it reaches; those whose likeliest class of all is the given one
    are no issue.
    """
    both = np.stack([1 - probabilities, probabilities], axis=1)
    thresholds = [both[labels == k, k].mean() for k in (0, 1)]
    issues = {}
    for row, given in enumerate(labels):
        reached = [k for k in (0, 1) if both[row, k] >= thresholds[k]]
        if reached:
            into = max(reached, key=lambda k: both[row, k])
            if into != given and both[row].argmax() != given:
                issues[row] = both[row, into]
    return issues


def drawn(seed: int, prevalence: float, gap: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(400) < prevalence).astype(np.int8)
    prior = np.log(prevalence / (1 - prevalence))
    return labels, sigmoid(gap * (gap * (labels - 0.5) + rng.normal(size=400)) + prior)


@pytest.mark.parametrize("prevalence", [0.08, 0.5, 0.85])
@pytest.mark.parametrize("gap", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("seed", range(3))
def test_they_are_those_of_confident_learning(seed: int, prevalence: float, gap: float) -> None:
    labels, probabilities = drawn(seed, prevalence, gap)
    found = find_suspects(labels, np.ones(400, np.bool_), probabilities)
    expected = confident_learning(labels, probabilities)
    assert set(found.rows.tolist()) == set(expected)
    for row, confidence in zip(found.rows.tolist(), found.confidence.tolist(), strict=True):
        assert confidence == expected[row]
    assert (np.diff(found.confidence) <= 0).all()


def test_planted_flips_are_found_first() -> None:
    labels, probabilities = drawn(0, 0.4, 3.5)
    rng = np.random.default_rng(1)
    flipped = rng.choice(400, 20, replace=False)
    given = labels.copy()
    given[flipped] = 1 - given[flipped]
    found = find_suspects(given, np.ones(400, np.bool_), probabilities)
    # With 3.5 standard deviations between the classes, one cell in twenty-five lies on the wrong
    # side of the middle.
    assert len(set(flipped) & set(found.rows.tolist())) >= 17
    assert len(set(flipped) & set(found.rows[:20].tolist())) >= 15
    clean = find_suspects(labels, np.ones(400, np.bool_), probabilities)
    assert not set(flipped) & set(clean.rows.tolist())


def test_unknown_cells_are_never_suspect_nor_do_they_count() -> None:
    labels, probabilities = drawn(2, 0.4, 1.0)
    mask = np.random.default_rng(3).random(400) < 0.7
    found = find_suspects(np.where(mask, labels, -1).astype(np.int8), mask, probabilities)
    alone = find_suspects(labels[mask], np.ones(mask.sum(), np.bool_), probabilities[mask])
    np.testing.assert_array_equal(found.rows, np.flatnonzero(mask)[alone.rows])
    np.testing.assert_array_equal(found.confidence, alone.confidence)


@pytest.mark.parametrize("value", [0, 1])
def test_one_class_alone_has_none(value: int) -> None:
    labels = np.full(50, value, np.int8)
    found = find_suspects(labels, np.ones(50, np.bool_), np.linspace(0, 1, 50))
    assert found.rows.size == found.confidence.size == 0
