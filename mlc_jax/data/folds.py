"""Folds: which images are fitted on, stopped on and asked about. Assigned before anything else.

Images that are copies of one another form a group, and a group lies in one fold whole. Everything
that comes later (oversampling, augmentation, standardisation, fitting) works inside folds, so no
image, no copy and no view of it is ever on both sides of a split.
"""

from dataclasses import dataclass

import numpy as np

from mlc_jax.data.splits import GivenSplit
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
    are not dealt yet are shuffled and dealt, those with the most such cells first, each to the fold
    that so far has the fewest of them.

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
            f"config.folds={folds}: needs at least 3 and at most the {count} groups that the "
            f"{len(groups)} images form; if images were grouped that are no copies of one another, "
            "raise config.near_copies (above 1: byte-identical images alone)"
        )
    return _deal(groups, labels, folds, seed)


def _deal(groups: np.ndarray, labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    count = int(groups.max()) + 1
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
        shuffled = rng.permutation(np.flatnonzero(waiting))
        # Large groups first, while there is room to even out what they take.
        for group in shuffled[np.lexsort((-sizes[shuffled], -weight[shuffled]))]:
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
      train, stop, predict: int64 row numbers; disjoint, and no group has rows in two of them.
    """

    fold: int
    train: np.ndarray
    stop: np.ndarray
    predict: np.ndarray


def rotations(
    fold_of: np.ndarray, folds: int, groups: np.ndarray | None = None
) -> tuple[Split, ...]:
    """One `Split` per fold: it is predicted, the next one stops, the rest are fitted.

    Args:
      fold_of: int [N], the fold of each row; -1 for rows that are in none.
      folds: how many folds.
      groups: int [N]. Of groups that lie in several folds, as a given split may have it, rows are
        neither fitted nor stopped on where one of their group is predicted, nor fitted where one
        is stopped on (purging: López de Prado, Advances in Financial Machine Learning, 2018,
        section 7.4). None where no group lies in several folds.
    """
    groups = np.arange(len(fold_of)) if groups is None else groups
    return tuple(
        _purged(fold, fold_of == fold, fold_of == (fold + 1) % folds, fold_of >= 0, groups)
        for fold in range(folds)
    )


def _purged(
    fold: int, predict: np.ndarray, stop: np.ndarray, usable: np.ndarray, groups: np.ndarray
) -> Split:
    """The split of one fold; `predict`, `stop` and `usable` are bool [N]."""
    train = usable & ~(predict | stop) & ~np.isin(groups, groups[predict | stop])
    stop = stop & ~np.isin(groups, groups[predict])
    return Split(fold, np.flatnonzero(train), np.flatnonzero(stop), np.flatnonzero(predict))


def make_folds(
    groups: np.ndarray,
    labels: np.ndarray,
    folds: int,
    seed: int,
    given: GivenSplit | None = None,
) -> tuple[np.ndarray, tuple[Split, ...]]:
    """Folds as they were given, or dealt; and the parts that images play in them.

    Rows of a given test split are predicted by heads that were fitted and stopped on the others,
    and are themselves neither fitted nor stopped on: their fold is the last.

    Args:
      groups, labels, seed: see `assign_folds`.
      folds: how many to deal, the given ones among them; of fold numbers there are as many as
        there are.
      given: the split that the user gave.

    Returns:
      (int64 [N], the fold of each row; one split per fold).

    Raises:
      ConfigError: too few or too many folds.
    """
    if given is None:
        fold_of = assign_folds(groups, labels, folds, seed)
        return fold_of, rotations(fold_of, folds, groups)
    fold_of = given.fold.copy()
    fixed = int(fold_of.max(initial=-1)) + 1
    dealt = (fold_of < 0) & ~given.test
    if dealt.any():
        own_groups = np.unique(groups[dealt], return_inverse=True)[1]
        count = int(own_groups.max()) + 1
        if folds - fixed > count:
            raise ConfigError(
                f"config.folds={folds}: the train rows of config.data.split form {count} groups, "
                f"and are to be dealt into {folds - fixed} folds; give fewer folds"
            )
        fold_of[dealt] = fixed + _deal(own_groups, labels[dealt], folds - fixed, seed)
    else:
        folds = fixed
    if folds < 3:
        raise ConfigError(
            f"config.data.split gives {folds} folds without the test rows; at least 3 are needed: "
            "fit on some, stop on one, predict another"
        )
    splits = rotations(fold_of, folds, groups)
    if given.test.any():
        splits += (_purged(folds, given.test, fold_of == 0, fold_of >= 0, groups),)
        fold_of[given.test] = folds
    return fold_of, splits


def torn_rows(groups: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Rows, int64 [n], of groups (int [N]) that lie in more than one part (int [N])."""
    lowest = np.full(int(groups.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    highest = np.full(len(lowest), -1)
    np.minimum.at(lowest, groups, parts)
    np.maximum.at(highest, groups, parts)
    return np.flatnonzero((lowest < highest)[groups])


@dataclass(frozen=True)
class Division:
    """A test split held out before anything else, and the folds of the rest.

    Attributes:
      test, held_in: int64 row numbers, disjoint.
      left_out: int64 row numbers, all others: rows that a given split has outside its test rows
        although a row of their group is among these.
      fold_of: int64 [N], the fold of each held-in row; -1 for other rows.
      splits: one per fold, of held-in rows only.
    """

    test: np.ndarray
    held_in: np.ndarray
    left_out: np.ndarray
    fold_of: np.ndarray
    splits: tuple[Split, ...]


def divide(
    groups: np.ndarray,
    labels: np.ndarray,
    test_fraction: float,
    folds: int,
    seed: int,
    given: GivenSplit | None = None,
) -> Division:
    """Holds out a test split and deals the rest into folds; groups stay whole, labels spread.

    Args:
      groups: int [N], the group of each image.
      labels: int8 [N, L] with 0, 1 and -1 for missing.
      test_fraction: share of the test split, rounded to one part in 3, 4, 5, ….
      folds, seed: see `assign_folds`.
      given: the split that the user gave. Its test rows are the test split; where it has none, its
        validation rows are; of fold numbers, those of the first.

    Raises:
      ConfigError: no row is left on one side, or see `make_folds`.
    """
    if given is None:
        count = max(3, round(1 / test_fraction))
        parts = assign_folds(groups, labels, count, seed)
        # A group larger than a part makes its part larger than wanted; the test split is another.
        taken = int(np.argmax(np.bincount(parts, minlength=count) <= 1.5 * len(groups) / count))
        test, own_folds = parts == taken, None
        seed += 1  # of the folds, which are dealt after the parts
    else:
        test, own_folds = _given_test(given)
    torn = ~test & np.isin(groups, groups[test])
    held_in = np.flatnonzero(~test & ~torn)
    if not held_in.size:
        raise ConfigError(
            "config.data.split leaves no row to fit: every row is a test row or a copy of one"
        )
    own_groups = np.unique(groups[held_in], return_inverse=True)[1]
    own_given = None
    if own_folds is not None and given is not None:
        nothing = np.zeros(len(held_in), np.bool_)
        own_given = GivenSplit(own_folds[held_in], nothing, given.numbered)
    fold_of = np.full(len(groups), -1, np.int64)
    fold_of[held_in], own_splits = make_folds(own_groups, labels[held_in], folds, seed, own_given)
    splits = tuple(
        Split(split.fold, held_in[split.train], held_in[split.stop], held_in[split.predict])
        for split in own_splits
    )
    return Division(np.flatnonzero(test), held_in, np.flatnonzero(torn), fold_of, splits)


def _given_test(given: GivenSplit) -> tuple[np.ndarray, np.ndarray]:
    """Which rows are the test split, bool [N], and the given folds of the others, int64 [N].

    Raises:
      ConfigError: none are.
    """
    if given.test.any():
        return given.test, given.fold
    if (given.fold == 0).any():
        # Without test rows the validation rows are the test split, or the first of several folds.
        return given.fold == 0, np.maximum(given.fold - 1, -1)
    raise ConfigError("config.data.split names train rows alone; name the test rows as well")
