"""Own features go through impute, multilabel, evaluate, predict and compare, without an image."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict

from configs import compare as compare_config
from configs import evaluate as evaluate_config
from configs import explain as explain_config
from configs import impute as impute_config
from configs import multilabel as multilabel_config
from configs import predict as predict_config
from mlc_jax.errors import CheckpointError, ConfigError
from mlc_jax.stages import compare, evaluate, explain, impute, multilabel, predict

ROWS, CHANNELS = 200, 24
QUICK = {"epochs": 12, "batch_size": 16, "optimizer.learning_rate": 0.05}


class Own(NamedTuple):
    """Drawn features and labels: two labels that depend on them, a third of the cells blank."""

    labels: Path
    features: Path
    truth: np.ndarray
    vectors: np.ndarray


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Own:
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((ROWS, CHANNELS)).astype(np.float32)
    truth = (vectors[:, :2] + 0.1 * rng.standard_normal((ROWS, 2)) > 0).astype(int)
    known = rng.random(truth.shape) > 1 / 3
    names = [f"image_{row}.jpg" for row in range(ROWS)]
    cells = np.where(known, truth.astype(str), "")
    pd.DataFrame({"filename": names, "red": cells[:, 0], "round": cells[:, 1]}).to_csv(
        folder / "labels.csv", index=False
    )
    order = rng.permutation(ROWS)
    np.savez(folder / "own.npz", features=vectors[order], names=np.array(names)[order])
    return Own(folder / "labels.csv", folder / "own.npz", truth, vectors)


def configured(module: Any, own: Own, **changes: Any) -> ConfigDict:
    config = module.get_config()
    keys: dict[str, Any] = {"features.file": str(own.features), "data.labels": str(own.labels)}
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict(keys | changed)
    return config


@pytest.fixture(scope="module")
def imputed(own: Own, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("imputed") / "run"
    impute.run(configured(impute_config, own, impute__rounds=0, **QUICK), workdir)
    return workdir


@pytest.fixture(scope="module")
def trained(own: Own, imputed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the table that impute completed, which names the features too."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    config = multilabel_config.get_config()
    config.update_from_flattened_dict({"source": str(imputed), **QUICK})
    multilabel.run(config, workdir)
    return workdir


def test_impute_fills_by_own_features(own: Own, imputed: Path) -> None:
    summary = json.loads((imputed / "summary.json").read_text())
    assert summary["oof"]["macro_roc_auc"]["value"] > 0.9
    assert summary["backbone"]["name"] == "own features"
    assert summary["backbone"]["feature_shape"] == [1, 1, CHANNELS]
    cells = pd.read_csv(imputed / "cells.csv")
    filled = cells[cells["source"] == "imputed"]
    rows = filled["filename"].str.extract(r"(\d+)").astype(int)[0].to_numpy()
    columns = (filled["label"] == "round").astype(int).to_numpy()
    assert (filled["value"].to_numpy() == own.truth[rows, columns]).mean() > 0.8


def test_mapped_features_give_the_same_run(
    own: Own, imputed: Path, cache: Path, tmp_path: Path
) -> None:
    mapped = configured(impute_config, own, impute__rounds=0, features__memory=0.0, **QUICK)
    impute.run(mapped, tmp_path / "run")
    first, second = (pd.read_csv(run / "cells.csv") for run in (imputed, tmp_path / "run"))
    np.testing.assert_allclose(first["probability"], second["probability"], atol=1e-3)
    notes = json.loads((tmp_path / "run" / "summary.json").read_text())["notes"]
    assert any("mapped from disk" in note for note in notes)


def test_multilabel_takes_table_and_features_of_the_impute_run(trained: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["test"]["macro_roc_auc"]["value"] > 0.9


def test_evaluate_gives_the_figures_of_training(trained: Path, tmp_path: Path) -> None:
    config = evaluate_config.get_config()
    config.checkpoint = str(trained)
    found = evaluate.run(config, tmp_path / "evaluated")
    figures = json.loads((trained / "summary.json").read_text())["test"]
    assert found["test"]["macro_roc_auc"] == figures["macro_roc_auc"]


def test_predict_reads_other_files_of_the_same_encoder(
    own: Own, trained: Path, cache: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "new.npy", own.vectors[:20].astype(np.float64))
    (tmp_path / "new.txt").write_text("".join(f"new_{row}\n" for row in range(20)))
    config = predict_config.get_config()
    config.checkpoint, config.features.file = str(trained), str(tmp_path / "new.npy")
    predict.run(config, tmp_path / "predicted")
    found = pd.read_csv(tmp_path / "predicted" / "predictions.csv").set_index("filename")
    assert list(found.index) == [f"new_{row}" for row in range(20)]
    scores = pd.read_csv(trained / "scores.csv").query("split == 'test'")
    assert len(scores)
    test = scores[scores["filename"].isin([f"image_{row}.jpg" for row in range(20)])]
    assert len(test)
    for _, row in test.iterrows():
        name = row["filename"].replace("image_", "new_").removesuffix(".jpg")
        assert found.loc[name, f"{row['label']}_probability"] == pytest.approx(
            row["probability"], abs=1e-5
        )


def test_another_encoder_is_refused(trained: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((2, CHANNELS + 1), np.float32))
    (tmp_path / "wide.txt").write_text("a\nb\n")
    config = predict_config.get_config()
    config.checkpoint, config.features.file = str(trained), str(tmp_path / "wide.npy")
    with pytest.raises(CheckpointError, match=f"another width than the {CHANNELS + 1}"):
        predict.run(config, tmp_path / "predicted")


def test_a_run_on_own_features_wants_own_features(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    config = predict_config.get_config()
    config.checkpoint, config.data.images = str(trained), str(tmp_path / "images")
    with pytest.raises(ConfigError, match="was trained on own features: give those of the images"):
        predict.run(config, tmp_path / "predicted")


def test_what_needs_pixels_says_so(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    config = explain_config.get_config()
    config.checkpoint, config.data.images = str(trained), str(tmp_path / "images")
    with pytest.raises(ConfigError, match="an explanation is of pixels"):
        explain.run(config, tmp_path / "explained")


def test_compare_ranks_ways_of_filling(own: Own, cache: Path, tmp_path: Path) -> None:
    config = configured(compare_config, own, compare__rows="filling", **QUICK)
    summary = compare.run(config, tmp_path / "compared")
    assert summary["filling"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"data__labels": ""}, "needs config.data.labels"),
        ({"backbone__trainable": "all"}, "which comes from no network"),
        ({"features__cache": False}, "which is read as it is"),
        ({"features__views": 2}, r"holds 1 view\(s\) of each image; give at most 0"),
        ({"features__file": "nowhere.npy"}, "no such file"),
        ({"dry_run": True}, "nothing is extracted"),
    ],
)
def test_keys_that_do_not_go_with_own_features(
    own: Own, cache: Path, tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        impute.run(configured(impute_config, own, **(QUICK | keys)), tmp_path / "run")
