"""What stage 1 says of how far its cells can be trusted, and what later stages make of it."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs import evaluate as evaluate_config
from configs import multilabel as multilabel_config
from mlc_jax.assess.acceptance import confidence_of, upper_bound
from mlc_jax.assess.suspects import find_suspects
from mlc_jax.data.cells import read_cells, with_cells
from mlc_jax.data.labels import read_labels
from mlc_jax.data.table import Source
from mlc_jax.stages import evaluate, impute, multilabel
from tests.stages.conftest import Configure

MAX_ERROR = 0.2


def out_of_fold(workdir: Path) -> np.ndarray:
    return read_cells(workdir / "cells.csv")["probability"].to_numpy(float)


def test_suspects_are_given_cells_that_the_model_contradicts(
    finished: tuple[Path, dict[str, Any]], drawn: Path
) -> None:
    workdir, summary = finished
    with (workdir / "suspects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    given = read_labels(drawn / "set" / "labels.csv").table
    said = out_of_fold(workdir).reshape(given.values.shape)
    expected = []
    for column, name in enumerate(given.names):
        found = find_suspects(given.values[:, column], given.known[:, column], said[:, column])
        if summary["labels"][name]["learnable"]:
            assert summary["labels"][name]["suspects"] == len(found.rows)
            expected += [(given.filenames[row], name) for row in found.rows]
        else:
            assert summary["labels"][name]["suspects"] == 0
    assert expected, "no label can be learned: nothing is shown"
    assert sorted((row["filename"], row["label"]) for row in rows) == sorted(expected)
    confidences = [float(row["confidence"]) for row in rows]
    assert confidences == sorted(confidences, reverse=True)
    for row in rows:
        place = given.filenames.index(row["filename"]), given.names.index(row["label"])
        assert int(row["value"]) == given.values[place]
        assert float(row["probability"]) == said[place]
        other = 1 - said[place] if given.values[place] == 1 else said[place]
        assert float(row["confidence"]) == other > 0.5


def test_the_summary_says_what_the_guards_found(
    finished: tuple[Path, dict[str, Any]], drawn: Path
) -> None:
    given = read_labels(drawn / "set" / "labels.csv").table
    made = read_labels(finished[0] / "labels.csv").table
    for column, (name, record) in enumerate(finished[1]["labels"].items()):
        assert name == given.names[column]
        known = given.known[:, column]
        guards = record["guards"]
        prevalence = guards["filled_prevalence"]
        assert prevalence["observed"] == given.values[known, column].mean()
        cells = read_cells(finished[0] / "cells.csv").query("label == @name")
        blank = cells["source"] == "imputed"
        # It compares blank with known cells, so both are out of fold; what fills blanks is not.
        filled_by = cells["probability"][blank].mean()
        assert prevalence["expected"] == pytest.approx(filled_by, abs=0.1)
        assert record["filled_prevalence"] == made.values[~known, column].mean()
        # Few of these cells are blank, and none because of what the image shows.
        assert not prevalence["differs"]
        assert not guards["blankness"]["predictable"]
        assert guards["copies"]["pairs"] == guards["copies"]["disagree"] == 0
        honest = record["prevalence"]
        assert honest["low"] <= honest["value"] <= honest["high"]
        assert honest["value"] == pytest.approx(given.values[known, column].mean(), abs=0.1)


def test_a_promise_leaves_blank_what_cannot_keep_it(
    configure: Configure, drawn: Path, tmp_path: Path
) -> None:
    """And what was left blank is blank for everyone who reads the files, stage 2 included."""
    # A weak prior: random features show little, and a strong one would make all cells alike.
    keys = {"head__strength": 3.0, "impute__unlearnable": "matched"}
    impute.run(configure(**keys), tmp_path / "plain")
    config = configure(impute__max_error=MAX_ERROR, **keys)
    summary = impute.run(config, tmp_path / "run")
    given = read_labels(drawn / "set" / "labels.csv").table
    made = read_labels(tmp_path / "run" / "labels.csv").table
    cells = read_cells(tmp_path / "run" / "cells.csv")
    rule, blank = summary["acceptance"], ~given.known
    said, cuts = (
        cells[name].to_numpy().reshape(blank.shape) for name in ("probability", "threshold")
    )
    decided = (said > cuts).astype(np.int8)
    sure = confidence_of(decided, said) >= rule["cut"]
    assert 0 < sure[blank].mean() < 1, "all or none are accepted: nothing is shown"
    # Probabilities are not touched by a promise, only what is done with them.
    np.testing.assert_array_equal(out_of_fold(tmp_path / "run"), out_of_fold(tmp_path / "plain"))
    accepted = cells["accepted"].to_numpy().reshape(blank.shape)
    np.testing.assert_array_equal(accepted, given.known | sure)
    expected = np.where(blank, np.where(sure, decided, -1), given.values)
    np.testing.assert_array_equal(made.values, expected)
    assert rule["filled"] == summary["data"]["filled"] == (blank & sure).sum()
    # Known cells keep it.
    wrong = (decided != given.values)[given.known & sure]
    assert (rule["known_errors"], rule["known_accepted"]) == (wrong.sum(), wrong.size)
    assert 0 < rule["bound"] <= MAX_ERROR
    for column, (name, record) in enumerate(summary["labels"].items()):
        for value, kind in enumerate(("zeros", "ones")):
            own = (given.known & sure & (decided == value))[:, column]
            errors = int((given.values[own, column] != value).sum())
            found = record["error"][kind]
            assert (found["errors"], found["count"]) == (errors, own.sum()), name
            assert found["bound"] == pytest.approx(float(upper_bound(errors, int(own.sum()))))
            assert found["filled"] == (blank & sure & (decided == value))[:, column].sum()
    assert any(f"impute.max_error={MAX_ERROR}" in note for note in summary["notes"])

    back = with_cells(made, cells)
    source = np.where(blank, np.where(sure, Source.IMPUTED, Source.MISSING), Source.OBSERVED)
    np.testing.assert_array_equal(back.source, source)
    config = multilabel_config.get_config()
    small = {"source": str(tmp_path / "run"), "epochs": 1, "folds": 3, "batch_size": 16}
    config.update_from_flattened_dict(small)
    later = multilabel.run(config, tmp_path / "classifier")
    for column, name in enumerate(given.names):
        # Its figures are of cells that people gave, of a fifth of the images.
        assert later["labels"][name]["metrics"]["count"] <= given.known[:, column].sum()


def test_a_promise_that_nothing_can_keep_fills_nothing_and_says_so(
    configure: Configure, drawn: Path, tmp_path: Path
) -> None:
    summary = impute.run(configure(impute__max_error=0.001), tmp_path)
    given = read_labels(drawn / "set" / "labels.csv").table
    made = read_labels(tmp_path / "labels.csv").table
    np.testing.assert_array_equal(made.values, given.values)
    assert summary["data"]["filled"] == 0
    assert summary["acceptance"]["cut"] is None
    assert any("no group of cells has an error below 0.001" in line for line in summary["warnings"])


def test_the_original_recipe_is_neither_calibrated_nor_taught_nor_matched(
    finished: tuple[Path, dict[str, Any]], configure: Configure, tmp_path: Path
) -> None:
    summary = impute.run(configure(impute__method="notebook"), tmp_path)
    cells = read_cells(tmp_path / "cells.csv")
    assert (cells["threshold"] == 0.5).all()
    assert summary["rounds"] == []
    assert cells["model"].str.endswith("/round0").all()
    for name, record in summary["labels"].items():
        assert record["metrics"]["log_loss"] == record["uncalibrated"]["log_loss"]
        ours = finished[1]["labels"][name]
        assert ours["metrics"]["log_loss"] != ours["uncalibrated"]["log_loss"]

    # Half of what each head saw was positive, so rare labels come out too often, common ones too
    # seldom: the bias of the original.
    def bias(record: dict[str, Any], workdir: Path, name: str) -> float:
        own = read_cells(workdir / "cells.csv").query("label == @name")
        return float(abs(own["probability"].mean() - record["metrics"]["prevalence"]))

    for name, record in summary["labels"].items():
        if abs(record["metrics"]["prevalence"] - 0.5) > 0.2:
            theirs = bias(record, tmp_path, name)
            assert theirs > 2 * bias(finished[1]["labels"][name], finished[0], name)


def test_evaluating_the_run_again_repeats_its_figures_and_changes_nothing(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    workdir, summary = finished
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    config = evaluate_config.get_config()
    config.checkpoint = str(workdir)
    again = evaluate.run(config, tmp_path)
    assert again["test"]["macro_roc_auc"] == summary["oof"]["macro_roc_auc"]
    for name, record in summary["labels"].items():
        assert again["labels"][name]["learnable"] == record["learnable"]
        theirs = pytest.approx(record["metrics"], abs=0, nan_ok=True)
        assert again["labels"][name]["metrics"] == theirs
    after = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize("unlearnable", ["majority", "blank"])
def test_a_label_that_cannot_be_learned_is_a_guess_that_later_stages_do_not_see(
    configure: Configure, drawn: Path, tmp_path: Path, unlearnable: str
) -> None:
    """A label dealt at random is filled with its commoner value or not at all, never accepted."""
    with (drawn / "set" / "labels.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    rng = np.random.default_rng(0)
    noise = np.where(rng.random(len(rows)) < 0.3, "", (rng.random(len(rows)) < 0.3).astype(int))
    labels = tmp_path / "labels.csv"
    with labels.open("w", newline="") as file:
        csv.writer(file).writerows(
            [[*header, "noise"], *([*row, said] for row, said in zip(rows, noise, strict=True))]
        )
    config = configure(data__labels=str(labels), impute__unlearnable=unlearnable)
    summary = impute.run(config, tmp_path / "run")
    record = summary["labels"]["noise"]
    assert not record["learnable"]
    cells = read_cells(tmp_path / "run" / "cells.csv")
    blank = cells[(cells["label"] == "noise") & (cells["source"] == "imputed")]
    expected = 0 if unlearnable == "majority" else -1
    assert (blank["value"] == expected).all()
    assert not blank["accepted"].any()
    made = read_labels(tmp_path / "run" / "labels.csv").table
    column = made.names.index("noise")
    assert made.known[:, column].all() == (unlearnable == "majority")
    # About as many zeros are wrong as there are ones.
    ones = np.mean(noise[noise != ""] == "1")
    assert record["error"]["expected"] == pytest.approx(ones, abs=1e-9)
    (warning,) = (line for line in summary["warnings"] if "cannot be learned" in line)
    assert f"about {ones:.0%} of it is wrong" in warning
    assert not with_cells(made, cells).known[noise == "", column].any()
