"""Bootstrap intervals against drawing images and measuring them anew."""

import time

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mlc_jax.assess.intervals import (
    bootstrap_interval,
    macro_roc_auc_interval,
    macro_roc_auc_statistic,
)

Cells = tuple[np.ndarray, np.ndarray, np.ndarray]


def _draw(seed: int, n: int = 150, columns: int = 3) -> Cells:
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, columns)) < 0.3).astype(np.int8)
    scores = np.round(labels + rng.normal(size=(n, columns)), 1)
    return labels, rng.random((n, columns)) < 0.8, scores


def test_weights_equal_repeated_images() -> None:
    labels, mask, scores = _draw(0)
    rng = np.random.default_rng(1)
    weights = rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=50)
    ours = macro_roc_auc_statistic(labels, mask, scores)(weights.astype(np.float64))
    for row, counts in zip(ours, weights, strict=True):
        again = np.repeat(np.arange(len(labels)), counts)
        areas = [
            roc_auc_score(labels[again, c][mask[again, c]], scores[again, c][mask[again, c]])
            for c in range(labels.shape[1])
        ]
        assert row == pytest.approx(np.mean(areas), rel=1e-12)


def test_a_resample_without_a_rare_class_leaves_that_label_out() -> None:
    labels, mask, scores = _draw(2)
    labels[:, 0], mask[:, 0] = 0, True
    labels[5, 0] = 1
    weights = np.ones((2, len(labels)))
    weights[1, 5] = 0
    with_it, without = macro_roc_auc_statistic(labels, mask, scores)(weights)
    rest = macro_roc_auc_statistic(labels[:, 1:], mask[:, 1:], scores[:, 1:])(weights)
    assert without == rest[1]
    assert with_it != rest[0]


def test_mean_interval_equals_the_normal_one() -> None:
    figures = np.random.default_rng(3).normal(2.0, 1.0, 4000)
    ours = bootstrap_interval(
        lambda weights: weights @ figures / weights.sum(axis=1), figures.size, seed=0
    )
    half = 1.96 * figures.std() / np.sqrt(figures.size)
    assert ours.value == pytest.approx(figures.mean())
    assert ours.low == pytest.approx(figures.mean() - half, abs=0.15 * half)
    assert ours.high == pytest.approx(figures.mean() + half, abs=0.15 * half)


def test_covers_the_truth_about_as_often_as_it_says() -> None:
    # For normal scores one standard deviation apart the AUC is Phi(1 / sqrt 2).
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        labels = (rng.random((200, 1)) < 0.4).astype(np.int8)
        scores = labels + rng.normal(size=labels.shape)
        ours = macro_roc_auc_interval(labels, labels >= 0, scores, seed=seed, resamples=300)
        covered += ours.low <= 0.7602 <= ours.high
    assert 0.90 <= covered / 200 <= 0.99


def test_copies_are_drawn_together() -> None:
    labels, mask, scores = _draw(4)
    twice = [np.repeat(array, 2, axis=0) for array in (labels, mask, scores)]
    groups = np.repeat(np.arange(len(labels)), 2) + 1000
    single = macro_roc_auc_interval(labels, mask, scores, seed=0)
    assert macro_roc_auc_interval(*twice, seed=0, groups=groups) == pytest.approx(single)
    alone = macro_roc_auc_interval(*twice, seed=0)
    assert alone.high - alone.low < 0.85 * (single.high - single.low)


def test_same_seed_same_interval() -> None:
    cells = _draw(5)
    assert macro_roc_auc_interval(*cells, seed=1) == macro_roc_auc_interval(*cells, seed=1)
    assert macro_roc_auc_interval(*cells, seed=1) != macro_roc_auc_interval(*cells, seed=2)


def test_blocks_cover_all_resamples() -> None:
    seen = []

    def statistic(weights: np.ndarray) -> np.ndarray:
        seen.append(len(weights))
        assert np.all(weights.sum(axis=1) == 5000)
        return weights[:, 0]

    bootstrap_interval(statistic, 5000, seed=0, resamples=1000)
    assert seen[0] == 1
    assert sum(seen[1:]) == 1000
    assert len(seen) > 2


def test_not_defined() -> None:
    labels, mask, scores = _draw(6)
    ours = macro_roc_auc_interval(labels * 0, mask, scores, seed=0)
    assert np.isnan(ours).all()


def test_mostly_not_defined_has_no_interval() -> None:
    labels, mask, scores = (array[:, :1] for array in _draw(7, n=40))
    labels[:], mask[:] = 0, True
    labels[0] = 1
    ours = bootstrap_interval(
        lambda w: np.where(w[:, 0] == 1, macro_roc_auc_statistic(labels, mask, scores)(w), np.nan),
        len(labels),
        seed=0,
    )
    assert not np.isnan(ours.value)
    assert np.isnan([ours.low, ours.high]).all()


def test_fast() -> None:
    cells = _draw(8, n=2000, columns=5)
    start = time.perf_counter()
    macro_roc_auc_interval(*cells, seed=0)
    assert time.perf_counter() - start < 5
