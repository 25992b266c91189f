"""Opening a finished multilabel run: what it gives, and what is refused with one line."""

import json
import shutil
from pathlib import Path

import pytest

from mlc_jax.errors import CheckpointError
from mlc_jax.files.runs import open_run
from mlc_jax.journal import Journal
from mlc_jax.training.restore import open_classifier
from tests.stages.conftest import Trained


def test_a_run_opens_with_the_configuration_it_had(trained: Trained) -> None:
    run = open_classifier(open_run(trained.workdir), Journal())
    summary = json.loads((trained.workdir / "summary.json").read_text())
    thresholds = json.loads((trained.workdir / "thresholds.json").read_text())
    assert run.names == tuple(thresholds)
    assert run.classifier.threshold.tolist() == [t["threshold"] for t in thresholds.values()]
    assert run.spec.image_size == (32, 32)
    assert json.loads(run.config.to_json()) == summary["config"]
    assert run.backbone.digest == summary["backbone"]["digest"]
    assert open_classifier(open_run(trained.workdir), Journal()).digest == run.digest


def test_random_weights_are_said_again(trained: Trained) -> None:
    journal = Journal()
    open_classifier(open_run(trained.workdir), journal)
    assert any("RANDOM" in warning for warning in journal.warnings)


@pytest.fixture
def copied(trained: Trained, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.workdir, tmp_path / "copy"))


def refused(workdir: Path) -> str:
    with pytest.raises(CheckpointError, match=r"config\.checkpoint=") as caught:
        open_classifier(open_run(workdir), Journal())
    return str(caught.value)


def change(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("name", ["run.json", "summary.json", "thresholds.json"])
def test_a_run_without_one_of_its_files_is_not_finished(copied: Path, name: str) -> None:
    for text in ("[", "[]", "\xff"):
        (copied / name).write_text(text, encoding="latin-1")
        assert f"has a damaged {name}" in refused(copied)
    (copied / name).unlink()
    assert f"holds no {name}; give the workdir of a finished run" in refused(copied)


def test_a_run_of_another_stage_or_an_unfinished_one_is_refused(copied: Path) -> None:
    change(copied / "summary.json", stage="impute")
    assert "holds a run of stage 'impute'" in refused(copied)
    change(copied / "summary.json", stage="multilabel", finished=False)
    assert "is not finished" in refused(copied)
    change(copied / "summary.json", finished=True, backbone=None)
    assert "is damaged" in refused(copied)


def test_other_weights_are_refused(copied: Path, tmp_path: Path) -> None:
    summary = json.loads((copied / "summary.json").read_text())
    paths = summary["paths"] | {"weights": str(tmp_path / "gone.h5")}
    change(copied / "summary.json", paths=paths, backbone={"random": False})
    assert "gone.h5" in refused(copied)
    change(copied / "summary.json", backbone={"random": True})
    change(copied / "run.json", weights="0" * 64)
    assert "other weights" in refused(copied)


def test_a_configuration_that_the_classifier_was_not_trained_with_is_refused(copied: Path) -> None:
    inputs = json.loads((copied / "run.json").read_text())
    change(copied / "run.json", config=inputs["config"] | {"batch_size": 17})
    assert "other inputs" in refused(copied)


def test_thresholds_of_another_classifier_are_refused(copied: Path) -> None:
    thresholds = json.loads((copied / "thresholds.json").read_text())
    fewer = dict(list(thresholds.items())[1:])
    (copied / "thresholds.json").write_text(json.dumps(fewer))
    refused(copied)
    names = list(thresholds)
    swapped = dict(zip(reversed(names), thresholds.values(), strict=True))
    (copied / "thresholds.json").write_text(json.dumps(dict(reversed(swapped.items()))))
    assert "thresholds.json" in refused(copied)


def test_a_flipped_bit_is_found(copied: Path) -> None:
    files = [file for file in (copied / "classifier").rglob("*") if file.is_file()]
    arrays = max(files, key=lambda file: file.stat().st_size)
    data = bytearray(arrays.read_bytes())
    data[len(data) // 2] ^= 1
    arrays.write_bytes(data)
    assert "is intact" in refused(copied)
    shutil.rmtree(copied / "classifier")
    assert "holds no classifier" in refused(copied)
