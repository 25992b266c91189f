"""Comparisons on a small drawn set: the leak reads high, honest figures do not, files are whole."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict

from configs.compare import get_config
from configs.impute import get_config as impute_config
from mlc_jax.assess.recovery import hide_cells, recovery_figures
from mlc_jax.errors import WeightsError
from mlc_jax.journal import Journal
from mlc_jax.models import backbones
from mlc_jax.models.backbones import load_backbone
from mlc_jax.models.download import cached_path
from mlc_jax.models.hub_files import HUB_FILES
from mlc_jax.models.published import PUBLISHED
from mlc_jax.models.weights import write_weights
from mlc_jax.settings import resolve
from mlc_jax.stages import compare, impute
from mlc_jax.training import ranking
from mlc_jax.training.contenders import (
    LOSSES,
    Bench,
    Contender,
    keys_of,
    logistic_regression,
    mlc_jax,
)
from tests.report.pages import ATTRIBUTE, SCRIPT, Parsed, assert_inert, assert_offline
from tests.small_networks import Small

Configure = Callable[..., ConfigDict]
LEAK = {"macro_roc_auc": 1.0, "seen": 1.0, "rows": 180, "honest_macro_roc_auc": 0.5}


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


def test_an_audit_hides_fills_and_compares(
    comparison: Configure, drawn: Path, tmp_path: Path
) -> None:
    """Names that are code stand in the labels; one of them in a warning, and so on the page."""
    with (drawn / "set" / "labels.csv").open(newline="") as file:
        (filename, _, *names), *cells = csv.reader(file)
    labels = tmp_path / "labels.csv"
    with labels.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([filename, ATTRIBUTE, *names, SCRIPT])
        writer.writerows([*row, ""] for row in cells)
    config, workdir = comparison(audit=True, data__labels=str(labels)), tmp_path / "run"
    summary = compare.run(config, workdir)
    assert list(summary["labels"]) == [ATTRIBUTE, *names, SCRIPT]
    assert [(row["hidden"], row["kind"]) for row in summary["audit"]] == [
        (0.3, "random"),
        (0.3, "by class"),
        (0.3, "rows"),
    ]
    for row in summary["audit"]:
        for name in ("accuracy", "roc_auc", "brier", "precision_at_50"):
            assert row[name]["low"] <= row[name]["value"] <= row[name]["high"]
    assert len(lines(workdir)) == 3
    page = Parsed(workdir / "report.html")
    assert "came back right" in page.text
    assert f"label {SCRIPT!r}: left out of fitting, no cell is known" in page.text
    assert_inert(page)
    assert_offline(workdir / "report.html")
    again = compare.run(config, workdir)
    assert again["audit"] == json.loads((workdir / "summary.json").read_text())["audit"]


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


def test_the_row_of_mlc_jax_is_what_impute_does_with_the_same_keys(
    comparison: Configure, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every key left at its default but those that make the run small."""
    monkeypatch.setattr(compare, "default_contenders", lambda bench: [mlc_jax(bench)])
    monkeypatch.setattr(compare, "replay", lambda *_: LEAK)
    config = comparison(impute__rounds=1)
    (row,) = compare.run(config, tmp_path / "compare")["rows"]
    same = impute_config()
    same.update_from_flattened_dict(
        {
            key: config[key.split(".")[0]][key.split(".")[1]] if "." in key else config[key]
            for key in (
                *("data.labels", "data.images", "data.image_size", "backbone.name"),
                *("backbone.weights", "features.views", "epochs", "folds", "batch_size"),
                *("head.name", "impute.rounds"),
            )
        }
    )
    summary = impute.run(same, tmp_path / "impute")
    assert row["auc"] == summary["oof"]["macro_roc_auc"]
    cells = pd.read_csv(tmp_path / "impute" / "cells.csv")
    known = cells[(cells["source"] == "observed") & cells["probability"].notna()]
    right = (known["probability"] > known["threshold"]) == known["value"]
    assert row["hamming_score"] == pytest.approx(right.mean(), rel=1e-12)
    chance = np.where(known["value"] == 1, known["probability"], 1 - known["probability"])
    assert row["log_loss"] == pytest.approx(-np.log(chance).mean(), rel=1e-9)


def test_a_row_that_is_better_names_the_keys_to_set(
    comparison: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One contender is given the truth, under the name of a loss; the other is left without."""

    def blind(bench: Bench) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        return rng.random(bench.values.shape), np.full(bench.values.shape, 0.5)

    def awake(bench: Bench) -> tuple[np.ndarray, np.ndarray]:
        said, cut = blind(bench)
        return np.where(bench.values == 1, 0.8 + 0.1 * said, 0.1 + 0.1 * said), cut

    rows = {"mlc_jax": blind, "Hill loss": awake, "majority": awake, "SPLC": blind}
    monkeypatch.setattr(
        compare,
        "default_contenders",
        lambda bench: [(name, partial(said, bench)) for name, said in rows.items()],
    )
    monkeypatch.setattr(compare, "replay", lambda *_: LEAK)
    summary = compare.run(comparison(), tmp_path)
    hill, majority = summary["better"]
    assert hill.startswith("“Hill loss” is better than mlc_jax: macro AUC +0.")
    assert "--config.loss.name=hill" in hill
    assert majority.endswith("no key of the impute job gives it")
    assert hill in Parsed(tmp_path / "report.html").text


def test_the_keys_of_a_contender_are_keys_of_the_impute_job() -> None:
    for name in (*LOSSES.values(), "masked BCE", "the original recipe, split repaired"):
        config = impute_config()
        pairs = (pair.split("=") for pair in keys_of(name).split())
        config.update_from_flattened_dict(
            {key: int(value) if value.isdigit() else value for key, value in pairs}
        )
        resolve(config, lambda _: None)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, and no published weights but those of two small networks."""
    monkeypatch.setenv("MLC_JAX_CACHE", str(tmp_path / "cache"))
    entry = replace(PUBLISHED["mobilenet_v2"], folder="https://invalid")
    for name in list(PUBLISHED):
        monkeypatch.delitem(PUBLISHED, name)
    for name in list(HUB_FILES):
        monkeypatch.delitem(HUB_FILES, name)
    for name in ("fine", "coarse"):
        monkeypatch.setitem(PUBLISHED, name, replace(entry, file=f"{name}.safetensors"))
    monkeypatch.setitem(backbones.NETWORKS, "fine", lambda: Small("tf", 4, 6))
    monkeypatch.setitem(backbones.NETWORKS, "coarse", lambda: Small("torch", 8, 3))
    return tmp_path


def logistic(bench: Bench) -> Contender:
    """Heads that compile nothing."""
    return "mlc_jax", lambda: logistic_regression(bench)


def weights_file(path: Path, name: str, seed: int) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    backbone = load_backbone(name, "random", fold=False, seed=seed)
    write_weights(path, name, backbone.params, backbone.preprocess)
    return path


@pytest.mark.parametrize("heads", [logistic, pytest.param(mlc_jax, marks=pytest.mark.slow)])
def test_backbones_are_ranked_on_the_same_folds(
    comparison: Configure,
    published: Path,
    monkeypatch: pytest.MonkeyPatch,
    heads: Callable[[Bench], Contender],
) -> None:
    """The same weights have the same figures in whichever company, named or from the cache."""
    monkeypatch.setattr(ranking, "mlc_jax", heads)
    mine = weights_file(published / "mine.safetensors", "fine", seed=1)
    weights_file(cached_path("coarse"), "coarse", seed=2)

    def ranked(name: str, weights: str, workdir: str) -> dict[str, Any]:
        config = comparison(
            compare__rows="backbones",
            backbone__name=name,
            backbone__weights=weights,
            near_copies=2.0,
        )
        return compare.run(config, published / workdir)

    summary = ranked("fine", str(mine), "first")
    rows = {row["name"]: row for row in summary["backbones"]}
    assert set(rows) == {"fine (mine.safetensors)", "coarse"}
    assert summary["reference"] == "fine (mine.safetensors)"
    assert summary["left_out"] == {}
    losses = [row["log_loss"] for row in summary["backbones"]]
    assert losses == sorted(losses)
    for name, channels in (("fine (mine.safetensors)", 6), ("coarse", 3)):
        row = rows[name]
        assert row["feature_seconds"] > 0
        assert row["head_seconds"] > 0
        # The image and one view of it, pooled, two bytes a value.
        values = summary["data"]["usable"] * 2 * channels
        assert row["feature_megabytes"] == pytest.approx(2 * values / 1e6)
        assert row["weight_megabytes"] == pytest.approx(4 * row["parameters"] / 1e6)
    written = {row["name"]: row for row in lines(published / "first")}
    assert float(written["coarse"]["auc_gap_low"]) == rows["coarse"]["auc_gap"]["low"]
    assert float(written["coarse"]["weight_megabytes"]) == rows["coarse"]["weight_megabytes"]
    assert "Features, MB" in (published / "first" / "report.html").read_text()

    again = ranked("coarse", "imagenet", "second")
    (alone,) = again["backbones"]
    assert again["left_out"] == {"fine": "absent"}
    assert alone["feature_seconds"] is None  # they lay in the cache
    for figure in ("log_loss", "macro_roc_auc", "brier"):
        assert alone[figure] == rows["coarse"][figure]
    assert any("only backbone that can be ranked" in warning for warning in again["warnings"])
    page = (published / "second" / "report.html").read_text()
    assert "scripts/convert_weights.py --list" in page


def test_random_weights_come_last_and_a_damaged_file_is_named(
    comparison: Configure, published: Path
) -> None:
    """The first candidate's features tell near copies, which random ones cannot."""
    weights_file(cached_path("coarse"), "coarse", seed=2)
    cached_path("fine").write_bytes(b"torn")
    config = comparison(compare__rows="backbones", backbone__name="fine")
    journal = Journal()
    candidates, left_out = ranking.find_candidates(resolve(config, journal.note), journal)
    assert [one.title for one in candidates] == ["coarse", "fine (random weights)"]
    assert list(left_out) == ["fine"]
    assert any(str(cached_path("fine")) in warning for warning in journal.warnings)


def test_without_any_weights_there_is_nothing_to_rank(
    comparison: Configure, published: Path
) -> None:
    config = comparison(
        compare__rows="backbones", backbone__name="fine", backbone__weights="imagenet"
    )
    with pytest.raises(
        WeightsError, match=r"fetch https://invalid/fine\.safetensors and put it at"
    ):
        compare.run(config, published / "run")


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
    hidden = hide_cells(values, 0.3, "rows", seed=1)
    labelled = (values >= 0).any(axis=1)
    assert hidden.any(axis=1).sum() == round(0.3 * labelled.sum())
    np.testing.assert_array_equal(hidden, (values >= 0) & hidden.any(axis=1, keepdims=True))


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
