"""What must not matter is changed, a job is run, and nothing that judges moves.

On features of one's own: seconds, and no image is decoded.
"""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict

from configs import compare as compare_config
from configs import evaluate as evaluate_config
from configs import impute as impute_config
from configs import multilabel as multilabel_config
from mlc_jax.assess.out_of_fold import Judgement
from mlc_jax.data.cells import read_cells
from mlc_jax.data.collection import open_collection
from mlc_jax.data.table import Source
from mlc_jax.journal import Journal
from mlc_jax.settings import cache_folder, resolve
from mlc_jax.stages import compare, evaluate, impute, multilabel
from mlc_jax.training.contenders import Bench

ROWS, CHANNELS, NAMES = 150, 8, ("red, dark", "round", "noise")
PARTS = np.array(["train", "train", "train", "val", "test"])[np.arange(ROWS) % 5]


class Data(NamedTuple):
    """A folder with labels.csv, own.npz and split.csv, and what stands in them."""

    folder: Path
    values: np.ndarray
    vectors: np.ndarray

    def where(self, key: str) -> str:
        name = {"labels": "labels.csv", "features": "own.npz", "split": "split.csv"}[key]
        return str(self.folder / name)


def write(folder: Path, values: np.ndarray, vectors: np.ndarray) -> Data:
    folder.mkdir()
    names = [f"image_{row}.jpg" for row in range(len(values))]
    cells = np.where(values < 0, "", values.astype(str))
    frame = pd.DataFrame(cells, columns=list(NAMES))
    frame.insert(0, "filename", names)
    frame.to_csv(folder / "labels.csv", index=False)
    np.savez(folder / "own.npz", features=vectors, names=np.array(names))
    pd.DataFrame({"filename": names, "part": np.resize(PARTS, len(values))}).to_csv(
        folder / "split.csv", index=False
    )
    return Data(folder, values, vectors)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(ROWS, CHANNELS)).astype(np.float32)
    truth = vectors[:, :3] + 0.3 * rng.normal(size=(ROWS, 3)) > 0
    truth[:, 2] = rng.random(ROWS) < 0.4
    values = np.where(rng.random(truth.shape) < 0.25, -1, truth).astype(np.int8)
    return write(tmp_path_factory.mktemp("wiring") / "data", values, vectors)


def configured(module: Any, data: Data, **changes: Any) -> ConfigDict:
    config = module.get_config()
    keys = {
        "data.labels": data.where("labels"),
        "features.file": data.where("features"),
        "data.split": data.where("split"),
        "epochs": 3,
        "batch_size": 16,
        "folds": 3,
        "near_copies": 2.0,
    } | {key.replace("__", "."): value for key, value in changes.items()}
    if module is multilabel_config:
        keys |= {"source": ""}
    config.update_from_flattened_dict(keys)
    return config


def scores(workdir: Path, split: str) -> pd.DataFrame:
    frame = pd.read_csv(workdir / "scores.csv")
    return frame[frame["split"] == split].set_index(["filename", "label"])


@pytest.fixture(scope="module")
def trained(data: Data, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("trained") / "run"
    multilabel.run(configured(multilabel_config, data), workdir)
    return workdir


def test_multilabel_learns_nothing_from_labels_of_test_images(
    data: Data, trained: Path, tmp_path: Path
) -> None:
    test = PARTS == "test"
    turned = np.where(test[:, None] & (data.values >= 0), 1 - data.values, data.values)
    other = write(tmp_path / "data", turned, data.vectors)
    multilabel.run(configured(multilabel_config, other), tmp_path / "run")
    for split in ("held_in", "test"):
        before, after = scores(trained, split), scores(tmp_path / "run", split)
        np.testing.assert_array_equal(after["probability"], before["probability"])
        assert (after["value"] != before["value"]).all() == (split == "test")
    for name in ("thresholds.json", "metrics.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (trained / name).read_bytes()
    found = [json.loads((run / "summary.json").read_text()) for run in (trained, tmp_path / "run")]
    for name in NAMES:
        before, after = (summary["labels"][name] for summary in found)
        assert after["log_loss_out_of_fold"] == before["log_loss_out_of_fold"]
        assert after["learnable"] == before["learnable"]
        assert after["metrics"]["roc_auc"] == pytest.approx(1 - before["metrics"]["roc_auc"])


def test_multilabel_learns_nothing_from_features_of_test_images(
    data: Data, trained: Path, tmp_path: Path
) -> None:
    moved = data.vectors.copy()
    moved[PARTS == "test"] *= 5
    other = write(tmp_path / "data", data.values, moved)
    multilabel.run(configured(multilabel_config, other), tmp_path / "run")
    before, after = scores(trained, "held_in"), scores(tmp_path / "run", "held_in")
    for column in ("probability", "threshold"):
        np.testing.assert_allclose(after[column], before[column], atol=1e-5)
    changed = scores(tmp_path / "run", "test")["probability"]
    assert (changed != scores(trained, "test")["probability"]).any()


@pytest.fixture(scope="module")
def completed(data: Data, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("completed") / "run"
    impute.run(configured(impute_config, data), workdir)
    return workdir


@pytest.fixture(scope="module")
def turned(completed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The completed table with every filled cell turned into its opposite."""
    folder = tmp_path_factory.mktemp("turned")
    for name in ("labels.csv", "cells.csv", "split.csv"):
        shutil.copy(completed / name, folder / name)
    cells = pd.read_csv(folder / "cells.csv", dtype=str, keep_default_na=False)
    labels = pd.read_csv(folder / "labels.csv", dtype=str).set_index("filename")
    filled = cells["source"] == "imputed"
    cells.loc[filled, "value"] = cells.loc[filled, "value"].map({"0": "1", "1": "0"})
    for row in cells[filled].itertuples():
        labels.loc[row.filename, row.label] = row.value
    cells.to_csv(folder / "cells.csv", index=False)
    labels.reset_index().to_csv(folder / "labels.csv", index=False)
    return folder


def test_values_of_filled_cells_move_nothing_of_multilabel(
    data: Data, completed: Path, turned: Path, tmp_path: Path
) -> None:
    found = []
    for number, folder in enumerate((completed, turned)):
        run = tmp_path / str(number)
        config = configured(multilabel_config, data, data__labels=str(folder / "labels.csv"))
        multilabel.run(config, run)
        found.append(run)
    for name in ("scores.csv", "thresholds.json", "metrics.jsonl"):
        assert (found[0] / name).read_bytes() == (found[1] / name).read_bytes(), name


def test_values_of_filled_cells_move_nothing_of_impute(
    data: Data, completed: Path, turned: Path, tmp_path: Path
) -> None:
    impute.run(configured(impute_config, data, data__labels=str(turned / "labels.csv")), tmp_path)
    assert (tmp_path / "cells.csv").read_bytes() == (completed / "cells.csv").read_bytes()


def test_values_of_filled_cells_move_nothing_of_an_evaluation(
    data: Data, completed: Path, turned: Path, trained: Path, tmp_path: Path
) -> None:
    """Other images with the labels of a completed table; each learned image is another one."""
    found = []
    for number, folder in enumerate((completed, turned)):
        own = tmp_path / f"data{number}"
        own.mkdir()
        for name in ("labels.csv", "cells.csv"):
            text = (folder / name).read_text().replace("image_", "other_")
            (own / name).write_text(text)
        names = np.array([f"other_{row}.jpg" for row in range(ROWS)])
        vectors = data.vectors + np.random.default_rng(5).normal(size=data.vectors.shape)
        np.savez(own / "own.npz", features=vectors.astype(np.float32), names=names)
        config = evaluate_config.get_config()
        config.checkpoint = str(trained)
        config.data.labels, config.features.file = str(own / "labels.csv"), str(own / "own.npz")
        summary = evaluate.run(config, tmp_path / f"run{number}")
        found.append({name: record["metrics"] for name, record in summary["labels"].items()})
    # As text, where NaN equals NaN.
    assert json.dumps(found[0]) == json.dumps(found[1])
    known = (data.values >= 0).sum(axis=0)
    assert [found[0][name]["count"] for name in NAMES] == known.tolist()


def test_an_evaluation_knows_labels_by_their_names(
    data: Data, trained: Path, tmp_path: Path
) -> None:
    """Other images, with the columns of their labels in the file's order and turned round."""
    found = []
    for number, order in enumerate(([0, 1, 2], [2, 0, 1])):
        own = write(tmp_path / f"data{number}", data.values, data.vectors + 0.5)
        frame = pd.read_csv(own.where("labels"), dtype=str, keep_default_na=False)
        frame["filename"] = frame["filename"].str.replace("image", "other")
        columns = ["filename", *(NAMES[column] for column in order)]
        frame[columns].to_csv(own.where("labels"), index=False)
        names = np.array([f"other_{row}.jpg" for row in range(ROWS)])
        np.savez(own.folder / "own.npz", features=data.vectors + 0.5, names=names)
        config = evaluate_config.get_config()
        config.checkpoint = str(trained)
        config.data.labels, config.features.file = own.where("labels"), own.where("features")
        summary = evaluate.run(config, tmp_path / f"run{number}")
        found.append({name: summary["labels"][name]["metrics"] for name in NAMES})
    assert json.dumps(found[0]) == json.dumps(found[1])


def test_confidence_of_a_filled_cell_is_the_probability_of_its_value(
    data: Data, completed: Path
) -> None:
    config = configured(impute_config, data, data__labels=str(completed / "labels.csv"))
    collection = open_collection(resolve(config, lambda _: None), cache_folder(), Journal())
    cells = read_cells(completed / "cells.csv")
    accepted = ((cells["source"] == "imputed") & cells["accepted"]).to_numpy()
    p, value = cells["probability"].to_numpy(), cells["value"].to_numpy()
    expected = np.where(value == 1, p, 1 - p)[accepted]
    filled = collection.table.source == Source.IMPUTED
    np.testing.assert_allclose(collection.confidence[filled], expected)
    assert set(value[accepted]) == {0, 1}
    assert np.isnan(collection.confidence[~filled]).all()


def test_filled_cells_enter_the_loss_by_their_confidence(data: Data, completed: Path) -> None:
    config = configured(impute_config, data, data__labels=str(completed / "labels.csv"))
    collection = open_collection(resolve(config, lambda _: None), cache_folder(), Journal())
    stage_2 = configured(multilabel_config, data, loss__imputed_weight=0.5)
    human = np.where(collection.table.human, collection.table.values, np.int8(-1))
    division = multilabel.divide(np.arange(ROWS), human, 0.2, 3, 0)
    teaching = multilabel.make_teaching(stage_2, collection, human, [0, 1, 2], division, Journal())
    filled = collection.table.source == Source.IMPUTED
    np.testing.assert_array_equal(teaching.weights[human >= 0], 1.0)
    np.testing.assert_allclose(teaching.weights[filled], 0.5 * collection.confidence[filled])
    np.testing.assert_array_equal(teaching.human[filled], -1)
    assert not teaching.weights[~filled & (human < 0)].any()


def test_features_of_a_predicted_fold_move_no_other_image_of_it(data: Data, tmp_path: Path) -> None:
    """One image of the test fold is replaced: out of fold, the others are predicted as before."""
    rows = np.flatnonzero(PARTS == "test")
    moved = data.vectors.copy()
    moved[rows[0]] *= -5
    found = []
    for number, vectors in enumerate((data.vectors, moved)):
        own = write(tmp_path / f"data{number}", data.values, vectors)
        config = configured(impute_config, own, impute__method="notebook")
        impute.run(config, tmp_path / str(number))
        cells = pd.read_csv(tmp_path / str(number) / "cells.csv").set_index("filename")
        found.append(cells["probability"])
    same = [f"image_{row}.jpg" for row in rows[1:]]
    np.testing.assert_array_equal(found[0][same], found[1][same])
    assert (found[0][f"image_{rows[0]}.jpg"] != found[1][f"image_{rows[0]}.jpg"]).any()


def test_an_audit_hides_what_it_asks_for(
    data: Data, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What completes the table never gets a hidden cell, and is compared on these alone."""
    given, judged = [], []
    completing = Bench.judge

    def watched(self: Bench, config: ConfigDict, values: np.ndarray, *rest: Any) -> Judgement:
        given.append(values)
        judged.append(completing(self, config, values, *rest))
        return judged[-1]

    asked = []
    measure = compare.recovery_figures

    def measured(truth: np.ndarray, hidden: np.ndarray, *rest: np.ndarray) -> dict[str, float]:
        if len(hidden) == ROWS and not asked:
            asked.append(hidden)
        return measure(truth, hidden, *rest)

    monkeypatch.setattr(Bench, "judge", watched)
    monkeypatch.setattr(compare, "recovery_figures", measured)
    keys = {"audit": True, "compare__hidden": (0.3,), "impute__rounds": 0}
    compare.run(configured(compare_config, data, **keys), tmp_path)
    known = (data.values >= 0).sum()
    for values in given:
        assert (values >= 0).sum() == pytest.approx(0.7 * known, rel=0.05)
    np.testing.assert_array_equal(asked[0], (data.values >= 0) & (given[0] < 0))


@pytest.mark.parametrize("job", ["impute", "compare", "multilabel"])
def test_given_groups_lie_on_one_side_in_every_job(
    job: str, data: Data, cache: Path, tmp_path: Path
) -> None:
    """Features differ, so nothing but the file says what goes together."""
    group = np.arange(ROWS) // 3
    names = [f"image_{row}.jpg" for row in range(ROWS)]
    file = tmp_path / "groups.csv"
    pd.DataFrame({"filename": names, "group": group}).to_csv(file, index=False)
    keys: dict[str, Any] = {"data__groups": str(file), "data__split": ""}
    if job == "impute":
        impute.run(configured(impute_config, data, **keys, impute__rounds=0), tmp_path / "run")
        cells = pd.read_csv(tmp_path / "run" / "cells.csv")
        side = cells.groupby("filename")["fold"].first()[names].to_numpy()
    elif job == "multilabel":
        multilabel.run(configured(multilabel_config, data, **keys), tmp_path / "run")
        test = json.loads((tmp_path / "run" / "split.json").read_text())["test"]
        side = np.isin(names, test).astype(int)
    else:
        config = resolve(configured(compare_config, data, **keys), lambda _: None)
        collection = open_collection(config, cache_folder(), Journal())
        backbone = compare.choose_backbone(config, Journal())
        side = compare.open_bench(config, collection, backbone, Journal())[0].deal.fold_of
    assert len(set(zip(group.tolist(), side.tolist(), strict=True))) == ROWS // 3


def test_a_run_warns_of_labels_that_cannot_be_learned_and_of_predictable_blanks(
    data: Data, cache: Path, tmp_path: Path
) -> None:
    values = np.where((data.vectors[:, [4]] > 0.3), -1, data.values)
    values[:, 2] = data.values[:, 2]
    other = write(tmp_path / "data", values.astype(np.int8), data.vectors)
    summary = impute.run(configured(impute_config, other, impute__rounds=0), tmp_path / "run")
    told = " | ".join(summary["warnings"])
    assert "1 of 3 labels cannot be learned from these images" in told
    assert "noise (AUC" in told
    assert "the blanks of 2 of 3 labels can be predicted from the images" in told
    assert "red, dark (AUC" in told


def test_multilabel_judges_known_cells_of_the_test_split_alone(data: Data, trained: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    known = data.values[PARTS == "test"]
    for column, name in enumerate(NAMES):
        metrics = summary["labels"][name]["metrics"]
        assert metrics["count"] == (known[:, column] >= 0).sum()
        assert metrics["positives"] == (known[:, column] == 1).sum()


def test_a_group_counts_as_one_image_in_every_interval(
    data: Data, cache: Path, tmp_path: Path
) -> None:
    """Every image stands there four times: as one group each, or on its own."""
    copies = 4
    values, vectors = (np.repeat(part[:60], copies, axis=0) for part in (data.values, data.vectors))
    vectors = vectors + 1e-3 * np.random.default_rng(0).normal(size=vectors.shape)
    other = write(tmp_path / "data", values, vectors.astype(np.float32))
    names = [f"image_{row}.jpg" for row in range(len(values))]
    part = np.where(np.arange(len(values)) // copies % 3 == 0, "test", "train")
    pd.DataFrame({"filename": names, "part": part}).to_csv(other.folder / "split.csv", index=False)
    reach = {}
    for kind, group in (("one", np.arange(len(values)) // copies), ("own", np.arange(len(values)))):
        file = tmp_path / f"{kind}.csv"
        pd.DataFrame({"filename": names, "group": group}).to_csv(file, index=False)
        config = configured(multilabel_config, other, data__groups=str(file))
        summary = multilabel.run(config, tmp_path / kind)
        reach[kind] = {
            name: summary["test"][name]["high"] - summary["test"][name]["low"]
            for name in ("macro_roc_auc", "hamming_score")
        }
    assert reach["one"]["hamming_score"] > 1.5 * reach["own"]["hamming_score"]
    assert reach["one"]["macro_roc_auc"] > 1.5 * reach["own"]["macro_roc_auc"]


def test_a_row_that_is_left_out_is_named_by_its_line(data: Data, tmp_path: Path) -> None:
    """The fourth line of a file with a header: what an editor shows."""
    other = write(tmp_path / "data", data.values, data.vectors)
    lines = (other.folder / "labels.csv").read_text().splitlines()
    lines[3] = lines[3].replace("image_2.jpg", "gone.jpg")
    (other.folder / "labels.csv").write_text("\n".join(lines) + "\n")
    config = configured(impute_config, other, data__split="", data__max_bad_fraction=0.1)
    collection = open_collection(resolve(config, lambda _: None), cache_folder(), Journal())
    (left_out,) = collection.quarantine
    assert (left_out.filename, left_out.row) == ("gone.jpg", 4)
