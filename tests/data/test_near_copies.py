"""Laws of groups: what is alike goes together, whatever the order, and nothing else does."""

import tracemalloc

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.preprocessing import StandardScaler

from mlc_jax.data import near_copies
from mlc_jax.data.folds import assign_folds, groups_of_copies, rotations
from mlc_jax.data.near_copies import components_of_alike, group_images, standardised
from mlc_jax.errors import ConfigError

ROWS, CHANNELS = 120, 32


def drawn(seed: int = 0) -> tuple[tuple[str, ...], np.ndarray]:
    """Images of which 5 is 3 to the byte; 11 is nearly 10; and 20, 21, 22 are a chain.

    In the chain each is like the next and the ends are not alike.
    """
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(ROWS, CHANNELS))
    features[5] = features[3]
    features[11] = features[10] + 0.1 * rng.normal(size=CHANNELS)
    step = rng.normal(size=CHANNELS)
    step *= 0.36 * np.linalg.norm(features[21]) / np.linalg.norm(step)
    features[20], features[22] = features[21] - step, features[21] + step
    digests = [f"{row:03}" for row in range(ROWS)]
    digests[5] = digests[3]
    return tuple(digests), features * np.geomspace(0.1, 30, CHANNELS) + 7


def together(groups: np.ndarray) -> set[frozenset[int]]:
    """The groups of more than one image, whatever their numbers."""
    sets = [frozenset(np.flatnonzero(groups == group).tolist()) for group in np.unique(groups)]
    return {members for members in sets if len(members) > 1}


def test_exact_copies_near_ones_and_chains_go_together_and_nothing_else() -> None:
    digests, features = drawn()
    cosines = cosine_similarity(StandardScaler().fit_transform(features))
    assert cosines[20, 21] > 0.9
    assert cosines[20, 22] < 0.9
    found = group_images(digests, features, 0.9)
    assert together(found.of_image) == {
        frozenset({3, 5}),
        frozenset({10, 11}),
        frozenset({20, 21, 22}),
    }
    assert found.exact == 1
    assert found.near.tolist() == [[10, 11], [20, 21], [21, 22]]
    assert "1 images are exact copies" in found.note
    assert "3 are nearly so" in found.note


@pytest.mark.parametrize(("rows", "columns"), [(7, 7), (7, 30), (64, 1000), (1024, 8192)])
@pytest.mark.parametrize("similarity", [0.3, 0.6, 0.9])
def test_components_and_their_spanning_forest_are_those_of_a_library(
    monkeypatch: pytest.MonkeyPatch, rows: int, columns: int, similarity: float
) -> None:
    monkeypatch.setattr(near_copies, "_ROWS", rows)
    monkeypatch.setattr(near_copies, "_COLUMNS", columns)
    _, features = drawn()
    cosines = cosine_similarity(StandardScaler().fit_transform(features))
    count, expected = connected_components(cosines >= similarity, directed=False)
    found, pairs = components_of_alike(standardised(features), similarity)
    assert count < ROWS
    assert together(found) == together(expected)
    assert found.dtype == np.int64
    assert sorted(set(found.tolist())) == list(range(count))
    assert np.diff(found[np.unique(found, return_index=True)[1]]).tolist() == [1] * (count - 1)
    # As many pairs as tie the components together, each of them alike.
    assert len(pairs) == ROWS - count
    assert (cosines[tuple(pairs.T)] >= similarity).all()
    tied = np.zeros((ROWS, ROWS))
    tied[tuple(pairs.T)] = 1
    assert connected_components(tied, directed=False)[0] == count


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_images_does_not_matter(seed: int) -> None:
    digests, features = drawn()
    order = np.random.default_rng(seed).permutation(ROWS)
    found = group_images(tuple(digests[row] for row in order), features[order], 0.9)
    back = {frozenset(int(order[row]) for row in group) for group in together(found.of_image)}
    assert back == together(group_images(digests, features, 0.9).of_image)
    assert {frozenset(order[pair].tolist()) for pair in found.near} == {
        frozenset({10, 11}),
        frozenset({20, 21}),
        frozenset({21, 22}),
    }


def test_a_chain_of_a_third_of_the_images_is_one_group() -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(ROWS, CHANNELS))
    # Each frame is like the next, and the last is not like the first.
    turn = np.linspace(0, np.pi, 40)
    features[:40] = np.outer(np.cos(turn), features[0]) + np.outer(np.sin(turn), features[1])
    units = standardised(features)
    assert units[0] @ units[39] < 0
    found = group_images(tuple(map(str, range(ROWS))), features, 0.9)
    assert together(found.of_image) == {frozenset(range(40))}
    assert len(found.near) == 39


def test_features_that_cannot_tell_images_apart_make_one_group_and_not_none() -> None:
    digests, features = drawn()
    rng = np.random.default_rng(1)
    # All images lie along one direction, as behind a network that sees brightness alone.
    alike = rng.normal(size=(ROWS, 1)) @ np.ones((1, CHANNELS))
    alike += 1e-3 * rng.normal(size=features.shape)
    found = group_images(digests, alike, 0.9)
    assert found.of_image.max() <= 1  # on either side of the mean
    with pytest.raises(ConfigError, match=r"config\.folds=3"):
        assign_folds(found.of_image, np.zeros((ROWS, 1), np.int8), 3, 0)


@pytest.mark.parametrize("kind", ["exact", "near"])
def test_a_cluster_of_any_size_costs_what_its_images_cost(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 4,000 copies one pair each is looked at, not their 8 million pairs."""
    handled = 0
    joining = near_copies.minimum_spanning_tree

    def counted(graph: csr_array) -> csr_array:
        nonlocal handled
        handled += graph.nnz
        return joining(graph)

    monkeypatch.setattr(near_copies, "minimum_spanning_tree", counted)
    count, rng = 4000, np.random.default_rng(0)
    features = rng.normal(size=(2 * count, 16)).astype(np.float32)
    features[:count] = features[0]
    if kind == "near":
        features[:count] += 1e-3 * rng.normal(size=(count, 16))
    digests = tuple(str(0 if kind == "exact" and n < count else n) for n in range(2 * count))
    tracemalloc.start()
    found = group_images(digests, features, 0.95)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(found.of_image[:count].tolist())) == 1
    assert len(found.near) < len(digests)
    assert handled < 3 * len(digests)
    assert peak < 150e6  # the pairs alone would take 256 MB


def test_above_one_only_exact_copies_are_grouped() -> None:
    digests, features = drawn()
    found = group_images(digests, features, 1.01)
    np.testing.assert_array_equal(found.of_image, groups_of_copies(digests))
    assert "near ones ignored" in found.note


def test_exact_copies_are_no_near_ones() -> None:
    digests, features = drawn()
    digests = tuple("010" if row == 11 else digest for row, digest in enumerate(digests))
    found = group_images(digests, features, 0.9)
    assert found.exact == 2
    assert found.near.tolist() == [[20, 21], [21, 22]]


@pytest.mark.parametrize("seed", range(5))
def test_no_group_lies_on_two_sides_of_a_split(seed: int) -> None:
    digests, features = drawn()
    groups = group_images(digests, features, 0.9).of_image
    values = np.random.default_rng(seed).integers(-1, 2, (ROWS, 3)).astype(np.int8)
    for split in rotations(assign_folds(groups, values, 4, seed), 4):
        parts = [set(groups[rows].tolist()) for rows in (split.train, split.stop, split.predict)]
        for one, other in ((0, 1), (0, 2), (1, 2)):
            assert not parts[one] & parts[other]
