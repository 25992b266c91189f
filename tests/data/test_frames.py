"""Frames: what is made of a completed table counts as filled, however pandas was used on it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlc_jax.data import frames
from mlc_jax.data.cells import write_cells
from mlc_jax.data.frames import completed_frame, labels_text
from mlc_jax.data.labels import write_labels
from mlc_jax.data.table import LabelTable
from mlc_jax.errors import LabelsError

NAMES = ("sea", "sky")
VALUES = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], np.int8)
FILLED = np.array([[0, 1], [0, 0], [1, 0], [0, 1]], np.bool_)


@pytest.fixture
def completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """A completed table of four images and two labels; three cells were filled by a model."""
    monkeypatch.setattr(frames, "_given_out", set())
    filenames = tuple(f"{letter}.jpg" for letter in "abcd")
    source = np.where(FILLED, 2, 1).astype(np.uint8)
    table = LabelTable(filenames, NAMES, VALUES, source, np.arange(2, 6))
    write_labels(tmp_path / "labels.csv", table)
    cells = pd.DataFrame(
        {
            "filename": np.repeat(filenames, 2),
            "label": np.tile(NAMES, 4),
            "value": VALUES.ravel(),
            "source": np.where(FILLED.ravel(), "imputed", "observed"),
            "probability": 0.5,
            "threshold": 0.5,
            "accepted": True,
            "fold": 0,
            "model": "m",
        }
    )
    write_cells(tmp_path / "cells.csv", cells)
    return completed_frame(tmp_path / "labels.csv")


def given(completed: pd.DataFrame) -> pd.DataFrame:
    """What people gave."""
    return completed.astype(object).mask(FILLED)


MORE = pd.DataFrame({"sea": [1, np.nan], "sky": [0, 0]}, index=["x.jpg", "y.jpg"])


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame,
        lambda frame: frame.copy(),
        lambda frame: pd.concat([frame, MORE]),
        lambda frame: pd.concat([MORE, frame]),
        lambda frame: frame.join(pd.DataFrame(index=frame.index)),
        lambda frame: pd.DataFrame(frame),
        lambda frame: pd.DataFrame(frame.to_dict()),
        lambda frame: frame.reset_index(),
        lambda frame: frame.astype(float),
        lambda frame: frame[["sky"]],
        lambda frame: frame.head(1),
        lambda frame: given(frame).fillna(frame),
        lambda frame: given(frame).combine_first(frame),
    ],
    ids=range(13),
)
def test_filled_cells_are_recognised(
    completed: pd.DataFrame, change: Callable[[pd.DataFrame], pd.DataFrame], tmp_path: Path
) -> None:
    with pytest.raises(LabelsError, match="a model filled") as caught:
        labels_text(change(completed))
    assert str(tmp_path / "labels.csv") in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: MORE,
        given,
        lambda frame: given(frame).fillna(1 - frame),  # a person's own answers, others
        lambda frame: frame.iloc[[1]],  # nothing in it was filled
    ],
    ids=["others", "given", "answers", "observed"],
)
def test_what_people_gave_is_taken(
    completed: pd.DataFrame, change: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    assert labels_text(change(completed)).startswith("filename,")


def test_frames_of_other_libraries_are_labels_too() -> None:
    """Arrow's, as polars' come through the same interface."""
    table = pa.table({"filename": ["x.jpg", "y.jpg"], "sea": [1, None], "sky": [True, False]})
    assert labels_text(table) == "filename,sea,sky\nx.jpg,1,1\ny.jpg,,0\n"
    with pytest.raises(LabelsError, match="dict is no frame; give a path"):
        labels_text({"filename": ["x.jpg"]})
