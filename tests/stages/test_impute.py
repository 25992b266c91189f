"""The whole of stage 1 on a small drawn set: the contract of files, and the laws between runs."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from mlc_jax.data.cells import read_cells
from mlc_jax.data.labels import read_labels
from mlc_jax.errors import LabelsError, WorkdirError
from mlc_jax.stages import impute
from mlc_jax.training.writer import MetricsWriter
from tests.stages.conftest import ROWS, Configure

FILES = [
    "labels.csv",
    "cells.csv",
    "quarantine.csv",
    "summary.json",
    "metrics.jsonl",
    "report.html",
    "suspects.csv",
    "thresholds.json",
]


def out_of_fold(workdir: Path) -> np.ndarray:
    return read_cells(workdir / "cells.csv")["probability"].to_numpy(float)


def test_every_file_of_the_contract_is_there(finished: tuple[Path, dict[str, Any]]) -> None:
    workdir, summary = finished
    for name in FILES:
        assert (workdir / name).stat().st_size > 0, name
    assert len(list((workdir / "plots").glob("*.png"))) >= 2
    assert any((workdir / "tensorboard").iterdir())
    for number in range(len(summary["rounds"]) + 1):
        assert any((workdir / "checkpoints" / f"round_{number}").iterdir()), number
    assert json.loads((workdir / "summary.json").read_text())["oof"] == summary["oof"]
    # Tests share a cache: whether images and features were made here depends on which came before.
    assert summary["seconds_to_first"]["train heads"] > 0
    assert summary["peak_memory_mb"] > 0


def test_the_table_is_complete_and_what_a_person_gave_is_unchanged(
    finished: tuple[Path, dict[str, Any]], drawn: Path
) -> None:
    workdir, _ = finished
    given = read_labels(drawn / "set" / "labels.csv").table
    made = read_labels(workdir / "labels.csv").table
    assert made.filenames == given.filenames
    assert made.names == given.names
    assert made.known.all()
    assert (made.values[given.known] == given.values[given.known]).all()


def test_every_cell_has_a_history(finished: tuple[Path, dict[str, Any]], drawn: Path) -> None:
    workdir, _ = finished
    cells = read_cells(workdir / "cells.csv")
    given = read_labels(drawn / "set" / "labels.csv").table
    assert (cells["filename"] == np.repeat(given.filenames, 4)).all()
    blank = ~given.known.ravel()
    assert (cells["source"] == np.where(blank, "imputed", "observed")).all()
    decided = cells["probability"] > cells["threshold"]
    assert (cells["value"].to_numpy()[blank] == decided.to_numpy()[blank]).all()
    folds = cells.groupby("filename")["fold"].nunique()
    assert (folds == 1).all()
    rounds = {name: str(record["round"]) for name, record in finished[1]["labels"].items()}
    heads = np.where(blank, "/all", "/fold" + cells["fold"].astype(str))
    assert (cells["model"] == cells["label"] + heads + "/round" + cells["label"].map(rounds)).all()


def test_metrics_lines_hold_no_times(finished: tuple[Path, dict[str, Any]]) -> None:
    lines = [json.loads(line) for line in (finished[0] / "metrics.jsonl").read_text().splitlines()]
    # Of heads that are solved exactly: a line for each strength, in the first fit alone.
    assert [line["epoch"] for line in lines] == list(range(len(lines)))
    assert {line["round"] for line in lines} == {0}
    strengths = [line["strength"] for line in lines]
    assert len(strengths) > 1
    assert strengths == sorted(strengths, reverse=True)
    assert not any("second" in key or "time" in key for line in lines for key in line)


def test_a_finished_run_is_shown_and_left_alone(
    finished: tuple[Path, dict[str, Any]], configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir, summary = finished
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    again = impute.run(configure(), workdir)
    assert again["oof"] == summary["oof"]
    assert "finished" in capsys.readouterr().out
    after = {path: path.stat().st_mtime_ns for path in before}
    changed = {path.name for path in before if before[path] != after[path]}
    assert changed <= {".lock"}


def test_other_inputs_are_refused_with_the_difference(
    finished: tuple[Path, dict[str, Any]], configure: Configure
) -> None:
    with pytest.raises(WorkdirError, match=r"config\.seed: 0 there, 1 here.*--workdir"):
        impute.run(configure(seed=1), finished[0])


def test_same_seed_same_bytes(
    finished: tuple[Path, dict[str, Any]], configure: Configure, tmp_path: Path
) -> None:
    impute.run(configure(), tmp_path)
    for name in (
        "labels.csv",
        "cells.csv",
        "metrics.jsonl",
        "thresholds.json",
        "quarantine.csv",
        "suspects.csv",
    ):
        assert (tmp_path / name).read_bytes() == (finished[0] / name).read_bytes(), name


@pytest.mark.slow
def test_a_run_that_is_killed_in_its_second_round_ends_as_an_undisturbed_one(
    finished: tuple[Path, dict[str, Any]],
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Killed(Exception):
        pass

    write = MetricsWriter.write

    def killing(self: MetricsWriter, epoch: int, figures: dict[str, Any]) -> None:
        write(self, epoch, figures)
        if figures["round"] == 1 and epoch % 4 == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(MetricsWriter, "write", killing)
        with pytest.raises(Killed):
            impute.run(configure(), tmp_path)
    assert not (tmp_path / "summary.json").exists()
    impute.run(configure(), tmp_path)
    for name in ("labels.csv", "cells.csv", "metrics.jsonl", "suspects.csv", "thresholds.json"):
        assert (tmp_path / name).read_bytes() == (finished[0] / name).read_bytes(), name


def test_a_completed_table_is_imputed_from_its_human_cells_alone(
    finished: tuple[Path, dict[str, Any]], configure: Configure, tmp_path: Path
) -> None:
    """Fails if a head is fitted or stopped on a cell that a model filled."""
    for name in ("labels.csv", "cells.csv"):
        shutil.copy(finished[0] / name, tmp_path / name)
    impute.run(configure(data__labels=str(tmp_path / "labels.csv")), tmp_path / "run")
    assert (tmp_path / "run" / "cells.csv").read_bytes() == (tmp_path / "cells.csv").read_bytes()


def test_the_second_run_reuses_the_features_and_says_so(
    finished: tuple[Path, dict[str, Any]],
    configure: Configure,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    summary = impute.run(configure(epochs=1), tmp_path)
    said = capsys.readouterr().out
    assert f"feature cache: {ROWS} images of mobilenet_v2 are there already, 0 to extract" in said
    assert "extract features" not in summary["seconds"]


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_eight_devices_give_the_metrics_of_one(
    finished: tuple[Path, dict[str, Any]],
    configure: Configure,
    tmp_path: Path,
    parallel: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jax, "devices", jax.local_devices)
    assert len(jax.devices()) == 8
    summary = impute.run(configure(parallel=parallel), tmp_path)
    for name, record in finished[1]["labels"].items():
        for metric in ("roc_auc", "log_loss", "brier"):
            theirs = record["metrics"][metric]
            assert summary["labels"][name]["metrics"][metric] == pytest.approx(theirs, abs=0.005)


@pytest.mark.slow
def test_without_a_cache_the_same_features_give_the_same_result(
    finished: tuple[Path, dict[str, Any]], configure: Configure, tmp_path: Path
) -> None:
    summary = impute.run(configure(features__cache=False), tmp_path)
    assert "extract features" not in summary["seconds"]
    np.testing.assert_allclose(out_of_fold(tmp_path), out_of_fold(finished[0]), atol=0.02)


def test_labels_that_cannot_be_fitted_stay_blank_with_a_reason(
    configure: Configure, drawn: Path, tmp_path: Path
) -> None:
    with (drawn / "set" / "labels.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    rows[0] += ["always", "never", "unseen"]
    for number, row in enumerate(rows[1:]):
        row += ["1" if number % 3 else "", "0" if number % 3 else "", ""]
    labels = tmp_path / "labels.csv"
    with labels.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    summary = impute.run(configure(data__labels=str(labels), epochs=1), tmp_path / "run")
    cells = read_cells(tmp_path / "run" / "cells.csv")
    for name, reason, blank in (
        ("always", "all 60 known cells are 1", 30),
        ("never", "all 60 known cells are 0", 30),
        ("unseen", "no cell is known", 90),
    ):
        record = summary["labels"][name]
        assert not record["learnable"]
        assert reason in record["verdict"]
        assert any(f"label {name!r}" in warning for warning in summary["warnings"])
        assert record["metrics"]["roc_auc"] != record["metrics"]["roc_auc"]  # NaN
        left = cells[(cells["label"] == name) & (cells["source"] == "imputed")]
        assert len(left) == blank
        assert not left["accepted"].any()
        assert (left["value"] == -1).all()
    made = read_labels(tmp_path / "run" / "labels.csv").table
    assert (made.values[:, 4:] == -1).sum(axis=0).tolist() == [30, 30, 90]


def test_a_label_that_no_fold_can_judge_gets_a_guess(
    configure: Configure, drawn: Path, tmp_path: Path
) -> None:
    """Its single positive lies in one fold: blanks are filled and ranked, accepted never."""
    with (drawn / "set" / "labels.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    rows[0].append("single")
    for number, row in enumerate(rows[1:]):
        row.append("1" if number == 5 else "0" if number < 50 else "")
    labels = tmp_path / "labels.csv"
    with labels.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    config = configure(data__labels=str(labels), loss__name="bce", impute__max_error=0.2)
    summary = impute.run(config, tmp_path / "run")
    record = summary["labels"]["single"]
    assert not record["fitted"]
    assert record["verdict"].startswith("all 1 positives lie in one fold")
    (warning,) = [text for text in summary["warnings"] if "label 'single'" in text]
    assert "impute.unlearnable=majority" in warning
    cells = read_cells(tmp_path / "run" / "cells.csv").query("label == 'single'")
    blank = cells["source"] == "imputed"
    assert blank.sum() == ROWS - 50
    assert (cells["value"][blank] == 0).all()
    assert not cells["accepted"][blank].any()
    assert cells["probability"][~blank].isna().all()
    assert cells["probability"][blank].between(0, 1).all()
    assert cells["probability"][blank].nunique() > 10
    page = (tmp_path / "run" / "report.html").read_text()
    assert "no fold could judge the model there" in page


def test_no_label_left_to_fit_is_an_error(
    configure: Configure, drawn: Path, tmp_path: Path
) -> None:
    lines = (drawn / "set" / "labels.csv").read_text().splitlines()
    ones = [lines[0]] + [line.split(",")[0] + ",1,1,1,1" for line in lines[1:]]
    (tmp_path / "ones.csv").write_text("\n".join(ones))
    with pytest.raises(LabelsError, match="no label can be fitted"):
        impute.run(configure(data__labels=str(tmp_path / "ones.csv")), tmp_path / "run")


def test_too_many_bad_images_stop_the_run_at_the_scan(
    configure: Configure, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before weights are fetched or read, whose download may take longer than the scan."""
    images = tmp_path / "images"
    shutil.copytree(drawn / "set" / "images", images)
    for number in range(5):
        (images / f"image_{number}.jpg").write_bytes(b"no picture")
    with monkeypatch.context() as patch:
        patch.setattr(impute, "choose_backbone", lambda *_: pytest.fail("the network came first"))
        with pytest.raises(LabelsError, match=r"5 of 90 rows .*image_0.jpg.*max_bad_fraction"):
            impute.run(configure(data__images=str(images)), tmp_path / "run")
    # An image in no row whose name is no UTF-8: the run and its report say so and go on.
    shutil.copy(images / "image_6.jpg", images / os.fsdecode(b"\xff.jpg"))
    config = configure(data__images=str(images), data__max_bad_fraction=0.1, epochs=1)
    summary = impute.run(config, tmp_path / "run")
    assert "in no row: 1 (\\udcff.jpg)" in (tmp_path / "run" / "report.html").read_text()
    assert summary["data"]["left_out"] == 5
    listed = (tmp_path / "run" / "quarantine.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in listed[1:]] == [f"image_{n}.jpg" for n in range(5)]
