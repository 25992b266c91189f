from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlc_jax.data.cells import COLUMNS, read_cells, with_cells, write_cells
from mlc_jax.data.labels import read_labels, write_labels
from mlc_jax.data.table import MISSING, LabelTable, Source
from mlc_jax.errors import LabelsError

CELLS = [
    ("a.jpg", "sea", 1, "observed", 0.1, 0.5, True, 0, "vgg19/conv"),
    ("a.jpg", "sky", 0, "imputed", 1 / 3, 0.5, True, 0, "vgg19/conv"),
    ("b.jpg", "sea", MISSING, "imputed", float("nan"), float("nan"), False, MISSING, ""),
    ("b.jpg", "sky", 1, "reviewed", 0.9, 0.5, True, 1, "vgg19/conv"),
]


def frame(cells=CELLS) -> pd.DataFrame:
    return pd.DataFrame(cells, columns=list(COLUMNS))


def table() -> LabelTable:
    values = np.array([[1, 0], [MISSING, 1]], np.int8)
    source = (values != MISSING).astype(np.uint8)
    return LabelTable(("a.jpg", "b.jpg"), ("sea", "sky"), values, source, np.array([2, 3]))


def test_written_cells_read_back_and_write_the_same_bytes(tmp_path):
    write_cells(tmp_path / "cells.csv", frame())
    again = read_cells(tmp_path / "cells.csv")
    pd.testing.assert_frame_equal(again, frame(), check_dtype=False)
    write_cells(tmp_path / "again.csv", again)
    text = (tmp_path / "cells.csv").read_bytes()
    assert (tmp_path / "again.csv").read_bytes() == text
    assert text.splitlines()[2] == b"a.jpg,sky,0,imputed,0.3333333333333333,0.5,true,0,vgg19/conv"
    assert text.splitlines()[3] == b"b.jpg,sea,,imputed,,,false,,"


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(st.text(max_size=10).filter(str.strip), min_size=1, max_size=5, unique=True),
    shares=st.lists(st.floats(0, 1), min_size=5, max_size=5),
    width=st.sampled_from([32, 64]),
)
def test_any_names_and_probabilities_survive(tmp_path_factory, names, shares, width):
    shares = np.array(shares[: len(names)], f"f{width // 8}")
    pairs = zip(names, shares, strict=True)
    cells = [(n, n.strip(), 1, "imputed", p, p, True, 3, n) for n, p in pairs]
    path = tmp_path_factory.mktemp("cells") / "cells.csv"
    write_cells(path, frame(cells))
    again = read_cells(path)
    assert again["filename"].tolist() == names
    assert again["model"].tolist() == names
    np.testing.assert_array_equal(again["probability"], shares.astype(np.float64))


def test_labels_and_cells_together_give_the_sources_back(tmp_path):
    write_labels(tmp_path / "labels.csv", table())
    write_cells(tmp_path / "cells.csv", frame(CELLS[::-1]))
    plain = read_labels(tmp_path / "labels.csv").table
    full = with_cells(plain, read_cells(tmp_path / "cells.csv"))
    assert full.source.tolist() == [
        [Source.OBSERVED, Source.IMPUTED],
        [Source.MISSING, Source.REVIEWED],
    ]
    np.testing.assert_array_equal(full.values, plain.values)
    np.testing.assert_array_equal(full.human, [[True, False], [False, True]])


def test_proposal_that_was_not_accepted_stays_missing():
    cells = frame()
    cells.loc[2, "value"] = 1
    full = with_cells(table(), cells)
    assert full.source[1, 0] == Source.MISSING


def test_guess_that_was_not_accepted_is_missing_where_labels_csv_holds_it():
    cells, plain = frame(), table()
    cells.loc[2, "value"] = 1
    values = np.array([[*plain.values[0]], [1, 1]], np.int8)
    source = np.ones_like(plain.source)
    full = with_cells(replace(plain, values=values, source=source), cells)
    assert full.values.tolist() == table().values.tolist()
    assert full.source[1, 0] == Source.MISSING


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cells: cells.assign(filename=["c.jpg", *cells["filename"][1:]]), "c.jpg"),
        (lambda cells: cells.assign(label=["sand", *cells["label"][1:]]), "sand"),
        (lambda cells: cells.iloc[1:], "'a.jpg', 'sea' of labels.csv is not in"),
        (lambda cells: cells.assign(value=[0, *cells["value"][1:]]), "'a.jpg', 'sea'.*differs"),
        (lambda cells: cells.assign(value=[1, 0, 0, 1], accepted=True), "'b.jpg', 'sea'.*differs"),
    ],
)
def test_cells_of_another_run_are_refused(change, message):
    with pytest.raises(LabelsError, match=message):
        with_cells(table(), change(frame()))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("filename,label", "label,filename", "columns"),
        ("0.3333333333333333", "1.5", "row 3, probability: '1.5'"),
        ("0.3333333333333333", "nan", "row 3, probability: 'nan'"),
        ("sky,0,imputed", "sky,2,imputed", "row 3, value: '2'"),
        ("sky,0,imputed", "sky,0,guessed", "row 3, source: 'guessed'"),
        ("sea,1,observed", "sea,,observed", "row 2, value: ''"),
        ("false,,", "no,,", "row 4, accepted: 'no'"),
        ("false,,", "false,-1,", "row 4, fold: '-1'"),
        ("false,,", "false", "row 4: 7 fields"),
        ("b.jpg,sky", "a.jpg,sky", "row 5: 'a.jpg', 'sky' stands there twice"),
        ("a.jpg,sky", ",sky", "row 3: a cell needs"),
    ],
)
def test_spoilt_cells_are_refused_by_row(tmp_path, old, new, message):
    path = tmp_path / "cells.csv"
    write_cells(path, frame())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(LabelsError, match=message):
        read_cells(path)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("value", 0.5),
        ("source", "missing"),
        ("probability", 2.0),
        ("accepted", "yes"),
        ("fold", -2),
        ("model", None),
        ("filename", 7),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path, column, value):
    cells = [dict(zip(COLUMNS, cell, strict=True)) for cell in CELLS]
    cells[1][column] = value
    with pytest.raises(LabelsError, match="row 1"):
        write_cells(tmp_path / "cells.csv", pd.DataFrame(cells))
    with pytest.raises(LabelsError, match="columns"):
        write_cells(tmp_path / "cells.csv", frame().drop(columns="model"))
    assert list(tmp_path.iterdir()) == []
