"""Laws of the exact solver, and scikit-learn's solution of the same problems."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mlc_jax.training.linear_solver import LinearSolver, Targets
from mlc_jax.training.logistic import Heads
from mlc_jax.training.parallel import Devices

ROWS, CHANNELS, LABELS, SPLITS = 203, 12, 4, 3
LARGE = 1 << 30
TOLERANCE = 1e-6


def drawn(columns: int = 0, groups: int = 1) -> tuple[np.ndarray, Targets, np.ndarray, np.ndarray]:
    """Features of odd scales, soft targets, weights, training rows bool [S, N], strengths."""
    rng = np.random.default_rng(7)
    features = rng.normal(size=(ROWS, CHANNELS)) * np.geomspace(0.05, 40, CHANNELS) + 15
    truth = features[:, :LABELS] / np.geomspace(0.05, 40, CHANNELS)[:LABELS]
    labels = (truth - truth.mean(axis=0) + rng.normal(size=(ROWS, LABELS)) > 0).astype(float)
    labels = np.broadcast_to(labels, (groups, ROWS, LABELS))
    weights = (rng.random((groups, ROWS, LABELS)) < 0.8) * rng.uniform(
        0.4, 1.0, (groups, ROWS, LABELS)
    )
    context = 3 * rng.normal(size=(groups, ROWS, columns))
    rows = rng.random((SPLITS, ROWS)) < 0.7
    strength = np.geomspace(0.3, 300, SPLITS * LABELS).reshape(SPLITS, LABELS)
    return features, Targets(labels, weights, context), rows, strength


def solver(features: np.ndarray, devices: int | Devices = 1, limit: int = LARGE) -> LinearSolver:
    own = devices
    if isinstance(own, int):
        own = Devices("jit", jax.local_devices()[:own])
    names = [f"{row}.jpg" for row in range(len(features))]
    return LinearSolver(features, own, limit, SPLITS, LABELS, names)


def solved(
    solver: LinearSolver,
    targets: Targets,
    rows: np.ndarray,
    strength: np.ndarray,
    start: Heads | None = None,
    tolerance: float = TOLERANCE,
) -> tuple[Heads, np.ndarray, np.ndarray]:
    return solver.fit(solver.place(targets, rows), strength, start, tolerance)


def fitted(
    devices: int | Devices = 1, limit: int = LARGE, columns: int = 0, groups: int = 1
) -> tuple[Heads, np.ndarray]:
    features, targets, rows, strength = drawn(columns, groups)
    heads, logits, _ = solved(solver(features, devices, limit), targets, rows, strength)
    return heads, logits


@pytest.mark.parametrize(("columns", "groups"), [(0, 1), (LABELS, SPLITS)])
def test_heads_are_scikit_learn_s(columns: int, groups: int) -> None:
    """Also with context, in which a head must not see its own label's column."""
    features, targets, rows, strength = drawn(columns, groups)
    heads, logits = fitted(columns=columns, groups=groups)
    for split in range(SPLITS):
        own = rows[split]
        group = split if groups > 1 else 0
        mean, std = features[own].mean(axis=0), features[own].std(axis=0)
        for label in range(LABELS):
            context = targets.context[group].copy()
            context[:, label : label + 1] = 0.0
            design = np.concatenate([(features - mean) / std, context], axis=1)
            # Its penalty is on the same scale: 1/2 ‖w‖² + C · sum of the losses.
            theirs = LogisticRegression(
                C=1 / strength[split, label], tol=1e-12, max_iter=100_000
            ).fit(
                design[own],
                targets.labels[group][own, label],
                targets.weights[group][own, label],
            )
            found = np.concatenate([heads.kernel[split, label], heads.context[split, label]])
            np.testing.assert_allclose(found, theirs.coef_[0], atol=1e-4)
            np.testing.assert_allclose(heads.bias[split, label], theirs.intercept_[0], atol=1e-4)
            expected = theirs.decision_function(design)
            np.testing.assert_allclose(logits[:, split, label], expected, atol=1e-3)


def test_the_gradient_of_every_head_is_as_small_as_asked() -> None:
    """Computed anew, in float64, from the heads alone."""
    features, targets, rows, strength = drawn()
    heads, _ = fitted()
    for split in range(SPLITS):
        own = rows[split]
        x = (features - features[own].mean(axis=0)) / features[own].std(axis=0)
        for label in range(LABELS):
            kernel = heads.kernel[split, label].astype(np.float64)
            z = x @ kernel + float(heads.bias[split, label])
            weight = targets.weights[0][:, label] * own
            residual = weight * (1 / (1 + np.exp(-z)) - targets.labels[0][:, label])
            gradient = np.append(residual @ x + strength[split, label] * kernel, residual.sum())
            assert np.linalg.norm(gradient) <= 2 * TOLERANCE * weight.sum()


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_any_number_of_devices_finds_the_same_heads(devices: int) -> None:
    one, many = fitted(columns=LABELS), fitted(devices, columns=LABELS)
    for before, after in zip(one[0], many[0], strict=True):
        np.testing.assert_allclose(after, before, atol=1e-5)
    np.testing.assert_allclose(many[1], one[1], atol=2e-4)


def test_a_matrix_read_in_blocks_gives_the_same_heads() -> None:
    whole, blocks = fitted(), fitted(limit=8 * 30 * CHANNELS)
    for before, after in zip(whole[0], blocks[0], strict=True):
        np.testing.assert_allclose(after, before, atol=1e-5)


def test_a_soft_target_is_two_weighted_hard_ones() -> None:
    features, targets, rows, strength = drawn()
    soft = np.random.default_rng(1).random((1, ROWS, LABELS))
    own = Targets(soft, targets.weights, targets.context)
    one, _, _ = solved(solver(features), own, rows, strength)
    twice = Targets(
        np.concatenate([np.ones_like(soft), np.zeros_like(soft)], axis=1),
        np.concatenate([targets.weights * soft, targets.weights * (1 - soft)], axis=1),
        np.zeros((1, 2 * ROWS, 0)),
    )
    double = solver(np.concatenate([features, features]))
    both, _, _ = solved(double, twice, np.concatenate([rows, rows], axis=1), strength)
    np.testing.assert_allclose(both.kernel, one.kernel, atol=1e-4)
    np.testing.assert_allclose(both.bias, one.bias, atol=1e-4)


def test_rows_that_are_not_trained_on_move_nothing() -> None:
    """Neither their labels nor their features: the standardisation is of the training rows too."""
    features, targets, rows, strength = drawn()
    rows[:, :50] = False
    before, _, _ = solved(solver(features), targets, rows, strength)
    labels, weights = targets.labels.copy(), targets.weights.copy()
    labels[:, :50], weights[:, :50] = 1 - labels[:, :50], 9.0
    other = features.copy()
    other[:50] += 0.3 * features.std(axis=0)
    moved = Targets(labels, weights, targets.context)
    after, _, _ = solved(solver(other), moved, rows, strength)
    np.testing.assert_allclose(after.kernel, before.kernel, atol=2e-5)
    np.testing.assert_allclose(after.bias, before.bias, atol=2e-5)


def test_a_head_that_saw_one_class_stays_at_zero() -> None:
    features, targets, rows, strength = drawn()
    labels = targets.labels.copy()
    labels[0, rows[1], 2] = 1.0
    found = Targets(labels, targets.weights, targets.context)
    made = solver(features)
    assert made.usable(found, rows).tolist() == [
        [split != 1 or label != 2 for label in range(LABELS)] for split in range(SPLITS)
    ]
    heads, logits, _ = solved(made, found, rows, strength)
    assert not heads.kernel[1, 2].any()
    assert heads.bias[1, 2] == 0
    assert np.isfinite(logits).all()
    assert heads.kernel[0, 2].any()


def test_where_the_search_starts_does_not_matter() -> None:
    features, targets, rows, strength = drawn()
    made = solver(features)
    cold, _, cold_steps = solved(made, targets, rows, strength)
    near, _, _ = solved(made, targets, rows, 2 * strength)
    warm, _, _ = solved(made, targets, rows, strength, near)
    np.testing.assert_allclose(warm.kernel, cold.kernel, atol=1e-4)
    again, _, steps = solved(made, targets, rows, strength, cold, 2 * TOLERANCE)
    np.testing.assert_array_equal(again.kernel, cold.kernel)
    assert not steps.any()
    assert cold_steps.all()
