"""Evaluate: measure a finished run again from its checkpoint, on its own data or on others.

On the run's own data a classifier is judged on the stored test split, and gets the figures it got
in training. On other data it is judged on every row but those whose image it was trained on.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mlc_jax.assess.held_out import TestFigures, judge_test
from mlc_jax.data.collection import Collection, open_collection, without_filled
from mlc_jax.data.folds import groups_of_copies
from mlc_jax.data.labels import write_quarantine
from mlc_jax.data.table import MISSING
from mlc_jax.errors import CheckpointError, ConfigError, LabelsError
from mlc_jax.files.atomic import write_json
from mlc_jax.files.outputs import clear
from mlc_jax.files.workdir import owned
from mlc_jax.journal import Journal
from mlc_jax.report.terminal import show_evaluation
from mlc_jax.settings import cache_folder
from mlc_jax.training.feeds import choose_backbone
from mlc_jax.training.imputation import impute_collection
from mlc_jax.training.parallel import Devices
from mlc_jax.training.provenance import plain, run_inputs
from mlc_jax.training.restore import TrainedRun, open_run, run_config, scorer

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
    if not config.features.file and bool(config.data.labels) != bool(config.data.images):
        raise ConfigError("config.data.labels and config.data.images go together: give both")
    if config.batch_size < 0:
        raise ConfigError(f"config.batch_size={config.batch_size}: give 1 or more, or 0")
    checkpoint = Path(config.checkpoint)
    with owned(workdir):
        if stage_of(checkpoint) == "impute":
            found = evaluate_impute(config, checkpoint, journal)
        else:
            found = evaluate_classifier(config, checkpoint, journal)
        clear(workdir, config.stage, OUTPUTS)
        write_quarantine(workdir / "quarantine.csv", found.collection.quarantine)
        summary = {
            "finished": True,
            "stage": config.stage,
            "checkpoint": {"workdir": str(checkpoint), "kind": config.checkpoint_kind},
            "data": {
                "labels_file": str(found.collection.labels_file),
                "image_folder": str(found.collection.image_folder),
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
        write_json(workdir / "summary.json", summary)
        show_evaluation(summary, workdir, journal)
        return summary


def stage_of(checkpoint: Path) -> str:
    """The stage of a finished run.

    Raises:
      CheckpointError: there is no finished run.
    """
    try:
        summary = json.loads((checkpoint / "summary.json").read_text())
        if summary["finished"] is True and summary["stage"] in ("impute", "multilabel"):
            return str(summary["stage"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise CheckpointError(
        f"config.checkpoint={str(checkpoint)!r} holds no finished run; give the workdir of an "
        "impute or a multilabel run"
    )


def evaluate_classifier(config: ConfigDict, checkpoint: Path, journal: Journal) -> Evaluation:
    """Judges the classifier of a multilabel run.

    Raises:
      LabelsError: the labels file lacks a label of the run, or no row is left to judge.
    """
    trained = open_run(checkpoint, journal, config.features.file)
    data = trained.config.copy_and_resolve_references()
    own = not config.data.labels
    if not own:
        data.data.labels, data.data.images = config.data.labels, config.data.images
        data.data.demo = False
    collection = open_collection(data, cache_folder(), journal)
    human = columns_of(collection, trained)
    split = json.loads((checkpoint / "split.json").read_text())
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


def rows_to_judge(
    collection: Collection, split: dict[str, list[str]], own: bool
) -> tuple[np.ndarray, list[str]]:
    """Which rows a classifier is judged on, and the names of those it was trained on.

    Args:
      collection: the data.
      split: the run's split.json: digests of held-in images, names of test images.
      own: whether these are the data of the run.

    Raises:
      LabelsError: the data of the run have changed.
    """
    trained_on = set(split["held_in"])
    digests, names = collection.images.digests, collection.images.filenames
    if own:
        test = set(split["test"])
        rows = np.array([row for row, name in enumerate(names) if name in test], np.int64)
        changed = [names[row] for row in rows if digests[row] in trained_on]
        if len(rows) < len(test) or changed:
            raise LabelsError(
                f"{collection.labels_file}: the data of the run have changed since "
                f"({len(rows)} of {len(test)} test images are there); name the data to be judged"
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


def evaluate_impute(config: ConfigDict, checkpoint: Path, journal: Journal) -> Evaluation:
    """Restores the heads of an impute run and asks each again about the fold it never saw.

    Raises:
      ConfigError: other data were given, on which no fold is out of fold.
      CheckpointError: the data or the weights have changed since.
    """
    if config.data.labels:
        raise ConfigError(
            "config.data.labels: an impute run is judged out of fold, on its own data; leave it out"
        )
    inputs = json.loads((checkpoint / "run.json").read_text())
    own = run_config(inputs, json.loads((checkpoint / "summary.json").read_text()))
    collection = without_filled(open_collection(own, cache_folder(), journal))
    backbone = choose_backbone(own, journal)
    now = run_inputs(own, collection, backbone)
    changed = [key for key in ("labels", "images", "weights") if now[key] != inputs[key]]
    if changed:
        raise CheckpointError(
            f"config.checkpoint={str(checkpoint)!r}: its {' and '.join(changed)} have changed "
            "since; put the former ones back, or impute again"
        )
    table = collection.table
    with owned(checkpoint):
        judgement = impute_collection(
            own, checkpoint, collection, backbone, journal
        ).completion.judgement
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
        collection,
    )
