"""Laws of acceptance: the promise holds as often as it says, and equal cells are treated alike."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest, poisson

from mlc_jax.assess.acceptance import (
    LEVEL,
    Acceptance,
    KnownCells,
    accept_up_to,
    confidence_of,
    error_bound,
    upper_bound,
    weighted_upper_bound,
)

DRAWS = 400
# Three standard deviations of a share of DRAWS that is 5 %.
MOST_BROKEN = 0.05 + 3 * np.sqrt(0.05 * 0.95 / DRAWS)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("errors", "count"), [(0, 1), (0, 40), (3, 40), (17, 300), (39, 40)])
def test_the_bound_is_the_exact_one(errors: int, count: int, level: float) -> None:
    bound = float(upper_bound(errors, count, level))
    exact = binomtest(errors, count, alternative="less").proportion_ci(level, "exact").high
    assert bound == pytest.approx(exact, rel=1e-9)
    # What makes it one: so few errors are as unlikely as that, if the share is the bound.
    assert binom.cdf(errors, count, bound) == pytest.approx(1 - level, rel=1e-9)


def test_bounds_broadcast_and_know_nothing_of_no_cells() -> None:
    found = upper_bound(np.array([[0], [2]]), np.array([0, 2, 10]))
    assert found.shape == (2, 3)
    assert found[0, 0] == found[1, 1] == 1.0
    assert found[0, 2] < found[1, 2] < 1


def calibrated(rng: np.random.Generator, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidences and the chance that each cell is wrong, which they tell."""
    confidence = 1 - 0.5 * rng.random(cells) ** 2
    return confidence, 1 - confidence


def overconfident(rng: np.random.Generator, cells: int) -> tuple[np.ndarray, np.ndarray]:
    confidence, chance = calibrated(rng, cells)
    return confidence, np.minimum(0.03 + 1.5 * chance, 0.9)


def accepted_alike(confidence: np.ndarray, wrong: np.ndarray, max_error: float) -> Acceptance:
    """Of one label whose cells are independent, and whose blanks are like them."""
    zeros, cells = np.zeros(wrong.size, int), np.arange(wrong.size)
    known = KnownCells(confidence, wrong, zeros, cells)
    return accept_up_to(known, np.array([wrong.size]), max_error)


def uninformed(rng: np.random.Generator, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """All cells are wrong just more often than the promise of 5 %: the hardest case."""
    return rng.random(cells), np.full(cells, 0.0501)


@pytest.mark.parametrize("world", [calibrated, overconfident, uninformed])
def test_the_promise_is_broken_in_one_draw_of_twenty_at_most(world: object) -> None:
    assert callable(world)
    rng = np.random.default_rng(0)
    broken, naively, useful = 0, 0, 0
    for _ in range(DRAWS):
        confidence, chance = world(rng, 500)
        wrong = rng.random(500) < chance
        found = accepted_alike(confidence, wrong, 0.05)
        taken = confidence >= found.cut
        useful += bool(taken.any())
        broken += bool(taken.any() and chance[taken].mean() > 0.05)
        # What one would do without a bound: as many cells as keep the promise on known ones.
        order = np.argsort(-confidence)
        shares = np.cumsum(wrong[order]) / np.arange(1, 501)
        most = int(np.flatnonzero(shares <= 0.05).max(initial=-1)) + 1
        naively += bool(most and chance[order[:most]].mean() > 0.05)
    assert broken / DRAWS <= MOST_BROKEN
    assert naively / DRAWS > 2 * MOST_BROKEN, "a rule that is wrong passes: the test is no test"
    if world is calibrated:
        # Not all: of the first trial's 153 cells 3 may be wrong, and 2.4 are to be expected.
        assert useful / DRAWS == pytest.approx(poisson.cdf(3, 2.4), abs=0.06)


def test_a_rule_reports_the_cells_that_it_takes() -> None:
    rng = np.random.default_rng(1)
    confidence, chance = calibrated(rng, 800)
    wrong = rng.random(800) < chance
    found = accepted_alike(confidence, wrong, 0.1)
    taken = confidence >= found.cut
    assert 0 < found.count < 800
    assert found.count == taken.sum()
    assert found.errors == wrong[taken].sum()
    assert found.coverage == found.count / 800
    exact = upper_bound(found.errors, found.count, found.level)
    assert found.bound == pytest.approx(float(exact))
    assert found.bound <= 0.1
    assert found.level == LEVEL
    assert f"{found.errors} of {found.count}" in found.reason
    assert f"{LEVEL:.0%}" in found.reason


def test_a_few_wrong_cells_of_the_highest_confidence_do_not_end_the_search() -> None:
    """As people's errors are: 12 of the 300 surest cells are wrong, then 1 in 120."""
    confidence = np.linspace(1, 0.5, 9000)
    wrong = np.zeros(9000, np.bool_)
    wrong[10:300:25] = True
    wrong[350::120] = True
    found = accepted_alike(confidence, wrong, 0.02)
    assert found.count == 9000
    assert found.level == pytest.approx(1 - (1 - LEVEL) / 4)
    assert found.bound == pytest.approx(float(upper_bound(wrong.sum(), 9000, found.level)))
    assert found.bound <= 0.02


def test_the_promise_of_several_searches_is_broken_in_one_draw_of_twenty_at_most() -> None:
    """All cells are wrong just more often than the promise: every search may end by mistake."""
    rng = np.random.default_rng(3)
    found = [
        accepted_alike(rng.random(6000), rng.random(6000) < 0.0501, 0.05) for _ in range(DRAWS)
    ]
    assert all(own.level > LEVEL for own in found if own.count)
    assert np.mean([own.count > 0 for own in found]) <= MOST_BROKEN


@pytest.mark.parametrize("seed", range(20))
def test_ties_fall_on_one_side_and_the_order_of_cells_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps = np.array([0.55, 0.7, 0.9, 0.97])
    confidence = rng.choice(steps, 600)
    wrong = rng.random(600) < 1 - confidence
    found = accepted_alike(confidence, wrong, 0.12)
    assert found.cut in {0.0, *steps, np.inf}
    assert found.count == (confidence >= found.cut).sum()
    again = rng.permutation(600)
    assert repr(accepted_alike(confidence[again], wrong[again], 0.12)) == repr(found)


def test_one_accepts_everything() -> None:
    wrong = np.array([True, True, False])
    found = accepted_alike(np.array([0.5, 0.6, 0.9]), wrong, 1.0)
    assert (found.cut, found.coverage, found.errors, found.count) == (0.0, 1.0, 2, 3)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (np.ones(500, np.bool_), "all wrong"),
        (np.zeros(20, np.bool_), "too few to prove anything"),
        (np.zeros(0, np.bool_), "no known cell"),
    ],
)
def test_where_nothing_can_be_accepted_nothing_is(wrong: np.ndarray, why: str) -> None:
    found = accepted_alike(np.linspace(0.5, 1, wrong.size), wrong, 0.05)
    assert found.cut == np.inf, why
    assert (found.coverage, found.errors, found.count) == (0.0, 0, 0)
    assert np.isnan(found.bound)
    assert "0.05" in found.reason


def test_a_rule_that_takes_all_known_cells_takes_the_least_sure_blank_ones_too() -> None:
    found = accepted_alike(np.linspace(0.9, 1, 400), np.zeros(400, np.bool_), 0.05)
    assert (found.cut, found.coverage) == (0.0, 1.0)


def test_a_weaker_promise_takes_more_cells() -> None:
    """In the mean of draws: in one, the wider rule may fail its first trial by bad luck."""
    rng = np.random.default_rng(2)
    coverage = []
    for _ in range(50):
        confidence, chance = calibrated(rng, 600)
        wrong = rng.random(600) < chance
        rules: list[Acceptance] = [
            accepted_alike(confidence, wrong, error) for error in (0.02, 0.05, 0.1, 0.2, 0.3, 1.0)
        ]
        coverage.append([rule.coverage for rule in rules])
    means = np.mean(coverage, axis=0)
    assert (np.diff(means) >= 0).all()
    assert (np.diff(means[:4]) > 0.1).all()
    # All cells together are wrong in one case of six.
    assert means[-2] == means[-1] == 1


def test_confidence_is_the_probability_of_the_value() -> None:
    values = np.array([[1, 0], [0, 1]], np.int8)
    said = np.array([[0.9, 0.9], [0.2, 0.2]])
    np.testing.assert_allclose(confidence_of(values, said), [[0.9, 0.1], [0.8, 0.2]])


def test_equal_cells_have_the_bound_of_clopper_and_pearson() -> None:
    for errors, count in ((0, 50), (1, 50), (7, 200), (30, 40), (5, 5)):
        cells = KnownCells(
            np.ones(count), np.arange(count) < errors, np.zeros(count, int), np.arange(count)
        )
        for weight in (1.0, 0.3):
            found = weighted_upper_bound(cells, np.full(count, weight))
            assert found == pytest.approx(float(upper_bound(errors, count)))
        # A group that is there three times over counts once.
        thrice = cells.where(np.repeat(np.arange(count), 3))
        assert weighted_upper_bound(thrice, np.ones(3 * count)) == pytest.approx(found)
        assert error_bound(thrice).count == 3 * count
    empty = cells.where(np.zeros(5, bool))
    assert weighted_upper_bound(empty, np.ones(0)) == 1 == error_bound(empty).bound


def label_mix(
    rng: np.random.Generator, strengths: list[float], blank: list[float], frames: int
) -> tuple[KnownCells, np.ndarray, np.ndarray]:
    """Known cells, confidences and labels of the blanks; 600 images in groups of `frames`."""
    parts, blanks = [], []
    for label, (strength, share) in enumerate(zip(strengths, blank, strict=True)):
        scene = np.repeat(np.arange(600 // frames), frames)
        p = 1 / (1 + np.exp(1.5 - strength * rng.normal(size=600 // frames)))
        confidence = np.maximum(p, 1 - p)
        wrong = rng.random(p.size) > confidence
        hidden = rng.random(p.size) < share
        own = ~hidden[scene]
        parts.append(
            (confidence[scene][own], wrong[scene][own], scene[own] * 0 + label, scene[own])
        )
        blanks.append((confidence[hidden], np.full(hidden.sum(), label)))
    known = KnownCells(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    return known, *(np.concatenate(part) for part in zip(*blanks, strict=True))


@pytest.mark.parametrize(
    ("strengths", "blank", "frames", "draws"),
    [
        ([8.0] * 4 + [1.2], [0.05] * 4 + [0.6], 1, 120),
        ([4.0] * 5, [0.2] * 5, 5, 120),
        pytest.param([8.0] * 4 + [1.2], [0.05] * 4 + [0.6], 1, 1500, marks=pytest.mark.slow),
        pytest.param([4.0] * 5, [0.2] * 5, 5, 1500, marks=pytest.mark.slow),
        pytest.param([4.0] * 20, [0.3] * 20, 3, 500, marks=pytest.mark.slow),
        pytest.param([8.0] * 4 + [1.5], [0.02] * 4 + [0.9], 1, 500, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_promise_is_kept_for_blanks_of_any_label_mix_and_in_bursts(
    strengths: list[float], blank: list[float], frames: int, draws: int
) -> None:
    """With all known cells alike it was broken in every draw of the first, in 14 to 18 % in bursts.

    What the blanks have for an error is known: one minus their confidence, which is calibrated.
    """
    broken, naively, useful = 0, 0, 0
    for seed in range(draws):
        known, confidence, label = label_mix(np.random.default_rng(seed), strengths, blank, frames)
        found = accept_up_to(known, np.bincount(label), 0.03)
        taken = confidence >= found.cut
        useful += bool(taken.any())
        broken += bool(taken.any() and (1 - confidence[taken]).mean() > 0.03)
        alike = accepted_alike(known.confidence, known.wrong, 0.03)
        taken = confidence >= alike.cut
        naively += bool(taken.any() and (1 - confidence[taken]).mean() > 0.03)
    assert broken / draws <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)
    assert useful / draws > 0.2
    if frames == 1:
        assert naively / draws > 0.3, "the mix makes no difference: nothing is shown"


def test_a_label_without_blanks_has_no_say() -> None:
    """Its cells are all wrong and as sure as the others; with blanks of its own they count."""
    label = np.repeat([0, 1], 500)
    known = KnownCells(np.full(1000, 0.99), label == 1, label, np.arange(1000))
    assert accept_up_to(known, np.array([300, 0]), 0.05).count == 1000
    assert accept_up_to(known, np.array([300, 100]), 0.05).count == 0
    assert accept_up_to(known, np.array([0, 0]), 0.05).count == 0
