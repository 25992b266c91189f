"""Predictions are those of the training run, for any way of naming files, in constant memory."""

import json
import os
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs.predict import get_config
from mlc_jax.errors import ConfigError, WorkdirError
from mlc_jax.stages import predict
from tests.memory import many_links
from tests.stages.conftest import Trained


def configured(trained: Trained, images: Path, **changes: Any) -> ConfigDict:
    config = get_config()
    keys = {"checkpoint": str(trained.workdir), "data.images": str(images)}
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict(keys | changed)
    return config


def predictions(workdir: Path) -> pd.DataFrame:
    return pd.read_csv(workdir / "predictions.csv", keep_default_na=False).set_index("filename")


def left_out(workdir: Path) -> dict[str, str]:
    return dict(pd.read_csv(workdir / "quarantine.csv")[["filename", "reason"]].to_numpy())


@pytest.fixture(scope="session")
def everything(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a prediction of all images that the classifier was trained and tested on."""
    workdir = tmp_path_factory.mktemp("everything") / "run"
    predict.run(configured(trained, trained.images), workdir)
    return workdir


@pytest.fixture
def few(trained: Trained, tmp_path: Path) -> Path:
    """A folder with five of the images in it."""
    folder = tmp_path / "few"
    folder.mkdir()
    for file in sorted(trained.images.iterdir())[:5]:
        shutil.copy(file, folder)
    return folder


def test_a_test_image_gets_the_probability_that_training_gave_it(
    trained: Trained, everything: Path
) -> None:
    scores = pd.read_csv(trained.workdir / "scores.csv")
    test = scores[scores["split"] == "test"]
    assert len(test) > 50
    made = predictions(everything)
    own = [made.loc[row.filename, f"{row.label}_probability"] for row in test.itertuples()]
    np.testing.assert_allclose(own, test["probability"], rtol=0, atol=1e-6)
    given = [made.loc[row.filename, row.label] for row in test.itertuples()]
    assert (np.array(given) == (test["probability"] > test["threshold"])).all()


def test_every_label_has_its_columns_and_every_image_its_row(
    trained: Trained, everything: Path
) -> None:
    names = list(json.loads((trained.workdir / "thresholds.json").read_text()))
    made = predictions(everything)
    assert list(made.columns) == [c for name in names for c in (f"{name}_probability", name)]
    assert list(made.index) == sorted(file.name for file in trained.images.iterdir())
    summary = json.loads((everything / "summary.json").read_text())
    assert (summary["finished"], summary["stage"]) == (True, "predict")
    assert summary["data"]["predicted"] == len(made)
    for name in names:
        assert summary["labels"][name]["given"] == made[name].sum()
        mean = made[f"{name}_probability"].mean()
        assert summary["labels"][name]["mean_probability"] == pytest.approx(mean)


def test_folder_list_and_single_file_agree(
    trained: Trained, everything: Path, few: Path, tmp_path: Path
) -> None:
    names = sorted(file.name for file in few.iterdir())
    (few / "list.txt").write_text("\n".join(["", *names[:3], ""]))
    (tmp_path / "list.csv").write_text(
        "filename,kept\n" + "".join(f'"{name}",1\n' for name in names)
    )
    whole = predictions(everything)
    asked = {
        "folder": (few, "", names),
        "list": (few / "list.txt", "", names[:3]),
        "rooted": (tmp_path / "list.csv", str(few), names),
        "single": (few / names[1], "", names[1:2]),
    }
    for how, (images, root, expected) in asked.items():
        summary = predict.run(configured(trained, images, data__root=root), tmp_path / how)
        made = predictions(tmp_path / how)
        assert list(made.index) == expected, how
        np.testing.assert_allclose(made, whole.loc[expected], rtol=0, atol=1e-6)
        assert summary["data"]["left_out"] == 0
        assert summary["data"]["passed_over"] == (how == "folder")


def test_folders_in_the_folder_are_walked_in_order(
    trained: Trained, few: Path, tmp_path: Path
) -> None:
    one, two, *_ = sorted(few.iterdir())
    (few / "b" / "with space").mkdir(parents=True)
    shutil.move(one, few / "b" / "with space" / "Größe, 1 ÄÖ.JPG")
    shutil.move(two, few / "a.jpg")
    predict.run(configured(trained, few, annotate=True), tmp_path / "run")
    made = list(predictions(tmp_path / "run").index)
    assert made[:2] == ["a.jpg", "b/with space/Größe, 1 ÄÖ.JPG"]
    assert made[2:] == sorted(made[2:])
    assert len(made) == 5
    for name in made:
        assert (tmp_path / "run" / "annotated" / name).is_file()


def test_what_cannot_be_read_is_listed_and_stops_nothing(
    trained: Trained, few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = sorted(few.iterdir())[0].read_bytes()
    (few / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (few / "empty.png").write_bytes(b"")
    (few / "page.jpg").write_text("<html></html>")
    os.mkfifo(few / "pipe.jpg")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.jpg").write_bytes(whole)
    (few / "link.jpg").symlink_to(tmp_path / "outside" / "secret.jpg")
    (few / "linked").symlink_to(tmp_path / "outside")
    (few / "loop").symlink_to(few)
    Path(os.fsdecode(os.fsencode(few) + b"/\xff.jpg")).write_bytes(whole)
    (few / "notes.md").write_text("no image")
    summary = predict.run(configured(trained, few), tmp_path / "run")
    assert left_out(tmp_path / "run") == {
        "cut.jpg": "truncated",
        "empty.png": "empty",
        "page.jpg": "not_an_image",
        "pipe.jpg": "not_a_file",
        "link.jpg": "outside_root",
        "linked": "outside_root",
        "loop": "not_a_file",
        "\\udcff.jpg": "unsafe_path",
    }
    assert len(predictions(tmp_path / "run")) == summary["data"]["predicted"] == 5
    assert summary["data"]["left_out"] == 8
    assert summary["data"]["passed_over"] == 1
    said = capsys.readouterr().out
    assert "8 of 13 images cannot be read: 'cut.jpg' (truncated)" in said


def test_only_the_first_ten_are_said(
    trained: Trained, few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(14):
        (few / f"broken_{number:02}.jpg").write_bytes(b"no picture")
    predict.run(configured(trained, few), tmp_path / "run")
    said = capsys.readouterr().out
    assert "broken_09.jpg" in said
    assert "broken_10.jpg" not in said
    assert "and 4 more" in said
    assert len(left_out(tmp_path / "run")) == 14


def test_a_list_leads_nowhere_else(trained: Trained, few: Path, tmp_path: Path) -> None:
    name = sorted(few.iterdir())[0].name
    shutil.copy(few / name, tmp_path / "outside.jpg")
    lines = [name, "../outside.jpg", str(tmp_path / "outside.jpg"), "absent.jpg"]
    (few / "list.txt").write_text("\n".join(lines))
    predict.run(configured(trained, few / "list.txt"), tmp_path / "run")
    assert list(predictions(tmp_path / "run").index) == [name]
    assert list(left_out(tmp_path / "run").values()) == ["unsafe_path", "unsafe_path", "absent"]


def test_nothing_to_read_is_an_error(trained: Trained, few: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.data\.images='.*' does not exist"):
        predict.run(configured(trained, few / "no"), tmp_path / "run")
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match=r"no image that can be read .*0 cannot"):
        predict.run(configured(trained, tmp_path / "none"), tmp_path / "run")
    (tmp_path / "none" / "x.jpg").write_text("no picture")
    with pytest.raises(ConfigError, match=r"no image that can be read .*1 cannot"):
        predict.run(configured(trained, tmp_path / "none"), tmp_path / "run")
    assert left_out(tmp_path / "run") == {"x.jpg": "not_an_image"}


def test_a_second_prediction_replaces_the_first(
    trained: Trained, few: Path, tmp_path: Path
) -> None:
    predict.run(configured(trained, few, annotate=True), tmp_path / "run")
    gone = sorted(few.iterdir())[0]
    gone.unlink()
    predict.run(configured(trained, few, annotate=True), tmp_path / "run")
    left = sorted(file.name for file in few.iterdir())
    assert list(predictions(tmp_path / "run").index) == left
    assert sorted(f.name for f in (tmp_path / "run" / "annotated").iterdir()) == left


def test_nothing_of_anybody_else_is_replaced(trained: Trained, few: Path, tmp_path: Path) -> None:
    before = (trained.workdir / "summary.json").read_bytes()
    with pytest.raises(WorkdirError, match="holds a run of stage 'multilabel'"):
        predict.run(configured(trained, few), trained.workdir)
    assert (trained.workdir / "summary.json").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "predictions.csv").write_text("mine")
    with pytest.raises(WorkdirError, match=r"holds predictions\.csv"):
        predict.run(configured(trained, few), tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"lies in config\.data\.images"):
        predict.run(configured(trained, few), few / "run")


def test_annotated_pictures_keep_name_and_size_and_bear_writing(
    trained: Trained, few: Path, tmp_path: Path
) -> None:
    source = sorted(few.iterdir())[0]
    with Image.open(source) as image:
        wide = image.resize((500, 300))
        wide.save(few / "wide.png")
        wide.save(few / "wide.webp")
        image.resize((90, 70)).save(few / "small.png")
        turned = Image.Exif()
        turned[0x0112] = 6
        wide.save(few / "turned.jpg", exif=turned)
    predict.run(configured(trained, few, annotate=True), tmp_path / "run")
    annotated = tmp_path / "run" / "annotated"
    sizes = {"wide.png": (500, 300), "wide.webp.png": (500, 300), "turned.jpg": (300, 500)}
    for name, size in (sizes | {"small.png": (90, 70)}).items():
        with Image.open(annotated / name) as image:
            assert image.size == size
            assert image.format == ("JPEG" if name.endswith("jpg") else "PNG")
    before, after = (
        np.asarray(Image.open(folder / "wide.png").convert("RGB"), np.int16)
        for folder in (few, annotated)
    )
    changed = np.abs(before - after).max(axis=2) > 0
    rows, columns = np.nonzero(changed)
    assert rows.min() == columns.min() == 0
    assert 0.02 < changed.mean() < 0.5
    assert (after[changed] == 255).all(axis=1).sum() > 50
    assert len(list(annotated.iterdir())) == len(list(few.iterdir()))


def test_last_and_best_are_two_classifiers(
    trained: Trained, few: Path, everything: Path, tmp_path: Path
) -> None:
    summary = json.loads((trained.workdir / "summary.json").read_text())
    predict.run(configured(trained, few, checkpoint_kind="last"), tmp_path / "last")
    last = predictions(tmp_path / "last")
    same = np.allclose(last, predictions(everything).loc[last.index], atol=1e-9)
    assert summary["best_epoch"] < 2, "the fixture's last epoch is its best: nothing to compare"
    assert not same
    with pytest.raises(ConfigError, match=r"config\.checkpoint_kind='first'"):
        predict.run(configured(trained, few, checkpoint_kind="first"), tmp_path / "first")


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_any_batch_size_gives_the_same(
    trained: Trained, few: Path, everything: Path, tmp_path: Path, batch_size: int
) -> None:
    predict.run(configured(trained, few, batch_size=batch_size), tmp_path / "run")
    made = predictions(tmp_path / "run")
    # Features are rounded to float16, and sums in another order may be rounded elsewhere.
    np.testing.assert_allclose(made, predictions(everything).loc[made.index], rtol=0, atol=2e-3)


def test_ten_times_the_images_take_the_same_memory(
    trained: Trained, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Image.open(sorted(few.iterdir())[0]) as image:
        image.resize((64, 64)).save(tmp_path / "source.png")
    held: list[int] = []
    write_batch = predict.write_batch

    def watched(*arguments: Any) -> Any:
        held.append(tracemalloc.get_traced_memory()[0])
        return write_batch(*arguments)

    def held_by(count: int, name: str) -> int:
        images = many_links(tmp_path / "source.png", tmp_path / name, count)
        held.clear()
        tracemalloc.start()
        try:
            predict.run(configured(trained, images, batch_size=8), tmp_path / "runs" / name)
        finally:
            tracemalloc.stop()
        # The least of several looks, since files that are read ahead come and go.
        return min(held[-4:])

    monkeypatch.setattr(predict, "write_batch", watched)
    held_by(40, "first")
    # 360 more images in the size that the classifier sees would be 1.1 MB.
    assert abs(held_by(400, "more") - held_by(40, "less")) < 300_000
