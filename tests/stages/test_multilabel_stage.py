"""Stage 2 on a small drawn set: what is held out stays out; evaluation repeats the figures."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict

from configs.evaluate import get_config as evaluate_config
from configs.impute import get_config as impute_config
from configs.multilabel import get_config
from mlc_jax.data.demo import draw_demo
from mlc_jax.data.labels import read_labels
from mlc_jax.errors import CheckpointError, ConfigError, LabelsError
from mlc_jax.files.runs import open_run
from mlc_jax.journal import Journal
from mlc_jax.stages import evaluate, impute, multilabel
from mlc_jax.training.restore import open_classifier

SCORED = ("map", "macro_roc_auc", "micro_f1", "hamming_score", "brier", "ece", "lrap")


def configured(drawn: Path, **changes: Any) -> ConfigDict:
    config = get_config()
    keys = {
        "source": "",
        "data.labels": str(drawn / "labels.csv"),
        "data.images": str(drawn / "images"),
        "data.image_size": (32, 32),
        "backbone.name": "mobilenet_v2",
        "backbone.weights": "random",
        "features.views": 1,
        # Evaluation extracts in other batches, and a last digit of float32 may be one of float16.
        "features.dtype": "float32",
        "head.name": "linear",
        "epochs": 4,
        "folds": 3,
        "batch_size": 16,
    } | {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict(keys)
    return config


def evaluation(checkpoint: Path, **changes: Any) -> ConfigDict:
    config = evaluate_config()
    config.checkpoint = str(checkpoint)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


@pytest.fixture(scope="module")
def drawn(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 drawn images, used as own data."""
    folder = tmp_path_factory.mktemp("two") / "set"
    draw_demo(folder, rows=150)
    return folder


@pytest.fixture(scope="module")
def trained(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    workdir = tmp_path_factory.mktemp("trained")
    return workdir, multilabel.run(configured(drawn), workdir)


def test_the_test_split_is_held_out(trained: tuple[Path, dict[str, Any]], drawn: Path) -> None:
    workdir, summary = trained
    split = json.loads((workdir / "split.json").read_text())
    assert len(split["held_in"]) + len(split["test"]) == 150
    assert summary["data"]["test"] == len(split["test"]) == pytest.approx(30, abs=6)
    scores = pd.read_csv(workdir / "scores.csv")
    assert set(scores.loc[scores["split"] == "test", "filename"]) == set(split["test"])
    table = read_labels(drawn / "labels.csv").table
    assert len(scores) == int(table.human.sum())


@pytest.mark.parametrize("name", ["classifier", "checkpoints", "tensorboard", "plots"])
def test_folders_of_the_contract(trained: tuple[Path, dict[str, Any]], name: str) -> None:
    assert any((trained[0] / name).iterdir())


def test_evaluate_gives_the_figures_of_the_training_run(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the checkpoint, on one device and on another number of them."""
    workdir, summary = trained
    for devices in (1, 4):
        some = jax.local_devices()[:devices]
        monkeypatch.setattr(jax, "devices", lambda *_, some=some: some)
        again = evaluate.run(evaluation(workdir), tmp_path / str(devices))
        for name, figure in summary["test"].items():
            for key in ("value", "low", "high"):
                assert again["test"][name][key] == pytest.approx(
                    figure[key], rel=1e-6, abs=1e-6, nan_ok=True
                )
        for name, record in again["labels"].items():
            theirs = summary["labels"][name]["metrics"]
            assert record["metrics"] == pytest.approx(theirs, rel=1e-6, abs=1e-6, nan_ok=True)


def test_a_fine_tuned_backbone_is_saved_restored_and_used(drawn: Path, tmp_path: Path) -> None:
    """Evaluation repeats the figures only with the backbone that training gave."""
    config = configured(
        drawn, backbone__trainable="last_block", backbone__learning_rate=0.01, epochs=1
    )
    summary = multilabel.run(config, tmp_path / "run")
    assert any("backbone.trainable=last_block" in note for note in summary["notes"])
    assert "extract features" not in summary["seconds"]
    again = evaluate.run(evaluation(tmp_path / "run"), tmp_path / "evaluated")
    for name, figure in summary["test"].items():
        assert again["test"][name]["value"] == pytest.approx(
            figure["value"], rel=1e-5, abs=1e-6, nan_ok=True
        )
    restored = open_classifier(open_run(tmp_path / "run"), Journal())
    kernel = restored.classifier.best.backbone["Conv_1"]["kernel"]
    assert np.abs(kernel - restored.backbone.params["Conv_1"]["kernel"]).max() > 1e-3
    assert set(restored.classifier.best.backbone) <= {"block_16", "Conv_1", "Conv_1_bn"}


def test_evaluate_on_other_data_leaves_out_and_names_what_was_trained_on(
    trained: tuple[Path, dict[str, Any]], drawn: Path, tmp_path: Path
) -> None:
    workdir, _ = trained
    split = json.loads((workdir / "split.json").read_text())
    lines = (drawn / "labels.csv").read_text().splitlines()
    images = tmp_path / "images"
    images.mkdir()
    kept = [lines[0]]
    # Other names, a header in another order, and images of both sides.
    for number, line in enumerate(lines[1:60]):
        name, *cells = line.split(",")
        shutil.copy(drawn / "images" / name, images / f"other_{number}.jpg")
        kept.append(",".join([f"other_{number}.jpg", *cells]))
    (tmp_path / "labels.csv").write_text("\n".join(kept))
    found = evaluate.run(
        evaluation(
            workdir,
            data__labels=str(tmp_path / "labels.csv"),
            data__images=str(images),
        ),
        tmp_path / "run",
    )
    tested = [line.split(",")[0] in set(split["test"]) for line in lines[1:60]]
    assert found["data"]["judged"] == sum(tested)
    assert len(found["data"]["seen_in_training"]) == 59 - sum(tested)
    (tmp_path / "labels.csv").write_text("filename,hat\nother_1.jpg,1\n")
    wrong = evaluation(workdir, data__labels=str(tmp_path / "labels.csv"), data__images=str(images))
    with pytest.raises(LabelsError, match="no label sleeves"):
        evaluate.run(wrong, tmp_path / "wrong")
    few = evaluation(workdir)
    few.batch_size = -1
    with pytest.raises(ConfigError, match=r"config\.batch_size=-1: give 1 or more, or 0"):
        evaluate.run(few, tmp_path / "few")


def test_evaluate_refuses_what_is_no_finished_run(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError,
        match=r"config\.checkpoint=.*holds no summary\.json; give",
    ):
        evaluate.run(evaluation(tmp_path / "nothing"), tmp_path / "run")


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_eight_devices_give_the_metrics_of_one(
    trained: tuple[Path, dict[str, Any]],
    drawn: Path,
    tmp_path: Path,
    parallel: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jax, "devices", jax.local_devices)
    summary = multilabel.run(configured(drawn, parallel=parallel), tmp_path)
    for name in ("macro_roc_auc", "map", "brier"):
        theirs = trained[1]["test"][name]["value"]
        assert summary["test"][name]["value"] == pytest.approx(theirs, abs=0.005)


@pytest.mark.parametrize(
    "changes",
    [
        {"oversample": "labelset", "loss__name": "focal"},
        {"oversample": "label", "optimizer__name": "lion", "schedule__name": "one_cycle"},
        {"loss__name": "large_loss", "schedule__name": "notebook", "threshold__rule": "youden"},
        # The README's own command trains a conv head in every round.
        pytest.param(
            {"head__name": "conv", "optimizer__learning_rate": 1e-3, "epochs": 2},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_other_recipes_run_whole_and_leave_out_labels_that_cannot_be_fitted(
    drawn: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    with (drawn / "labels.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    rows[0] += ["never", "unseen"]
    for number, row in enumerate(rows[1:]):
        row += ["0" if number % 3 else "", ""]
    labels = tmp_path / "labels.csv"
    with labels.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    config = configured(drawn, **{"data__labels": str(labels), "epochs": 2, **changes})
    summary = multilabel.run(config, tmp_path / "run")
    assert all(np.isfinite(summary["test"][name]["value"]) for name in SCORED)
    assert [name for name, record in summary["labels"].items() if record["fitted"]] == rows[0][1:5]
    for name, reason in (("never", "all 100 known cells are 0"), ("unseen", "no cell is known")):
        assert summary["labels"][name] == {"learnable": False, "verdict": reason, "fitted": False}
        assert f"label {name!r}: left out of fitting, {reason}" in summary["warnings"]


def test_no_label_left_to_fit_is_an_error(drawn: Path, tmp_path: Path) -> None:
    names = read_labels(drawn / "labels.csv").table.filenames
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(["filename,never,unseen", *(f"{name},0," for name in names)]))
    with pytest.raises(
        LabelsError,
        match=r"no label can be fitted \(all 150 known cells are 0; no cell is known\)",
    ):
        multilabel.run(configured(drawn, data__labels=str(labels)), tmp_path / "run")


def test_filled_cells_enter_the_loss_when_asked_and_the_figures_never(
    drawn: Path, tmp_path: Path
) -> None:
    config = impute_config()
    shared = configured(drawn)
    for group, keys in (
        ("data", ("labels", "images", "image_size")),
        ("backbone", ("name", "weights")),
        ("features", ("views",)),
        ("head", ("name",)),
    ):
        for key in keys:
            config[group][key] = shared[group][key]
    config.epochs, config.folds = 3, 3
    impute.run(config, tmp_path / "impute")
    blanks = int((~read_labels(drawn / "labels.csv").table.known).sum())
    adopted = get_config()
    adopted.update_from_flattened_dict(
        {
            "source": str(tmp_path / "impute"),
            "epochs": 2,
            "folds": 3,
            "loss.imputed_weight": 1.0,
        }
    )
    summary = multilabel.run(adopted, tmp_path / "run")
    assert summary["backbone"]["name"] == "mobilenet_v2"
    assert summary["data"]["observed"] == 150 * 4 - blanks
    assert any("filled cells enter the loss" in warning for warning in summary["warnings"])
    scores = pd.read_csv(tmp_path / "run" / "scores.csv")
    assert len(scores) == 150 * 4 - blanks

    found = evaluate.run(evaluation(tmp_path / "impute"), tmp_path / "evaluate")
    made = json.loads((tmp_path / "impute" / "summary.json").read_text())
    for name, record in found["labels"].items():
        theirs = made["labels"][name]["metrics"]
        assert record["metrics"]["roc_auc"] == pytest.approx(theirs["roc_auc"], abs=1e-6)
        assert record["metrics"]["log_loss"] == pytest.approx(theirs["log_loss"], abs=1e-6)
