"""The README's commands on the demo: what a newcomer sees."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlc_jax.data.labels import read_labels
from tests.commands import CACHE, ROOT, run_command, summary_of


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's workdir: what the README's first line made where it was run, else made now."""
    made = ROOT / "checkpoints" / "impute"
    if not (made / "summary.json").exists():
        made = tmp_path_factory.mktemp("demo")
        done = run_command("--config=configs/impute.py", f"--workdir={made}")
        assert done.returncode == 0, done.stderr
    return made


def test_the_demo_fills_every_blank_and_changes_nothing(demo: Path) -> None:
    given = read_labels(CACHE / "demo" / "labels.csv").table
    made = read_labels(demo / "labels.csv").table
    assert len(made.filenames) == 972
    assert made.known.all()
    places = np.array([given.filenames.index(name) for name in made.filenames])
    known = given.known[places]
    assert (~known).sum(axis=0).tolist() == [80, 91, 92, 92]
    assert (made.values[known] == given.values[places][known]).all()
    assert len((demo / "quarantine.csv").read_text().splitlines()) == 1 + 3


def test_the_demo_is_learned_over_a_random_backbone_and_says_that_it_is_random(demo: Path) -> None:
    summary = summary_of(demo)
    if not summary["backbone"]["random"]:
        pytest.skip("ImageNet weights of VGG19 are in the cache; this is about the random ones")
    areas = [record["metrics"]["roc_auc"] for record in summary["labels"].values()]
    assert sum(area >= 0.90 for area in areas) >= 3, areas
    assert any("RANDOM" in warning for warning in summary["warnings"])
    assert "RANDOM" in (demo / "report.html").read_text()
    for record in summary["labels"].values():
        assert record["learnable"]
        assert record["truth"]["filled"] == record["blank"]
        assert record["truth"]["share"] > record["metrics"]["accuracy"] - 0.08


def test_the_three_commands_of_stage_2_run_in_order(demo: Path, tmp_path: Path) -> None:
    trained = tmp_path / "multilabel"
    done = run_command(
        "--config=configs/multilabel.py", f"--workdir={trained}", f"--config.source={demo}"
    )
    assert done.returncode == 0, done.stderr
    made = summary_of(trained)
    done = run_command(
        "--config=configs/evaluate.py",
        f"--workdir={tmp_path / 'evaluate'}",
        f"--config.checkpoint={trained}",
    )
    assert done.returncode == 0, done.stderr
    again = summary_of(tmp_path / "evaluate")
    for name, figure in made["test"].items():
        assert again["test"][name]["value"] == pytest.approx(figure["value"], abs=1e-6)
    done = run_command(
        "--config=configs/predict.py",
        f"--workdir={tmp_path / 'predict'}",
        f"--config.checkpoint={trained}",
        f"--config.data.images={CACHE / 'demo' / 'images'}",
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "predict" / "predictions.csv").read_text().splitlines()
    assert len(lines) == 1 + 972
    if made["backbone"]["random"]:
        assert made["test"]["macro_roc_auc"]["value"] >= 0.9


@pytest.mark.slow
def test_the_demos_classifier_is_explained_and_exported(demo: Path, tmp_path: Path) -> None:
    """A conv head over VGG19, by the commands; the exported program says what predict says."""
    trained, images = tmp_path / "multilabel", CACHE / "demo" / "images"
    image = sorted(images.iterdir())[0]
    jobs = {
        "multilabel": [f"--config.source={demo}"],
        "explain": [f"--config.data.images={images}", "--config.explain.limit=2"],
        "predict": [f"--config.data.images={image}"],
        "export": [],
    }
    for job, arguments in jobs.items():
        if job != "multilabel":
            arguments = [f"--config.checkpoint={trained}", *arguments]
        done = run_command(f"--config=configs/{job}.py", f"--workdir={tmp_path / job}", *arguments)
        assert done.returncode == 0, (job, done.stderr)
    methods = summary_of(tmp_path / "explain")["methods"]
    assert set(methods) == {"grad_cam", "lime", "occlusion"}
    # What is drawn stands in one place, so the method that asks the most finds it.
    assert methods["lime"]["gain"] > 0
    example = (tmp_path / "export" / "README.md").read_text().split("```")[1]
    (tmp_path / "export" / "run.py").write_text(example.removeprefix("python"))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "export" / "run.py"), str(image)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "predict" / "predictions.csv").open(newline="") as file:
        (expected,) = csv.DictReader(file)
    for line in done.stdout.splitlines():
        name, probability, given = line.split("\t")
        assert float(probability) == pytest.approx(float(expected[f"{name}_probability"]), abs=1e-4)
        assert given == expected[name]


def test_the_readme_names_no_command_that_does_not_exist() -> None:
    text = (ROOT / "README.md").read_text()
    for job in re.findall(r"--config=(configs/\w+\.py)", text):
        assert (ROOT / job).exists(), job
    for script in re.findall(r"(scripts/\w+\.py)", text):
        assert (ROOT / script).exists(), script
