"""Deletion and insertion: their symmetry, the best order, and areas as scikit-learn's."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import auc

from mlc_jax.assess.faithfulness import (
    Curves,
    chance,
    deletion_masks,
    importance_order,
    make_curves,
)

PIECES = 12


def additive(worth: np.ndarray):
    """A classifier of one label whose probability is the worth of what is shown."""
    return lambda hidden: (~hidden) @ worth[:, None]


def any_set_function(seed: int):
    """A classifier that answers anything, but always the same, for a set of hidden pieces."""

    def answer(hidden: np.ndarray) -> np.ndarray:
        numbers = np.atleast_2d(hidden) @ (1 << np.arange(PIECES))
        return np.stack([np.random.default_rng([seed, n]).random(2) for n in numbers])

    return answer


def curves_of(order: np.ndarray, answer, sizes: np.ndarray, steps: int = PIECES) -> Curves:
    masks = deletion_masks(order, steps)
    nothing_hidden, all_hidden = answer(np.array([[False] * PIECES, [True] * PIECES]))
    ends = (nothing_hidden, all_hidden)
    return make_curves(masks, sizes, answer(masks), answer(~masks), ends)


@pytest.mark.parametrize("seed", range(5))
def test_backwards_an_order_has_minus_its_gain(seed: int) -> None:
    rng = np.random.default_rng(seed)
    order, sizes = rng.permutation(PIECES), rng.integers(1, 50, PIECES)
    answer = any_set_function(seed)
    forth, back = (curves_of(o, answer, sizes) for o in (order, order[::-1]))
    assert np.abs(forth.gain).min() > 1e-3
    np.testing.assert_allclose(back.gain, -forth.gain, atol=1e-12)
    np.testing.assert_allclose(back.insertion_area, forth.deletion_area, atol=1e-12)


def test_areas_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(7)
    sizes = rng.integers(1, 50, PIECES)
    made = curves_of(rng.permutation(PIECES), any_set_function(7), sizes, steps=5)
    assert made.shares[0] == 0
    assert made.shares[-1] == 1
    for label in range(2):
        expected = auc(made.shares, made.deletion[:, label])
        assert made.deletion_area[label] == pytest.approx(expected)
        expected = auc(made.shares, made.insertion[:, label])
        assert made.insertion_area[label] == pytest.approx(expected)


def test_no_order_beats_the_true_one_of_an_additive_classifier() -> None:
    rng = np.random.default_rng(3)
    worth, sizes = rng.random(PIECES), np.full(PIECES, 9)
    answer = additive(worth)
    best = curves_of(np.argsort(-worth), answer, sizes).gain[0]
    others = [curves_of(rng.permutation(PIECES), answer, sizes).gain[0] for _ in range(50)]
    assert best > max(others)
    assert chance(best, np.array(others)) == pytest.approx(1 / 101)
    assert chance(-best, np.array(others)) == 1


def test_a_classifier_that_sees_nothing_is_explained_by_nothing() -> None:
    made = curves_of(np.arange(PIECES), additive(np.zeros(PIECES)), np.full(PIECES, 9))
    assert made.gain[0] == 0
    assert chance(0.0, np.zeros(10)) == 1


def test_masks_grow_along_the_order() -> None:
    order = np.random.default_rng(1).permutation(PIECES)
    for steps in (1, 2, 5, PIECES, 99):
        masks = deletion_masks(order, steps)
        assert len(masks) == min(steps, PIECES) - 1
        for row in masks:
            np.testing.assert_array_equal(np.flatnonzero(row), np.sort(order[: row.sum()]))


def test_the_order_is_that_of_mean_importance() -> None:
    rng = np.random.default_rng(2)
    segments = rng.permutation(np.arange(600) % PIECES).reshape(20, 30)
    heat = rng.normal(size=(20, 30))
    means = ndimage.mean(heat, segments, np.arange(PIECES))
    np.testing.assert_array_equal(importance_order(heat, segments), np.argsort(-means))
