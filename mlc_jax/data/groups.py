"""Which images must lie on one side of every split, and are drawn together in every resample."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mlc_jax.data.collection import Collection
from mlc_jax.data.folds import groups_of_copies, torn_rows
from mlc_jax.data.near_copies import Copies, group_images
from mlc_jax.data.splits import Given, GivenSplit, group_numbers, make_split
from mlc_jax.files.digest import digest_bytes
from mlc_jax.journal import Journal

LARGE = 0.05
"""Share of the images above which a group is reported: folds are only as even as groups are."""
_SMALL = 3  # images; a group of no more is not reported, however few images there are
_SHOWN = 5


@dataclass(frozen=True)
class Groups:
    """Which images go together.

    Attributes:
      of_image: int64 [N], equal for images of one group: copies, and what the user says belongs
        together.
      copies: what was found by the images themselves.
    """

    of_image: np.ndarray
    copies: Copies


def find_groups(
    collection: Collection,
    features: np.ndarray,
    similarity: float,
    journal: Journal,
    rows: np.ndarray | None = None,
) -> Groups:
    """Groups the images of a collection, and reports what was found.

    Args:
      collection: the images.
      features: float [N, C], one vector per image, the same on every process.
      similarity: `config.near_copies`, see `group_images`.
      journal: told of copies; warned of groups that are large.
      rows: int [N], which images of the collection; None for all.
    """
    chosen = np.arange(len(collection.images)) if rows is None else rows
    digests, filenames = (
        tuple(names[row] for row in chosen.tolist())
        for names in (collection.images.digests, collection.images.filenames)
    )
    copies = group_images(digests, features, similarity)
    journal.note(f"{copies.note}; copies lie in one fold")
    groups = Groups(_with_given(copies.of_image, collection.groups, chosen), copies)
    for size, first in _large(groups.of_image, filenames):
        journal.warn(
            f"one group holds {size} of {len(filenames)} images ({first}): it lies in one fold or "
            "in the test split as a whole, which are uneven for that, and counts as one image in "
            "intervals. If these do not belong together, raise config.near_copies; above 1 groups "
            "byte-identical images alone"
        )
    return groups


def known_groups(collection: Collection) -> np.ndarray:
    """Groups before any feature is there: exact copies and what the user gave; int64 [N]."""
    exact = groups_of_copies(collection.images.digests)
    return _with_given(exact, collection.groups, np.arange(len(exact)))


def given_split(collection: Collection) -> GivenSplit | None:
    """What the user gave of the split of a collection's images."""
    if collection.split is None:
        return None
    return make_split(collection.split, collection.images.filenames)


def _with_given(groups: np.ndarray, given: Given | None, rows: np.ndarray) -> np.ndarray:
    return groups if given is None else united(groups, group_numbers(given.select(rows)))


def united(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The finest groups that hold both groupings, int64 [N], numbered in order of appearance."""
    shifted = other + int(one.max(initial=-1)) + 1
    size = int(shifted.max(initial=-1)) + 1
    ties = coo_array((np.ones(len(one)), (one, shifted)), shape=(size, size))
    component = connected_components(ties, directed=False)[1][one]
    first, numbers = np.unique(component, return_index=True, return_inverse=True)[1:]
    return np.argsort(np.argsort(first))[numbers].astype(np.int64)


def say_torn(
    groups: np.ndarray, fold_of: np.ndarray, filenames: Sequence[str], journal: Journal
) -> None:
    """Warns of groups that a given split lays into several folds; others lie in one.

    Args:
      groups, fold_of: int [N], of images that lie in a fold.
      filenames: theirs.
      journal: warned.
    """
    if torn := torn_rows(groups, fold_of).tolist():
        names = ", ".join(filenames[row] for row in torn[:_SHOWN])
        journal.warn(
            f"config.data.split parts copies of one another: {len(torn)} images "
            f"({names}{', …' if len(torn) > _SHOWN else ''}). It is used as given, but no head is "
            "fitted or stopped on an image that goes with one that it predicts"
        )


def group_digests(collection: Collection, rows: np.ndarray) -> list[str]:
    """Digests of the groups that the user gave the images of these rows, int [n]; each once.

    A patient's number is known again by it and not given away.
    """
    if collection.groups is None:
        return []
    values = {collection.groups.values[row] for row in rows.tolist()} - {""}
    return sorted(digest_bytes(value.encode()) for value in values)


def group_record(groups: Groups, collection: Collection) -> dict[str, Any]:
    """The part of summary.json's `data` that tells of groups and of a given split."""
    sizes = np.bincount(groups.of_image)
    filenames = collection.images.filenames
    given: dict[str, Any] = {}
    if collection.groups is not None:
        named = [value for value in collection.groups.values if value]
        given["given_groups"] = {
            "source": collection.groups.source,
            "groups": len(set(named)),
            "images": len(named),
        }
    if collection.split is not None:
        given["given_split"] = {
            "source": collection.split.source,
            "images": dict(Counter(collection.split.values)),
        }
    return given | {
        "copies": groups.copies.exact,
        "near_copies": [[filenames[row] for row in pair] for pair in groups.copies.near.tolist()],
        "groups": {
            "count": len(sizes),
            "images_in_groups": int(sizes[sizes > 1].sum()),
            "largest": int(sizes.max(initial=0)),
            "large": [
                {"images": size, "first": first}
                for size, first in _large(groups.of_image, filenames)
            ],
        },
    }


def _large(groups: np.ndarray, filenames: tuple[str, ...]) -> list[tuple[int, str]]:
    """Size and first file names of every large group, the largest first."""
    sizes = np.bincount(groups)
    found = np.flatnonzero(sizes > max(_SMALL, LARGE * len(groups)))
    large = []
    for group in found[np.argsort(-sizes[found], kind="stable")]:
        rows = np.flatnonzero(groups == group)[:_SHOWN].tolist()
        more = ", …" if sizes[group] > _SHOWN else ""
        large.append((int(sizes[group]), ", ".join(filenames[row] for row in rows) + more))
    return large
