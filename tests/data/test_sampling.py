"""Laws of the index plans: oversampling keeps to its rows, plans are pure, passes are whole."""

from collections.abc import Callable

import numpy as np
import pytest

from mlc_jax.data.folds import assign_folds, rotations
from mlc_jax.data.pipeline import PlanIterator
from mlc_jax.data.sampling import (
    HeadRows,
    PlanSource,
    as_they_are,
    balanced_label,
    balanced_labelsets,
    balanced_rarest,
    plan_of_rows,
)
from mlc_jax.training.crossfit import make_heads


def head_rows(seed: int = 0) -> HeadRows:
    rng = np.random.default_rng(seed)
    rows = rng.choice(500, 120, replace=False)
    return balanced_label(rows, (rng.random(120) < 0.15).astype(np.int8), 0.5)


@pytest.mark.parametrize("ratio", [0.2, 0.35, 0.5])
@pytest.mark.parametrize("share", [0.03, 0.1, 0.9])
def test_copies_reach_the_ratio_and_differ_by_at_most_one(ratio: float, share: float) -> None:
    rng = np.random.default_rng(3)
    labels = (rng.random(400) < share).astype(np.int8)
    places = balanced_label(np.arange(400), labels, ratio).one_pass(rng)
    minority = int(2 * labels.sum() < labels.size)
    got = (labels[places] == minority).mean()
    own = (labels == minority).mean()
    assert got == pytest.approx(max(ratio, own), abs=1 / places.size)
    counts = np.bincount(places, minlength=400)
    assert (counts[labels != minority] == 1).all()
    assert np.ptp(counts[labels == minority]) <= 1


def random_labels(rows: int) -> np.ndarray:
    rng = np.random.default_rng(4)
    labels = (rng.random((rows, 4)) < [0.9, 0.6, 0.3, 0.06]).astype(np.int8)
    labels[rng.random(labels.shape) < 0.1] = -1
    return labels


def test_every_labelset_comes_equally_often() -> None:
    labels = random_labels(300)
    places = balanced_labelsets(np.arange(300), labels).one_pass(np.random.default_rng(0))
    _, counts = np.unique(labels[places], axis=0, return_counts=True)
    assert np.ptp(counts) == 0
    assert counts.max() == np.unique(labels, axis=0, return_counts=True)[1].max()


def test_rows_of_rare_classes_come_by_their_repeat_factor() -> None:
    labels = random_labels(4000)
    places = balanced_rarest(np.arange(4000), labels, 0.5).one_pass(np.random.default_rng(0))
    counts = np.bincount(places, minlength=4000)
    for row in range(0, 4000, 97):
        factors = [1.0]
        for label, value in enumerate(labels[row]):
            if value >= 0:
                column = labels[:, label]
                factors.append(np.sqrt(0.5 / ((column == value).sum() / (column >= 0).sum())))
        assert np.floor(max(factors)) <= counts[row] <= np.ceil(max(factors))


def test_no_plan_shows_a_head_an_image_of_its_stop_or_predict_fold() -> None:
    """Fails if someone oversamples, or draws views, before splitting: the original's leak."""
    rng = np.random.default_rng(0)
    values = (rng.random((300, 3)) < 0.2).astype(np.int8)
    values[rng.random(values.shape) < 0.1] = -1
    copies = rng.integers(0, 250, 300)
    groups = np.unique(copies, return_inverse=True)[1]
    splits = rotations(assign_folds(groups, values, 5, 0), 5)
    heads = make_heads(values, range(3), splits, ratio=0.5)
    source = PlanSource(tuple(head.rows for head in heads), 16, 2, 3, seed=1)
    for epoch in range(3):
        plan = source[epoch]
        for number, head in enumerate(heads):
            shown = set(groups[plan.rows[:, number]].ravel())
            unseen = set(groups[np.concatenate([head.split.stop, head.split.predict])])
            assert not shown & unseen
            assert (values[plan.rows[:, number], head.label] >= 0).all()


def test_a_pass_shows_every_row_before_the_next_begins() -> None:
    heads = (head_rows(0), as_they_are(np.arange(40, 99)))
    source = PlanSource(heads, batch_size=10, views=4, epochs=4, seed=0)
    for number, head in enumerate(heads):
        stream = np.concatenate([source[e].rows[:, number].ravel() for e in range(4)])
        length = head.pass_length
        for start in range(0, stream.size - length, length):
            assert set(stream[start : start + length]) == set(head.rows)


def test_views_are_drawn_evenly() -> None:
    source = PlanSource((head_rows(),), batch_size=32, views=3, epochs=40, seed=0)
    views = np.concatenate([source[e].views.ravel() for e in range(40)])
    counts = np.bincount(views, minlength=4)
    assert counts.size == 4
    # Chi-squared with 3 degrees of freedom: 16.3 is the 0.1 % point.
    assert ((counts - views.size / 4) ** 2 / (views.size / 4)).sum() < 16.3


def test_a_plan_is_a_pure_function_of_seed_and_epoch() -> None:
    first, again, other = (PlanSource((head_rows(),), 16, 2, 9, seed)[7] for seed in (5, 5, 6))
    assert (first.rows == again.rows).all()
    assert (first.views == again.views).all()
    assert (first.rows != other.rows).any()


def test_the_grain_iterator_resumes_from_its_position() -> None:
    source = PlanSource((head_rows(),), 16, 2, 9, seed=0)
    whole = PlanIterator(source)
    for _ in range(3):
        next(whole)
    resumed = PlanIterator(source)
    resumed.seek(whole.position())
    for epoch in range(3, 9):
        ours, theirs = next(resumed), next(whole)
        assert (ours.rows == source[epoch].rows).all()
        assert (ours.views == theirs.views).all()


@pytest.mark.parametrize("sample", [balanced_labelsets, lambda r, y: balanced_rarest(r, y, 0.5)])
def test_log_odds_shift_is_what_the_sample_adds(
    sample: Callable[[np.ndarray, np.ndarray], HeadRows],
) -> None:
    labels = random_labels(300)
    head = sample(np.arange(300), labels)
    drawn = np.concatenate([head.one_pass(np.random.default_rng(s)) for s in range(50)])

    def log_odds(y: np.ndarray) -> np.ndarray:
        return np.log((y == 1).sum(axis=0)) - np.log((y == 0).sum(axis=0))

    shift = log_odds(labels[drawn]) - log_odds(labels)
    np.testing.assert_allclose(head.log_odds_shift(labels), shift, atol=0.02)
    assert (as_they_are(np.arange(300)).log_odds_shift(labels) == 0).all()


def test_plan_of_rows_shows_each_row_once_in_order() -> None:
    rows = (np.arange(7), np.arange(20, 32), np.array([], np.int64))
    plan = plan_of_rows(rows, 5)
    for number, own in enumerate(rows):
        shown = plan.rows[:, number].ravel()[plan.mask[:, number].ravel()]
        assert (shown == own).all()
