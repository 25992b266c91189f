"""The Python face: its docstring runs, and it says what the commands say."""

import doctest
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import mlc_jax as mlc
from configs import predict as predict_config
from mlc_jax import api
from mlc_jax.data.frames import labels_text
from mlc_jax.data.images import decode_image
from mlc_jax.data.labels import read_labels
from mlc_jax.data.pixels import resize_image
from mlc_jax.errors import (
    CheckpointError,
    ConfigError,
    ImageError,
    LabelsError,
    MlcError,
    WorkdirError,
)
from mlc_jax.stages import predict
from tests.stages.conftest import Trained

# What the fixtures `configure` and `finished` run with.
QUICK: dict[str, Any] = {
    "data__image_size": (32, 32),
    "backbone__name": "mobilenet_v2",
    "backbone__weights": "random",
    "features__views": 1,
    "head__name": "linear",
    "epochs": 4,
    "folds": 3,
    "batch_size": 16,
}


@pytest.fixture(scope="module")
def model(trained: Trained) -> mlc.Model:
    return mlc.load(trained.workdir)


@pytest.fixture(scope="module")
def frame(drawn: Path) -> pd.DataFrame:
    return pd.read_csv(drawn / "set" / "labels.csv")


def assert_same_values(made: pd.DataFrame, expected: pd.DataFrame) -> None:
    """By their places, whatever the rows are called."""
    pairs = (frame.to_numpy(np.float64) for frame in (made, expected))
    np.testing.assert_allclose(*pairs, rtol=0, atol=1e-6)


def test_the_docstring_is_true(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLC_JAX_CACHE", str(cache))
    failed, attempted = doctest.testmod(api)
    assert attempted > 10
    assert not failed


def test_the_package_gives_its_names_and_no_other() -> None:
    assert set(mlc.__all__) <= set(dir(mlc))
    assert mlc.impute is api.impute
    with pytest.raises(AttributeError, match="nothing"):
        mlc.nothing  # noqa: B018


def test_a_frame_gives_the_bytes_that_its_file_gives(
    finished: tuple[Path, dict[str, Any]], drawn: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    images = drawn / "set" / "images"
    run = mlc.impute(images, frame.set_index("filename"), tmp_path, **QUICK)
    for name in ("labels.csv", "cells.csv", "thresholds.json", "suspects.csv", "metrics.jsonl"):
        assert (tmp_path / name).read_bytes() == (finished[0] / name).read_bytes(), name

    given = frame.set_index("filename").loc[run.labels.index]
    assert run.labels.notna().all().all()
    assert (run.labels == given).where(given.notna(), True).all().all()
    filled = (run.cells["source"] == "imputed").sum()
    assert filled == given.isna().sum().sum() > 0
    assert run.report.is_file()
    assert run.summary["command"].startswith("mlc_jax.impute(")
    assert run.summary["labels"].keys() == set(given.columns)

    # The same call finds the run finished, though cells.csv lies in the workdir by now.
    again = mlc.impute(images, frame, tmp_path, **QUICK)
    assert again.summary == run.summary
    other = frame.copy()
    other.iloc[0, 1] = 1 - other.iloc[:, 1].dropna().iloc[0]
    other.iloc[1, 1] = np.nan
    before = (tmp_path / "given" / "labels.csv").read_bytes()
    with pytest.raises(WorkdirError, match="other labels"):
        mlc.impute(images, other, tmp_path, **QUICK)
    assert (tmp_path / "given" / "labels.csv").read_bytes() == before
    with pytest.raises(LabelsError, match="filled"):
        mlc.fit(images, run.labels, tmp_path / "model", **QUICK)


def test_predictions_are_those_of_the_job(
    model: mlc.Model, trained: Trained, tmp_path: Path
) -> None:
    config = predict_config.get_config()
    config.checkpoint, config.data.images = str(trained.workdir), str(trained.images)
    predict.run(config, tmp_path)
    text = (tmp_path / "predictions.csv").read_text()
    made = model.predict(trained.images)
    assert made.to_csv(float_format="%.9g") == text

    names = list(made.index[:3])
    listed = model.predict([trained.images / name for name in names])
    assert list(listed.index) == [str(trained.images / name) for name in names]
    assert_same_values(listed, made.loc[names])
    single = model.predict(str(trained.images / names[1]))
    pd.testing.assert_frame_equal(single, made.loc[names[1:2]], rtol=0, atol=1e-6)


def test_pixels_get_what_their_files_get(model: mlc.Model, trained: Trained) -> None:
    files = sorted(trained.images.iterdir())[:4]
    expected = model.predict(files)
    pictures = [decode_image(file) for file in files]
    whole = model.predict(pictures[2])
    assert_same_values(whole, expected[2:3])
    many = model.predict(np.stack([resize_image(picture, (32, 32)) for picture in pictures]))
    assert_same_values(many, expected)
    assert many.index.tolist() == [0, 1, 2, 3]
    assert (many.index.name, expected.index.name) == ("number", "filename")


def test_a_link_that_is_named_is_followed(
    model: mlc.Model, trained: Trained, tmp_path: Path
) -> None:
    one, two = sorted(trained.images.iterdir())[:2]
    (tmp_path / "link.jpg").symlink_to(one)
    made = model.predict([tmp_path / "link.jpg", two])
    assert_same_values(made, model.predict([one, two]))


def test_a_program_that_computes_in_64_bits_gets_the_same(trained: Trained) -> None:
    """States, features and programs of a run are of 32 bits, whatever the caller has set."""
    some = sorted(trained.images.iterdir())[:2]
    expected = mlc.load(trained.workdir).predict(some)
    with jax.enable_x64(True):
        made = mlc.load(trained.workdir).predict(some)
        assert jax.config.jax_enable_x64
    assert_same_values(made, expected)


def test_an_image_that_cannot_be_used_is_an_empty_row_and_a_warning(
    model: mlc.Model, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = sorted(trained.images.iterdir())[0]
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    absent = tmp_path / "absent.jpg"
    made = model.predict([tmp_path / "bad.jpg", good, absent])
    assert made.isna().all(axis=1).tolist() == [True, False, True]
    assert made.notna().all(axis=1).tolist() == [False, True, False]
    said = capsys.readouterr().out
    assert "2 of 3 images cannot be used" in said
    assert "'bad.jpg' (not_an_image), 'absent.jpg' (absent)" in said
    with pytest.raises(ImageError, match="1 of 1 images cannot be used"):
        model.predict(tmp_path / "bad.jpg")


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8), np.uint8),
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros((8, 0, 3), np.uint8),
    ],
    ids=lambda pixels: f"{pixels.dtype}{pixels.shape}",
)
def test_pixels_that_are_no_image_are_refused(model: mlc.Model, pixels: np.ndarray) -> None:
    with pytest.raises(ImageError, match="array"):
        model.predict(pixels)


def test_nothing_to_predict_is_refused(model: mlc.Model, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for nothing in (tmp_path / "empty", [], np.zeros((0, 8, 8, 3), np.uint8), tmp_path / "absent"):
        with pytest.raises(ConfigError):
            model.predict(nothing)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"head__nme": "linear"}, "head.nme"),
        ({"nothing__x": 1}, "nothing.x"),
        ({"head": "linear"}, "no key 'head'"),
        ({"stage": "predict"}, "no key 'stage'"),
        ({"dry_run": True}, "no key 'dry_run'"),
        ({"epochs": "many"}, "epochs='many'"),
        ({"epochs": 2.5}, "epochs=2.5"),
        ({"data__labels": "x.csv"}, "leave it out"),
        ({"data.labels": "x.csv"}, "leave it out"),
        ({"folds": 2}, "config.folds=2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_a_key_that_cannot_be_used_is_named(
    keys: dict[str, Any], said: str, drawn: Path, tmp_path: Path
) -> None:
    images, labels = drawn / "set" / "images", drawn / "set" / "labels.csv"
    with pytest.raises(ConfigError) as caught:
        mlc.impute(images, labels, tmp_path / "run", **keys)
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_labels_that_cannot_be_used_are_named(
    drawn: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    images = drawn / "set" / "images"
    numbered = frame.drop(columns="filename")
    with pytest.raises(LabelsError, match="no file names"):
        mlc.impute(images, numbered, tmp_path / "a", **QUICK)
    with pytest.raises(LabelsError, match=r"row 4, column 3 \('collar'\): 'maybe' is not a label"):
        mlc.impute(images, with_cell(frame, 2, "collar", "maybe"), tmp_path / "b", **QUICK)
    with pytest.raises(LabelsError, match=r"'2.0' is not a label"):
        mlc.impute(images, with_cell(frame, 2, "collar", 2.0), tmp_path / "b", **QUICK)
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="choose another"):
        mlc.impute(images, frame, tmp_path / "file", **QUICK)
    with pytest.raises(CheckpointError):
        mlc.load(tmp_path)


def with_cell(frame: pd.DataFrame, row: int, label: str, value: Any) -> pd.DataFrame:
    changed = frame.astype(object)
    changed.loc[row, label] = value
    return changed


def test_every_way_of_writing_a_label_in_a_frame_is_understood(tmp_path: Path) -> None:
    """Ints, floats, booleans, texts, nullable types and categories; commas and quotes in names."""
    one, zero, blank = [1, 1.0, True, np.int8(1), "1"], [0, 0.0, False, np.bool_(0), "0"], [None]
    cells = [*one, *zero, *blank, float("nan"), pd.NA, pd.NaT, ""]
    files = [f'a "{n}", b.jpg' for n in range(len(cells))]
    made = pd.DataFrame({"filename": files, "x, y": cells, "z": 1})
    made["nullable"] = pd.array([True, False, None] * 5, "boolean")
    made["category"] = pd.Categorical(["1", "0", None] * 5)
    (tmp_path / "labels.csv").write_text(labels_text(made))
    table = read_labels(tmp_path / "labels.csv").table
    assert table.filenames == tuple(files)
    assert table.names == ("x, y", "z", "nullable", "category")
    assert table.values[:, 0].tolist() == [1] * 5 + [0] * 5 + [-1] * 5
    assert table.values[:, 2].tolist() == table.values[:, 3].tolist() == [1, 0, -1] * 5


def test_every_error_is_one_of_ours_and_one_line(model: mlc.Model, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for asked in (tmp_path / "no\nfolder", [tmp_path / "x\ny.jpg"]):
        with pytest.raises(MlcError) as caught:
            model.predict(asked)
        assert "\n" not in str(caught.value)
