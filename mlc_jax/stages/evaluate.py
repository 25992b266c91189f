"""Evaluate: measure a finished run again from its checkpoint, on its own data or on others.

On the run's own data a classifier is judged on the stored test split, and gets the figures it got
in training. On other data it is judged on every row but those whose image it was trained on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mlc_jax.assess.held_out import TestFigures, judge_test
from mlc_jax.data.collection import Collection, open_collection
from mlc_jax.data.folds import groups_of_copies
from mlc_jax.data.labels import write_quarantine
from mlc_jax.data.table import MISSING
from mlc_jax.errors import CheckpointError, ConfigError, LabelsError
from mlc_jax.files.outputs import Results
from mlc_jax.files.runs import Run, open_run, read_record
from mlc_jax.files.workdir import changed_rows, owned
from mlc_jax.journal import Journal
from mlc_jax.report.terminal import show_evaluation
from mlc_jax.settings import cache_folder
from mlc_jax.training.impute_run import restore, restore_heads
from mlc_jax.training.parallel import Devices
from mlc_jax.training.provenance import plain, row_inputs
from mlc_jax.training.restore import TrainedRun, image_folder_of, open_classifier, scorer

OUTPUTS = ("quarantine.csv",)


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
      labels: per label its figures and why some are not defined.
      whole: figures of all labels together, {value, low, high} each.
      rows: how many images were judged.
      seen: names of the images that were left out because the run was trained on them.
      verdict: for people.
      collection: the data.
    """

    labels: dict[str, dict[str, Any]]
    whole: dict[str, Any]
    rows: int
    seen: list[str]
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
    if bool(config.data.labels) != bool(config.data.images):
        raise ConfigError("config.data.labels and config.data.images go together: give both")
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
                "seen_in_training": found.seen,
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
    trained = open_classifier(source, journal, config.backbone.weights)
    data = trained.config.copy_and_resolve_references()
    own = not config.data.labels
    if not own:
        data.data.labels, data.data.images = config.data.labels, config.data.images
        data.data.follow_links, data.data.demo = config.data.follow_links, False
    elif data.data.images:
        data.data.images = str(image_folder_of(source))
    collection = open_collection(data, cache_folder(), journal)
    if own:
        check_unchanged(source, collection)
    human = columns_of(collection, trained)
    split = read_split(source)
    rows, seen = rows_to_judge(collection, split, own)
    if seen:
        journal.note(
            f"{len(seen)} images were seen in training and are left out: {', '.join(seen[:10])}"
            f"{' …' if len(seen) > 10 else ''}"
        )
    if not rows.size:
        raise LabelsError(
            f"{collection.labels_file}: the run was trained on every image in it; give others"
        )
    human = human[rows]
    probabilities = score_rows(config, trained, collection, rows, journal)
    figures = judge_test(
        human,
        human != MISSING,
        probabilities,
        trained.classifier.threshold,
        groups_of_copies(collection.images.digests)[rows],
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


def read_split(source: Run) -> dict[str, list[str]]:
    """A run's split.json: digests of the images it learned from, names of the test images.

    Raises:
      CheckpointError: it is missing or damaged.
    """
    split = read_record(source.workdir / "split.json", source.named, (source.job,))
    for part in ("held_in", "test"):
        if not isinstance(split.get(part), list) or not all(
            isinstance(item, str) for item in split[part]
        ):
            raise CheckpointError(
                f"{source.named} has a damaged split.json; put the former one back, or train again"
            )
    return split


def rows_to_judge(
    collection: Collection, split: dict[str, list[str]], own: bool
) -> tuple[np.ndarray, list[str]]:
    """Which rows a classifier is judged on, and the names of those it was trained on.

    Args:
      collection: the data.
      split: the run's split.json: digests of held-in images, names of test images.
      own: whether these are the data of the run, unchanged.

    Raises:
      LabelsError: split.json does not divide the data of the run.
    """
    trained_on = set(split["held_in"])
    digests, names = collection.images.digests, collection.images.filenames
    if own:
        test = set(split["test"])
        rows = np.array([row for row, name in enumerate(names) if name in test], np.int64)
        if len(rows) < len(test) or any(digests[row] in trained_on for row in rows):
            raise LabelsError(
                f"{collection.labels_file}: split.json of the run is not that of these data; put "
                "the former one back, or name the data to be judged"
            )
        return rows, []
    seen = [digest in trained_on for digest in digests]
    named = [name for name, was in zip(names, seen, strict=True) if was]
    return np.flatnonzero(~np.array(seen, np.bool_)), named


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
) -> np.ndarray:
    """Probabilities of the given rows, float64 [n, L], in batches."""
    score, most = scorer(
        trained, config.checkpoint_kind, Devices(config.parallel), config.batch_size
    )
    parts = []
    with journal.phase("score", len(rows), "images") as advance:
        for start in range(0, len(rows), most):
            batch = rows[start : start + most]
            parts.append(score(np.stack([collection.images[int(row)] for row in batch])))
            advance(len(batch))
    return np.concatenate(parts)


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
        [],
        f"out-of-fold macro AUC {area.value:.3f} (95 % interval {area.low:.3f} to {area.high:.3f})",
        restored.collection,
    )
