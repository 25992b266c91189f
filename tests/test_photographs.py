"""The impute command on real photographs: what can be learned, and what cannot, is said."""

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlc_jax.data.labels import read_labels
from tests.commands import WEIGHTS_FILE, run_command, summary_of


def real_run(tmp_path: Path, labels: Path, images: Path) -> dict[str, Any]:
    weights = Path(os.environ["MLC_JAX_TEST_WEIGHTS"]) / WEIGHTS_FILE
    done = run_command(
        "--config=configs/impute.py",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.labels={labels}",
        f"--config.data.images={images}",
        "--config.head.name=linear",
        "--config.backbone.name=mobilenet_v2",
        f"--config.backbone.weights={weights}",
        "--config.data.image_size=224,224",
        "--config.features.views=0",  # the demo's run has views
    )
    assert done.returncode == 0, done.stderr
    return summary_of(tmp_path / "run")


def stage_2(tmp_path: Path, images: Path) -> dict[str, Any]:
    """The three commands of stage 2 on the table that `real_run` completed."""
    trained = tmp_path / "multilabel"
    for job, keys in (
        ("multilabel", [f"--config.source={tmp_path / 'run'}"]),
        ("evaluate", [f"--config.checkpoint={trained}"]),
        ("predict", [f"--config.checkpoint={trained}", f"--config.data.images={images}"]),
    ):
        done = run_command(f"--config=configs/{job}.py", f"--workdir={tmp_path / job}", *keys)
        assert done.returncode == 0, done.stderr
    made, again = summary_of(trained), summary_of(tmp_path / "evaluate")
    for name, figure in made["test"].items():
        assert again["test"][name]["value"] == pytest.approx(figure["value"], abs=1e-6, nan_ok=True)
    assert len((tmp_path / "predict" / "predictions.csv").read_text().splitlines()) > 1
    return made


@pytest.fixture
def photographs() -> Path:
    for name in ("MLC_JAX_TEST_DATA", "MLC_JAX_TEST_WEIGHTS"):
        if name not in os.environ:
            pytest.skip(f"{name} is not set: no real photographs or weights here")
    return Path(os.environ["MLC_JAX_TEST_DATA"])


def test_scenes_are_learned_without_a_warning(photographs: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with (photographs / "scenes" / "labels.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    hidden = rng.random((len(rows), len(header) - 1)) < 0.1
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row, hide in zip(rows, hidden, strict=True):
            writer.writerow([row[0], *np.where(hide, "", row[1:])])
    summary = real_run(tmp_path, tmp_path / "labels.csv", photographs / "scenes" / "images")
    assert summary["oof"]["macro_roc_auc"]["value"] >= 0.95
    assert summary["warnings"] == []
    filled = read_labels(tmp_path / "run" / "labels.csv").table.values
    truth = np.array([[int(cell) for cell in row[1:]] for row in rows])
    assert (filled[~hidden] == truth[~hidden]).all()
    assert (filled[hidden] == truth[hidden]).mean() >= 0.90
    (tmp_path / "few").mkdir()
    for number in range(1, 6):
        photograph = photographs / "scenes" / "images" / f"{number}.jpg"
        (tmp_path / "few" / photograph.name).write_bytes(photograph.read_bytes())
    test = stage_2(tmp_path, tmp_path / "few")["test"]
    assert test["macro_roc_auc"]["value"] >= 0.95


def test_tops_cannot_be_learned_and_the_run_says_so(photographs: Path, tmp_path: Path) -> None:
    tops = photographs / "tops"
    summary = real_run(tmp_path, tops / "labels.txt", tops / "images")
    assert summary["data"]["usable"] == 972
    assert len(summary["labels"]) == 4
    for name, record in summary["labels"].items():
        assert not record["learnable"], (name, record["verdict"])
        assert any(name in warning for warning in summary["warnings"])
    assert abs(summary["oof"]["macro_roc_auc"]["value"] - 0.5) < 0.08
    given = read_labels(tops / "labels.txt").table
    made = read_labels(tmp_path / "run" / "labels.csv").table
    places = np.array([given.filenames.index(name) for name in made.filenames])
    assert made.known.all()
    known = given.known[places]
    assert (made.values[known] == given.values[places][known]).all()
    made_2 = stage_2(tmp_path, tops / "images" / "image_0.jpg")
    assert "no better than chance" in made_2["verdict"]
    assert "no better than chance" in (tmp_path / "multilabel" / "report.html").read_text()
