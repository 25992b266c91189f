"""Convert: what it writes, what it refuses, and the way back."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mlc_jax as mlc
from configs import convert as convert_config
from mlc_jax.data.labels import read_labels
from mlc_jax.data.table import MISSING
from mlc_jax.errors import ConfigError, LabelsError, WorkdirError
from mlc_jax.label_settings import ReadOptions
from mlc_jax.stages import convert

M = MISSING
LABELS = "image,split,sea,sky\na.JPG,train,1,0\nb.JPG,val,,1\nc.JPG,val,0,\n"
VALUES = [[1, 0], [M, 1], [0, M]]


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for letter in "abc":
        (tmp_path / "images" / f"{letter}.jpg").write_bytes(b"never opened")
    (tmp_path / "mine.csv").write_text(LABELS)
    return tmp_path / "mine.csv"


def converted(labels: Path, workdir: Path, *to: str, **keys: object) -> dict[str, object]:
    config = convert_config.get_config()
    config.data.labels, config.data.images = str(labels), str(labels.parent / "images")
    config.to = to
    for key, value in keys.items():
        config.data[key] = value
    return convert.run(config, workdir)


def test_it_writes_the_table_and_the_receipt(labels: Path, tmp_path: Path) -> None:
    summary = converted(labels, tmp_path / "out")
    assert (tmp_path / "out" / "labels.csv").read_text() == (
        "filename,sea,sky\na.jpg,1,0\nb.jpg,,1\nc.jpg,0,\n"
    )
    assert (tmp_path / "out" / "columns.csv").read_text() == (
        "filename,split\na.jpg,train\nb.jpg,val\nc.jpg,val\n"
    )
    receipt = json.loads((tmp_path / "out" / "receipt.json").read_text())
    assert receipt == summary["receipt"]
    assert receipt["labels"]["sea"] == {"ones": 1, "zeros": 1, "missing": 1}
    assert {"text": "", "read_as": "missing", "cells": 2} in receipt["texts"]
    assert receipt["matched"] == [3, 3]
    assert "match=stem" in receipt["match"]
    assert receipt["columns"]["split"].startswith("left out")


def test_what_it_writes_is_read_back(labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    converted(labels, out, "coco", "hugging_face", "label_studio", "fiftyone")
    for name in ("labels.csv", "coco.json", "metadata.jsonl"):
        file = read_labels(out / name)
        assert file.table.names == ("sea", "sky")
        assert file.table.values.tolist() == VALUES, name
    choices = {"a": {"sea", "not sky"}, "b": {"sky"}, "c": {"not sea"}}
    for name in ("label_studio.json", "labels.json"):
        table = read_labels(out / name, ReadOptions(absent="missing")).table
        held = {
            Path(filename).stem: {table.names[n] for n in np.flatnonzero(values == 1)}
            for filename, values in zip(table.filenames, table.values, strict=True)
        }
        assert held == choices, name


def test_what_cannot_be_read_is_refused_before_anything_is_written(
    labels: Path, tmp_path: Path
) -> None:
    labels.write_text("image,tags\na.jpg,sea\nb.jpg,sea sky\n")
    with pytest.raises(LabelsError, match=r"--config\.data\.absent=false"):
        converted(labels, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    converted(labels, tmp_path / "out", absent="false")
    with pytest.raises(ConfigError, match="expected some of coco, label_studio"):
        converted(labels, tmp_path / "out", "cocoa")


def test_another_job_s_workdir_is_left_alone(labels: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "labels.csv").write_text("mine")
    with pytest.raises(WorkdirError):
        converted(labels, tmp_path / "out")
    assert (tmp_path / "out" / "labels.csv").read_text() == "mine"


def test_the_frame_of_python(labels: Path) -> None:
    frame = mlc.read_labels(labels, images=labels.parent / "images")
    assert list(frame.index) == ["a.jpg", "b.jpg", "c.jpg"]
    assert frame.index.name == "filename"
    expected = pd.DataFrame(VALUES, frame.index, ["sea", "sky"], "Int8").replace(M, pd.NA)
    pd.testing.assert_frame_equal(frame, expected)
    assert frame.attrs["receipt"]["labels"]["sky"] == {"ones": 1, "zeros": 1, "missing": 1}
    with pytest.raises(ConfigError, match="there is no such key"):
        mlc.read_labels(labels, moon=1)
    kept = mlc.read_labels(labels, label_columns=("sky",))
    assert list(kept.columns) == ["sky"]
