"""Comparisons on a small drawn set: the leak reads high, honest figures do not, files are whole."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.compare import get_config
from mlc_jax.assess.recovery import hide_cells, recovery_figures
from mlc_jax.stages import compare

Configure = Callable[..., ConfigDict]


@pytest.fixture
def comparison(drawn: Path) -> Configure:
    def make(**changes: Any) -> ConfigDict:
        config = get_config()
        keys = {
            "data.labels": str(drawn / "set" / "labels.csv"),
            "data.images": str(drawn / "set" / "images"),
            "data.image_size": (32, 32),
            "backbone.name": "mobilenet_v2",
            "backbone.weights": "random",
            "features.views": 1,
            "epochs": 3,
            "folds": 3,
            "batch_size": 16,
            "impute.rounds": 0,
            "compare.hidden": (0.3,),
        } | {key.replace("__", "."): value for key, value in changes.items()}
        config.update_from_flattened_dict(keys)
        return config

    return make


def lines(workdir: Path) -> list[dict[str, str]]:
    with (workdir / "compare.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_audit_hides_fills_and_compares(comparison: Configure, tmp_path: Path) -> None:
    summary = compare.run(comparison(audit=True), tmp_path)
    assert [(row["hidden"], row["kind"]) for row in summary["audit"]] == [
        (0.3, "random"),
        (0.3, "by class"),
    ]
    for row in summary["audit"]:
        for name in ("accuracy", "roc_auc", "brier", "precision_at_50"):
            assert row[name]["low"] <= row[name]["value"] <= row[name]["high"]
    assert len(lines(tmp_path)) == 2
    assert "came back right" in (tmp_path / "report.html").read_text()
    again = compare.run(comparison(audit=True), tmp_path)
    assert again["audit"] == json.loads((tmp_path / "summary.json").read_text())["audit"]


@pytest.mark.slow
def test_stage_2_is_taught_in_four_ways(comparison: Configure, tmp_path: Path) -> None:
    summary = compare.run(comparison(compare__rows="filling"), tmp_path)
    assert [row["variant"] for row in summary["filling"]] == [
        "masked",
        "filled hard",
        "filled soft",
        "true labels",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["default", "training", "full"])
def test_every_contender_answers(comparison: Configure, tmp_path: Path, rows: str) -> None:
    summary = compare.run(comparison(compare__rows=rows), tmp_path)
    names = [row["name"] for row in summary["rows"]]
    assert len(names) == len(set(names))
    assert len(lines(tmp_path)) == len(names)
    losses = [row["log_loss"] for row in summary["rows"]]
    assert losses == sorted(losses)
    gaps = {row["name"]: row["auc_gap"]["value"] for row in summary["rows"]}
    assert gaps[summary["reference"]] == 0
    if rows != "training":
        leak = summary["leak"]
        assert leak["seen"] > 0.5
        # The same images on both sides are remembered, whatever can be learned from them.
        assert leak["macro_roc_auc"] > leak["honest_macro_roc_auc"]


def test_hidden_cells_are_known_ones_in_their_share() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(-1, 2, (4000, 2)).astype(np.int8)
    for kind in ("random", "by class"):
        hidden = hide_cells(values, 0.3, kind, seed=1)
        assert not (hidden & (values < 0)).any()
        known = (values >= 0).sum(axis=0)
        np.testing.assert_array_equal(hidden.sum(axis=0), np.round(0.3 * known))
        shares = [hidden[values == value].mean() for value in (0, 1)]
        if kind == "random":
            assert abs(shares[0] - shares[1]) < 0.05
        else:
            assert shares[1] > 1.5 * shares[0]


def test_a_perfect_filling_is_perfect_and_a_constant_one_is_not() -> None:
    truth = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], np.int8)
    hidden = np.ones((4, 2), np.bool_)
    cuts = np.full((4, 2), 0.5)
    perfect = recovery_figures(truth, hidden, truth.astype(float), cuts, hidden)
    assert perfect["accuracy"] == perfect["mcc"] == perfect["roc_auc"] == 1
    assert perfect["brier"] == perfect["prevalence_error"] == perfect["accepted_error"] == 0
    constant = recovery_figures(truth, hidden, np.full((4, 2), 0.5), cuts, ~hidden)
    assert constant["accuracy"] == constant["balanced_accuracy"] == 0.5
    assert constant["roc_auc"] == 0.5
    assert constant["prevalence_error"] == 0.5
    assert constant["accepted_share"] == 0
    assert np.isnan(constant["accepted_error"])
