"""What goes together lies on one side of everything that judges, in every job."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict
from PIL import Image, ImageDraw

import mlc_jax
from configs import compare as compare_config
from configs import evaluate as evaluate_config
from configs import impute as impute_config
from configs import multilabel as multilabel_config
from mlc_jax.data.collection import open_collection
from mlc_jax.errors import CheckpointError, LabelsError, MlcError, WorkdirError
from mlc_jax.journal import Journal
from mlc_jax.settings import cache_folder, resolve
from mlc_jax.stages import compare, evaluate, impute, multilabel
from mlc_jax.training.feeds import choose_backbone

SCENES, FRAMES, BURST = 30, 3, 20
JOBS: dict[str, tuple[Any, Callable[[ConfigDict, Path], dict[str, Any]]]] = {
    "impute": (impute_config, impute.run),
    "multilabel": (multilabel_config, multilabel.run),
    "compare": (compare_config, compare.run),
}


def draw_scene(rng: np.random.Generator) -> Image.Image:
    picture = Image.new("RGB", (96, 96), tuple(rng.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y, r = (*rng.integers(0, 96, 2).tolist(), int(rng.integers(8, 40)))
        kind = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        kind((x - r, y - r, x + r, y + r), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return picture


@pytest.fixture(scope="module")
def scenes(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn scenes of three frames, and a burst of 20; labels are dealt to scenes at random."""
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for scene in range(SCENES + 1):
        picture = draw_scene(rng)
        labels = (rng.random(2) < 0.5).astype(int).tolist()
        for frame in range(BURST if scene == SCENES else FRAMES):
            name = f"scene{scene:02}_frame{frame:02}.png"
            noise = rng.normal(0, 0.7, (96, 96, 3)).round()
            pixels = np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name)
            rows.append([name, *labels])
    write(folder / "labels.csv", ["filename", "one", "two"], rows)
    return folder


def write(file: Path, header: list[str], rows: list[list[Any]]) -> Path:
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([header, *rows])
    return file


def configured(job: str, data: Path, **changes: Any) -> ConfigDict:
    config: ConfigDict = JOBS[job][0].get_config()
    keys = {
        "data.labels": str(data / "labels.csv"),
        "data.images": str(data / "images"),
        "data.image_size": (32, 32),
        "backbone.name": "mobilenet_v2",
        "backbone.weights": "random",
        "features.views": 0,
        "head.name": "linear",
        "epochs": 6,
        "folds": 3,
        "batch_size": 16,
    } | {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict(keys)
    return config


def rows_of(data: Path) -> list[list[Any]]:
    """The rows of its labels file: name, and two values."""
    return pd.read_csv(data / "labels.csv").to_numpy().tolist()


def turned(rows: list[list[Any]], names: set[str]) -> list[list[Any]]:
    """The rows with the values of some images turned into their opposite."""
    return [[n, *((1 - v if n in names else v) for v in values)] for n, *values in rows]


def scene_of(names: pd.Series) -> pd.Series:
    return names.str[:7]


def test_labels_dealt_to_scenes_are_not_learned_by_the_classifier(
    scenes: Path, tmp_path: Path
) -> None:
    """Without groups the same run finds what is not there."""
    found = {}
    for name, similarity in (("grouped", 0.9), ("alone", 2.0)):
        config = configured("multilabel", scenes, near_copies=similarity, epochs=12)
        found[name] = multilabel.run(config, tmp_path / name)
    split = json.loads((tmp_path / "grouped" / "split.json").read_text())
    test = {name[:7] for name in split["test"]}
    assert sum(name[:7] in test for name, *_ in rows_of(scenes)) == len(split["test"])
    assert len(split["test"]) + len(split["held_in"]) == SCENES * FRAMES + BURST
    data = found["grouped"]["data"]
    assert data["groups"]["count"] == SCENES + 1
    assert data["groups"]["largest"] == BURST
    assert any(f"one group holds {BURST} of 110 images" in w for w in found["grouped"]["warnings"])
    areas = {
        name: [record["metrics"]["roc_auc"] for record in summary["labels"].values()]
        for name, summary in found.items()
    }
    assert max(areas["alone"]) > 0.9
    assert max(areas["grouped"]) < 0.8
    assert any(record["learnable"] for record in found["alone"]["labels"].values())
    assert not any(record["learnable"] for record in found["grouped"]["labels"].values())


def test_labels_dealt_to_scenes_are_not_learned_by_the_heads(scenes: Path, tmp_path: Path) -> None:
    found = impute.run(configured("impute", scenes, impute__rounds=0), tmp_path)
    cells = pd.read_csv(tmp_path / "cells.csv")
    folds = cells.groupby(scene_of(cells["filename"]))["fold"].nunique()
    assert len(folds) == SCENES + 1
    assert (folds == 1).all()
    assert found["data"]["groups"]["count"] == SCENES + 1
    assert len(found["data"]["near_copies"]) == SCENES * FRAMES + BURST - (SCENES + 1)
    assert not any(record["learnable"] for record in found["labels"].values())


def test_what_compares_ways_to_learn_has_the_same_groups(scenes: Path, cache: Path) -> None:
    config = resolve(configured("compare", scenes), lambda _: None)
    journal = Journal()
    collection = open_collection(config, cache_folder(), journal)
    bench, groups = compare.open_bench(
        config, collection, choose_backbone(config, journal), journal
    )
    scene = scene_of(pd.Series(collection.images.filenames)).to_numpy()
    assert len(set(groups.of_image.tolist())) == SCENES + 1
    for split in bench.deal.splits:
        sides = [set(scene[rows]) for rows in (split.train, split.stop, split.predict)]
        assert sum(map(len, sides)) == len(set.union(*sides)) == SCENES + 1


def test_another_member_s_values_move_nothing_that_predicts_an_image(
    scenes: Path, tmp_path: Path
) -> None:
    """The values of a scene's other frames are turned, and its first one is predicted as before.

    By the recipe whose probabilities are those of the heads, before any calibration.
    """
    rows = rows_of(scenes)
    folds = [[name, int(name[5:7]) % 3] for name, *_ in rows]
    split = write(tmp_path / "split.csv", ["filename", "fold"], folds)
    others = {f"scene04_frame{frame:02}.png" for frame in range(1, FRAMES)}
    found = []
    for number, labels in enumerate((rows, turned(rows, others))):
        file = write(tmp_path / f"labels{number}.csv", ["filename", "one", "two"], labels)
        config = configured(
            "impute",
            scenes,
            data__split=str(split),
            data__labels=str(file),
            impute__method="notebook",
        )
        impute.run(config, tmp_path / str(number))
        cells = pd.read_csv(tmp_path / str(number) / "cells.csv").set_index("filename")
        found.append(cells["probability"])
    own = found[0].index.str.startswith("scene04")
    assert own.sum() == 2 * FRAMES
    np.testing.assert_array_equal(found[0][own], found[1][own])
    elsewhere = found[0].index.str.startswith("scene05")
    assert (found[0][elsewhere] != found[1][elsewhere]).all()


def given_files(data: Path, folder: Path) -> tuple[Path, Path]:
    """Groups of two scenes each, and a split that keeps them whole."""
    names = [name for name, *_ in rows_of(data)]
    parts = ("train", "train", "train", "val", "test")
    return (
        write(folder / "g.csv", ["filename", "g"], [[n, int(n[5:7]) // 2] for n in names]),
        write(
            folder / "s.csv", ["filename", "s"], [[n, parts[int(n[5:7]) // 2 % 5]] for n in names]
        ),
    )


@pytest.fixture(scope="module")
def classifier(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A classifier trained with given groups and a given split: its folder, and that of these."""
    folder = tmp_path_factory.mktemp("classifier")
    groups, split = given_files(scenes, folder)
    config = configured("multilabel", scenes, data__split=str(split), data__groups=str(groups))
    return folder, multilabel.run(config, folder / "run")


def test_a_given_split_is_used_by_the_classifier_as_it_is(
    classifier: tuple[Path, Any], scenes: Path, tmp_path: Path
) -> None:
    folder, summary = classifier
    groups, split = folder / "g.csv", folder / "s.csv"
    given = pd.read_csv(split).set_index("filename")["s"]
    held_out = json.loads((folder / "run" / "split.json").read_text())["test"]
    assert set(held_out) == set(given.index[given == "test"])
    assert summary["data"]["given_split"]["images"] == given.value_counts().to_dict()
    assert summary["data"]["given_groups"]["groups"] == 16
    assert summary["data"]["groups"]["count"] == 16
    assert summary["data"]["left_out_of_split"] == []
    inputs = json.loads((folder / "run" / "run.json").read_text())
    assert {"groups", "split"} <= inputs.keys()
    # What people say of test images decides nothing about what is said of them.
    config = configured("multilabel", scenes, data__split=str(split), data__groups=str(groups))
    labels = turned(rows_of(scenes), set(held_out[::2]))
    config.data.labels = str(write(tmp_path / "l.csv", ["filename", "one", "two"], labels))
    multilabel.run(config, tmp_path / "turned")
    scores = [pd.read_csv(run / "scores.csv") for run in (folder / "run", tmp_path / "turned")]
    assert (scores[0]["value"] != scores[1]["value"]).sum() == 2 * len(held_out[::2])
    np.testing.assert_array_equal(scores[0]["probability"], scores[1]["probability"])
    # Another grouping is another run.
    config.data.labels = str(scenes / "labels.csv")
    config.data.groups = str(tmp_path / "other.csv")
    moved = "scene03_frame00.png,"
    (tmp_path / "other.csv").write_text(groups.read_text().replace(f"{moved}1", f"{moved}0"))
    with pytest.raises(WorkdirError, match="groups"):
        multilabel.run(config, folder / "run")


def test_evaluation_repeats_the_figures_of_groups(
    classifier: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, summary = classifier
    config = evaluate_config.get_config()
    config.checkpoint = str(folder / "run")
    again = evaluate.run(config, tmp_path)
    for name in ("macro_roc_auc", "brier", "micro_f1"):
        assert again["test"][name] == pytest.approx(summary["test"][name], abs=1e-6)


def test_evaluation_leaves_out_what_goes_with_what_was_learned_from(
    classifier: tuple[Path, Any], scenes: Path, tmp_path: Path
) -> None:
    """Copies of training images, the same saved again, and others of their groups, by name."""
    folder, _ = classifier
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(9)
    rows: list[list[Any]] = []
    groups: list[list[Any]] = []

    def add(name: str, picture: Image.Image, group: str, **how: Any) -> None:
        picture.save(tmp_path / "images" / name, **how)
        rows.append([name, *(len(rows) // k % 2 for k in (1, 2))])
        groups.append([name, group])

    for scene in ("00", "02", "30"):  # of train
        learned_from = Image.open(scenes / "images" / f"scene{scene}_frame00.png")
        add(f"copy{scene}.png", learned_from, "")
        add(f"saved{scene}.jpg", learned_from, "", quality=100, subsampling=0)
    held_out = Image.open(scenes / "images" / "scene08_frame00.png")
    add("tested.jpg", held_out, "", quality=100, subsampling=0)
    for number in range(8):
        add(f"new{number}.png", draw_scene(rng), "1" if number == 3 else f"new{number}")
    write(tmp_path / "labels.csv", ["filename", "one", "two"], rows)
    config = evaluate_config.get_config()
    config.checkpoint = str(folder / "run")
    config.data.labels, config.data.images = str(tmp_path / "labels.csv"), str(tmp_path / "images")
    config.data.groups = str(write(tmp_path / "g.csv", ["filename", "g"], groups))
    found = evaluate.run(config, tmp_path / "evaluated")
    assert found["data"]["seen_as"] == {
        "exact": ["copy00.png", "copy02.png", "copy30.png"],
        "group": ["new3.png"],
        "near": ["saved00.jpg", "saved02.jpg", "saved30.jpg"],
    }
    assert found["data"]["judged"] == 8
    # The file of features is one that the run vouches for.
    run = shutil.copytree(folder / "run", tmp_path / "run")
    (run / "held_in.npz").write_bytes(b"PK")
    config.checkpoint = str(run)
    with pytest.raises(CheckpointError, match=r"held_in\.npz is missing or damaged"):
        evaluate.run(config, tmp_path / "again")


def test_the_parts_of_a_given_split_are_folds_of_impute_and_go_with_its_table(
    scenes: Path, tmp_path: Path
) -> None:
    groups, split = given_files(scenes, tmp_path)
    config = configured("impute", scenes, data__split=str(split), data__groups=str(groups))
    config.impute.rounds = 0
    impute.run(config, tmp_path / "run")
    cells = pd.read_csv(tmp_path / "run" / "cells.csv")
    part = cells["filename"].map(pd.read_csv(split).set_index("filename")["s"])
    assert set(cells["fold"][part == "val"]) == {0}
    assert set(cells["fold"][part == "train"]) == {1, 2}
    assert set(cells["fold"][part == "test"]) == {3}
    # The completed table brings both along.
    config = configured("multilabel", scenes, data__labels=str(tmp_path / "run" / "labels.csv"))
    summary = multilabel.run(config, tmp_path / "next")
    assert summary["data"]["given_groups"]["groups"] == 16
    assert summary["data"]["test"] == int((part == "test").sum() / 2)


@pytest.mark.parametrize("job", JOBS)
def test_groups_that_contradict_the_split_are_refused_before_an_image_is_read(
    job: str, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups, split = given_files(scenes, tmp_path)
    split.write_text(
        split.read_text().replace("scene03_frame01.png,train", "scene03_frame01.png,test")
    )

    def never(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("mlc_jax.data.collection.prepare_images", never)
    config = configured(job, scenes, data__split=str(split), data__groups=str(groups))
    torn = r"group '1': .*scene03_frame01\.png \(row \d+\) in test"
    with pytest.raises(LabelsError, match=torn):
        JOBS[job][1](config, tmp_path / "run")


@pytest.mark.parametrize("job", JOBS)
def test_groups_too_large_for_folds_are_refused_with_a_remedy(
    job: str, scenes: Path, tmp_path: Path
) -> None:
    names = [name for name, *_ in rows_of(scenes)]
    file = write(tmp_path / "g.csv", ["filename", "g"], [[n, int(n[5:7]) > 20] for n in names])
    config = configured(job, scenes, data__groups=str(file))
    with pytest.raises(MlcError, match=r"the 2 groups that the 110 images form"):
        JOBS[job][1](config, tmp_path / "run")


def test_columns_of_the_labels_file_give_groups_and_split(scenes: Path, tmp_path: Path) -> None:
    rows = [
        [name, f"P{int(name[5:7]) // 2}", one, two, "test" if int(name[5:7]) < 8 else "train"]
        for name, one, two in rows_of(scenes)
    ]
    header = ["filename", "patient", "one", "two", "part"]
    file = write(tmp_path / "labels.csv", header, rows)
    keys = {"data.groups": "patient", "data.split": "part", "data.labels": str(file)}
    config = configured("impute", scenes, **keys)
    collection = open_collection(resolve(config, lambda _: None), cache_folder(), Journal())
    assert collection.table.names == ("one", "two")
    assert collection.groups is not None
    assert collection.groups.values == tuple(row[1] for row in rows)
    assert collection.split is not None
    assert collection.split.values == tuple(row[-1] for row in rows)
    # From Python the same keys say the same.
    rows[3][-1] = "train"
    write(file, header, rows)
    with pytest.raises(LabelsError, match=r"group 'P0'"):
        mlc_jax.impute(
            scenes / "images", file, tmp_path / "run", data__groups="patient", data__split="part"
        )
