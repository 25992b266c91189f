"""Answers side by side: gaps are paired, and images of one group count as one."""

import numpy as np
import pytest

from mlc_jax.assess.calibration import sigmoid
from mlc_jax.assess.contest import stand

ROWS = 300


def answers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels int8 [N, 2], and the probabilities of two answers that err alike."""
    rng = np.random.default_rng(0)
    labels = (rng.random((ROWS, 2)) < 0.4).astype(np.int8)
    logits = 2 * (labels - 0.5) + 1.5 * rng.normal(size=labels.shape)
    other = logits + 0.2 * rng.normal(size=labels.shape)
    return labels, sigmoid(logits), sigmoid(other)


def standing(rows: np.ndarray, groups: np.ndarray, own: int = 1, reference: int = 2) -> object:
    parts = answers()
    labels = parts[0][rows]
    known, cuts = np.ones(labels.shape, np.bool_), np.full(labels.shape, 0.5)
    folds = rows % 3
    return stand(labels, known, parts[own][rows], cuts, parts[reference][rows], folds, groups)


def test_an_answer_is_no_distance_from_itself() -> None:
    rows = np.arange(ROWS)
    found = standing(rows, rows, reference=1)
    assert (*found.auc_gap,) == (*found.log_loss_gap,) == (0.0, 0.0, 0.0)


def test_what_is_hard_for_both_does_not_blur_a_gap() -> None:
    rows = np.arange(ROWS)
    found = standing(rows, rows)
    labels, own, other = answers()
    losses = [-np.log(np.where(labels == 1, p, 1 - p)).mean(axis=1) for p in (own, other)]
    assert found.log_loss_gap.value == pytest.approx(np.mean(losses[0] - losses[1]))
    reach = found.log_loss_gap.high - found.log_loss_gap.low
    paired = 2 * 1.968 * np.std(losses[0] - losses[1], ddof=1) / np.sqrt(ROWS)
    assert reach == pytest.approx(paired, rel=0.01)
    assert reach < 0.5 * 2 * 1.968 * np.std(losses[0]) / np.sqrt(ROWS)
    assert found.auc_gap.high - found.auc_gap.low < 0.7 * (found.auc.high - found.auc.low)


def test_copies_widen_every_interval() -> None:
    rows = np.repeat(np.arange(ROWS), 4)
    grouped, alone = standing(rows, rows), standing(rows, np.arange(len(rows)))
    for name in ("auc", "auc_gap", "log_loss_gap"):
        one, other = getattr(grouped, name), getattr(alone, name)
        assert one.value == other.value
        assert one.high - one.low > 1.7 * (other.high - other.low), name
