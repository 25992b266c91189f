"""Nothing stale and nothing mixed: what changed since a run is found, and no results are mixed."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs.evaluate import get_config as evaluate_config
from configs.explain import get_config as explain_config
from configs.export import get_config as export_config
from configs.multilabel import get_config as multilabel_config
from configs.predict import get_config as predict_config
from configs.review import get_config as review_config
from mlc_jax import api
from mlc_jax.data.collection import open_collection
from mlc_jax.errors import CheckpointError, ConfigError, LabelsError, WorkdirError
from mlc_jax.files.runs import open_run
from mlc_jax.journal import Journal
from mlc_jax.main import default_workdir
from mlc_jax.models.backbones import load_backbone
from mlc_jax.models.weights import write_weights
from mlc_jax.report import page
from mlc_jax.report.annotate import write_annotated
from mlc_jax.report.page import write_report
from mlc_jax.report.terminal import show
from mlc_jax.settings import DEMO, cache_folder, resolve
from mlc_jax.stages import evaluate, explain, export, impute, multilabel, predict, review
from mlc_jax.training.feeds import load_configured
from mlc_jax.training.restore import open_classifier, run_config
from tests.stages.conftest import Configure, Trained

Job = tuple[Callable[[], ConfigDict], Callable[[ConfigDict, Path], dict[str, Any]]]
READERS: dict[str, Job] = {
    "evaluate": (evaluate_config, evaluate.run),
    "predict": (predict_config, predict.run),
    "explain": (explain_config, explain.run),
    "export": (export_config, export.run),
    "review": (review_config, review.run),
}


def moved(workdir: Path, data: Path, to: Path) -> Path:
    """A copy of a run and its data whose former places are gone."""
    shutil.copytree(workdir, to / "run")
    shutil.copytree(data, to / "set")
    summary = json.loads((to / "run" / "summary.json").read_text())
    for name, path in (("workdir", "run"), ("labels", "set/labels.csv"), ("images", "set/images")):
        summary["paths"][name] = f"/gone/{path}"
    (to / "run" / "summary.json").write_text(json.dumps(summary))
    return to / "run"


def reading(job: str, run: Path, images: Path) -> ConfigDict:
    config = READERS[job][0]()
    config.checkpoint = str(run)
    if job in ("predict", "explain"):
        config.data.images = str(images)
    return config


def noise(file: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(file)


def test_evaluate_finds_the_data_of_a_run_that_moved_and_refuses_what_changed(
    trained: Trained, tmp_path: Path
) -> None:
    run = moved(trained.workdir, trained.labels.parent, tmp_path)
    made = json.loads((run / "summary.json").read_text())
    found = evaluate.run(reading("evaluate", run, trained.images), tmp_path / "out")
    assert found["data"]["image_folder"] == str(tmp_path / "set" / "images")
    assert found["test"]["map"]["value"] == pytest.approx(made["test"]["map"]["value"], abs=1e-6)
    first = json.loads((run / "split.json").read_text())["test"][0]

    labels = tmp_path / "set" / "labels.csv"
    rows = list(csv.reader(labels.read_text().splitlines()))
    flipped = [
        [name, *({"0": "1", "1": "0"}.get(cell, cell) for cell in cells)] if name == first else row
        for row in rows
        for name, *cells in [row]
    ]
    kept = labels.read_text()
    with labels.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(flipped)
    with pytest.raises(LabelsError, match=f"changed since.*{first}' has labels"):
        evaluate.run(reading("evaluate", run, trained.images), tmp_path / "flipped")

    labels.write_text(kept)
    noise(tmp_path / "set" / "images" / first)
    with pytest.raises(LabelsError, match=f"changed since.*{first}' is another image"):
        evaluate.run(reading("evaluate", run, trained.images), tmp_path / "noise")


def adopting(source: Path | str, **keys: Any) -> ConfigDict:
    config = multilabel_config()
    config.source = str(source)
    config.epochs, config.folds = 1, 3
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in keys.items()})
    return config


@pytest.mark.parametrize("size", [(32, 32), (40, 40)])
def test_a_source_whose_images_are_others_now_is_refused(
    finished: tuple[Path, dict[str, Any]], drawn: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    run = moved(finished[0], drawn / "set", tmp_path)
    config, source = multilabel.adopt_source(adopting(run, data__image_size=size), Journal())
    assert source is not None
    assert config.data.images == str(tmp_path / "set" / "images")
    # Past every check of the source.
    with pytest.raises(ConfigError, match=r"config\.folds=80"):
        multilabel.run(adopting(run, data__image_size=size, folds=80), tmp_path / "good")
    noise(tmp_path / "set" / "images" / "image_7.jpg")
    with pytest.raises(CheckpointError, match=r"config\.source=.*: its images have changed since"):
        multilabel.run(adopting(run, data__image_size=size), tmp_path / "noise")


def test_a_source_of_links_is_read_as_its_run_read_it(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    for follow in (False, True):
        summary = json.loads((run / "summary.json").read_text())
        summary["config"]["data"]["follow_links"] = follow
        (run / "summary.json").write_text(json.dumps(summary))
        config, _ = multilabel.adopt_source(adopting(run), Journal())
        assert config.data.follow_links == follow


def test_a_source_whose_table_was_edited_is_refused(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    labels, cells = run / "labels.csv", run / "cells.csv"
    name, value, *rest = labels.read_text().splitlines()[1].split(",")
    other = str(1 - int(value))
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join([lines[0], ",".join([name, other, *rest]), *lines[2:]]))
    lines = cells.read_text().splitlines()
    filename, label, _, source, *more = lines[1].split(",")
    assert (filename, source) == (name, "observed")
    lines[1] = ",".join([filename, label, other, source, *more])
    cells.write_text("\n".join(lines))
    with pytest.raises(CheckpointError, match=r"config\.source=.*: its labels have changed since"):
        multilabel.run(adopting(run), tmp_path / "out")
    config = reading("review", run, tmp_path)
    for config.review.decisions in ("", str(tmp_path / "decisions.json")):
        with pytest.raises(CheckpointError, match="its labels have changed since"):
            review.run(config, tmp_path / "review")


def test_multilabel_takes_the_demo_only_where_it_is_asked_for_by_name(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    nearby = tmp_path / "runs" / "finished"  # no other run lies beside it
    shutil.copytree(finished[0], nearby)
    with pytest.raises(CheckpointError, match=r"holds no summary\.json") as caught:
        multilabel.run(adopting(nearby.parent / "mistyped"), tmp_path / "out")
    for text in (f"nearby: {nearby}", "config.data.labels", "config.data.demo=true"):
        assert text in str(caught.value)
    assert not (tmp_path / "out").exists()
    config, source = multilabel.adopt_source(adopting("", data__demo=True), Journal())
    assert source is None
    assert config.data.demo


@pytest.mark.parametrize("job", READERS)
@pytest.mark.parametrize("name", ["run.json", "summary.json"])
@pytest.mark.parametrize("text", [None, "{", '{"stage": "impute", "finished": true}'])
def test_a_run_with_a_damaged_record_is_one_line_in_every_job(
    trained: Trained,
    finished: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    job: str,
    name: str,
    text: str | None,
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    original = finished[0] if job == "review" else trained.workdir
    for record in ("run.json", "summary.json"):
        shutil.copy(original / record, run)
    (run / name).unlink()
    if text is not None:
        (run / name).write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.checkpoint=") as caught:
        READERS[job][1](reading(job, run, trained.images), run / job)
    assert "\n" not in str(caught.value)
    assert not (run / job).exists()
    if job == "predict":
        with pytest.raises(CheckpointError, match="workdir="):
            api.load(run)


def test_a_damaged_split_is_one_line(trained: Trained, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.workdir, run)
    for text in ("{", "{}", '{"held_in": 1, "test": []}', None):
        (run / "split.json").unlink()
        if text is not None:
            (run / "split.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"split\.json"):
            evaluate.run(reading("evaluate", run, trained.images), tmp_path / "out")


@pytest.mark.parametrize("job", READERS)
def test_no_job_writes_into_another_run_or_its_results(
    trained: Trained, finished: tuple[Path, dict[str, Any]], tmp_path: Path, job: str
) -> None:
    run = finished[0] if job == "review" else trained.workdir
    config = reading(job, run, trained.images)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    with pytest.raises((WorkdirError, ConfigError), match="choose another --workdir"):
        READERS[job][1](config, run)
    (tmp_path / "summary.json").write_text(
        json.dumps({"stage": job, "finished": True, "run": "of another run"})
    )
    with pytest.raises(WorkdirError, match=f"the results of {job} on another run"):
        READERS[job][1](config, tmp_path)
    assert before == {
        path: path.stat().st_mtime_ns
        for path in run.rglob("*")
        if path.is_file() and path.name != ".lock"
    } | {path: time for path, time in before.items() if path.name == ".lock"}


@pytest.mark.parametrize("job", READERS)
def test_results_lie_under_the_run_by_default(job: str, tmp_path: Path) -> None:
    config = reading(job, tmp_path / "mine", tmp_path)
    assert default_workdir(config) == f"{tmp_path}/mine/{job}"
    assert default_workdir(multilabel_config()) == "checkpoints/multilabel"


def test_the_demo_is_named_in_title_terminal_and_summary(
    configure: Configure,
    finished: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    journal = Journal()
    config = configure(data__demo=True)
    open_collection(resolve(config, journal.note), cache_folder(), journal)
    assert any(warning.startswith(DEMO) for warning in journal.warnings)
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    summary = json.loads((run / "summary.json").read_text())
    assert not summary["data"]["demo"]
    assert "DEMO" not in (run / "report.html").read_text()
    summary["data"]["demo"] = True
    (run / "summary.json").write_text(json.dumps(summary))
    assert "<title>DEMO: " in write_report(run).read_text()
    capsys.readouterr()
    show(summary, run, Journal())
    assert capsys.readouterr().out.count("DEMO: ") == 2


def test_a_report_that_cannot_be_written_leaves_the_results_and_is_said(
    finished: tuple[Path, dict[str, Any]],
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    (run / "report.html").unlink()
    kept = (run / "labels.csv").read_bytes()

    def broken(workdir: Path) -> Path:
        raise RuntimeError("raqm_layout() failed.")

    with monkeypatch.context() as patch:
        patch.setattr(page, "write_report", broken)
        made = impute.run(configure(), run)
    assert (run / "labels.csv").read_bytes() == kept
    stored = json.loads((run / "summary.json").read_text())
    assert stored["labels"] == made["labels"]
    (warning,) = [text for text in stored["warnings"] if "report.html cannot be written" in text]
    assert "raqm_layout" in warning
    impute.run(configure(), run)
    assert (run / "report.html").exists()


def test_a_picture_that_cannot_be_annotated_leaves_the_predictions_and_is_said(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = tmp_path / "some"
    some.mkdir()
    for number, source in enumerate(sorted(trained.images.iterdir())[:3]):
        shutil.copy(source, some / f"{number}{'x' * 245 * (number == 2)}.jpg")

    def fails(path: Path, *arguments: Any) -> None:
        if path.name.startswith("1"):
            raise RuntimeError("raqm_layout() failed.")
        write_annotated(path, *arguments)

    monkeypatch.setattr(predict, "write_annotated", fails)
    config = reading("predict", trained.workdir, some)
    config.annotate = True
    made = predict.run(config, tmp_path / "out")
    assert len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == 1 + 3
    assert len(list((tmp_path / "out" / "annotated").iterdir())) == 2
    (warning,) = [warning for warning in made["warnings"] if "annotated/" in warning]
    assert "1 pictures are not in annotated/ ('1.jpg': raqm_layout() failed.)" in warning


def test_weights_that_moved_are_named_and_checked_by_their_digest(
    trained: Trained, tmp_path: Path
) -> None:
    backbone = load_backbone("mobilenet_v2", "random", fold=False)
    weights = tmp_path / "w.safetensors"
    write_weights(weights, backbone.name, backbone.params, backbone.preprocess)
    run = tmp_path / "run"
    shutil.copytree(trained.workdir, run)
    summary = json.loads((run / "summary.json").read_text())
    summary["paths"]["weights"], summary["backbone"]["random"] = "/gone/w.safetensors", False
    (run / "summary.json").write_text(json.dumps(summary))
    made = open_run(run)
    with pytest.raises(CheckpointError, match=r"/gone/w.*config\.backbone\.weights"):
        open_classifier(made, Journal())
    # The run's own were drawn, and a file has a digest of its own.
    digest = load_configured(run_config(made, str(weights)), str(weights)).digest
    with pytest.raises(CheckpointError, match="was trained on other weights"):
        open_classifier(made, Journal(), str(weights))
    # Past the check of the weights: the checkpoint vouches for the digest in run.json.
    changed = replace(made, weights=digest, inputs=made.inputs | {"weights": digest})
    with pytest.raises(CheckpointError, match="was made from other inputs"):
        open_classifier(changed, Journal(), str(weights))
