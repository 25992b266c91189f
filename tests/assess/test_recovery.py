"""What an audit counts: hidden cells alone, and images of one group as one."""

import numpy as np
import pytest

from mlc_jax.assess.recovery import over_images, recovery_figures

ROWS, LABELS = 400, 3


def cells(seed: int = 0) -> tuple[np.ndarray, ...]:
    """Truth, hidden, probabilities, thresholds and accepted, [N, L] each."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((ROWS, LABELS)) < 0.3).astype(np.int8)
    hidden = rng.random(truth.shape) < 0.4
    probabilities = np.clip(0.3 + 0.3 * (truth - 0.5) + 0.2 * rng.normal(size=truth.shape), 0, 1)
    return truth, hidden, probabilities, np.full(truth.shape, 0.4), probabilities > 0.6


def test_cells_that_were_not_hidden_move_no_figure() -> None:
    truth, hidden, probabilities, thresholds, accepted = cells()
    before = recovery_figures(truth, hidden, probabilities, thresholds, accepted)
    turned = np.where(hidden, truth, 1 - truth)
    moved = np.where(hidden, probabilities, 1 - probabilities)
    others = np.where(hidden, accepted, ~accepted)
    assert recovery_figures(turned, hidden, moved, thresholds, others) == before
    turned = np.where(hidden, 1 - truth, truth)
    assert recovery_figures(turned, hidden, probabilities, thresholds, accepted) != before


def test_the_prevalence_error_is_how_far_the_filled_share_is_from_that_of_hidden_cells() -> None:
    truth, hidden, probabilities, thresholds, accepted = cells()
    found = recovery_figures(truth, hidden, probabilities, thresholds, accepted)
    gaps = [
        abs((probabilities[own, label] > 0.4).mean() - truth[own, label].mean())
        for label, own in enumerate(hidden.T)
    ]
    assert found["prevalence_error"] == pytest.approx(np.mean(gaps))


def test_copies_of_an_image_are_drawn_together() -> None:
    truth, hidden, probabilities, thresholds, accepted = (
        np.repeat(part[:80], 5, axis=0) for part in cells()
    )

    def reach(groups: np.ndarray) -> float:
        found = over_images(
            lambda rows: recovery_figures(
                *(part[rows] for part in (truth, hidden, probabilities, thresholds, accepted))
            ),
            groups,
            seed=0,
        )["accuracy"]
        return found.high - found.low

    assert reach(np.arange(400) // 5) > 1.6 * reach(np.arange(400))
