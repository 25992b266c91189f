"""Platt's map against scikit-learn's, and that no cell calibrates itself."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.calibration import _SigmoidCalibration
from sklearn.linear_model import LogisticRegression

from mlc_jax.assess.calibration import (
    FEW,
    apply_platt,
    cross_fitted_platt,
    fit_platt_per_label,
    sigmoid,
)


def _draw(
    seed: int, n: int = 500, columns: int = 3, slope: float = 0.5, prevalence: float = 0.4
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (n, columns))
    shift = np.log(prevalence / (1 - prevalence))
    labels = (rng.random((n, columns)) < sigmoid(slope * logits + shift)).astype(np.int8)
    return logits, labels, rng.random((n, columns)) < 0.9, rng.integers(5, size=n)


def _smoothed_regression(design: np.ndarray, labels: np.ndarray) -> LogisticRegression:
    """scikit-learn on Platt's targets: each cell once as a positive, once as a negative."""
    positives = labels.sum()
    targets = np.where(
        labels == 1, (positives + 1) / (positives + 2), 1 / (labels.size - positives + 2)
    )
    return LogisticRegression(C=1e12, tol=1e-9, max_iter=10_000, solver="newton-cholesky").fit(
        np.concatenate([design, design]),
        np.repeat([1, 0], labels.size),
        sample_weight=np.concatenate([targets, 1 - targets]),
    )


def fit_platt(logits: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """The slope and intercept of one label alone, by maximum likelihood."""
    slopes, intercepts, _ = fit_platt_per_label(
        logits[:, None], labels[:, None], mask[:, None], slope_prior=0.0
    )
    return float(slopes[0]), float(intercepts[0])


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(("seed", "prevalence"), [(0, 0.4), (1, 0.1), (2, 0.9)])
def test_equal_to_scikit_learn(seed: int, prevalence: float, scale: float) -> None:
    logits, labels, mask, _ = (
        array[..., 0] if array.ndim > 1 else array for array in _draw(seed, prevalence=prevalence)
    )
    slope, intercept = fit_platt(logits * scale, labels, mask)
    theirs = _SigmoidCalibration().fit(logits[mask], labels[mask])
    assert slope * scale == pytest.approx(-theirs.a_, rel=1e-3)
    assert intercept == pytest.approx(-theirs.b_, abs=1e-3)
    exact = _smoothed_regression(logits[mask, None], labels[mask])
    assert slope * scale == pytest.approx(exact.coef_[0, 0], rel=1e-6)
    assert intercept == pytest.approx(exact.intercept_[0], rel=1e-6, abs=1e-6)


def test_shifted_logits_give_the_same_probabilities() -> None:
    logits, labels, mask, _ = _draw(3, columns=1)
    one = fit_platt(logits[:, 0], labels[:, 0], mask[:, 0])
    other = fit_platt(7 * logits[:, 0] - 1000, labels[:, 0], mask[:, 0])
    np.testing.assert_allclose(
        apply_platt(logits[:, 0], *map(np.asarray, one)),
        apply_platt(7 * logits[:, 0] - 1000, *map(np.asarray, other)),
        rtol=1e-7,
    )


def test_a_ranking_is_never_turned_round() -> None:
    logits, labels, mask, _ = _draw(4, columns=1)
    slope, intercept = fit_platt(-logits[:, 0], labels[:, 0], mask[:, 0])
    assert slope == 0
    assert sigmoid(np.array(intercept)) == pytest.approx(
        labels[mask].mean(), abs=2 / labels[mask].size
    )


def test_perfectly_parted_classes_stay_finite() -> None:
    logits = np.linspace(-5, 5, 40)
    labels = (logits > 0).astype(np.int8)
    slope, intercept = fit_platt(logits, labels, labels >= 0)
    assert 0 < slope < 100
    assert abs(intercept) < 1e-6


@pytest.mark.parametrize("only", [0, 1])
def test_degenerate_fits(only: int) -> None:
    logits = np.linspace(-5, 5, 40)
    labels = np.full(40, only, np.int8)
    slope, intercept = fit_platt(logits, labels, labels >= 0)
    assert slope == 0
    # Platt's targets: (P + 1) / (P + 2), 1 / (N + 2).
    assert sigmoid(np.array(intercept)) == pytest.approx(41 / 42 if only else 1 / 42)
    assert np.isnan(fit_platt(logits, labels, labels < 0)).all()
    flat = fit_platt(logits * 0 + 3.0, (logits > 1).astype(np.int8), labels >= 0)
    assert flat[0] == 0


def test_labels_with_few_positives_share_the_slope_of_a_joint_fit() -> None:
    logits, labels, mask, _ = _draw(5)
    mask[:] = True
    labels[np.flatnonzero(labels[:, 1])[FEW - 5 :], 1] = 0
    slopes, intercepts, shared = fit_platt_per_label(logits, labels, mask, slope_prior=0.0)
    assert shared.tolist() == [False, True, False]
    alone = fit_platt(logits[:, 0], labels[:, 0], mask[:, 0])
    assert (slopes[0], intercepts[0]) == pytest.approx(alone, rel=1e-9)

    # scikit-learn's joint fit: the logit, and an indicator for each label.
    stacked = [
        np.column_stack([logits[:, c], *(np.full(len(logits), float(c == k)) for k in range(3))])
        for c in range(3)
    ]
    targets = []
    for c in range(3):
        positives = labels[:, c].sum()
        high, low = (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2)
        targets.append(np.where(labels[:, c] == 1, high, low))
    design, target = np.concatenate(stacked), np.concatenate(targets)
    joint = LogisticRegression(
        C=1e12, tol=1e-9, max_iter=10_000, solver="newton-cholesky", fit_intercept=False
    ).fit(
        np.concatenate([design, design]),
        np.repeat([1, 0], target.size),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    assert slopes[1] == pytest.approx(joint.coef_[0, 0], rel=1e-6)
    assert intercepts[1] == pytest.approx(joint.coef_[0, 2], rel=1e-6)


def test_the_prior_on_a_slope_is_part_of_what_is_minimised() -> None:
    """SciPy's minimum of the same function, written anew."""
    logits, labels, mask, _ = _draw(11, n=60, columns=1)
    z, y = logits[mask[:, 0], 0], labels[mask[:, 0], 0]
    positives = y.sum()
    target = np.where(y == 1, (positives + 1) / (positives + 2), 1 / (y.size - positives + 2))

    def objective(point: np.ndarray) -> float:
        p = sigmoid(point[0] * z + point[1])
        loss = -np.sum(target * np.log(p) + (1 - target) * np.log(1 - p))
        return float(loss + 3.0 * (point[0] - 1) ** 2 / 2)

    theirs = minimize(objective, [0.5, 0.0], tol=1e-12).x
    slopes, intercepts, _ = fit_platt_per_label(logits, labels, mask, slope_prior=3.0)
    assert (slopes[0], intercepts[0]) == pytest.approx(theirs, abs=1e-5)


def test_noise_of_another_scale_in_one_fold_stays_near_the_share_of_positives() -> None:
    """Heads with a strong prior say nearly nothing; those of one fold got a weak one by chance."""
    rng = np.random.default_rng(0)
    folds, labels = np.arange(300) % 3, rng.integers(2, size=(300, 1)).astype(np.int8)
    logits = rng.normal(size=(300, 1)) * np.where(folds == 0, 0.4, 0.001)[:, None]
    # In the other folds the noise happens to go with the labels.
    logits[folds > 0] = np.abs(logits[folds > 0]) * (2 * labels[folds > 0] - 1)
    known = np.ones_like(labels, np.bool_)
    probabilities, _ = cross_fitted_platt(logits, labels, known, folds)
    plain, _ = cross_fitted_platt(logits, labels, known, folds, slope_prior=0.0)
    own = folds == 0

    def log_loss(p: np.ndarray) -> float:
        return float(-np.log(np.clip(np.where(labels == 1, p, 1 - p)[own], 1e-12, 1.0)).mean())

    assert log_loss(probabilities) < 0.75
    assert log_loss(plain) > 2


def test_no_cell_calibrates_itself() -> None:
    logits, labels, mask, folds = _draw(6, n=120)
    before, _ = cross_fitted_platt(logits, labels, mask, folds)
    rng = np.random.default_rng(0)
    for fold in range(5):
        own = folds == fold
        changed, hidden = labels.copy(), mask.copy()
        changed[own] = rng.integers(2, size=changed[own].shape)
        hidden[own] = rng.random(hidden[own].shape) < 0.5
        after, _ = cross_fitted_platt(logits, changed, hidden, folds)
        np.testing.assert_array_equal(after[own], before[own])
        assert not np.array_equal(after[~own], before[~own])


def test_unknown_cells_are_mapped_and_never_fitted() -> None:
    logits, labels, mask, folds = _draw(7)
    before, maps = cross_fitted_platt(logits, labels, mask, folds)
    labels[~mask] = -1
    after, _ = cross_fitted_platt(logits, labels, mask, folds)
    np.testing.assert_array_equal(after, before)
    row = np.searchsorted(maps.folds, folds)
    np.testing.assert_array_equal(
        before, apply_platt(logits, maps.slopes[row], maps.intercepts[row])
    )


def test_calibrated_where_the_scores_are_not() -> None:
    logits, labels, mask, folds = _draw(8, n=8000, slope=0.4, prevalence=0.3)
    probabilities, _ = cross_fitted_platt(logits, labels, mask, folds)
    np.testing.assert_allclose(probabilities, sigmoid(0.4 * logits + np.log(3 / 7)), atol=0.04)


def test_order_of_images_and_labels_does_not_matter() -> None:
    logits, labels, mask, folds = _draw(9)
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(len(logits)), rng.permutation(3)
    both = np.ix_(rows, columns)
    before, _ = cross_fitted_platt(logits, labels, mask, folds)
    after, _ = cross_fitted_platt(logits[both], labels[both], mask[both], folds[rows])
    np.testing.assert_allclose(after, before[both], rtol=1e-9)


def test_labels_without_a_map_have_a_reason() -> None:
    logits, labels, mask, folds = _draw(10)
    labels[:, 0] = 1
    mask[:, 1] = (folds == 2) & (np.arange(len(folds)) > 9)
    probabilities, maps = cross_fitted_platt(logits, labels, mask, folds)
    assert maps.reasons == {
        0: f"all {mask[:, 0].sum()} human labels are 1",
        1: f"all {mask[:, 1].sum()} human labels are in one fold",
    }
    assert np.isnan(probabilities[:, :2]).all()
    assert np.isfinite(probabilities[:, 2]).all()
    with pytest.raises(ValueError, match="2 folds"):
        cross_fitted_platt(logits, labels, mask, folds * 0)


def test_sigmoid_is_stable() -> None:
    np.testing.assert_array_equal(sigmoid(np.array([-1e4, 0.0, 1e4])), [0.0, 0.5, 1.0])
