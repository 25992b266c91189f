"""Laws of prevalence: neither a biased model nor blanks that depend on the image move it."""

import numpy as np
import pytest

from mlc_jax.assess.blankness import known_chances, ridge_scores
from mlc_jax.assess.calibration import sigmoid
from mlc_jax.assess.intervals import Interval
from mlc_jax.assess.prevalence import compare_prevalence, population_prevalence

ROWS, SHARE, DRAWS = 300, 0.3, 100


def drawn(
    rng: np.random.Generator, bias: float, rows: int = ROWS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of which a person gave 40 %, and a model that says `bias` too much of every image."""
    labels = (rng.random(rows) < SHARE).astype(np.int8)
    seen = 2.0 * (labels - 0.5) + rng.normal(size=rows)
    mask = rng.random(rows) < 0.4
    said = 0.8 * sigmoid(2 * seen + np.log(SHARE / (1 - SHARE))) + bias
    return np.where(mask, labels, -1).astype(np.int8), mask, said


def prevalence(
    labels: np.ndarray,
    mask: np.ndarray,
    said: np.ndarray,
    groups: np.ndarray | None = None,
    chance: np.ndarray | None = None,
) -> Interval:
    rows = len(labels)
    alike = np.full(rows, mask.mean())
    return population_prevalence(
        labels,
        mask,
        said,
        alike if chance is None else chance,
        np.arange(rows) if groups is None else groups,
    )


@pytest.mark.parametrize("bias", [0.0, 0.15])
def test_a_model_that_says_too_much_does_not_move_it_and_the_interval_holds(bias: float) -> None:
    rng = np.random.default_rng(0)
    values, naive, widths, plain, covered = [], [], [], [], 0
    for _ in range(DRAWS):
        labels, mask, said = drawn(rng, bias)
        found = prevalence(labels, mask, said)
        values.append(found.value)
        naive.append(np.where(mask, labels, said).mean())
        widths.append(found.high - found.low)
        known = labels[mask].mean()
        plain.append(2 * 1.96 * np.sqrt(known * (1 - known) / mask.sum()))
        covered += found.low <= SHARE <= found.high
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - SHARE) < 4 * error
    if bias:
        assert abs(np.mean(naive) - SHARE) > 10 * error, "the bias is too small to show anything"
    assert covered / DRAWS > 0.95 - 3 * np.sqrt(0.05 * 0.95 / DRAWS)
    assert np.mean(widths) < 0.95 * np.mean(plain), "what the model knows is not used"


def test_a_constant_added_to_what_the_model_says_changes_nothing() -> None:
    labels, mask, said = drawn(np.random.default_rng(1), 0.0)
    one = prevalence(labels, mask, said)
    other = prevalence(labels, mask, said + 0.15)
    np.testing.assert_allclose(one, other, atol=1e-12)


def test_with_nothing_blank_it_is_the_share_and_with_nothing_known_it_is_not_known() -> None:
    rng = np.random.default_rng(2)
    labels = (rng.random(100) < SHARE).astype(np.int8)
    whole = prevalence(labels, np.ones(100, np.bool_), rng.random(100))
    assert whole.value == pytest.approx(labels.mean())
    none = prevalence(labels, np.zeros(100, np.bool_), rng.random(100))
    assert np.isnan(none).all()


def test_copies_widen_the_interval() -> None:
    """Every image four times tells as much as every image once."""
    labels, mask, said = drawn(np.random.default_rng(3), 0.0, rows=80)
    times = [np.repeat(part, 4) for part in (labels, mask, said)]
    once = prevalence(labels, mask, said)
    grouped = prevalence(*times, groups=np.repeat(np.arange(80), 4))
    alone = prevalence(*times)
    np.testing.assert_allclose(grouped, once, rtol=1e-6)
    assert grouped.high - grouped.low > 1.6 * (alone.high - alone.low)


@pytest.mark.parametrize("shrunk", [False, True])
def test_blanks_that_depend_on_the_image_do_not_move_it(shrunk: bool) -> None:
    """The model is as weak, or as shrunk, as it may be; the chance of a blank is estimated.

    With the same weight for every known cell the interval misses the truth in every draw.
    """
    held, plainly = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        features = rng.normal(size=(1000, 4))
        labels = (rng.random(1000) < sigmoid(2 * features[:, 0] - 1)).astype(np.int8)
        mask = rng.random(1000) < sigmoid(1.2 * features[:, 0])
        said = sigmoid((0.6 if shrunk else 2.0) * features[:, 0] - (0.9 if shrunk else 1.0))
        folds = rng.permutation(1000) % 5
        scores = ridge_scores(features, (~mask)[:, None].astype(float), folds)
        chance = known_chances(scores, ~mask[:, None], folds)[:, 0]
        for chances, where in ((chance, held), (None, plainly)):
            found = prevalence(labels, mask, said, chance=chances)
            where.append(found.low <= labels.mean() <= found.high)
    assert np.mean(held) >= 0.93
    if shrunk:
        assert np.mean(plainly) < 0.3


def test_of_a_rare_label_the_interval_stays_above_zero_and_holds() -> None:
    held = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        labels = (rng.random(300) < 0.03).astype(np.int8)
        found = prevalence(labels, rng.random(300) < 0.6, np.full(300, 0.05))
        if found.value > 0:
            assert 0 < found.low < found.value < found.high < 1
        held.append(found.low <= 0.03 <= found.high)
    assert np.mean(held) >= 0.9


@pytest.mark.parametrize(("strength", "frames"), [(2.0, 1), (0.3, 1), (2.0, 5), (0.3, 5)], ids=str)
def test_blanks_that_are_like_the_rest_raise_no_alarm(strength: float, frames: int) -> None:
    """Nor does a label that is hard to learn; cut at 0.5 and cell by cell it was 25 to 100 %."""
    alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        scenes = np.repeat(np.arange(120), frames)
        said = sigmoid(strength * rng.normal(size=120) - 1)
        labels = (rng.random(120) < said).astype(np.int8)[scenes]
        mask = (rng.random(120) < 0.7)[scenes]
        alarms += compare_prevalence(labels, mask, said[scenes], scenes).p < 0.01
    assert alarms / 200 < 0.01 + 3 * np.sqrt(0.01 * 0.99 / 200)


def test_blanks_that_are_not_like_the_rest_are_found_out() -> None:
    rng = np.random.default_rng(0)
    seen = 2 * rng.normal(size=600) - 1
    labels = (rng.random(600) < sigmoid(seen)).astype(np.int8)
    mask = rng.random(600) < sigmoid(1.0 - seen)
    found = compare_prevalence(labels, mask, sigmoid(seen), np.arange(600))
    assert found.p < 1e-6
    assert found.z > 0
    assert found.observed == labels[mask].mean()
    assert found.expected == sigmoid(seen)[~mask].mean()


@pytest.mark.parametrize("known", [0.0, 1.0])
def test_without_a_cell_there_is_nothing_to_compare(known: float) -> None:
    mask = np.full(9, known == 1)
    found = compare_prevalence(np.ones(9, np.int8), mask, np.full(9, 0.5), np.arange(9))
    assert np.isnan(found.z)
    assert np.isnan(found.p)
    assert np.isnan([found.observed, found.expected]).sum() == 1


def test_without_a_model_there_is_nothing_to_compare() -> None:
    labels, mask, _ = drawn(np.random.default_rng(0), 0.0)
    found = compare_prevalence(labels, mask, np.full(ROWS, np.nan), np.arange(ROWS))
    assert found.observed == labels[mask].mean()
    assert np.isnan([found.expected, found.z, found.p]).all()
