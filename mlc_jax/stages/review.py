"""Review: a page on which a person looks at doubtful cells, and the way back of what is decided.

The impute run is read and never written. What the model sees in a cell comes from the feature cache
and, for the heat maps of the cells shown first, from the restored heads.
"""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from mlc_jax.assess.looks import estimated_error, most_useful_first
from mlc_jax.assess.neighbours import nearest
from mlc_jax.data.cells import with_guesses, write_cells
from mlc_jax.data.decisions import read_decisions, with_decisions, write_changes
from mlc_jax.data.embeddings import EmbeddingSet
from mlc_jax.data.label_studio import Question, write_labelling_config, write_tasks
from mlc_jax.data.labels import write_labels
from mlc_jax.data.suspects import read_suspects
from mlc_jax.data.table import MISSING, LabelTable
from mlc_jax.errors import ConfigError, LabelsError
from mlc_jax.files.outputs import Results
from mlc_jax.files.runs import open_run
from mlc_jax.files.workdir import owned
from mlc_jax.journal import Journal
from mlc_jax.models.feature_store import FeatureStore
from mlc_jax.models.features import feature_shape
from mlc_jax.report.review_page import (
    ABSTAINED,
    FILLED,
    SUSPECT,
    Cell,
    Label,
    ReviewPage,
    write_review,
)
from mlc_jax.report.terminal import show_changes
from mlc_jax.report.thumbnails import SMALLEST, Thumbnail, fitting_thumbnails
from mlc_jax.settings import cache_folder
from mlc_jax.training.cell_maps import cell_maps, map_source
from mlc_jax.training.feeds import stored_spec
from mlc_jax.training.impute_run import ImputeRun, open_impute, restore, restore_heads
from mlc_jax.training.parallel import Devices
from mlc_jax.training.provenance import plain
from mlc_jax.training.restore import image_folder_of

PAGE_FILES = ("review.html", "label_studio.json", "label_studio.xml")
TABLE_FILES = ("labels.csv", "cells.csv", "changes.csv")
SUSPECTS = "suspects.csv"
CHANGES = ("confirmed", "corrected", "filled")
CELL_BYTES = 400  # of the page for a cell without its picture and heat map, at most

Neighbours = tuple[tuple[str, int], ...]


def run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Writes the page; or, where decisions are given, the table with the decisions in it.

    Args:
      config: of configs/review.py, as the command line left it.
      workdir: where the files go, over those of an earlier review; not that of the impute run.

    Returns:
      What summary.json holds.
    """
    journal = Journal()
    config = config.copy_and_resolve_references()
    check(config)
    run_read = open_run(Path(config.checkpoint), ("impute",))
    outputs = TABLE_FILES if config.review.decisions else PAGE_FILES
    with owned(workdir):
        results = Results(workdir, config.stage, run_read, outputs)
        results.check()
        source = open_impute(run_read)
        if config.review.decisions:
            found = apply_decisions(config, source, results, workdir, journal)
        else:
            found = write_page(config, source, results, workdir, journal)
        summary = {
            "checkpoint": {
                "workdir": str(run_read.workdir.absolute()),
                "digest": run_read.digest,
            },
            "data": {"demo": run_read.demo},
            **found,
            "warnings": journal.warnings,
            "notes": journal.notes,
            "seconds": journal.seconds,
            "config": plain(config),
        }
        return results.finish(summary)


def check(config: ConfigDict) -> None:
    """Raises ConfigError on a value that cannot be used, naming key, value and remedy."""
    review = config.review
    checks = {
        "cells": ("1 or more", review.cells >= 1),
        "maps": ("0 or more", review.maps >= 0),
        "neighbours": ("0 to 12", 0 <= review.neighbours <= 12),
        "thumbnail": (f"{SMALLEST} to 1024 pixels", SMALLEST <= review.thumbnail <= 1024),
        "max_megabytes": ("1 to 1000", 1 <= review.max_megabytes <= 1000),
    }
    for key, (expected, good) in checks.items():
        if not good:
            raise ConfigError(
                f"config.review.{key}={review[key]!r} cannot be used; expected {expected}"
            )


def apply_decisions(
    config: ConfigDict, source: ImputeRun, results: Results, workdir: Path, journal: Journal
) -> dict[str, Any]:
    """Writes labels.csv, cells.csv and changes.csv: the run's table with the decisions in it."""
    decisions = read_decisions(config.review.decisions, source.run.digest, source.table.names)
    table, cells, changes = with_decisions(source.table, source.cells, decisions)
    journal.note(decisions.origin)
    if decisions.left_open:
        journal.note(f"{decisions.left_open} cells were looked at and left open; they stay as is")
    results.replace(journal.note)
    shown = with_guesses(table, cells)
    write_labels(workdir / "labels.csv", shown)
    write_cells(workdir / "cells.csv", cells)
    write_changes(workdir / "changes.csv", changes)
    labels = change_counts(shown, changes)
    show_changes(labels, workdir, journal)
    return {"decided": len(changes), "left_open": decisions.left_open, "labels": labels}


def change_counts(table: LabelTable, changes: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Per label how many cells were confirmed, corrected and filled, and how many are blank yet."""
    counted = changes.groupby(["label", "change"]).size()
    return {
        name: {change: int(counted.get((name, change), 0)) for change in CHANGES}
        | {"still_blank": int((table.values[:, column] == MISSING).sum())}
        for column, name in enumerate(table.names)
    }


def write_page(
    config: ConfigDict, source: ImputeRun, results: Results, workdir: Path, journal: Journal
) -> dict[str, Any]:
    """Writes review.html, and the same cells for Label Studio."""
    names, labels = source.table.names, source.run.summary["labels"]
    frame = cells_to_look_at(source)
    chosen = frame.head(config.review.cells)
    near, heat = seen_by_the_model(config, source, chosen, journal)
    pictures = draw_pictures(config, source, chosen, near, heat, journal)
    cells = [
        Cell(
            filename=record["filename"],
            label=names.index(record["label"]),
            value=record["value"],
            reason=record["reason"],
            probability=record["probability"],
            threshold=record["threshold"],
            error=record["error"],
            neighbours=neighbours,
            heat=heat.get(number),
        )
        for number, (record, neighbours) in enumerate(
            zip(chosen.to_dict("records"), near, strict=True)
        )
        if record["filename"] in pictures
    ]
    notes = what_is_missing(config, source, cells, pictures, len(frame))
    for note in notes:
        journal.note(note)

    results.replace(journal.note)
    page = ReviewPage(
        workdir=str(source.run.workdir),
        run=source.run.digest,
        command=shlex.join(
            (
                *("python", "-m", "mlc_jax.main", "--config=configs/review.py"),
                *(f"--workdir={workdir}", f"--config.checkpoint={source.run.workdir}"),
                "--config.review.decisions=FILE",
            )
        ),
        labels=[Label(name, labels[name]["learnable"], labels[name]["verdict"]) for name in names],
        cells=cells,
        notes=[*journal.warnings, *notes],
        demo=source.run.demo,
    )
    write_review(workdir / "review.html", page, pictures)
    questions = [Question(c.filename, names[c.label], c.value, c.reason) for c in cells]
    folder = image_folder_of(source.run)
    tasks = write_tasks(workdir / "label_studio.json", questions, names, source.run.digest, folder)
    write_labelling_config(workdir / "label_studio.xml", names)

    reasons = {why: sum(c.reason == why for c in cells) for why in (SUSPECT, ABSTAINED, FILLED)}
    size = (workdir / "review.html").stat().st_size
    counted = ", ".join(f"{count} {why}" for why, count in reasons.items())
    journal.line(f"{len(cells)} cells to look at: {counted}")
    journal.line(f"open in a browser {workdir / 'review.html'} ({size / 1e6:.1f} MB)")
    journal.line(f"{tasks} tasks for Label Studio {workdir / 'label_studio.json'}")
    return {"cells": reasons, "left_out": len(frame) - len(cells), "page_bytes": size}


def cells_to_look_at(source: ImputeRun) -> pd.DataFrame:
    """The suspect, abstained and filled cells, most useful first.

    Returns:
      filename, label, value (-1 where blank), probability, threshold, reason, error, learnable.

    Raises:
      LabelsError: suspects.csv names a cell that is no observed one, or there is nothing to review.
    """
    cells = source.cells
    imputed = (cells["source"] == "imputed").to_numpy()
    blank = imputed & (cells["value"] == MISSING).to_numpy()
    value = np.where(blank, MISSING, cells["value"]).astype(np.int8)
    error = estimated_error(value, cells["probability"].to_numpy())
    reason = np.select([blank, imputed], [ABSTAINED, FILLED], default="").astype(object)
    suspects_file = source.run.workdir / SUSPECTS
    if suspects_file.exists():
        place_of = {
            cell: place
            for place, cell in enumerate(zip(cells["filename"], cells["label"], strict=True))
        }
        for suspect in read_suspects(suspects_file):
            place = place_of.get((suspect.filename, suspect.label), -1)
            if place < 0 or imputed[place] or value[place] != suspect.value:
                raise LabelsError(
                    f"{suspects_file}: {suspect.filename!r}, {suspect.label!r} is no observed cell "
                    f"of value {suspect.value}; impute again"
                )
            reason[place], error[place] = SUSPECT, suspect.confidence
    records = source.run.summary["labels"]
    learnable = [records[label]["learnable"] for label in cells["label"]]
    frame = cells[["filename", "label", "probability", "threshold"]].assign(
        value=value, reason=reason, error=error, learnable=learnable
    )
    frame = frame[frame["reason"] != ""]
    if frame.empty:
        raise LabelsError(
            f"{source.run.workdir} has no filled, abstained or suspect cell: nothing to review"
        )
    order = most_useful_first(frame["error"].to_numpy(), frame["learnable"].to_numpy())
    return frame.iloc[order].reset_index(drop=True)


def seen_by_the_model(
    config: ConfigDict, source: ImputeRun, chosen: pd.DataFrame, journal: Journal
) -> tuple[list[Neighbours], dict[int, np.ndarray]]:
    """Each cell's neighbours, and the heat maps of the first cells that a model speaks of.

    Returns:
      (per cell the neighbours' file names and values, nearest first; number of a cell to its map).
    """
    weights = config.backbone.weights
    restored = restore(source.run, journal, own_table=True, weights=weights)
    images = restored.collection.images
    if isinstance(images, EmbeddingSet):
        human = np.where(restored.collection.table.human, restored.collection.table.values, MISSING)
        near = find_neighbours(
            images.array[:, 0], human, source.table, chosen, config.review.neighbours
        )
        return near, {}
    spec = stored_spec(restored.config, restored.backbone, cache_folder())
    shape = feature_shape(restored.backbone, spec)
    store = FeatureStore(cache_folder(), spec, shape, journal.warn)
    # A run without the cache may have tuned its backbone, which is then another for every head.
    missing = len(store.missing(images)) if restored.config.features.cache else len(images)
    if missing:
        journal.warn(
            f"the feature cache lacks {missing} images of the run: no neighbours and no heat maps; "
            "run impute with features.cache=true into another --workdir to fill it"
        )
        return [()] * len(chosen), {}
    human = np.where(restored.collection.table.human, restored.collection.table.values, MISSING)
    with journal.phase("find neighbours", len(chosen), "cells") as advance:
        features = store.pooled(images)
        near = find_neighbours(features, human, source.table, chosen, config.review.neighbours)
        advance(len(chosen))
    # A label that no fold could judge has a probability, but no heads of folds.
    records = source.run.summary["labels"]
    fitted = np.array([records[label]["fitted"] for label in chosen["label"]], np.bool_)
    asked = np.flatnonzero(chosen["probability"].notna() & fitted)[: config.review.maps]
    if not asked.size:
        return near, {}
    if not (source.run.workdir / "checkpoints").is_dir():
        journal.warn(f"{source.run.workdir} has lost its checkpoints: no heat maps")
        return near, {}
    completion = restore_heads(source.run, restored, journal)
    places = places_of(source.table, chosen.iloc[asked])
    devices = Devices(restored.config.parallel)
    with journal.phase("draw heat maps", len({row for row, _ in places}), "images") as advance:
        maps_of, most = map_source(store, restored.backbone, spec, images, devices)
        maps = cell_maps(completion, human, maps_of, most, places, advance)
    return near, dict(zip(asked.tolist(), maps, strict=True))


def places_of(table: LabelTable, cells: pd.DataFrame) -> list[tuple[int, int]]:
    """Row and column of each cell in the table."""
    rows = {filename: row for row, filename in enumerate(table.filenames)}
    columns = {name: column for column, name in enumerate(table.names)}
    return [
        (rows[filename], columns[label])
        for filename, label in zip(cells["filename"], cells["label"], strict=True)
    ]


def find_neighbours(
    features: np.ndarray, human: np.ndarray, table: LabelTable, chosen: pd.DataFrame, count: int
) -> list[Neighbours]:
    """Per cell the images most like its own whose cell for that label a person gave.

    Args:
      features: float32 [N, C], pooled.
      human: int8 [N, L], 0 or 1 where a person gave the cell, -1 elsewhere.
      table: of the run; its rows are those of `features`.
      chosen: the cells.
      count: neighbours per cell.
    """
    places = np.array(places_of(table, chosen))
    found: list[Neighbours] = [()] * len(chosen)
    for column in np.unique(places[:, 1]).tolist():
        numbers = np.flatnonzero(places[:, 1] == column)
        observed = np.flatnonzero(human[:, column] != MISSING)
        rows = nearest(features, places[numbers, 0], observed, count)
        for number, own in zip(numbers.tolist(), rows, strict=True):
            found[number] = tuple(
                (table.filenames[row], int(human[row, column])) for row in own.tolist() if row >= 0
            )
    return found


def draw_pictures(
    config: ConfigDict,
    source: ImputeRun,
    chosen: pd.DataFrame,
    near: list[Neighbours],
    heat: dict[int, np.ndarray],
    journal: Journal,
) -> dict[str, Thumbnail]:
    """Thumbnails of the cells' images, then of their neighbours, as far as the page has room."""
    wanted = dict.fromkeys(chosen["filename"])
    wanted |= dict.fromkeys(name for neighbours in near for name, _ in neighbours)
    room = 10**6 * config.review.max_megabytes - CELL_BYTES * len(chosen)
    room -= sum(5 * grid.size for grid in heat.values())
    folder = image_folder_of(source.run)
    follow_links = bool(source.run.summary["config"]["data"].get("follow_links"))
    with journal.phase("draw thumbnails", len(wanted), "images") as advance:
        return fitting_thumbnails(
            folder, list(wanted), config.review.thumbnail, room, advance, follow_links
        )


def what_is_missing(
    config: ConfigDict,
    source: ImputeRun,
    cells: list[Cell],
    pictures: dict[str, Thumbnail],
    found: int,
) -> list[str]:
    """Sentences on what the page does not show, though one might expect it."""
    review = config.review
    notes = []
    if len(cells) < found:
        notes.append(
            f"{found - len(cells)} of {found} cells, the least useful ones, are not on the page, "
            f"which holds at most {review.cells} cells (config.review.cells) and "
            f"{review.max_megabytes} MB (config.review.max_megabytes)."
        )
    lost = sum(name not in pictures for cell in cells for name, _ in cell.neighbours)
    if lost:
        notes.append(
            f"{lost} neighbours are not on the page, as there is no room for their images."
        )
    drawn = sum(cell.heat is not None for cell in cells)
    if drawn < len(cells):
        notes.append(
            f"{drawn} cells have a heat map: the first ones that a model speaks of "
            f"(config.review.maps={review.maps})."
        )
    if not (source.run.workdir / SUSPECTS).exists():
        notes.append(
            f"The run has no {SUSPECTS}, so no cell that a person gave is shown as suspect."
        )
    return notes
