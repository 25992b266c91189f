"""The permutation test: honest under the null, awake under signal."""

import itertools

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, rankdata
from sklearn.metrics import log_loss, roc_auc_score

from mlc_jax.assess import learnability
from mlc_jax.assess.learnability import holm, learnable, permutation_p, prior_log_loss


def _draw(
    seed: int, signal: float = 0.0, n: int = 200, decimals: int = 2
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(np.int8)
    folds = rng.integers(5, size=n)
    # Each fold's scores have a level of their own, as those of five models do.
    scores = np.round(signal * labels + rng.normal(size=n) + 0.3 * folds, decimals)
    return labels, rng.random(n) < 0.9, scores, folds


@pytest.mark.parametrize("decimals", [8, 0])
def test_the_statistic_and_its_null_equal_dealing_labels_by_hand(decimals: int) -> None:
    labels, mask, scores, folds = _draw(0, signal=0.3, decimals=decimals)
    auc, p, null_mean, null_sd = permutation_p(labels, mask, scores, folds, seed=0)
    y, s, f = labels[mask], scores[mask], folds[mask]
    assert auc == pytest.approx(roc_auc_score(y, s), rel=1e-12)
    rng = np.random.default_rng(1)
    null = []
    for _ in range(500):
        dealt = y.copy()
        for fold in range(5):
            dealt[f == fold] = rng.permutation(y[f == fold])
        null.append(roc_auc_score(dealt, s))
    assert null_mean == pytest.approx(np.mean(null), abs=4 * null_sd / np.sqrt(500))
    assert null_sd == pytest.approx(np.std(null), rel=0.15)
    by_hand = np.mean(np.array(null) >= auc)
    assert p == pytest.approx(by_hand, abs=4 * np.sqrt(0.25 / 500))


def test_uniform_under_the_null() -> None:
    p = np.sort([permutation_p(*_draw(s), seed=s, resamples=499)[1] for s in range(400)])
    # Kolmogorov-Smirnov at 0.001: 1.95 / sqrt(400).
    assert np.max(np.abs(p - (np.arange(400) + 0.5) / 400)) < 1.95 / 20


def test_small_under_signal() -> None:
    assert 0 < permutation_p(*_draw(1, signal=1.5), seed=0)[1] < 1e-6
    assert permutation_p(*_draw(1, signal=-1.5), seed=0)[1] > 0.99


def test_levels_of_the_folds_are_no_signal() -> None:
    # Where folds differ in prevalence and in score level the pooled AUC is high by that alone.
    rng = np.random.default_rng(2)
    folds = np.arange(600) % 3
    labels = (rng.random(600) < 0.2 + 0.3 * folds).astype(np.int8)
    scores = rng.normal(size=600) + 2 * folds
    auc, p, null_mean, _ = permutation_p(labels, labels >= 0, scores, folds, seed=0)
    assert auc > 0.65
    assert null_mean == pytest.approx(auc, abs=0.03)
    assert p > 0.01


def test_normal_limit_agrees_with_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = _draw(3, signal=0.12, n=3000)
    drawn = permutation_p(*cells, seed=0)
    monkeypatch.setattr(learnability, "_MAX_DRAWS", 0)
    limit = permutation_p(*cells, seed=0)
    assert 0.001 < drawn[1] < 0.2
    assert limit[1] == pytest.approx(drawn[1], abs=0.01)
    assert (limit[0], *limit[2:]) == (drawn[0], *drawn[2:])
    assert 0 < permutation_p(*_draw(3, signal=2, n=3000), seed=0)[1] < 1e-100


@pytest.mark.parametrize("decimals", [8, 0])
def test_beyond_the_draws_p_is_never_below_the_truth(decimals: int) -> None:
    """The truth by all ways to deal the labels of two folds of 12 cells: up to 853,776."""
    rng = np.random.default_rng(10)
    folds = np.repeat([0, 1], 12)
    least = 1.0
    for positives in (1, 2, 4, 6, 10):
        labels = np.tile(np.arange(12) < positives, 2).astype(np.int8)
        scores = np.round(3.0 * labels + rng.normal(size=24) + folds, decimals)
        ranks = rankdata(scores)
        first, second = (
            np.array([sum(chosen) for chosen in itertools.combinations(ranks[own], positives)])
            for own in (slice(12), slice(12, 24))
        )
        observed = ranks[labels == 1].sum()
        truth = np.mean(first[:, None] + second >= observed - 1e-9)
        # So few draws that none gets there, nearly always, whatever the seed.
        p = permutation_p(labels, labels >= 0, scores, folds, seed=0, resamples=2)[1]
        assert truth <= p * (1 + 1e-9)
        least = min(least, p)
    assert least < 0.01


def test_beyond_the_draws_p_is_not_far_from_the_truth() -> None:
    """Ranks that have no ties and lie in one fold: SciPy counts all ways to deal the labels."""
    rng = np.random.default_rng(11)
    for positives, signal in ((12, 1.5), (12, 2.5), (12, 4.0), (60, 4.0), (60, 9.0)):
        labels = (np.arange(120) < positives).astype(np.int8)
        scores = signal * labels + rng.normal(size=120)
        exact = mannwhitneyu(
            scores[labels == 1], scores[labels == 0], alternative="greater", method="exact"
        ).pvalue
        p = permutation_p(labels, labels >= 0, scores, 0 * labels, seed=0, resamples=99)[1]
        assert exact <= p < exact**0.6


def test_degenerate_labels_have_no_test() -> None:
    labels, mask, scores, folds = _draw(4)
    assert np.isnan(permutation_p(labels * 0, mask, scores, folds, seed=0)).all()
    assert np.isnan(permutation_p(labels, mask & False, scores, folds, seed=0)).all()
    # Where each fold has one class there is nothing to permute, and nothing is found.
    auc, p, null_mean, null_sd = permutation_p(folds % 2, mask, scores, folds, seed=0)
    assert (p, null_sd) == (1, 0)
    assert null_mean == pytest.approx(auc)


def test_holm() -> None:
    # Holm (1979): the smallest times 4, the next times 3, never decreasing.
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(holm(p), [0.03, np.nan, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.7])), [1, 1])
    assert np.isnan(holm(np.array([np.nan]))).all()


def test_holm_commutes_with_the_order_of_labels() -> None:
    rng = np.random.default_rng(5)
    p = rng.random(30) ** 3
    order = rng.permutation(30)
    np.testing.assert_array_equal(holm(p[order]), holm(p)[order])
    assert np.all(holm(p) >= p)


def test_prior_log_loss_is_out_of_fold() -> None:
    labels, mask, _, folds = _draw(6)
    probabilities = np.empty(labels.shape)
    for fold in range(5):
        others = labels[mask & (folds != fold)]
        probabilities[folds == fold] = (others.sum() + 0.5) / (others.size + 1)
    expected = log_loss(labels[mask], probabilities[mask])
    assert prior_log_loss(labels, mask, folds) == pytest.approx(expected, rel=1e-12)
    assert np.isnan(prior_log_loss(labels, mask & False, folds))
    assert np.isfinite(prior_log_loss(labels * 0, mask, folds))


def test_verdicts() -> None:
    rng = np.random.default_rng(7)
    n = 600
    labels = (rng.random((n, 5)) < 0.4).astype(np.int8)
    scores = rng.normal(size=(n, 5)) + labels * [2.0, 0.0, 2.0, 2.0, 2.0] - 1.4
    labels[:, 3] = 1
    mask = rng.random((n, 5)) < 0.9
    mask[:, 4] = False
    probabilities = 1 / (1 + np.exp(-2 * scores))
    # The third label ranks well, and its probabilities are far off.
    probabilities[:, 2] = 0.999 + 0.001 * probabilities[:, 2]
    folds = np.arange(n) % 5
    verdicts = learnable(labels, mask, scores, probabilities, folds, seed=0)
    assert [verdict.learnable for verdict in verdicts] == [True, False, False, False, False]
    assert "better than chance" in verdicts[0].reason
    assert verdicts[0].log_loss < verdicts[0].prior_log_loss
    assert 0 < verdicts[0].p_holm < 3 / 10_000
    assert verdicts[1].reason.endswith("after Holm: no better than chance")
    assert "less than the share of positives" in verdicts[2].reason
    assert verdicts[3].reason == f"all {mask[:, 3].sum()} human labels are 1: nothing to learn"
    assert verdicts[4].reason == "no human label: nothing to learn"
    assert np.isnan(verdicts[4].p_holm)
    assert learnable(labels, mask, scores, probabilities, folds, seed=0)[:2] == verdicts[:2]


def test_holm_leaves_room_for_many_labels() -> None:
    columns, n = 150, 40
    rng = np.random.default_rng(8)
    labels = np.tile(np.arange(n)[:, None] % 2, (1, columns)).astype(np.int8)
    scores = np.where(labels == 1, 2.0, -2.0) + rng.normal(size=labels.shape) / 10
    probabilities = 1 / (1 + np.exp(-scores))
    folds = np.arange(n) // 2 % 3
    verdicts = learnable(labels, labels >= 0, scores, probabilities, folds, seed=0)
    assert all(verdict.learnable and verdict.p_holm <= 0.005 for verdict in verdicts)
