"""Explanations of a trained classifier: what is written, of which images, and what is refused."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs.explain import get_config
from mlc_jax.errors import ConfigError, WorkdirError
from mlc_jax.stages import explain
from tests.stages.conftest import Trained

FEW = {
    "explain.superpixels": 12,
    "explain.samples": 50,
    "explain.patch": 0.5,
    "explain.steps": 3,
}


def configured(trained: Trained, images: Path, **changes: Any) -> ConfigDict:
    config = get_config()
    keys = FEW | {"checkpoint": str(trained.workdir), "data.images": str(images)}
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict(keys | changed)
    return config


def explanations(workdir: Path) -> pd.DataFrame:
    return pd.read_csv(workdir / "explanations.csv", keep_default_na=False)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


@pytest.fixture(scope="module")
def few(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two good images, one with a hostile name, two bad ones, a note."""
    folder = tmp_path_factory.mktemp("few")
    one, two = sorted(trained.images.iterdir())[:2]
    shutil.copy(one, folder / "<b>& ..jpg")
    shutil.copy(two, folder / "b.jpg")
    for name in (b"a.jpg", b"\xff.jpg"):
        (folder / os.fsdecode(name)).write_bytes(b"no picture")
    (folder / "notes.md").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def explained(trained: Trained, few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("explained") / "run"
    explain.run(configured(trained, few, explain__labels=("stripes", "collar")), workdir)
    return workdir


def test_each_label_of_each_image_has_every_method(
    trained: Trained, few: Path, explained: Path
) -> None:
    made = explanations(explained)
    cells = [
        (name, label, method)
        for name in ("<b>& ..jpg", "b.jpg")
        for label in ("collar", "stripes")
        for method in ("grad_cam", "lime", "occlusion")
    ]
    assert sorted(made[["filename", "label", "method"]].itertuples(index=False)) == cells
    np.testing.assert_allclose(made["gain"], made["insertion"] - made["deletion"], atol=1e-5)
    assert made["chance"].between(1 / 21 - 1e-6, 1).all()
    assert ((made["fidelity"] != "") == (made["method"] == "lime")).all()
    for place in made["overlay"]:
        assert max(pixels(explained / "overlays" / place).shape) == 320
    quarantine = (explained / "quarantine.csv").read_text().splitlines()
    assert quarantine[1:] == ["a.jpg,2,not_an_image", r"\udcff.jpg,4,unsafe_path"]


def test_the_page_shows_them_and_runs_nothing_of_theirs(explained: Path) -> None:
    page = (explained / "report.html").read_text()
    assert "&lt;b&gt;&amp; ..jpg: collar" in page
    assert "<b>&" not in page
    assert page.count("data:image/png;base64") == 1 + 2 * 2 * 4
    summary = json.loads((explained / "summary.json").read_text())
    assert summary["finished"] is True
    assert summary["data"]["taken"] == ["<b>& ..jpg", "b.jpg"]
    assert summary["labels"] == {"collar": {"explained": 2}, "stripes": {"explained": 2}}
    for method in summary["methods"].values():
        assert method["explanations"] == 4
        assert method["gain"] == pytest.approx(method["insertion"] - method["deletion"])
        assert method["curves"]["deletion"][0] == method["curves"]["insertion"][-1]


def test_the_first_images_are_taken_and_a_second_run_replaces_them(
    trained: Trained,
    few: Path,
    explained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = configured(trained, trained.images, explain__limit=1, explain__methods=("grad_cam",))
    summary = explain.run(config, tmp_path)
    first = sorted(file.name for file in trained.images.iterdir())[0]
    assert summary["data"]["taken"] == [first]
    assert f"explained the first 1 images: '{first}'" in capsys.readouterr().out
    made = explanations(tmp_path)
    thresholds = json.loads((trained.workdir / "thresholds.json").read_text())
    given = [row.probability > thresholds[row.label]["threshold"] for row in made.itertuples()]
    assert all(given) or len(made) == 1

    # The same image, explained alone, is explained as it was among others.
    explain.run(configured(trained, few / "b.jpg", explain__labels=("collar",)), tmp_path)
    assert [folder.name for folder in (tmp_path / "overlays").iterdir()] == ["001_b"]
    alone, among = explanations(tmp_path), explanations(explained)
    among = among[(among["filename"] == "b.jpg") & (among["label"] == "collar")]
    for column in ("probability", "deletion", "insertion", "chance"):
        np.testing.assert_allclose(alone[column], among[column], atol=1e-5, err_msg=column)
    for place, other in zip(alone["overlay"], among["overlay"], strict=True):
        one, two = pixels(tmp_path / "overlays" / place), pixels(explained / "overlays" / other)
        assert np.abs(one - two).max() <= 1


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("explain.labels", (2,), r"'2' is no label of the run"),
        ("explain.methods", ([],), r"config\.explain\.methods=\(\[\],\) cannot be used"),
        ("explain.labels", ("hats",), r"hats' is no label of the run; choose of sleeves, collar"),
        ("explain.methods", ("shap",), r"config\.explain\.methods=\('shap',\) cannot be used"),
        ("explain.methods", (), r"config\.explain\.methods=\(\) cannot be used"),
        ("explain.superpixels", 1, r"config\.explain\.superpixels=1 .* 10 to 1000"),
        ("explain.patch", 0.0, r"config\.explain\.patch=0\.0"),
        ("explain.random_orders", 3, r"config\.explain\.random_orders=3"),
        ("data.images", "nowhere", r"config\.data\.images='nowhere' does not exist"),
    ],
)
def test_what_cannot_be_used_is_refused(
    trained: Trained, few: Path, tmp_path: Path, key: str, value: object, said: str
) -> None:
    config = configured(trained, few, **{key: value})
    with pytest.raises(ConfigError, match=said):
        explain.run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "summary.json").exists()


def test_no_image_and_a_workdir_of_others_are_refused(
    trained: Trained, few: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"no image that can be read \(1 cannot"):
        explain.run(configured(trained, few / "a.jpg"), tmp_path / "run")
    with pytest.raises(WorkdirError, match="choose another --workdir"):
        explain.run(configured(trained, few), trained.workdir)
    with pytest.raises(ConfigError, match=r"lies in config\.data\.images"):
        explain.run(configured(trained, few), few / "run")
