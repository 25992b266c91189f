"""Laws of groups: what is alike goes together, whatever the order, and nothing else does."""

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.preprocessing import StandardScaler

from mlc_jax.data import near_copies
from mlc_jax.data.folds import assign_folds, groups_of_copies, rotations
from mlc_jax.data.near_copies import group_images, joined, similar_pairs

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
    assert "3 pairs are nearly so" in found.note


@pytest.mark.parametrize("block", [7, 64, 1024])
@pytest.mark.parametrize("similarity", [0.3, 0.6, 0.9])
def test_pairs_are_those_of_a_library(
    monkeypatch: pytest.MonkeyPatch, block: int, similarity: float
) -> None:
    monkeypatch.setattr(near_copies, "_BLOCK", block)
    _, features = drawn()
    cosines = cosine_similarity(StandardScaler().fit_transform(features))
    expected = np.argwhere(np.triu(cosines >= similarity, 1))
    found = similar_pairs(features.astype(np.float32), similarity)
    assert len(expected) > 0
    assert sorted(found.tolist()) == expected.tolist()


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


@pytest.mark.parametrize("seed", range(10))
def test_joined_groups_are_the_components_of_the_graph(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = np.unique(rng.integers(0, 40, 60), return_inverse=True)[1].astype(np.int64)
    pairs = rng.integers(0, 60, (rng.integers(0, 25), 2))
    found = joined(groups, pairs)
    same = np.array([(i, j) for i in range(60) for j in range(60) if groups[i] == groups[j]])
    rows, columns = np.concatenate([same, pairs]).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(60, 60))
    count, expected = connected_components(graph, directed=False)
    assert together(found) == together(expected)
    assert found.dtype == np.int64
    assert sorted(set(found.tolist())) == list(range(count))


def test_features_that_cannot_tell_images_apart_group_exact_copies_alone() -> None:
    digests, features = drawn()
    rng = np.random.default_rng(1)
    # All images lie along one direction, as behind a network that sees brightness alone.
    alike = rng.normal(size=(ROWS, 1)) @ np.ones((1, CHANNELS))
    alike += 1e-3 * rng.normal(size=features.shape)
    found = group_images(digests, alike, 0.9)
    np.testing.assert_array_equal(found.of_image, groups_of_copies(digests))
    assert found.near.shape == (0, 2)
    assert found.exact == 1
    assert "cannot be told" in found.note


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
