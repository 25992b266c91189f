"""Opening a finished run by its records: what is found, and what is refused with one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mlc_jax.errors import CheckpointError, WorkdirError
from mlc_jax.files.outputs import Results
from mlc_jax.files.runs import Run, finished_runs, open_run, run_paths


def make_run(workdir: Path, job: str = "multilabel", **inputs: str) -> Path:
    """The records of a run on `../data`, as jobs write them."""
    data = workdir.parent / "data"
    (data / "images").mkdir(parents=True, exist_ok=True)
    (data / "labels.csv").touch()
    workdir.mkdir(parents=True)
    paths = run_paths(
        workdir,
        {
            "labels": str(data / "labels.csv"),
            "images": str(data / "images"),
            "groups": "patient",
            "split": str(data / "labels.csv"),
            "weights": f"imagenet,{data}/w.h5",
        },
    )
    summary = {
        "finished": True,
        "stage": job,
        "labels": {},
        "data": {"demo": False},
        "paths": paths,
        "backbone": {"random": False},
    }
    record = {"config": {"data": {}, "backbone": {}}, "labels": "l", "images": "i", "weights": "w"}
    (workdir / "summary.json").write_text(json.dumps(summary))
    (workdir / "run.json").write_text(json.dumps(record | inputs))
    return workdir


def change(file: Path, path: str, value: Any) -> None:
    whole = json.loads(file.read_text())
    *groups, name = path.split(".")
    record = whole
    for group in groups:
        record = record[group]
    record[name] = value
    file.write_text(json.dumps(whole))


def test_paths_are_found_where_they_were_and_relative_to_a_run_that_moved(tmp_path: Path) -> None:
    make_run(tmp_path / "a" / "run")
    (tmp_path / "a" / "data" / "w.h5").touch()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for place in ("a", "a", "b"):
        if place == "b":
            shutil.rmtree(tmp_path / "a")
        run = open_run(tmp_path / place / "run")
        assert run.labels_source == str(tmp_path / place / "data" / "labels.csv")
        assert run.image_folder == tmp_path / place / "data" / "images"
        assert (run.groups, run.split) == ("patient", run.labels_source)
        assert run.weights_source == f"imagenet,{tmp_path / place}/data/w.h5"


def test_paths_are_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "patients.csv").touch()
    several = {"labels": "a.csv,b.csv", "images": "", "groups": "", "split": "", "weights": ""}
    made = run_paths(Path("run"), several)
    assert made["labels"] == f"{tmp_path}/a.csv,{tmp_path}/b.csv"
    paths = {"labels": "d/labels.csv", "images": "", "groups": "patients.csv", "split": "site"}
    assert run_paths(Path("run"), paths | {"weights": "imagenet, w.h5"}) == {
        "workdir": str(tmp_path / "run"),
        "labels": str(tmp_path / "d" / "labels.csv"),
        "images": "",
        "groups": str(tmp_path / "patients.csv"),
        "split": "site",
        "weights": f"imagenet,{tmp_path / 'w.h5'}",
    }


@pytest.mark.parametrize("name", ["run.json", "summary.json"])
@pytest.mark.parametrize(
    "text",
    ["", "[", "[]", "null", "{}", '{"finished": true}', pytest.param("[" * 10**5, id="deep")],
)
def test_a_damaged_record_is_one_line(tmp_path: Path, name: str, text: str) -> None:
    (make_run(tmp_path / "run") / name).write_text(text)
    with pytest.raises(CheckpointError, match=name) as caught:
        open_run(tmp_path / "run")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("summary.json", "labels", []),
        ("summary.json", "data", None),
        ("summary.json", "data.demo", "no"),
        ("summary.json", "paths.images", 1),
        ("summary.json", "backbone.random", None),
        ("run.json", "config", "x"),
        ("run.json", "config.data", 1),
        ("run.json", "weights", 1),
    ],
)
def test_a_value_of_another_kind_is_named(
    tmp_path: Path, name: str, path: str, value: object
) -> None:
    change(make_run(tmp_path / "run") / name, path, value)
    with pytest.raises(CheckpointError, match=f"{name} is damaged, as it holds no {path}"):
        open_run(tmp_path / "run")


def test_a_folder_without_a_run_lists_the_runs_nearby(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, job in (("one", "impute"), ("two", "impute"), ("three", "multilabel")):
        make_run(tmp_path / "runs" / name, job)
    change(tmp_path / "runs" / "two" / "summary.json", "finished", False)
    make_run(tmp_path / "runs" / "mistyped" / "inside", "impute")
    assert list(finished_runs(tmp_path / "runs", ("multilabel",))) == [tmp_path / "runs" / "three"]
    for wrong in ("mistyped", "tow", "two"):
        with pytest.raises(CheckpointError, match=r"config\.source=") as caught:
            open_run(Path("runs") / wrong, ("impute",), "config.source")
        assert "configs/impute.py; nearby: runs/" in str(caught.value)
        assert "runs/one" in str(caught.value)
        assert "three" not in str(caught.value)
        assert ("runs/mistyped/inside" in str(caught.value)) == (wrong == "mistyped")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return open_run(make_run(tmp_path / "run"))


def results(workdir: Path, run: Run, job: str = "predict") -> Results:
    return Results(workdir, job, run, ("table.csv", "pictures"))


def written(workdir: Path, run: Run) -> Path:
    """The results of a finished job."""
    made = results(workdir, run)
    made.replace(lambda _: None)
    (workdir / "table.csv").write_text("1")
    (workdir / "pictures" / "inner").mkdir(parents=True)
    (workdir / "pictures" / "inner" / "a\n.png").touch()
    made.finish({})
    return workdir


def test_earlier_results_of_the_same_run_are_replaced_and_it_is_said(
    tmp_path: Path, run: Run
) -> None:
    workdir = written(tmp_path / "out", run)
    (workdir / "mine.txt").touch()
    said: list[str] = []
    results(workdir, run).replace(said.append)
    assert said == [f"replaces the earlier table.csv, pictures in {workdir}"]
    names = {path.name for path in workdir.iterdir()}
    assert names == {"summary.json", "mine.txt"}


def test_results_of_another_run_or_job_are_never_replaced(tmp_path: Path, run: Run) -> None:
    workdir = written(tmp_path / "out", run)
    other = open_run(make_run(tmp_path / "other", labels="l2"))
    with pytest.raises(WorkdirError, match="the results of predict on another run"):
        results(workdir, other).check()
    with pytest.raises(WorkdirError, match="holds a run of stage 'predict'"):
        results(workdir, run, "explain").check()
    for folder in (run.workdir, other.workdir):
        with pytest.raises(WorkdirError, match="choose another --workdir"):
            results(folder, run).check()
    assert (workdir / "table.csv").read_text() == "1"


def test_a_file_that_the_job_did_not_write_keeps_its_folder(tmp_path: Path, run: Run) -> None:
    workdir = written(tmp_path / "out", run)
    (workdir / "pictures" / "holiday.jpg").touch()
    with pytest.raises(WorkdirError, match=r"holiday\.jpg is not from an earlier predict"):
        results(workdir, run).replace(lambda _: None)
    assert (workdir / "pictures" / "holiday.jpg").exists()
    assert json.loads((workdir / "summary.json").read_text())["finished"]
