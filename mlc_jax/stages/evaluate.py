"""Evaluate: measure a finished run again from its checkpoint, on its own data or on others.

On the run's own data a classifier is judged on the stored test split, and gets the figures it got
in training. On other data it is judged on every row but those whose image, or a near copy of it, or
another of its group, it was trained on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mlc_jax.assess.held_out import TestFigures, judge_test
from mlc_jax.data.collection import Collection, open_collection
from mlc_jax.data.folds import groups_of_copies
from mlc_jax.data.groups import find_groups
from mlc_jax.data.labels import write_quarantine
from mlc_jax.data.near_copies import SeenImages
from mlc_jax.data.table import MISSING
from mlc_jax.errors import CheckpointError, ConfigError, LabelsError
from mlc_jax.files.digest import digest_bytes
from mlc_jax.files.outputs import Results
from mlc_jax.files.runs import Run, open_run, read_record
from mlc_jax.files.workdir import changed_rows, owned
from mlc_jax.journal import Journal
from mlc_jax.report.terminal import show_evaluation
from mlc_jax.settings import cache_folder
from mlc_jax.training.impute_run import restore, restore_heads
from mlc_jax.training.parallel import Devices
from mlc_jax.training.provenance import plain, row_inputs
from mlc_jax.training.restore import (
    TrainedRun,
    image_folder_of,
    open_classifier,
    scorer_with_features,
)

OUTPUTS = ("quarantine.csv",)


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
      labels: per label its figures and why some are not defined.
      whole: figures of all labels together, {value, low, high} each.
      rows: how many images were judged.
      seen: names of the images that were left out because the run was trained on them (exact), on
        near copies of them (near), or on others of their groups (group).
      verdict: for people.
      collection: the data.
    """

    labels: dict[str, dict[str, Any]]
    whole: dict[str, Any]
    rows: int
    seen: dict[str, list[str]]
    verdict: str
    collection: Collection


def run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Evaluates, and writes over an earlier evaluation in the same workdir.

    Args:
      config: of configs/evaluate.py, as the command line left it.
      workdir: where summary.json and quarantine.csv go.

    Returns:
      What summary.json holds.
    """
    journal = Journal()
    config = config.copy_and_resolve_references()
    if not config.features.file and bool(config.data.labels) != bool(config.data.images):
        raise ConfigError("config.data.labels and config.data.images go together: give both")
    if config.data.groups and not config.data.labels:
        raise ConfigError(
            "config.data.groups is of other data, with config.data.labels and config.data.images; "
            "the data of the run keep the groups that it was given"
        )
    if config.batch_size < 0:
        raise ConfigError(f"config.batch_size={config.batch_size}: give 1 or more, or 0")
    source = open_run(Path(config.checkpoint), ("impute", "multilabel"))
    with owned(workdir):
        results = Results(workdir, config.stage, source, OUTPUTS)
        results.check()
        if source.job == "impute":
            found = evaluate_impute(config, source, journal)
        else:
            found = evaluate_classifier(config, source, journal)
        results.replace(journal.note)
        write_quarantine(workdir / "quarantine.csv", found.collection.quarantine)
        summary = {
            "checkpoint": {
                "workdir": str(source.workdir.absolute()),
                "kind": config.checkpoint_kind,
            },
            "data": {
                "demo": source.demo and not config.data.labels,
                "labels_file": str(found.collection.labels_file.absolute()),
                "image_folder": str(found.collection.image_folder.absolute()),
                "judged": found.rows,
                "left_out": len(found.collection.quarantine),
                "seen_in_training": [name for names in found.seen.values() for name in names],
                "seen_as": found.seen,
            },
            "labels": found.labels,
            "test": found.whole,
            "verdict": found.verdict,
            "warnings": journal.warnings,
            "notes": journal.notes,
            "seconds": journal.seconds,
            "config": plain(config),
        }
        summary = results.finish(summary)
        show_evaluation(summary, workdir, journal)
        return summary


def evaluate_classifier(config: ConfigDict, source: Run, journal: Journal) -> Evaluation:
    """Judges the classifier of a multilabel run.

    Raises:
      LabelsError: the labels file lacks a label of the run, or no row is left to judge.
    """
    trained = open_classifier(source, journal, config.backbone.weights, config.features.file)
    data = trained.config.copy_and_resolve_references()
    own = not config.data.labels
    if not own:
        data.data.labels, data.data.images = config.data.labels, config.data.images
        data.data.follow_links, data.data.demo = config.data.follow_links, False
        data.data.groups, data.data.split = config.data.groups, ""
    elif data.data.images and not data.features.file:
        data.data.images = str(image_folder_of(source))
    collection = open_collection(data, cache_folder(), journal)
    if own:
        check_unchanged(source, collection)
    human = columns_of(collection, trained)
    split = read_split(source)
    if own:
        rows, groups = test_rows(collection, split)
        seen: dict[str, list[str]] = {}
        probabilities, _ = score_rows(config, trained, collection, rows, journal)
    else:
        rows, seen = unseen_rows(collection, split)
        probabilities, features = score_rows(config, trained, collection, rows, journal)
        near = near_copies(trained, split, features, journal)
        seen["near"] = [collection.images.filenames[row] for row in rows[near]]
        rows, probabilities, features = rows[~near], probabilities[~near], features[~near]
        say_seen(seen, journal)
        if rows.size:
            similarity = trained.config.near_copies
            groups = find_groups(collection, features, similarity, journal, rows).of_image
    if not rows.size:
        raise LabelsError(
            f"{collection.labels_file}: the run was trained on every image in it; give others"
        )
    human = human[rows]
    figures = judge_test(
        human,
        human != MISSING,
        probabilities,
        trained.classifier.threshold,
        groups,
        seed=trained.config.seed,
    )
    return Evaluation(
        label_records(trained.names, figures),
        {name: interval._asdict() for name, interval in figures.intervals.items()},
        len(rows),
        seen,
        figures.verdict,
        collection,
    )


def check_unchanged(source: Run, collection: Collection) -> None:
    """Compares the images and labels that a run was made from with those that are there now.

    Raises:
      LabelsError: they are others; the message names the first rows.
    """
    now = {"labels": collection.table.digest(), "images": collection.images.digest()}
    if now != {"labels": source.labels, "images": source.images}:
        rows = changed_rows(source.workdir, row_inputs(collection))
        raise LabelsError(
            f"{collection.labels_file}: the data of the run have changed since"
            f"{f' ({rows})' if rows else ''}; put the former ones back, or name the data to be "
            "judged with config.data.labels and config.data.images"
        )


def read_split(source: Run) -> dict[str, Any]:
    """A run's split.json: what it learned from, by digests, and the test images, by name.

    Raises:
      CheckpointError: it is missing or damaged.
    """
    split = read_record(source.workdir / "split.json", source.named, (source.job,))
    kinds = {"held_in": str, "held_in_groups": str, "test": str, "test_groups": int}
    # A run of an earlier version has no groups.
    whole = all(
        isinstance(split.get(part, []), list)
        and all(isinstance(item, kind) for item in split.get(part, []))
        for part, kind in kinds.items()
    )
    if not whole or not {"held_in", "test"} <= split.keys():
        raise CheckpointError(
            f"{source.named} has a damaged split.json; put the former one back, or train again"
        )
    return split


def test_rows(collection: Collection, split: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a run's test split, int64 [n], and the group of each, on the data of the run.

    Raises:
      LabelsError: split.json does not divide the data of the run.
    """
    trained_on = set(split["held_in"])
    digests, names = collection.images.digests, collection.images.filenames
    place_of = {name: row for row, name in enumerate(names)}
    rows = np.array([place_of.get(name, -1) for name in split["test"]], np.int64)
    if (rows < 0).any() or any(digests[row] in trained_on for row in rows):
        raise LabelsError(
            f"{collection.labels_file}: split.json of the run is not that of these data; put "
            "the former one back, or name the data to be judged"
        )
    groups = np.array(split.get("test_groups", ()), np.int64)
    return rows, groups if len(groups) == len(rows) else groups_of_copies(digests)[rows]


def unseen_rows(
    collection: Collection, split: dict[str, Any]
) -> tuple[np.ndarray, dict[str, list[str]]]:
    """The rows of other data that a run has not learned from, and the names of those it has.

    Returns:
      (int64 [n]; names of images that were learned from, and of those of whose group others were).
    """
    names = collection.images.filenames
    trained_on, groups = set(split["held_in"]), set(split.get("held_in_groups", ()))
    exact = np.array([digest in trained_on for digest in collection.images.digests], np.bool_)
    grouped = np.zeros(len(names), np.bool_)
    if collection.groups is not None:
        values = collection.groups.values
        grouped = np.array([digest_bytes(value.encode()) in groups for value in values], np.bool_)
    return np.flatnonzero(~exact & ~grouped), {
        "exact": [names[row] for row in np.flatnonzero(exact)],
        "group": [names[row] for row in np.flatnonzero(grouped & ~exact)],
    }


def near_copies(
    trained: TrainedRun, split: dict[str, Any], features: np.ndarray, journal: Journal
) -> np.ndarray:
    """Which images, by features float [n, C], are near copies of some that a run learned from."""
    similarity = trained.config.near_copies
    if "held_in_features" not in split:
        journal.warn(
            "near copies of images that the run learned from are not recognised: it is of an "
            "earlier version; train again to have them left out"
        )
    if similarity > 1 or "held_in_features" not in split:
        return np.zeros(len(features), np.bool_)
    file = trained.run.workdir / "held_in.npz"
    return SeenImages.read(file, str(split["held_in_features"])).near(features, similarity)


def say_seen(seen: dict[str, list[str]], journal: Journal) -> None:
    """Says which images are left out, and why."""
    reasons = {
        "exact": "were seen in training",
        "near": "are near copies of images that were seen in training",
        "group": "belong to groups (config.data.groups) of which images were seen in training",
    }
    for key, reason in reasons.items():
        if names := seen[key]:
            journal.note(
                f"{len(names)} images {reason} and are left out: {', '.join(names[:10])}"
                f"{' …' if len(names) > 10 else ''}"
            )


def columns_of(collection: Collection, trained: TrainedRun) -> np.ndarray:
    """The human cells of the run's labels, int8 [N, L], whatever their order in the file.

    Raises:
      LabelsError: a label of the run is not in the file.
    """
    table = collection.table
    lacking = [name for name in trained.names if name not in table.names]
    if lacking:
        raise LabelsError(
            f"{collection.labels_file} has no label {', '.join(lacking)}; it has "
            f"{', '.join(table.names)}: rename them as in training"
        )
    human = np.where(table.human, table.values, np.int8(MISSING))
    return human[:, [table.names.index(name) for name in trained.names]]


def score_rows(
    config: ConfigDict,
    trained: TrainedRun,
    collection: Collection,
    rows: np.ndarray,
    journal: Journal,
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the given rows, float64 [n, L], and their features [n, C], in batches."""
    score, most = scorer_with_features(
        trained, config.checkpoint_kind, Devices(config.parallel), config.batch_size
    )
    nothing = np.zeros((0, len(trained.names))), np.zeros((0, trained.backbone.channels))
    parts = [nothing]
    with journal.phase("score", len(rows), "images") as advance:
        for start in range(0, len(rows), most):
            batch = rows[start : start + most]
            parts.append(score(np.stack([collection.images[int(row)] for row in batch])))
            advance(len(batch))
    probabilities, features = zip(*parts, strict=True)
    return np.concatenate(probabilities), np.concatenate(features)


def label_records(names: tuple[str, ...], figures: TestFigures) -> dict[str, dict[str, Any]]:
    """summary.json's `labels`."""
    return {
        name: {
            "test_p_value": float(figures.p_values[column]),
            "metrics": figures.metrics.per_label[column].values,
            "undefined": figures.metrics.per_label[column].reasons,
        }
        for column, name in enumerate(names)
    }


def evaluate_impute(config: ConfigDict, source: Run, journal: Journal) -> Evaluation:
    """Restores the heads of an impute run and evaluates each on the fold it never saw.

    Raises:
      ConfigError: other data were given, on which no fold is out of fold.
      CheckpointError: the data or the weights have changed since.
    """
    if config.data.labels:
        raise ConfigError(
            "config.data.labels: an impute run is judged out of fold, on its own data; leave it out"
        )
    restored = restore(source, journal, own_table=False, weights=config.backbone.weights)
    table = restored.collection.table
    judgement = restore_heads(source, restored, journal).judgement
    area = judgement.macro_roc_auc
    return Evaluation(
        {
            name: {
                "learnable": judgement.verdicts[column].learnable,
                "metrics": judgement.metrics[column].values,
                "undefined": judgement.metrics[column].reasons,
            }
            for column, name in enumerate(table.names)
        },
        {"macro_roc_auc": area._asdict()},
        len(table.filenames),
        {},
        f"out-of-fold macro AUC {area.value:.3f} (95 % interval {area.low:.3f} to {area.high:.3f})",
        restored.collection,
    )
