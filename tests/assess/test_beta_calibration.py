"""Laws of bent calibration: a library's fit, a help where scores are skewed, and no leak."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mlc_jax.assess.beta_calibration import Calibration, apply_beta, cross_fitted_calibration
from mlc_jax.assess.calibration import cross_fitted_platt, sigmoid
from mlc_jax.assess.metrics import log_loss


def drawn(
    seed: int, rows: int = 1500, skewed: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Logits of which the map to the true probability is beta, or Platt's; labels, mask, folds."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2.5, (rows, 2))
    beta = np.array([0.4, 1.8, -0.3]) if skewed else np.array([0.7, 0.7, -0.3])
    labels = (rng.random((rows, 2)) < apply_beta(logits, beta)).astype(np.int8)
    mask = rng.random((rows, 2)) < 0.9
    return logits, np.where(mask, labels, -1).astype(np.int8), mask, rng.permutation(rows) % 5


def test_a_bent_map_is_a_library_s_regression_on_two_logarithms() -> None:
    logits, labels, mask, folds = drawn(0)
    _, maps = cross_fitted_calibration(logits, labels, mask, folds)
    assert not np.isnan(maps.beta).any()
    for fold in range(5):
        fitted = mask[:, 0] & (folds != fold)
        s = sigmoid(logits[fitted, 0])
        design = np.stack([np.log(s), -np.log1p(-s)], axis=1)
        hits = labels[fitted, 0] == 1
        high, low = (hits.sum() + 1) / (hits.sum() + 2), 1 / ((~hits).sum() + 2)
        targets = np.where(hits, high, low)
        peer = LogisticRegression(C=1e9, solver="newton-cholesky", tol=1e-9, max_iter=1000)
        peer.fit(
            np.concatenate([design, design]),
            np.repeat([1, 0], hits.size),
            sample_weight=np.concatenate([targets, 1 - targets]),
        )
        expected = [*peer.coef_[0], peer.intercept_[0]]
        np.testing.assert_allclose(maps.beta[fold, 0], expected, rtol=1e-4)


def ece_and_loss(skewed: bool) -> np.ndarray:
    """[[bent error, bent loss], [Platt's, Platt's]], means of draws; the error is of the truth."""
    found = []
    for seed in range(3):
        logits, labels, mask, folds = drawn(seed, skewed=skewed)
        beta = np.array([0.4, 1.8, -0.3]) if skewed else np.array([0.7, 0.7, -0.3])
        truth = apply_beta(logits, beta)
        rows = []
        for calibrate in (cross_fitted_calibration, cross_fitted_platt):
            said, _ = calibrate(logits, labels, mask, folds)
            rows.append((np.abs(said - truth).mean(), log_loss(labels[mask] == 1, said[mask])))
        found.append(rows)
    return np.mean(found, axis=0)


def test_skewed_scores_are_calibrated_better_and_others_no_worse() -> None:
    (error, loss), (plain_error, plain_loss) = ece_and_loss(skewed=True)
    assert error < 0.6 * plain_error
    assert loss < plain_loss
    (error, loss), (plain_error, plain_loss) = ece_and_loss(skewed=False)
    assert error < plain_error + 0.003
    assert loss < plain_loss + 0.001


def test_no_cell_chooses_or_fits_its_own_map() -> None:
    logits, labels, mask, folds = drawn(1)
    before, maps = cross_fitted_calibration(logits, labels, mask, folds)
    own = folds == 2
    turned = np.where(own[:, None] & mask, 1 - labels, labels).astype(np.int8)
    after, changed = cross_fitted_calibration(logits, turned, mask, folds)
    np.testing.assert_array_equal(after[own], before[own])
    np.testing.assert_array_equal(changed.beta[2], maps.beta[2])
    assert (after[~own] != before[~own]).any()


def test_a_ranking_is_never_turned_round() -> None:
    logits, labels, mask, folds = drawn(2)
    for sign in (1, -1):
        _, maps = cross_fitted_calibration(sign * logits, labels, mask, folds)
        bent = maps.beta[~np.isnan(maps.beta)].reshape(-1, 3)
        assert (bent[:, :2] >= 0).all()


@pytest.mark.parametrize("rows", [40, 120])
def test_labels_with_few_cells_of_a_class_keep_platt_s_map(rows: int) -> None:
    logits, labels, mask, folds = drawn(3, rows=rows)
    said, maps = cross_fitted_calibration(logits, labels, mask, folds)
    plain, platt = cross_fitted_platt(logits, labels, mask, folds)
    if rows == 40:
        assert np.isnan(maps.beta).all()
        np.testing.assert_array_equal(said, plain)
    np.testing.assert_array_equal(maps.platt.slopes, platt.slopes)


def test_by_fold_is_what_each_fold_s_map_makes_of_all() -> None:
    logits, labels, mask, folds = drawn(4)
    said, maps = cross_fitted_calibration(logits, labels, mask, folds)
    assert isinstance(maps, Calibration)
    for label in range(2):
        by_fold = maps.by_fold(logits[:, label], label)
        own = by_fold[folds, np.arange(len(folds))]
        np.testing.assert_allclose(own, said[:, label], rtol=1e-12)


def test_folds_of_another_scale_keep_platt_s_map() -> None:
    """Noise: the heads of one fold got a weak prior by chance, those of the others a strong one."""
    rng = np.random.default_rng(0)
    folds, labels = np.arange(600) % 3, rng.integers(2, size=(600, 1)).astype(np.int8)
    logits = rng.normal(size=(600, 1)) * np.where(folds == 0, 0.4, 0.001)[:, None]
    logits[folds > 0] = np.abs(logits[folds > 0]) * (2 * labels[folds > 0] - 1)
    known = np.ones_like(labels, np.bool_)
    probabilities, maps = cross_fitted_calibration(logits, labels, known, folds)
    assert np.isnan(maps.beta).all()
    assert log_loss(labels[:, 0] == 1, probabilities[:, 0]) < 0.75
