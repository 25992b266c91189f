"""A review from end to end: the page of a finished run, the decisions, and the table they make."""

import csv
import dataclasses
import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from configs.multilabel import get_config as multilabel_config
from configs.review import get_config
from mlc_jax.data.cells import read_cells, with_cells, write_cells
from mlc_jax.data.decisions import FORMAT
from mlc_jax.data.labels import read_labels, write_labels
from mlc_jax.data.suspects import read_suspects
from mlc_jax.errors import CheckpointError, ConfigError, LabelsError, WorkdirError
from mlc_jax.files.runs import open_run
from mlc_jax.journal import Journal
from mlc_jax.models.feature_store import FeatureStore
from mlc_jax.models.features import feature_shape
from mlc_jax.settings import cache_folder
from mlc_jax.stages import impute, multilabel, review
from mlc_jax.training.cell_maps import cell_maps, map_source
from mlc_jax.training.feeds import make_spec
from mlc_jax.training.impute_run import open_impute, restore, restore_heads
from mlc_jax.training.parallel import Devices
from tests.chromium import chromium
from tests.stages.conftest import ROWS, Configure

Finished = tuple[Path, dict[str, Any]]
Page = tuple[Path, dict[str, Any]]


def run_review(checkpoint: Path, workdir: Path, **keys: Any) -> dict[str, Any]:
    config = get_config()
    config.checkpoint = str(checkpoint)
    config.review.update(keys)
    return review.run(config, workdir)


def data_of(workdir: Path) -> dict[str, Any]:
    """What the page was given."""
    text = (workdir / "review.html").read_text()
    (found,) = re.findall(r'id="cells-json">(.*?)</script>', text)
    data: dict[str, Any] = json.loads(found)
    return data


def bytes_of(folder: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="session")
def page(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The workdir of a written page, and what the page was given."""
    workdir = tmp_path_factory.mktemp("review")
    before = bytes_of(finished[0])
    summary = run_review(finished[0], workdir, maps=10)
    assert bytes_of(finished[0]) == before, "the run is not touched"
    assert "extract features" not in summary["seconds"]
    assert summary["left_out"] == 0
    return workdir, data_of(workdir)


def cell_of(data: dict[str, Any], number: int) -> tuple[str, str]:
    cell = data["cells"][number]
    return data["images"][cell["image"]]["name"], data["labels"][cell["label"]]["name"]


def decide(path: Path, data: dict[str, Any], values: dict[tuple[str, str], int | None]) -> Path:
    listed = [{"filename": f, "label": n, "value": value} for (f, n), value in values.items()]
    content = {"format": FORMAT, "version": 1, "run": data["run"], "decisions": listed}
    path.write_text(json.dumps(content))
    return path


def test_every_filled_cell_is_there_and_the_doubtful_ones_come_first(
    finished: Finished, page: Page
) -> None:
    data = page[1]
    cells = read_cells(finished[0] / "cells.csv").set_index(["filename", "label"])
    shown = [cell_of(data, number) for number in range(len(data["cells"]))]
    suspects = [(s.filename, s.label) for s in read_suspects(finished[0] / "suspects.csv")]
    assert suspects, "the run has some, so that this tests something"
    assert set(shown) == {*cells.index[cells["source"] == "imputed"], *suspects}
    reasons = {cell_of(data, n): cell["reason"] for n, cell in enumerate(data["cells"])}
    assert {cell for cell, reason in reasons.items() if reason == "suspect"} == set(suspects)
    value, p = cells.loc[shown, "value"], cells.loc[shown, "probability"]
    wrong = np.where(value == 1, 1 - p, p)
    learnable = [finished[1]["labels"][label]["learnable"] for _, label in shown]
    assert learnable == sorted(learnable, reverse=True)
    for own in (True, False):
        errors = wrong[np.array(learnable) == own]
        assert (np.diff(errors) <= 0).all()
    np.testing.assert_allclose([cell["error"] for cell in data["cells"]], wrong, atol=1e-4)


def test_neighbours_are_images_whose_label_a_person_gave(finished: Finished, page: Page) -> None:
    data = page[1]
    cells = read_cells(finished[0] / "cells.csv").set_index(["filename", "label"])
    for number, cell in enumerate(data["cells"]):
        filename, label = cell_of(data, number)
        assert len(cell["neighbours"]) == 4
        for image, value in cell["neighbours"]:
            other = data["images"][image]["name"]
            assert other != filename
            assert cells.loc[(other, label), "source"] == "observed"
            assert cells.loc[(other, label), "value"] == value


def test_a_heat_map_adds_up_to_the_logit_of_the_heads_that_predicted_the_cell(
    finished: Finished, page: Page
) -> None:
    """A known cell's by the head that never saw the image, a blank one's by all of its label.

    Fails if the map is of another label's head, of another image, or standardised twice.
    """
    assert sum(cell["map"] is not None for cell in page[1]["cells"]) == 10
    journal = Journal()
    source = open_impute(open_run(finished[0], ("impute",)))
    restored = restore(source.run, journal, own_table=True)
    images, backbone = restored.collection.images, restored.backbone
    completion = restore_heads(source.run, restored, journal)
    spec, devices = make_spec(restored.config, backbone), Devices("jit")
    store = FeatureStore(cache_folder(), spec, feature_shape(backbone, spec), journal.warn)
    maps_of, most = map_source(store, backbone, spec, images, devices)
    pooled = store.pooled(images)
    table = restored.collection.table
    values = np.where(table.human, table.values, -1)
    blank = [tuple(place) for place in np.argwhere(values < 0)[:3].tolist()]
    places = [(5, 2), (40, 0), (5, 1), (89, 3), (17, 2), *blank]
    # Whichever rounds were kept: a head of the first fit, and one that was told other labels.
    for number, fitted in enumerate(completion.fits):
        kept = dataclasses.replace(completion, model_round=np.full(4, number))
        maps = cell_maps(kept, values, maps_of, most, places, lambda _: None)
        for (row, column), heat in zip(places, maps, strict=True):
            said = []
            for own, head in enumerate(fitted.heads):
                seen = row in [*head.split.train, *head.split.stop]
                if head.label == column and (values[row, column] < 0 or not seen):
                    mean, std = (np.asarray(a[own]) for a in fitted.frozen[:2])
                    kernel = np.asarray(fitted.params.head["dense"]["kernel"])[own, :, 0]
                    said.append(((pooled[row] - mean) / std) @ kernel)
            assert len(said) == (3 if values[row, column] < 0 else 1)
            # The store rounds to float16, the map does not.
            assert heat.sum() == pytest.approx(np.mean(said), abs=0.01)


def test_a_label_that_no_fold_could_judge_is_shown_without_a_map(
    configure: Configure, drawn: Path, tmp_path: Path
) -> None:
    """Its blanks have a probability, and no head of a fold."""
    with (drawn / "set" / "labels.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    rows[0].append("single")
    for number, row in enumerate(rows[1:]):
        row.append("1" if number == 5 else "0" if number < 85 else "")
    labels = tmp_path / "labels.csv"
    with labels.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    impute.run(configure(data__labels=str(labels), loss__name="bce"), tmp_path / "run")
    run_review(tmp_path / "run", tmp_path / "review", maps=100)
    data = data_of(tmp_path / "review")
    maps: dict[str, list[bool]] = {}
    for number, cell in enumerate(data["cells"]):
        maps.setdefault(cell_of(data, number)[1], []).append(cell["map"] is not None)
    assert maps["single"] == [False] * (ROWS - 85)
    assert all(any(own) for name, own in maps.items() if name != "single")


def test_decisions_make_a_table_that_both_stages_take_as_human(
    finished: Finished, page: Page, configure: Configure, tmp_path: Path
) -> None:
    data = page[1]
    before = read_cells(finished[0] / "cells.csv")
    filled = [n for n, cell in enumerate(data["cells"]) if cell["reason"] == "filled"]
    decided: dict[tuple[str, str], int | None] = {
        cell_of(data, number): 1 - data["cells"][number]["value"] for number in filled[:6]
    }
    decided[cell_of(data, filled[6])] = data["cells"][filled[6]]["value"]
    decided[cell_of(data, filled[7])] = None
    file = decide(tmp_path / "d.json", data, decided)
    summary = run_review(finished[0], tmp_path / "review", decisions=str(file))
    assert (summary["decided"], summary["left_open"]) == (7, 1)
    assert sum(record["corrected"] for record in summary["labels"].values()) == 6
    assert sum(record["confirmed"] for record in summary["labels"].values()) == 1

    labels = tmp_path / "review" / "labels.csv"
    cells = read_cells(labels.with_name("cells.csv"))
    reviewed = cells["source"] == "reviewed"
    assert reviewed.sum() == 7
    pd.testing.assert_frame_equal(cells[~reviewed], before[~reviewed])
    np.testing.assert_array_equal(cells["probability"], before["probability"])
    for cell in cells[reviewed].itertuples():
        assert decided[(cell.filename, cell.label)] == cell.value

    again = impute.run(configure(data__labels=str(labels), epochs=1), tmp_path / "impute")
    known = {name: record["known"] for name, record in finished[1]["labels"].items()}
    for _, label in list(decided)[:7]:
        known[label] += 1
    assert {name: record["known"] for name, record in again["labels"].items()} == known
    kept = read_cells(tmp_path / "impute" / "cells.csv")
    assert (kept["source"] == cells["source"]).all()
    assert (kept["value"][reviewed] == cells["value"][reviewed]).all()

    config = multilabel_config()
    config.update_from_flattened_dict(
        {
            "source": "",
            "data.labels": str(labels),
            "data.images": finished[1]["data"]["image_folder"],
            "data.image_size": (32, 32),
            "backbone.name": "mobilenet_v2",
            "backbone.weights": "random",
            "features.views": 1,
            "head.name": "linear",
            "epochs": 1,
            "folds": 3,
        }
    )
    trained = multilabel.run(config, tmp_path / "multilabel")
    assert trained["data"]["observed"] == sum(known.values())


def changed_copy(finished: Finished, folder: Path) -> tuple[Path, tuple[str, str], tuple[str, str]]:
    """A run with one suspect, of value 1, and one cell that the model abstained on."""
    shutil.copytree(finished[0], folder)
    cells = read_cells(folder / "cells.csv")
    suspect = cells.index[(cells["source"] == "observed") & (cells["value"] == 1)][7]
    blank = cells.index[cells["source"] == "imputed"][3]
    cells.loc[blank, ["value", "accepted"]] = -1, False
    write_cells(folder / "cells.csv", cells)
    table = read_labels(folder / "labels.csv").table
    row, column = divmod(blank, len(table.names))
    mask = np.zeros(table.values.shape, np.bool_)
    mask[row, column] = True
    write_labels(folder / "labels.csv", table.hide(mask))
    named = [(str(cells["filename"][n]), str(cells["label"][n])) for n in (suspect, blank)]
    (folder / "suspects.csv").write_text(
        f"filename,label,value,probability,confidence\n{','.join(named[0])},1,0.004,0.996\n"
    )
    return folder, named[0], named[1]


def test_suspects_come_first_and_a_blank_can_be_filled(finished: Finished, tmp_path: Path) -> None:
    source, suspect, blank = changed_copy(finished, tmp_path / "impute")
    workdir = tmp_path / "review"
    summary = run_review(source, workdir, maps=0)
    assert summary["cells"]["suspect"] == summary["cells"]["abstained"] == 1
    data = data_of(workdir)
    assert cell_of(data, 0) == suspect
    assert data["cells"][0]["error"] == 0.996
    reasons = {cell_of(data, n): cell["reason"] for n, cell in enumerate(data["cells"])}
    assert reasons[blank] == "abstained"
    file = decide(tmp_path / "d.json", data, {suspect: 0, blank: 1})
    run_review(source, workdir, decisions=str(file))
    assert (workdir / "review.html").exists(), "one can go on deciding"
    lines = (workdir / "changes.csv").read_text().splitlines()[1:]
    assert sorted(",".join(line.split(",")[:6]) for line in lines) == sorted(
        [
            f"{','.join(suspect)},1,observed,0,corrected",
            f"{','.join(blank)},,imputed,1,filled",
        ]
    )
    cells = read_cells(workdir / "cells.csv")
    written = read_labels(workdir / "labels.csv").table
    assert written.known.all()
    learned = [name for name, one in source_labels(source).items() if one["learnable"]]
    known = with_cells(written, cells).known
    # What could not be learned was filled with a guess, which is no cell to rely on.
    assert known[:, [written.names.index(name) for name in learned]].all()
    assert not known.all()


def source_labels(source: Path) -> dict[str, Any]:
    labels: dict[str, Any] = json.loads((source / "summary.json").read_text())["labels"]
    return labels


def test_an_export_of_label_studio_does_the_same(
    finished: Finished, page: Page, tmp_path: Path
) -> None:
    """What the page's file does, from the tasks beside the page, answered as Label Studio would."""
    workdir, data = page
    tasks = json.loads((workdir / "label_studio.json").read_text())
    assert len(tasks) == len({cell["image"] for cell in data["cells"]})
    values: dict[tuple[str, str], int | None] = {}
    for task in tasks[:5]:
        results = task["predictions"][0]["result"]
        task["annotations"] = [{"result": results, "was_cancelled": False}]
        for result in results:
            label = data["labels"][int(result["from_name"].removeprefix("label_")) - 1]["name"]
            values[(task["data"]["filename"], label)] = int(result["value"]["choices"][0])
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    decide(tmp_path / "own.json", data, values)
    for name in ("export", "own"):
        run_review(finished[0], tmp_path / name, decisions=str(tmp_path / f"{name}.json"))
    for file in ("labels.csv", "cells.csv", "changes.csv"):
        assert (tmp_path / "export" / file).read_bytes() == (tmp_path / "own" / file).read_bytes()


def test_what_a_person_decides_in_a_browser_comes_back(
    finished: Finished, page: Page, tmp_path: Path
) -> None:
    """The round trip: the page of a real run, keys, the saved file, and the table."""
    workdir, data = page
    with chromium(tmp_path / "browser") as browser:
        browser.open(workdir / "review.html")
        browser.press("1", "0", "s", "0", "u", "1")
        browser.click("#save")
        end = time.monotonic() + 20
        while not (saved := list(browser.downloads.glob("*.json"))):
            assert time.monotonic() < end, "nothing was downloaded"
            time.sleep(0.05)
        assert browser.complaints() == []
    assert saved[0].name == f"decisions-{data['run'][:8]}.json"
    run_review(finished[0], tmp_path / "review", decisions=str(saved[0]))
    cells = read_cells(tmp_path / "review" / "cells.csv")
    reviewed = cells[cells["source"] == "reviewed"].set_index(["filename", "label"])["value"]
    assert reviewed.to_dict() == {cell_of(data, n): v for n, v in ((0, 1), (1, 0), (3, 1))}


def test_what_does_not_fit_on_the_page_is_said(
    finished: Finished, page: Page, tmp_path: Path
) -> None:
    assert "10 cells have a heat map" in (page[0] / "review.html").read_text()
    summary = run_review(finished[0], tmp_path, cells=5, maps=0, neighbours=0)
    data = data_of(tmp_path)
    assert len(data["cells"]) == 5
    assert len(data["images"]) == len({cell["image"] for cell in data["cells"]})
    assert summary["left_out"] > 0
    text = (tmp_path / "review.html").read_text()
    said = f"{summary['left_out']} of"
    assert said in text
    assert any(said in note for note in summary["notes"])


def test_a_lost_cache_costs_neighbours_and_maps_but_not_the_review(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLC_JAX_CACHE", str(tmp_path / "empty"))
    summary = run_review(finished[0], tmp_path / "review")
    assert any("feature cache lacks 90 images" in warning for warning in summary["warnings"])
    assert "extract features" not in summary["seconds"]
    data = data_of(tmp_path / "review")
    assert data["cells"]
    assert not any(cell["neighbours"] or cell["map"] is not None for cell in data["cells"])


def test_lost_checkpoints_cost_the_maps_and_nothing_is_trained_anew(
    finished: Finished, tmp_path: Path
) -> None:
    shutil.copytree(
        finished[0],
        tmp_path / "run",
        ignore=lambda _, names: {"checkpoints", "suspects.csv"} & set(names),
    )
    before = bytes_of(tmp_path / "run")
    summary = run_review(tmp_path / "run", tmp_path / "review", cells=5)
    assert any("lost its checkpoints" in warning for warning in summary["warnings"])
    data = data_of(tmp_path / "review")
    assert all(cell["neighbours"] and cell["map"] is None for cell in data["cells"])
    assert any("no suspects.csv" in note for note in summary["notes"])
    assert bytes_of(tmp_path / "run") == before


def test_bad_decisions_are_refused_and_leave_an_earlier_review_alone(
    finished: Finished, page: Page, tmp_path: Path
) -> None:
    data = page[1]
    good = decide(tmp_path / "good.json", data, {cell_of(data, 0): 1})
    run_review(finished[0], tmp_path / "review", decisions=str(good))
    before = bytes_of(tmp_path / "review")
    unknown = decide(tmp_path / "unknown.json", data, {("no.jpg", "no"): 1})
    other = decide(tmp_path / "other.json", data | {"run": "f" * 64}, {cell_of(data, 0): 1})
    for file, said in (
        (unknown, "the run has no such cell"),
        (other, "about another run"),
        (tmp_path / "absent.json", "No such file"),
    ):
        with pytest.raises(LabelsError, match=said):
            run_review(finished[0], tmp_path / "review", decisions=str(file))
    assert bytes_of(tmp_path / "review") == before


def test_what_is_no_finished_impute_run_is_refused(
    finished: Finished, page: Page, tmp_path: Path
) -> None:
    for checkpoint in (tmp_path / "nothing", page[0]):
        with pytest.raises(CheckpointError, match=r"a finished run of configs/impute\.py"):
            run_review(checkpoint, tmp_path / "review")
    before = bytes_of(finished[0])
    with pytest.raises(WorkdirError, match="holds a run of stage 'impute'"):
        run_review(finished[0], finished[0], maps=0)
    assert bytes_of(finished[0]) == before


def test_a_run_of_a_version_without_one_of_our_keys_is_refused(
    finished: Finished, tmp_path: Path
) -> None:
    shutil.copytree(finished[0], tmp_path / "old")
    inputs = json.loads((tmp_path / "old" / "run.json").read_text())
    del inputs["config"]["augment"]["zoom"]
    (tmp_path / "old" / "run.json").write_text(json.dumps(inputs))
    with pytest.raises(CheckpointError, match=r"another version.* no config\.augment\.zoom"):
        run_review(tmp_path / "old", tmp_path / "review")


def test_a_suspect_that_is_no_observed_cell_is_refused(finished: Finished, tmp_path: Path) -> None:
    source, _, blank = changed_copy(finished, tmp_path / "impute")
    (source / "suspects.csv").write_text(
        f"filename,label,value,probability,confidence\n{','.join(blank)},1,0.1,0.9\n"
    )
    with pytest.raises(LabelsError, match=r"suspects\.csv: .* is no observed cell of value 1"):
        run_review(source, tmp_path / "review")


@pytest.mark.parametrize(
    ("key", "value"),
    [("cells", 0), ("maps", -1), ("neighbours", 13), ("thumbnail", 20), ("max_megabytes", 0)],
)
def test_a_value_that_cannot_be_used_is_named(key: str, value: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"config\.review\.{key}={value}"):
        run_review(tmp_path, tmp_path / "review", **{key: value})
