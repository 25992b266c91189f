"""Thresholds against trying every one."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score

from mlc_jax.assess.thresholds import (
    Rule,
    choose_threshold,
    fold_thresholds,
    matched_threshold,
    spread_over_folds,
)


def _draw(seed: int, n: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(np.int8)
    probabilities = np.round(np.clip(0.3 * labels + 0.7 * rng.random(n), 0, 1), 2)
    return labels, rng.random(n) < 0.9, probabilities


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=30),
    st.floats(0, 1),
)
def test_matched_share_is_the_nearest_there_is(values: list[float], target: float) -> None:
    probabilities = np.array(values)
    reached = np.mean(probabilities > matched_threshold(probabilities, target))
    every = [np.mean(probabilities > cut) for cut in (-1.0, *values)]
    nearest = min(abs(share - target) for share in every)
    assert abs(reached - target) == pytest.approx(nearest, abs=1e-12)


def test_matched_under_ties() -> None:
    tied = np.array([0.2] * 6 + [0.7] * 4)
    assert matched_threshold(tied, 0.5) == pytest.approx(0.45)
    assert np.mean(tied > matched_threshold(tied, 0.75)) == 1.0
    # Equally near: fewer positives.
    assert np.mean(tied > matched_threshold(tied, 0.2)) == 0.0
    assert np.mean(tied > matched_threshold(tied, 0.7)) == 0.4


@pytest.mark.parametrize("value", [0.0, 5e-324, 0.5, 1.0])
def test_matched_can_reach_none_and_all(value: float) -> None:
    same = np.full(5, value)
    assert not np.any(same > matched_threshold(same, 0.0))
    assert np.all(same > matched_threshold(same, 1.0))


def test_matched_parts_neighbouring_floats() -> None:
    for low in (0.3, np.nextafter(0.3, 1)):
        pair = np.array([low, np.nextafter(low, 1)])
        assert np.sum(pair > matched_threshold(pair, 0.5)) == 1


def test_matched_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="target"):
        matched_threshold(np.array([0.5]), 1.5)
    with pytest.raises(ValueError, match="0 values"):
        matched_threshold(np.array([]), 0.5)


def test_matched_rule_gives_as_many_positives_as_people_did() -> None:
    rng = np.random.default_rng(0)
    labels, mask, _ = _draw(0)
    probabilities = rng.random(labels.size)
    threshold = choose_threshold("matched", labels, mask, probabilities)
    assert np.sum(probabilities[mask] > threshold) == labels[mask].sum()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("rule", ["youden", "g_mean", "recall"])
def test_the_best_of_every_threshold(rule: Rule, seed: int) -> None:
    labels, mask, probabilities = _draw(seed)
    y, p = labels[mask], probabilities[mask]

    def value(threshold: float) -> float:
        sensitivity = recall_score(y, p > threshold)
        specificity = recall_score(y, p > threshold, pos_label=0)
        if rule == "youden":
            return balanced_accuracy_score(y, p > threshold)
        if rule == "g_mean":
            return sensitivity * specificity
        return specificity if sensitivity >= 0.8 else -1.0

    chosen = choose_threshold(rule, labels, mask, probabilities, min_recall=0.8)
    best = max(value(threshold) for threshold in (-1.0, *np.unique(p)))
    assert value(chosen) == pytest.approx(best, rel=1e-12)


def test_recall_of_one_keeps_every_positive() -> None:
    labels, mask, probabilities = _draw(1)
    threshold = choose_threshold("recall", labels, mask, probabilities, min_recall=1.0)
    assert np.all(probabilities[mask][labels[mask] == 1] > threshold)
    assert np.any(probabilities[mask] <= threshold)


def test_smoothed_f1_is_nearly_the_best_and_moves_less() -> None:
    best, chosen, bare = [], [], []
    for seed in range(20):
        labels, mask, probabilities = _draw(seed, n=200)
        y, p = labels[mask], probabilities[mask]
        cuts = np.unique(p)
        scores = [f1_score(y, p > cut, zero_division=0) for cut in cuts]
        threshold = choose_threshold("f1", labels, mask, probabilities)
        best.append(max(scores) - f1_score(y, p > threshold))
        chosen.append(threshold)
        bare.append(cuts[np.argmax(scores)])
    assert np.mean(best) < 0.03
    assert np.std(chosen) < np.std(bare)


def test_fixed_and_cost_need_no_labels() -> None:
    labels, mask, probabilities = _draw(2)
    assert choose_threshold("fixed", labels, mask & False, probabilities) == 0.5
    assert choose_threshold("cost", labels, mask & False, probabilities) == 0.5
    assert choose_threshold("cost", labels, mask, probabilities, cost_ratio=4.0) == 0.8


def test_cost_rule_is_the_cheapest_for_calibrated_probabilities() -> None:
    rng = np.random.default_rng(3)
    p = rng.random(200_000)
    labels = (rng.random(p.size) < p).astype(np.int8)
    chosen = choose_threshold("cost", labels, labels >= 0, p, cost_ratio=3.0)

    def cost(threshold: float) -> float:
        return float(np.sum(np.where(p > threshold, 3.0 * (labels == 0), labels == 1)))

    assert cost(chosen) < min(cost(chosen - 0.1), cost(chosen + 0.1), cost(0.5))


@pytest.mark.parametrize("rule", ["matched", "f1", "g_mean", "youden", "recall"])
def test_one_class_has_no_threshold(rule: Rule) -> None:
    labels, mask, probabilities = _draw(4)
    assert np.isnan(choose_threshold(rule, labels * 0, mask, probabilities))
    assert np.isnan(choose_threshold(rule, labels, mask & False, probabilities))


def test_a_folds_threshold_comes_from_the_others() -> None:
    labels, mask, probabilities = _draw(5)
    folds = np.arange(labels.size) % 4 + 10
    choose = partial(choose_threshold, "f1")
    before = fold_thresholds(choose, labels, mask, probabilities, folds)
    assert spread_over_folds(before) == (before.min(), before.max())
    changed = np.where(folds == 12, 1 - labels, labels).astype(np.int8)
    after = fold_thresholds(choose, changed, mask, probabilities, folds)
    assert after[2] == before[2]
    assert not np.array_equal(np.delete(after, 2), np.delete(before, 2))


def test_spread_leaves_undefined_folds_out() -> None:
    assert spread_over_folds(np.array([0.4, np.nan, 0.2])) == (0.2, 0.4)
    assert np.isnan(spread_over_folds(np.array([np.nan]))).all()
