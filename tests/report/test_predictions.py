"""Samples, threshold curves and label company are what counting and scikit-learn say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classifier_workdirs import PICTURES, make_classifier_workdir
from matplotlib.figure import Figure
from sklearn.metrics import f1_score, precision_score, recall_score

from mlc_jax.data.table import MISSING
from mlc_jax.report import decisions
from mlc_jax.report.cooccurrence import given_shares
from mlc_jax.report.run import JudgedCells
from mlc_jax.report.samples import SAMPLES, ranked_samples, readable
from mlc_jax.report.split_scores import SplitScores, read_split_scores


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    workdir = tmp_path_factory.mktemp("plain")
    return workdir, make_classifier_workdir(workdir)


@pytest.fixture
def scores(plain: tuple[Path, dict[str, Any]]) -> SplitScores:
    return read_split_scores(plain[0] / "scores.csv", list(plain[1]["labels"]))


def test_samples_are_right_or_wrong_and_the_surest_come_first(scores: SplitScores) -> None:
    for right in (True, False):
        samples = list(ranked_samples(scores, right=right))
        for sample in samples:
            assert ({name for name, _ in sample.predicted} == set(sample.true)) == right
        worst: dict[tuple[str, ...], list[float]] = {}
        for sample in samples:
            row = scores.filenames.index(sample.filename)
            assert scores.test[row]
            values, p = scores.values[row], scores.probabilities[row]
            agreed = np.where(values == 1, p, 1 - p)
            wrong = (p > scores.thresholds) != (values == 1)
            cells = (values != MISSING) & (wrong | right)
            key = (*sample.true, str(cells.sum()) if right else "")
            worst.setdefault(key, []).append(agreed[cells].min())
        assert all(found == sorted(found, reverse=right) for found in worst.values())
        sets = [sample.true for sample in samples]
        distinct = len(set(sets))
        assert len(set(sets[:distinct])) == distinct > 1, "each set once before any again"
    everything = [s for right in (True, False) for s in ranked_samples(scores, right=right)]
    assert len(everything) == scores.test.sum()


def test_no_picture_outside_the_folder_is_read(tmp_path: Path) -> None:
    summary = make_classifier_workdir(tmp_path, ("a", "b"), filename="{}.jpg")
    folder = Path(summary["data"]["image_folder"])
    for row in range(PICTURES):
        (folder / f"{row}.jpg").rename(folder.parent / f"{row}.jpg")
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    (tmp_path / "scores.csv").write_text("\n".join([lines[0], *(f"../{s}" for s in lines[1:])]))
    scores = read_split_scores(tmp_path / "scores.csv", ["a", "b"])
    assert (folder / scores.filenames[0]).exists()
    assert readable(ranked_samples(scores, right=True), folder) == []


def test_at_most_so_many_thumbnails(plain: tuple[Path, dict[str, Any]]) -> None:
    scores = read_split_scores(plain[0] / "scores.csv", list(plain[1]["labels"]))
    found = readable(ranked_samples(scores, right=True), Path(plain[1]["data"]["image_folder"]))
    assert 0 < len(found) <= SAMPLES
    assert all(max(picture.shape) <= 280 for _, picture in found)


def test_threshold_curves_are_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(decisions, "save", lambda figure, path: drawn.append(figure))
    rng = np.random.default_rng(2)
    observed = rng.random(80) < 0.3
    probabilities = np.round(np.clip(0.3 * observed + 0.7 * rng.random(80), 0, 1), 1)
    decisions.threshold_curves(
        Path("x.png"), {"a": JudgedCells(observed, probabilities)}, {"a": 0.4}, {"a": (0.3, 0.5)}
    )
    lines = {
        line.get_linestyle(): line for line in drawn[0].axes[0].lines if line.get_xdata()[0] < 0
    }
    for limit in [*np.linspace(0, 1, 41), *rng.random(20)]:
        predicted = probabilities > limit
        for style, score in (("--", precision_score), ("-.", recall_score), ("-", f1_score)):
            at, values = (np.asarray(data) for data in lines[style].get_data())
            value = values[np.searchsorted(at, limit, side="right") - 1]
            expected = score(observed, predicted, zero_division=np.nan)
            assert value == pytest.approx(expected, nan_ok=True)


def test_company_is_counted_where_both_are_known() -> None:
    values = np.random.default_rng(1).integers(-1, 2, (50, 3)).astype(np.int8)
    values[:, 2] = np.where(values[:, 2] == 1, 0, values[:, 2])
    shares = given_shares(values)
    for row in range(3):
        for column in range(3):
            both = [v for v in values if v[row] == 1 and v[column] != MISSING]
            expected = np.mean([v[column] == 1 for v in both]) if both else np.nan
            assert shares[row, column] == pytest.approx(expected, nan_ok=True)
    assert np.isnan(shares[2]).all()
