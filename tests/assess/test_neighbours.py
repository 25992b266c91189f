"""Neighbours against scikit-learn's brute force search by cosine distance."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from mlc_jax.assess import neighbours
from mlc_jax.assess.neighbours import nearest


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(60, 12)).astype(np.float32)


def test_neighbours_are_those_of_scikit_learn(
    features: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "_CHUNK", 7)  # several pieces, the last of them smaller
    queries, candidates = np.arange(0, 40), np.arange(40, 60)
    oracle = NearestNeighbors(n_neighbors=4, metric="cosine", algorithm="brute")
    places = oracle.fit(features[candidates]).kneighbors(features[queries])[1]
    assert (nearest(features, queries, candidates, 4) == candidates[places]).all()


def test_length_does_not_matter_and_nobody_is_its_own_neighbour(features: np.ndarray) -> None:
    every = np.arange(60)
    found = nearest(features, every, every, 3)
    assert (found != every[:, None]).all()
    lengths = np.random.default_rng(1).uniform(0.1, 9, (60, 1)).astype(np.float32)
    assert (nearest(features * lengths, every, every, 3) == found).all()


def test_too_few_candidates_leave_places_empty(features: np.ndarray) -> None:
    found = nearest(features, np.array([0, 5]), np.array([5, 9]), 3)
    assert found[1].tolist() == [9, -1, -1]
    assert set(found[0].tolist()) == {5, 9, -1}
    assert found[0, 2] == -1
    assert (nearest(features, np.array([0]), np.zeros(0, np.int64), 2) == -1).all()


def test_an_image_without_features_is_no_error(features: np.ndarray) -> None:
    features[3] = 0
    assert (nearest(features, np.array([3]), np.arange(10, 20), 2) >= 10).all()
