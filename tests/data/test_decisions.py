"""Decisions: what is read, what is refused, and what they make of a table."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlc_jax.data.cells import COLUMNS, read_cells, with_cells, write_cells
from mlc_jax.data.decisions import (
    CHANGES,
    FORMAT,
    Decisions,
    read_decisions,
    with_decisions,
    write_changes,
)
from mlc_jax.data.labels import read_labels, write_labels
from mlc_jax.data.table import LabelTable, Source
from mlc_jax.errors import LabelsError

RUN = "ab12" * 16
NAMES = ("sea", "<b>sun</b>")
A_CELL = {"filename": "a.jpg", "label": "sea", "value": 1}


def saved(path: Path, *decisions: Any, **changes: Any) -> Path:
    content = {"format": FORMAT, "version": 1, "run": RUN, "decisions": decisions} | changes
    path.write_text(json.dumps(content))
    return path


def test_decisions_are_read_and_those_left_open_are_counted(tmp_path: Path) -> None:
    second, third = (
        A_CELL | {"label": NAMES[1], "value": 0},
        A_CELL | {"filename": "b", "value": None},
    )
    read = read_decisions(saved(tmp_path / "d.json", A_CELL, second, third), RUN, NAMES)
    assert read.values == {("a.jpg", "sea"): 1, ("a.jpg", NAMES[1]): 0}
    assert read.left_open == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run": "cd34" * 16}, "about another run .*config.checkpoint"),
        ({"run": None}, "about another run"),
        ({"version": 2}, "has version 2, this program reads 1"),
        ({"format": "other"}, "neither decisions"),
        ({"decisions": {"a": 1}}, "no list of decisions"),
        ({"decisions": []}, "decides no cell"),
        ({"decisions": [A_CELL | {"value": None}]}, "decides no cell"),
        ({"decisions": [A_CELL, A_CELL]}, "decision 2: cell 'a.jpg', 'sea' stands there twice"),
        ({"decisions": [{"filename": "a.jpg"}]}, "decision 1: expected filename, label and value"),
        ({"decisions": [A_CELL | {"label": 3}]}, "decision 1: filename and label are texts"),
        *(
            ({"decisions": [A_CELL | {"value": value}]}, "is not 0, 1 or null")
            for value in (2, -1, 1.0, True, "1", [1])
        ),
    ],
)
def test_what_is_no_decision_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(LabelsError, match=said) as error:
        read_decisions(saved(tmp_path / "d.json", A_CELL, **changes), RUN, NAMES)
    assert "d.json" in str(error.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe1", b"3", b"[" * 100_000, b'"x"'],
    ids=["empty", "cut", "utf-16", "number", "deep", "text"],
)
def test_what_is_no_file_of_ours_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.json").write_bytes(content)
    with pytest.raises(LabelsError, match=r"d\.json"):
        read_decisions(tmp_path / "d.json", RUN, NAMES)
    with pytest.raises(LabelsError, match=r"none\.json: No such file"):
        read_decisions(tmp_path / "none.json", RUN, NAMES)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["filename", "label", "value", "data", "run", "annotations", "result"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=50)
@given(anything)
def test_any_json_is_decisions_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, content: Any
) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzzed.json"
    for whole in (
        content,
        [content],
        [{"data": {"filename": "a", "run": RUN}, "annotations": content}],
        {"format": FORMAT, "version": 1, "run": RUN, "decisions": [content]},
    ):
        file.write_text(json.dumps(whole))
        with pytest.raises(LabelsError):
            read_decisions(file, RUN, NAMES)


def run_of(values: np.ndarray, source: np.ndarray) -> tuple[LabelTable, pd.DataFrame]:
    """A table and its cells."""
    filenames = tuple(f"{n}.jpg" for n in range(len(values)))
    table = LabelTable(filenames, NAMES, values, source, np.arange(2, 2 + len(values)))
    words = ["imputed", "observed", "imputed", "reviewed"]
    cells = pd.DataFrame(
        {
            "filename": np.repeat(filenames, 2),
            "label": np.tile(NAMES, len(values)),
            "value": values.ravel(),
            "source": [words[s] for s in source.ravel()],
            "probability": np.linspace(0, 1, values.size),
            "threshold": np.full(values.size, 0.4),
            "accepted": values.ravel() >= 0,
            "fold": np.repeat(np.arange(len(values)), 2),
            "model": [f"m{n}" for n in range(values.size)],
        }
    )
    return table, cells


@pytest.fixture
def run() -> tuple[LabelTable, pd.DataFrame]:
    """Observed 1 and 0; filled 1 and left blank; observed 0 and filled 0."""
    values = np.array([[1, 0], [1, -1], [0, 0]], np.int8)
    return run_of(values, np.array([[1, 1], [2, 0], [1, 2]], np.uint8))


def test_a_review_changes_the_decided_cells_and_no_other(
    run: tuple[LabelTable, pd.DataFrame], tmp_path: Path
) -> None:
    table, before = run
    decided = {("1.jpg", "sea"): 0, ("1.jpg", NAMES[1]): 1, ("0.jpg", "sea"): 0}
    after_table, after, changes = with_decisions(table, before, Decisions(decided, 0, ""))
    assert after_table.values.tolist() == [[0, 0], [0, 1], [0, 0]]
    assert after_table.source.tolist() == [[3, 1], [3, 3], [1, 2]]
    touched = np.array([True, False, True, True, False, False])
    assert (after["source"] == "reviewed").tolist() == touched.tolist()
    assert after.loc[touched, "accepted"].all()
    pd.testing.assert_frame_equal(after[~touched], before[~touched])
    kept = ["filename", "label", "probability", "threshold", "fold", "model"]
    pd.testing.assert_frame_equal(after[kept], before[kept])
    assert changes["old_value"].tolist() == [1, 1, -1]
    assert changes["old_source"].tolist() == ["observed", "imputed", "imputed"]
    assert changes["change"].tolist() == ["corrected", "corrected", "filled"]

    write_labels(tmp_path / "labels.csv", after_table)
    write_cells(tmp_path / "cells.csv", after)
    read = with_cells(
        read_labels(tmp_path / "labels.csv").table, read_cells(tmp_path / "cells.csv")
    )
    assert read.digest() == after_table.digest()
    assert read.human.tolist() == [[True, True], [True, True], [True, False]]
    write_changes(tmp_path / "changes.csv", changes)
    lines = (tmp_path / "changes.csv").read_text().splitlines()
    assert lines[0] == ",".join(CHANGES)
    assert lines[1:] == [
        "0.jpg,sea,1,observed,0,corrected,0.0",
        "1.jpg,sea,1,imputed,0,corrected,0.4",
        "1.jpg,<b>sun</b>,,imputed,1,filled,0.6000000000000001",
    ]


def test_a_confirmed_cell_is_reviewed_with_its_value(run: tuple[LabelTable, pd.DataFrame]) -> None:
    table, after, changes = with_decisions(*run, Decisions({("2.jpg", NAMES[1]): 0}, 0, ""))
    assert (table.values == run[0].values).all()
    assert table.source[2, 1] == Source.REVIEWED
    assert changes["change"].tolist() == ["confirmed"]
    assert tuple(after.columns) == COLUMNS


@pytest.mark.parametrize("cell", [("3.jpg", "sea"), ("0.jpg", "moon")])
def test_a_decision_about_an_unknown_cell_is_refused(
    run: tuple[LabelTable, pd.DataFrame], cell: tuple[str, str]
) -> None:
    decided = {("0.jpg", "sea"): 1, cell: 1}
    with pytest.raises(LabelsError, match=f"{cell[0]!r}, {cell[1]!r}: the run has no such cell"):
        with_decisions(*run, Decisions(decided, 0, ""))
