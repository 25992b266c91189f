"""Laws of prevalence: a biased model does not move it; filled cells are compared as others do."""

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from mlc_jax.assess.calibration import sigmoid
from mlc_jax.assess.prevalence import compare_prevalence, honest_prevalence

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


@pytest.mark.parametrize("bias", [0.0, 0.15])
def test_a_model_that_says_too_much_does_not_move_it_and_the_interval_holds(bias: float) -> None:
    rng = np.random.default_rng(0)
    values, naive, widths, plain, covered = [], [], [], [], 0
    for seed in range(DRAWS):
        labels, mask, said = drawn(rng, bias)
        found = honest_prevalence(labels, mask, said, seed=seed)
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
    one = honest_prevalence(labels, mask, said, seed=0)
    other = honest_prevalence(labels, mask, said + 0.15, seed=0)
    np.testing.assert_allclose(one, other, atol=1e-12)


def test_with_nothing_blank_it_is_the_share_and_with_nothing_known_it_is_not_known() -> None:
    rng = np.random.default_rng(2)
    labels = (rng.random(100) < SHARE).astype(np.int8)
    whole = honest_prevalence(labels, np.ones(100, np.bool_), rng.random(100), seed=0)
    assert whole.value == pytest.approx(labels.mean())
    none = honest_prevalence(labels, np.zeros(100, np.bool_), rng.random(100), seed=0)
    assert np.isnan(none).all()


def test_copies_widen_the_interval() -> None:
    """Every image four times tells as much as every image once."""
    labels, mask, said = drawn(np.random.default_rng(3), 0.0, rows=80)
    times = [np.repeat(part, 4) for part in (labels, mask, said)]
    once = honest_prevalence(labels, mask, said, seed=0)
    grouped = honest_prevalence(*times, seed=0, groups=np.repeat(np.arange(80), 4))
    alone = honest_prevalence(*times, seed=0)
    np.testing.assert_allclose(grouped, once)
    assert grouped.high - grouped.low > 1.6 * (alone.high - alone.low)


@pytest.mark.parametrize(
    ("observed", "filled"),
    [((700, 892), (30, 80)), ((68, 880), (7, 92)), ((3, 10), (4, 9)), ((464, 880), (92, 92))],
)
def test_z_squared_is_chi_squared(observed: tuple[int, int], filled: tuple[int, int]) -> None:
    found = compare_prevalence(*observed, *filled)
    table = [[ones, count - ones] for ones, count in (observed, filled)]
    expected = chi2_contingency(table, correction=False)
    assert found.z**2 == pytest.approx(expected.statistic, rel=1e-9)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.observed == observed[0] / observed[1]
    assert found.filled == filled[0] / filled[1]
    assert (found.z > 0) == (found.filled > found.observed)


@pytest.mark.parametrize("counts", [(0, 0, 3, 9), (3, 9, 0, 0)])
def test_without_a_cell_there_is_nothing_to_compare(counts: tuple[int, int, int, int]) -> None:
    found = compare_prevalence(*counts)
    assert np.isnan(found.z)
    assert np.isnan(found.p)
    assert np.isnan([found.observed, found.filled]).sum() == 1


@pytest.mark.parametrize("ones", [0, 1])
def test_cells_that_are_all_alike_do_not_differ(ones: int) -> None:
    found = compare_prevalence(20 * ones, 20, 5 * ones, 5)
    assert (found.z, found.p) == (0.0, 1.0)
