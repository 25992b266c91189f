"""The drawn lines are the curves that scikit-learn computes from the same cells."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from mlc_jax.report import plots
from mlc_jax.report.cell_scores import LabelScores
from mlc_jax.report.panels import drawable


@pytest.fixture
def scores() -> dict[str, LabelScores]:
    """Two labels whose probabilities have many ties."""
    rng = np.random.default_rng(3)
    made = {}
    for name, prevalence in (("common", 0.7), ("rare", 0.1)):
        observed = rng.random(400) < prevalence
        probabilities = np.round(np.clip(0.3 * observed + 0.7 * rng.random(400), 0, 1), 2)
        made[name] = LabelScores(observed, probabilities, rng.random(40), 0)
    return made


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure))
    return figures


def _solid(figure: Figure, panel: int) -> tuple[np.ndarray, np.ndarray]:
    (line,) = [
        line
        for line in figure.axes[panel].lines
        if line.get_linestyle() == "-" and line.get_linewidth() > 1
    ]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def test_precision_recall_is_scikit_learns(
    scores: dict[str, LabelScores], drawn: list[Figure]
) -> None:
    alt = plots.pr_curves(Path("x.png"), scores, dict.fromkeys(scores, (0.5, 0.5)))
    for panel, (name, cells) in enumerate(scores.items()):
        precision, recall, _ = precision_recall_curve(cells.observed, cells.probabilities)
        across, up = _solid(drawn[0], panel)
        # scikit-learn ends at (0, 1); the first step starts at its own precision instead.
        np.testing.assert_allclose(across[1:], recall[-2::-1])
        np.testing.assert_allclose(up[1:], precision[-2::-1])
        area = average_precision_score(cells.observed, cells.probabilities)
        assert np.sum(np.diff(across) * up[1:]) == pytest.approx(area)
        assert f"{name} {area:.3f} at a prevalence of {cells.observed.mean():.3f}" in alt


def test_roc_is_scikit_learns(scores: dict[str, LabelScores], drawn: list[Figure]) -> None:
    plots.roc_curves(
        Path("x.png"), scores, dict.fromkeys(scores, (None, None)), dict.fromkeys(scores, 0.5)
    )
    for panel, cells in enumerate(scores.values()):
        false, true, _ = roc_curve(cells.observed, cells.probabilities, drop_intermediate=False)
        across, up = _solid(drawn[0], panel)
        np.testing.assert_allclose(across, false)
        np.testing.assert_allclose(up, true)


def test_reliability_is_scikit_learns(scores: dict[str, LabelScores], drawn: list[Figure]) -> None:
    # Away from the edges of the bins, which scikit-learn closes on the other side.
    cells = {
        name: LabelScores(s.observed, s.probabilities * 0.99 + 0.0031, s.filled, 0)
        for name, s in scores.items()
    }
    plots.reliability_diagram(Path("x.png"), cells, {"rare": ([0.1, 0.8], [0.3, 0.6])})
    for panel, label in enumerate(cells.values()):
        share, mean = calibration_curve(label.observed, label.probabilities, n_bins=10)
        across, up = _solid(drawn[0], 2 * panel)
        np.testing.assert_allclose(across, mean)
        np.testing.assert_allclose(up, share)
        counts = [int(text.get_text()) for text in drawn[0].axes[2 * panel + 1].texts]
        assert sum(counts) == label.observed.size


def test_each_group_of_a_histogram_adds_up_to_one(
    scores: dict[str, LabelScores], drawn: list[Figure]
) -> None:
    nothing = dict.fromkeys(scores)
    alt = plots.probability_histograms(Path("x.png"), scores, nothing, nothing)
    assert alt.endswith("Thresholds: none.")
    for axes in drawn[0].axes:
        groups = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
        sums = [group.get_data()[0].sum() for group in groups]
        assert sums == pytest.approx([1, 1, 1])


def test_names_are_cut_and_keep_what_the_font_has() -> None:
    assert drawable("Größe", 20) == "Größe"
    assert drawable("a日b\n", 20) == "a□b□"
    assert drawable("x" * 30, 20) == "x" * 19 + "…"
