"""The permutation test: honest under the null, awake under signal."""

import itertools

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, rankdata
from sklearn.metrics import log_loss, roc_auc_score

from mlc_jax.assess import learnability
from mlc_jax.assess.blankness import ridge_scores
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
    auc, p, null_mean, null_sd = permutation_p(
        labels, mask, scores, folds, np.arange(200), seed=0, resamples=1999
    )
    y, s, f = labels[mask], scores[mask], folds[mask]

    def within_folds(dealt: np.ndarray) -> float:
        right = [
            np.sign(s[(f == fold) & (dealt == 1), None] - s[(f == fold) & (dealt == 0)]).ravel()
            for fold in range(5)
        ]
        return 0.5 + float(np.concatenate(right).mean()) / 2

    assert auc == pytest.approx(within_folds(y), rel=1e-12)
    rng = np.random.default_rng(1)
    null = []
    for _ in range(500):
        dealt = y.copy()
        for fold in range(5):
            dealt[f == fold] = rng.permutation(y[f == fold])
        null.append(within_folds(dealt))
    assert null_mean == pytest.approx(0.5)
    assert null_mean == pytest.approx(np.mean(null), abs=4 * null_sd / np.sqrt(500))
    assert null_sd == pytest.approx(np.std(null), rel=0.15)
    # Scores of several folds are cross-fitted, so the excess counts by its share of the root of 2.
    by_hand = np.mean(np.array(null) >= 0.5 + (auc - 0.5) / np.sqrt(2))
    assert p == pytest.approx(by_hand, abs=4 * np.sqrt(0.25 / 500))


def test_uniform_under_the_null_where_scores_are_given() -> None:
    """As on a test split: one fold, and scores in which its labels have no part."""
    drawn = []
    for seed in range(400):
        labels, mask, scores, folds = _draw(seed)
        cells = labels, mask, scores - 0.3 * folds, 0 * folds, np.arange(200)
        drawn.append(permutation_p(*cells, seed=seed, resamples=499)[1])
    p = np.sort(drawn)
    # Kolmogorov-Smirnov at 0.001: 1.95 / sqrt(400).
    assert np.max(np.abs(p - (np.arange(400) + 0.5) / 400)) < 1.95 / 20


def ridge_null(seed: int, scenes: int, frames: int) -> tuple[np.ndarray, ...]:
    """Labels of noise with cross-fitted scores: labels, mask, scores, folds, groups."""
    rng = np.random.default_rng(seed)
    rows = scenes * frames
    groups = np.repeat(np.arange(scenes), frames)
    features = rng.normal(size=(scenes, 16))[groups] + 0.3 * rng.normal(size=(rows, 16))
    labels = (rng.random(scenes) < 0.3).astype(np.int8)[groups]
    folds = (rng.permutation(scenes) % 5)[groups]
    scores = ridge_scores(features, labels[:, None].astype(np.float64), folds)[:, 0]
    return labels, np.ones(rows, np.bool_), scores, folds, groups


@pytest.mark.parametrize(
    ("scenes", "frames", "draws"),
    [
        (100, 1, 300),
        (60, 5, 200),
        pytest.param(200, 1, 3000, marks=pytest.mark.slow),
        pytest.param(200, 5, 1000, marks=pytest.mark.slow),
        pytest.param(40, 10, 1000, marks=pytest.mark.slow),
    ],
)
def test_cross_fitted_scores_of_noise_pass_no_more_often_than_the_level(
    scenes: int, frames: int, draws: int
) -> None:
    """Scores of one fold come from the labels of the others; dealing them as if they were given,
    or frame by frame, calls 3 to 31 % better than chance at a level of 1 %."""
    p = np.array(
        [
            permutation_p(*ridge_null(seed, scenes, frames), seed=seed, resamples=299)[1]
            for seed in range(draws)
        ]
    )
    for level in (0.01, 0.05):
        allowed = level + 3 * np.sqrt(level * (1 - level) / draws)
        assert np.mean(p < level) <= allowed, level
    # And not because it is never small.
    assert np.mean(p < 0.2) > 0.08


@pytest.mark.parametrize("frames", [1, 4])
def test_groups_of_equal_cells_are_tested_as_their_number(frames: int) -> None:
    """What is given `frames` times is as sure as what is given once: a test split, one fold."""
    rng = np.random.default_rng(0)
    labels = (np.arange(40) % 2).astype(np.int8)
    scores = 0.5 * labels + rng.normal(size=40)
    again = np.repeat(np.arange(40), frames)
    cells = labels[again], labels[again] >= 0, scores[again], 0 * again, again
    auc, p, _, null_sd = permutation_p(*cells, seed=0)
    exact = mannwhitneyu(scores[labels == 1], scores[labels == 0], alternative="greater").pvalue
    assert auc == pytest.approx(roc_auc_score(labels, scores))
    assert p == pytest.approx(exact, abs=0.03)
    assert null_sd == pytest.approx(np.sqrt(41 / 12 / 400), rel=0.1)


def test_groups_that_hold_both_classes_are_not_one_answer() -> None:
    """Eight patients whose images differ: what is told apart within each of them counts."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(8), 25)
    labels = (rng.random(200) < 0.3).astype(np.int8)
    scores = 2.0 * labels + rng.normal(size=200) + rng.normal(size=8)[groups]
    found = permutation_p(labels, labels >= 0, scores, groups % 4, groups, seed=0)
    assert found[1] < 1e-3
    noise = permutation_p(labels, labels >= 0, rng.normal(size=200), groups % 4, groups, seed=0)
    assert noise[1] > 0.01


def test_small_under_signal() -> None:
    assert 0 < permutation_p(*_draw(1, signal=2.5), np.arange(200), seed=0)[1] < 1e-6
    assert permutation_p(*_draw(1, signal=-1.5), np.arange(200), seed=0)[1] > 0.99


def test_levels_of_the_folds_are_no_signal() -> None:
    # Where folds differ in prevalence and in score level the AUC of pooled folds is high by that.
    rng = np.random.default_rng(2)
    folds = np.arange(600) % 3
    labels = (rng.random(600) < 0.2 + 0.3 * folds).astype(np.int8)
    scores = rng.normal(size=600) + 2 * folds
    auc, p, null_mean, _ = permutation_p(labels, labels >= 0, scores, folds, np.arange(600), seed=0)
    assert roc_auc_score(labels, scores) > 0.65
    assert auc == pytest.approx(0.5, abs=0.06)
    assert null_mean == pytest.approx(0.5)
    assert p > 0.01


def test_normal_limit_agrees_with_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = _draw(3, signal=0.16, n=3000)
    drawn = permutation_p(*cells, np.arange(3000), seed=0)
    monkeypatch.setattr(learnability, "_MAX_DRAWS", 0)
    limit = permutation_p(*cells, np.arange(3000), seed=0)
    assert 0.001 < drawn[1] < 0.2
    assert limit[1] == pytest.approx(drawn[1], abs=0.01)
    assert (limit[0], *limit[2:]) == (drawn[0], *drawn[2:])
    assert 0 < permutation_p(*_draw(3, signal=2, n=3000), np.arange(3000), seed=0)[1] < 1e-100


@pytest.mark.parametrize("decimals", [8, 0])
def test_beyond_the_draws_p_is_never_below_the_truth(decimals: int) -> None:
    """The truth by all ways to deal the labels of 20 cells: up to 184,756."""
    rng = np.random.default_rng(10)
    least = 1.0
    for positives in (1, 2, 4, 6, 10):
        labels = (np.arange(20) < positives).astype(np.int8)
        scores = np.round(3.0 * labels + rng.normal(size=20), decimals)
        ranks = rankdata(scores)
        sums = np.array([sum(chosen) for chosen in itertools.combinations(ranks, positives)])
        truth = np.mean(sums >= ranks[labels == 1].sum() - 1e-9)
        # So few draws that none gets there, nearly always, whatever the seed.
        cells = labels, labels >= 0, scores, 0 * labels, np.arange(20)
        p = permutation_p(*cells, seed=0, resamples=2)[1]
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
        p = permutation_p(
            labels, labels >= 0, scores, 0 * labels, np.arange(120), seed=0, resamples=99
        )[1]
        assert exact <= p < exact**0.6


def test_degenerate_labels_have_no_test() -> None:
    labels, mask, scores, folds = _draw(4)
    alone = np.arange(200)
    assert np.isnan(permutation_p(labels * 0, mask, scores, folds, alone, seed=0)).all()
    assert np.isnan(permutation_p(labels, mask & False, scores, folds, alone, seed=0)).all()
    # Where each fold has one class there is no pair within a fold.
    assert np.isnan(permutation_p(folds % 2, mask, scores, folds, alone, seed=0)).all()
    # Where all scores of a fold are equal nothing is found, by single cells and by groups.
    for groups in (alone, alone // 2 + 200 * folds):
        auc, p, null_mean, null_sd = permutation_p(labels, mask, folds / 5, folds, groups, seed=0)
        assert (auc, p, null_mean, null_sd) == (0.5, 1, 0.5, 0)


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
    verdicts = learnable(labels, mask, scores, probabilities, folds, np.arange(n), seed=0)
    assert [verdict.learnable for verdict in verdicts] == [True, False, False, False, False]
    assert "better than chance" in verdicts[0].reason
    assert verdicts[0].log_loss < verdicts[0].prior_log_loss
    assert 0 < verdicts[0].p_holm < 3 / 10_000
    assert verdicts[1].reason.endswith("after Holm: no better than chance")
    assert "less than the share of positives" in verdicts[2].reason
    assert verdicts[3].reason == f"all {mask[:, 3].sum()} human labels are 1: nothing to learn"
    assert verdicts[4].reason == "no human label: nothing to learn"
    assert np.isnan(verdicts[4].p_holm)
    assert (
        learnable(labels, mask, scores, probabilities, folds, np.arange(n), seed=0)[:2]
        == verdicts[:2]
    )


def test_holm_leaves_room_for_many_labels() -> None:
    columns, n = 150, 40
    rng = np.random.default_rng(8)
    labels = np.tile(np.arange(n)[:, None] % 2, (1, columns)).astype(np.int8)
    scores = np.where(labels == 1, 2.0, -2.0) + rng.normal(size=labels.shape) / 10
    probabilities = 1 / (1 + np.exp(-scores))
    folds = np.arange(n) // 2 % 3
    verdicts = learnable(labels, labels >= 0, scores, probabilities, folds, np.arange(n), seed=0)
    assert all(verdict.learnable and verdict.p_holm <= 0.005 for verdict in verdicts)
