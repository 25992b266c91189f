"""The README's commands, as they stand there and in its order, where a newcomer would run them.

The first two lines are what `.ci/run` does. The rest run here in one folder that holds `configs`,
`labels.csv`, `images` and `x.jpg`; training on own data is made small by the last words of a line.
"""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from ast import literal_eval
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mlc_jax
from mlc_jax.data.labels import read_labels
from tests.commands import CACHE, ROOT, run_command, summary_of

TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```$", TEXT, re.M | re.S)
COMMANDS = [
    line
    for language, block in BLOCKS[2:]
    if language == "sh"
    for line in block.replace("\\\n", "").splitlines()
]
# The first test that needs them runs all commands, some of them long beside other work.
pytestmark = pytest.mark.timeout(1800)
IMAGES, FEW = 240, 40
SMALL = ("backbone.name=mobilenet_v3_small", "backbone.weights=random", "data.image_size=32,32")
SHORT = ("features.views=0", "epochs=2", "folds=3")


def words_of(command: str) -> list[str]:
    """The words behind `python -m mlc_jax.main`, with what stands for own files filled in."""
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "mlc_jax.main"], command
    own = "--config.data.labels=labels.csv" in words and "convert.py" not in command
    made_small = [f"--config.{key}" for key in (*SMALL, *SHORT)] if own else []
    few = ("limit=1", "samples=150", "random_orders=10")
    one = [f"--config.explain.{key}" for key in few] if "explain.py" in command else []
    return [word.replace("FOLDER", "some") for word in words[3:]] + made_small + one


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A newcomer's folder, after the first line and every other command of the README."""
    place = tmp_path_factory.mktemp("newcomer")
    (place / "configs").symlink_to(ROOT / "configs")
    (place / "checkpoints").mkdir()
    # What the README's first line made where it was run, else made now.
    demo = ROOT / "checkpoints" / "impute"
    if (demo / "summary.json").exists() and (CACHE / "demo" / "labels.csv").exists():
        # Item by item: jobs that read the run write into its folder.
        (place / "checkpoints" / "impute").mkdir()
        for item in demo.iterdir():
            if item.name not in ("review", ".lock"):
                (place / "checkpoints" / "impute" / item.name).symlink_to(item)
    else:
        done = run_command("--config=configs/impute.py", cwd=place)
        assert done.returncode == 0, done.stderr
    table = pd.read_csv(CACHE / "demo" / "labels.csv", dtype=str).head(IMAGES)
    table.to_csv(place / "labels.csv", index=False)
    (place / "images").symlink_to(CACHE / "demo" / "images")
    some = sorted((place / "images").iterdir())[:FEW]
    (place / "some").mkdir()
    for image in some:
        shutil.copy(image, place / "some")
    shutil.copy(some[0], place / "x.jpg")
    for command in COMMANDS:
        done = run_command(*words_of(command), cwd=place)
        assert done.returncode == 0, (command, done.stderr)
    return place


def test_the_demo_fills_every_blank_and_changes_nothing(place: Path) -> None:
    demo = place / "checkpoints" / "impute"
    given = read_labels(CACHE / "demo" / "labels.csv").table
    made = read_labels(demo / "labels.csv").table
    assert len(made.filenames) == 972
    assert made.known.all()
    places = np.array([given.filenames.index(name) for name in made.filenames])
    known = given.known[places]
    assert (~known).sum(axis=0).tolist() == [80, 91, 92, 92]
    assert (made.values[known] == given.values[places][known]).all()
    assert len((demo / "quarantine.csv").read_text().splitlines()) == 1 + 3


def test_the_demo_is_learned_over_a_random_backbone_and_says_that_it_is_random(place: Path) -> None:
    demo = place / "checkpoints" / "impute"
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


def test_evaluate_repeats_the_figures_of_the_training_run(place: Path) -> None:
    made = summary_of(place / "checkpoints" / "multilabel")
    again = summary_of(place / "checkpoints" / "multilabel" / "evaluate")
    for name, figure in made["test"].items():
        assert again["test"][name]["value"] == pytest.approx(figure["value"], abs=1e-6)
    if made["backbone"]["random"]:
        assert made["test"]["macro_roc_auc"]["value"] >= 0.9


def test_predict_answers_for_every_image(place: Path) -> None:
    lines = (
        (place / "checkpoints" / "multilabel" / "predict" / "predictions.csv")
        .read_text()
        .splitlines()
    )
    assert len(lines) == 1 + FEW


def test_the_review_page_asks_about_every_filled_cell_and_loads_nothing(place: Path) -> None:
    page = (place / "checkpoints" / "impute" / "review" / "review.html").read_text()
    cells = pd.read_csv(place / "checkpoints" / "impute" / "cells.csv")
    filled = cells[cells.source == "imputed"]
    assert len(filled) == 80 + 91 + 92 + 92
    for name in filled.filename.unique():
        assert name in page
    assert not re.search(r"(src|href)=.https?:", page)


def test_an_explanation_explains(place: Path) -> None:
    methods = summary_of(place / "checkpoints" / "multilabel" / "explain")["methods"]
    assert set(methods) == {"grad_cam", "lime", "occlusion"}
    # What is drawn stands in one place, so the method that asks the most finds it.
    assert methods["lime"]["gain"] > 0


def test_the_exported_program_says_what_predict_says(place: Path) -> None:
    example = (place / "exported" / "README.md").read_text().split("```")[1]
    (place / "exported" / "run.py").write_text(example.removeprefix("python"))
    done = subprocess.run(
        [sys.executable, "exported/run.py", "x.jpg"],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    predictions = place / "checkpoints" / "multilabel" / "predict" / "predictions.csv"
    with predictions.open(newline="") as file:
        expected = next(csv.DictReader(file))
    assert (place / "some" / expected["filename"]).read_bytes() == (place / "x.jpg").read_bytes()
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) == 4
    for label, probability, given in lines:
        assert float(probability) == pytest.approx(
            float(expected[f"{label}_probability"]), abs=1e-4
        )
        assert given == expected[label]


def test_every_way_to_learn_is_compared(place: Path) -> None:
    rows = pd.read_csv(place / "checkpoints" / "compare" / "compare.csv")
    assert {"mlc_jax", "majority", "logistic regression (scikit-learn)"} <= set(rows.name)
    assert len(rows) == 17


def test_the_lines_of_python_go_on_from_the_commands(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = (block for language, block in BLOCKS if language == "python")
    pairs = (key.split("=") for key in (*SMALL, *SHORT))
    small: dict[str, Any] = {key.replace(".", "__"): _value(text) for key, text in pairs}
    monkeypatch.chdir(place)
    for job in ("impute", "fit"):
        monkeypatch.setattr(mlc_jax, job, partial(getattr(mlc_jax, job), **small))
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["run"].labels.notna().all().all()
    again = names["model"].predict("x.jpg")
    assert len(again) == 1


INLINE = sorted(set(re.findall(r"`python (-m mlc_jax\.doctor|scripts/[^`]+|[^`]+--help)`", TEXT)))


@pytest.mark.parametrize(
    "command",
    [
        # Every network there is takes a minute.
        pytest.param(command, marks=pytest.mark.slow) if "table" in command else command
        for command in INLINE
    ],
)
def test_a_command_within_a_sentence_says_something_and_succeeds(command: str) -> None:
    done = subprocess.run(
        [sys.executable, *shlex.split(command)],
        cwd=ROOT,
        env={**os.environ, "MLC_JAX_CACHE": str(CACHE), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 5


def test_the_readme_names_no_command_that_does_not_exist() -> None:
    for job in re.findall(r"--config=(configs/\w+\.py)", TEXT):
        assert (ROOT / job).exists(), job
    for script in re.findall(r"(scripts/\w+\.py)", TEXT):
        assert (ROOT / script).exists(), script


def test_the_messages_that_are_explained_can_be_met() -> None:
    section = TEXT.split("## When it says …")[1].split("\n## ")[0]
    messages = re.findall(r"^\| `(.+?)` \|", section, re.M)
    assert len(messages) > 10
    sources = [path.read_text() for path in (ROOT / "mlc_jax").rglob("*.py")]
    # A message is written over several lines of a source.
    joined = [re.sub(r'"\s*f?"', "", text) for text in sources]
    for message in messages:
        assert any(message in text for text in joined), message


def _value(text: str) -> Any:
    try:
        return literal_eval(text)
    except ValueError:
        return text
