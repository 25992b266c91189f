"""Laws of feature maps side by side."""

import jax
import numpy as np
import pytest

from mlc_jax.models import joining
from mlc_jax.models.joining import joined, joined_on_host

RNG = np.random.default_rng(0)
SHAPES = ((14, 10, 5), (15, 11, 3), (28, 10, 2))
MAPS = [RNG.normal(size=(7, 2, *shape)).astype(np.float32) for shape in SHAPES]


def test_maps_are_brought_to_the_smallest_and_keep_their_means() -> None:
    whole = joined(MAPS)
    assert whole.shape == (7, 2, 14, 10, 10)
    pooled = np.concatenate([part.mean(axis=(2, 3)) for part in MAPS], axis=-1)
    np.testing.assert_allclose(whole.mean(axis=(2, 3)), pooled, atol=1e-5)


def test_a_map_of_the_smallest_size_is_not_touched() -> None:
    np.testing.assert_array_equal(joined(MAPS)[..., :5], MAPS[0])


def test_halving_is_the_mean_of_pairs() -> None:
    pairs = MAPS[2].reshape(7, 2, 14, 2, 10, 2).mean(axis=3)
    np.testing.assert_allclose(joined(MAPS)[..., 8:], pairs, atol=1e-6)


def test_a_constant_map_stays_constant() -> None:
    flat = np.full((1, 15, 11, 1), 2.5, np.float32)
    small = joined([flat, np.zeros((1, 4, 7, 1), np.float32)])
    np.testing.assert_allclose(small[..., 0], 2.5, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_on_the_host_it_is_the_same_in_pieces(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "AT_ONCE", 3)
    maps = [np.asarray(jax.numpy.asarray(part, dtype)) for part in MAPS]
    made = joined_on_host(maps)
    assert made.dtype == maps[0].dtype
    np.testing.assert_array_equal(made, joined(maps))
