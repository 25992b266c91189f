"""Laws of the split: groups whole, parts disjoint, labels spread evenly."""

import numpy as np
import pytest

from mlc_jax.data.folds import assign_folds, divide, groups_of_copies, rotations
from mlc_jax.errors import ConfigError


def random_labels(rows: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = (rng.random((rows, 4)) < [0.88, 0.8, 0.5, 0.08]).astype(np.int8)
    labels[rng.random(labels.shape) < 0.1] = -1
    return labels


def test_groups_of_copies_are_equal_exactly_where_the_contents_are() -> None:
    assert groups_of_copies(("a", "b", "a", "c", "b")).tolist() == [0, 1, 0, 2, 1]


@pytest.mark.parametrize("seed", range(5))
def test_no_group_lies_in_two_folds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = groups_of_copies(tuple(str(n) for n in rng.integers(0, 150, 200)))
    folds = assign_folds(groups, random_labels(200, seed), 5, seed)
    for group in range(groups.max() + 1):
        assert len(set(folds[groups == group])) == 1


@pytest.mark.parametrize("seed", range(5))
def test_each_kind_of_cell_spreads_evenly(seed: int) -> None:
    labels = random_labels(972, seed)
    folds = assign_folds(np.arange(972), labels, 5, seed)
    assert np.ptp(np.bincount(folds)) <= 30
    for label in range(4):
        for value in (0, 1):
            counts = np.bincount(folds[labels[:, label] == value], minlength=5)
            # Kinds overlap in one image, so later ones are dealt around what earlier ones took.
            assert np.ptp(counts) <= max(3, 0.1 * counts.sum())


def test_the_rarest_kind_is_dealt_within_one() -> None:
    labels = random_labels(972, 1)
    folds = assign_folds(np.arange(972), labels, 5, 1)
    assert np.ptp(np.bincount(folds[labels[:, 3] == 1], minlength=5)) <= 1


def test_same_seed_same_folds_and_another_seed_others() -> None:
    labels = random_labels(300, 0)
    first, again, other = (assign_folds(np.arange(300), labels, 5, s) for s in (7, 7, 8))
    assert (first == again).all()
    assert (first != other).any()


def test_rotations_part_the_rows_and_every_row_is_predicted_once() -> None:
    fold_of = np.random.default_rng(0).integers(0, 5, 100)
    splits = rotations(fold_of, 5)
    for split in splits:
        parts = np.concatenate([split.train, split.stop, split.predict])
        assert sorted(parts) == list(range(100))
    assert sorted(np.concatenate([split.predict for split in splits])) == list(range(100))


@pytest.mark.parametrize("folds", [2, 11])
def test_too_few_or_too_many_folds_are_refused(folds: int) -> None:
    with pytest.raises(ConfigError, match=f"config.folds={folds}"):
        assign_folds(np.arange(10), random_labels(10, 0), folds, 0)


def test_large_groups_leave_folds_as_even_as_they_can() -> None:
    """They are dealt first, and small ones fill up around them; in any order it is 31 instead."""
    sizes = np.concatenate([[30, 25, 20, 15, 10], np.ones(20, np.int64)])
    groups = np.repeat(np.arange(len(sizes)), sizes)
    uneven = []
    for seed in range(20):
        labels = np.random.default_rng(seed).integers(0, 2, (len(sizes), 1)).astype(np.int8)
        folds = assign_folds(groups, labels[groups], 4, seed)
        uneven.append(np.ptp(np.bincount(folds, minlength=4)))
    assert np.mean(uneven) < 16


def test_a_large_group_is_not_the_test_split() -> None:
    groups = np.concatenate([np.zeros(120, np.int64), np.arange(1, 81)])
    for seed in range(10):
        division = divide(groups, random_labels(200, 1), 0.2, 3, seed)
        assert division.test.size <= 60
        assert set(range(120)) <= set(division.held_in.tolist())
