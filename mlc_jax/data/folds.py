"""Folds: which images are fitted on, stopped on and asked about. Assigned before anything else.

Images that are copies of one another form a group, and a group lies in one fold whole. Everything
that comes later (oversampling, augmentation, standardisation, fitting) works inside folds, so no
image, no copy and no view of it is ever on both sides of a split.
"""

from dataclasses import dataclass

import numpy as np

from mlc_jax.errors import ConfigError


def groups_of_copies(digests: tuple[str, ...]) -> np.ndarray:
    """Numbers the groups of images whose content digests are equal.

    Args:
      digests: content digests, one per image.

    Returns:
      int64 [N]; equal numbers for equal digests, counted from 0 in order of first appearance.
    """
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(digest, len(numbers)) for digest in digests], np.int64)


def assign_folds(groups: np.ndarray, labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Deals groups of images into folds so that every label's 0s and 1s spread evenly.

    The kinds of cell (label, value) are served from the rarest to the commonest, as in iterative
    stratification (Sechidis, Tsoumakas and Vlahavas, 2011): the groups that hold such a cell and
    are not dealt yet are shuffled and dealt, each to the fold that so far has the fewest of them.

    Args:
      groups: int [N], the group of each image.
      labels: int8 [N, L] with 0, 1 and -1 for missing.
      folds: how many folds, at least 3 (fit on some, stop on one, predict another).
      seed: seed of the shuffles.

    Returns:
      int64 [N], the fold of each image.

    Raises:
      ConfigError: fewer than 3 folds, or more folds than groups.
    """
    count = int(groups.max()) + 1 if groups.size else 0
    if folds < 3 or folds > count:
        raise ConfigError(
            f"config.folds={folds}: needs at least 3 and at most the {count} different images"
        )
    rng = np.random.default_rng([seed, 0xF01D])
    kinds = [labels[:, label] == value for label in range(labels.shape[1]) for value in (0, 1)]
    holds = np.zeros((count, len(kinds)), np.int64)
    for kind, cells in enumerate(kinds):
        np.add.at(holds[:, kind], groups[cells], 1)
    sizes = np.bincount(groups, minlength=count)
    fold_of = np.full(count, -1, np.int64)
    fold_sizes = np.zeros(folds, np.int64)
    order = [kind for kind in np.argsort(holds.sum(axis=0), kind="stable") if holds[:, kind].any()]
    for kind in [*order, None]:
        waiting = fold_of < 0 if kind is None else (fold_of < 0) & (holds[:, kind] > 0)
        weight = sizes if kind is None else holds[:, kind]
        taken = fold_of >= 0
        filled = np.bincount(fold_of[taken], weights=weight[taken], minlength=folds)
        for group in rng.permutation(np.flatnonzero(waiting)):
            fold = np.lexsort((fold_sizes, filled))[0]
            fold_of[group] = fold
            filled[fold] += weight[group]
            fold_sizes[fold] += sizes[group]
    return fold_of[groups]


@dataclass(frozen=True)
class Split:
    """The part each image plays for one fold's heads.

    Attributes:
      fold: the fold whose images these heads are asked about and never see.
      train, stop, predict: int64 row numbers; disjoint, together all rows.
    """

    fold: int
    train: np.ndarray
    stop: np.ndarray
    predict: np.ndarray


def rotations(fold_of: np.ndarray, folds: int) -> tuple[Split, ...]:
    """One `Split` per fold: it is predicted, the next one stops, the rest are fitted."""
    splits = []
    for fold in range(folds):
        predict, stop = fold_of == fold, fold_of == (fold + 1) % folds
        train = ~(predict | stop)
        splits.append(
            Split(fold, np.flatnonzero(train), np.flatnonzero(stop), np.flatnonzero(predict))
        )
    return tuple(splits)


@dataclass(frozen=True)
class Division:
    """A test split held out before anything else, and the folds of the rest.

    Attributes:
      test, held_in: int64 row numbers; disjoint, together all rows.
      fold_of: int64 [N], the fold of each held-in row; -1 for test rows.
      splits: one per fold, of held-in rows only.
    """

    test: np.ndarray
    held_in: np.ndarray
    fold_of: np.ndarray
    splits: tuple[Split, ...]


def divide(
    groups: np.ndarray, labels: np.ndarray, test_fraction: float, folds: int, seed: int
) -> Division:
    """Holds out a test split and deals the rest into folds; groups stay whole, labels spread.

    Args:
      groups: int [N], the group of each image.
      labels: int8 [N, L] with 0, 1 and -1 for missing.
      test_fraction: share of the test split, rounded to one part in 3, 4, 5, ….
      folds, seed: see `assign_folds`.
    """
    parts = assign_folds(groups, labels, max(3, round(1 / test_fraction)), seed)
    test, held_in = np.flatnonzero(parts == 0), np.flatnonzero(parts != 0)
    own_groups = np.unique(groups[held_in], return_inverse=True)[1]
    own_folds = assign_folds(own_groups, labels[held_in], folds, seed + 1)
    fold_of = np.full(len(groups), -1, np.int64)
    fold_of[held_in] = own_folds
    splits = tuple(
        Split(split.fold, held_in[split.train], held_in[split.stop], held_in[split.predict])
        for split in rotations(own_folds, folds)
    )
    return Division(test, held_in, fold_of, splits)
