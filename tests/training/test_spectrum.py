"""The preconditioner's second moments are those that a full decomposition finds."""

import numpy as np

from mlc_jax.training.spectrum import RANK, leading_spectrum


def test_it_holds_the_leading_second_moments() -> None:
    rng = np.random.default_rng(0)
    scales = np.geomspace(30, 0.3, 200)
    rows = (rng.normal(size=(600, 200)) * scales).astype(np.float32)
    found = leading_spectrum(rows)
    moments = rows.astype(np.float64).T @ rows / len(rows)
    expected = np.linalg.eigvalsh(moments)[::-1]
    assert found.basis.shape == (200, RANK)
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(RANK), atol=1e-4)
    np.testing.assert_allclose(np.sort(found.values)[::-1][:60], expected[:60], rtol=0.01)
    held = found.values.sum() + found.rest * (200 - RANK)
    np.testing.assert_allclose(held, np.trace(moments), rtol=1e-4)


def test_it_takes_as_many_directions_as_there_are() -> None:
    rows = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    found = leading_spectrum(rows)
    assert found.basis.shape == (3, 3)
    assert found.rest < 1e-5
    np.testing.assert_allclose(
        found.basis * found.values @ found.basis.T, rows.T @ rows / 5, atol=1e-5
    )
    empty = leading_spectrum(np.zeros((4, 2), np.float32))
    assert not empty.basis.any()
    assert not empty.values.any()
