"""Stage 1: fill the blanks of a labels file, and say how far each filled cell can be trusted.

One classifier per label and fold over a frozen backbone. Every image, blank or not, is asked about
only by heads that never saw it, so what the heads say about known cells tells how good they are on
the blanks.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from mlc_jax.assess.out_of_fold import Judgement, judge
from mlc_jax.data.cells import write_cells
from mlc_jax.data.collection import Collection, open_collection, without_filled
from mlc_jax.data.folds import Split, assign_folds, groups_of_copies, rotations
from mlc_jax.data.labels import write_labels, write_quarantine
from mlc_jax.data.table import MISSING, LabelTable, Source
from mlc_jax.errors import LabelsError
from mlc_jax.files.atomic import write_json
from mlc_jax.files.workdir import changes, claim, owned
from mlc_jax.journal import Journal
from mlc_jax.models.backbones import Backbone
from mlc_jax.report.page import write_report
from mlc_jax.report.terminal import show
from mlc_jax.settings import cache_folder, resolve
from mlc_jax.training.crossfit import cross_fit_table, table_heads, unfit_reason
from mlc_jax.training.feeds import choose_backbone
from mlc_jax.training.provenance import describe_run, row_inputs, run_inputs
from mlc_jax.training.rehearsal import Course, rehearse


def run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Runs stage 1, goes on with it, or shows the summary of a finished run.

    Args:
      config: of configs/impute.py, as the command line left it.
      workdir: where the run keeps its files.

    Returns:
      What summary.json holds.
    """
    journal = Journal()
    config = resolve(config, journal.note)
    with owned(workdir):
        collection = without_filled(open_collection(config, cache_folder(), journal))
        backbone = choose_backbone(config, journal)
        if config.dry_run:
            return dry_run(config, workdir, collection, backbone, journal)
        finished = claim(
            workdir,
            run_inputs(config, collection, backbone),
            row_inputs(collection),
            accept=config.accept_changes,
        )
        for change in changes(workdir):
            journal.warn(change)
        if finished is not None:
            journal.note(f"{workdir} holds this run, finished; nothing to do")
            if not (workdir / "report.html").exists():
                write_report(workdir)
            show(finished, workdir, journal)
            return finished
        table = collection.table

        # The split comes before anything is oversampled, augmented or fitted.
        groups = groups_of_copies(collection.images.digests)
        fold_of = assign_folds(groups, table.values, config.folds, config.seed)
        splits = rotations(fold_of, config.folds)
        unfit = say_unfit(table, splits, journal)

        fitted = cross_fit_table(config, workdir, collection, backbone, splits, unfit, journal)
        with journal.phase("judge", len(table.names), "labels") as advance:
            judgement = judge(
                fitted.logits,
                table.values,
                table.human,
                fold_of,
                groups,
                unfit,
                threshold=config.impute.threshold,
                seed=config.seed,
            )
            advance(len(table.names))
        warn_unlearnable(table, judgement, unfit, journal)

        completed = fill(table, judgement)
        write_labels(workdir / "labels.csv", completed)
        write_cells(workdir / "cells.csv", cell_histories(table, completed, judgement, fold_of))
        write_quarantine(workdir / "quarantine.csv", collection.quarantine)
        write_json(workdir / "thresholds.json", threshold_records(config, table, judgement))
        summary = describe_run(config, collection, backbone, journal) | {
            "labels": label_records(table, completed, judgement, unfit, collection.truth),
            "oof": {"macro_roc_auc": judgement.macro_roc_auc._asdict()},
        }
        summary["data"]["copies"] = len(groups) - int(groups.max()) - 1
        summary["data"]["filled"] = int((completed.source == Source.IMPUTED).sum())
        # The summary marks the run as finished, so it comes after every file but the report.
        write_json(workdir / "summary.json", summary)
        write_report(workdir)
        show(summary, workdir, journal)
        return summary


def dry_run(
    config: ConfigDict, workdir: Path, collection: Collection, backbone: Backbone, journal: Journal
) -> dict[str, Any]:
    """Tries every phase of the run, and keeps nothing; see `rehearse`."""
    table = collection.table
    groups = groups_of_copies(collection.images.digests)
    splits = rotations(assign_folds(groups, table.values, config.folds, config.seed), config.folds)
    heads = table_heads(config, table, splits, say_unfit(table, splits, journal))
    course = Course(
        tuple(head.rows for head in heads),
        np.array([[head.label] for head in heads]),
        max(head.stop.size for head in heads),
    )
    return rehearse(config, workdir, collection, backbone, course, journal)


def say_unfit(table: LabelTable, splits: tuple[Split, ...], journal: Journal) -> dict[int, str]:
    """Finds the labels that cannot be fitted, column to reason, and says so.

    Raises:
      LabelsError: no label is left.
    """
    reasons = {
        column: reason
        for column in range(len(table.names))
        if (reason := unfit_reason(table.values[:, column], splits)) is not None
    }
    for column, reason in reasons.items():
        journal.warn(f"label {table.names[column]}: left out of fitting, {reason}; blanks stay")
    if len(reasons) == len(table.names):
        raise LabelsError(
            f"no label can be fitted ({'; '.join(dict.fromkeys(reasons.values()))}); give more "
            "labelled images"
        )
    return reasons


def warn_unlearnable(
    table: LabelTable, judgement: Judgement, unfit: dict[int, str], journal: Journal
) -> None:
    """Warns of every label whose filled cells are no better than its prior."""
    for column, verdict in enumerate(judgement.verdicts):
        if column not in unfit and not verdict.learnable:
            journal.warn(
                f"label {table.names[column]} cannot be learned from these images "
                f"({verdict.reason}); its filled cells are no better than the prior"
            )


def fill(table: LabelTable, judgement: Judgement) -> LabelTable:
    """The table with every blank decided by its out-of-fold probability; observed cells stay."""
    decided = (judgement.probabilities > judgement.cell_thresholds).astype(np.int8)
    fillable = ~table.known & np.isfinite(judgement.probabilities)
    return dataclasses.replace(
        table,
        values=np.where(fillable, decided, table.values),
        source=np.where(fillable, np.uint8(Source.IMPUTED), table.source),
    )


def cell_histories(
    table: LabelTable, completed: LabelTable, judgement: Judgement, fold_of: np.ndarray
) -> pd.DataFrame:
    """One row per image and label, in the order of the table: the columns of cells.csv."""
    rows, columns = table.values.shape
    blank = ~table.known.ravel()
    probabilities = judgement.probabilities.ravel()
    asked = np.isfinite(probabilities)
    names = np.tile(np.array(table.names, object), rows)
    folds = np.repeat(fold_of, columns)
    words = np.array([Source(s).word for s in completed.source.ravel()], object)
    return pd.DataFrame(
        {
            "filename": np.repeat(np.array(table.filenames, object), columns),
            "label": names,
            "value": completed.values.ravel(),
            "source": np.where(blank, Source.IMPUTED.word, words),
            "probability": probabilities,
            "threshold": np.where(asked, judgement.cell_thresholds.ravel(), np.nan),
            "accepted": completed.values.ravel() != MISSING,
            "fold": folds,
            "model": [
                f"{name}/fold{fold}" if ok else ""
                for name, fold, ok in zip(names, folds, asked, strict=True)
            ],
        }
    )


def threshold_records(
    config: ConfigDict, table: LabelTable, judgement: Judgement
) -> dict[str, dict[str, Any]]:
    """thresholds.json: per label the threshold, its rule, and its spread over folds."""
    return {
        name: {
            "threshold": float(judgement.thresholds[column]),
            "rule": str(config.impute.threshold),
            "spread": list(judgement.spreads[column]),
        }
        for column, name in enumerate(table.names)
    }


def label_records(
    table: LabelTable,
    completed: LabelTable,
    judgement: Judgement,
    unfit: dict[int, str],
    truth: LabelTable | None,
) -> dict[str, dict[str, Any]]:
    """summary.json's `labels`: what each label's filled cells are worth."""
    records = {}
    for column, name in enumerate(table.names):
        verdict, metrics = judgement.verdicts[column], judgement.metrics[column]
        filled = completed.source[:, column] == Source.IMPUTED
        values = completed.values[filled, column]
        record: dict[str, Any] = {
            "learnable": verdict.learnable,
            "verdict": unfit.get(column, verdict.reason),
            "fitted": column not in unfit,
            "p_value": verdict.p_holm,
            "known": int(table.known[:, column].sum()),
            "blank": int((~table.known[:, column]).sum()),
            "filled_prevalence": float(values.mean()) if values.size else None,
            "threshold": float(judgement.thresholds[column]),
            "threshold_spread": None if column in unfit else list(judgement.spreads[column]),
            "prior_log_loss": verdict.prior_log_loss,
            "metrics": metrics.values,
            "undefined": metrics.reasons,
        }
        if truth is not None:
            right = int((values == truth.values[filled, column]).sum())
            count = int(filled.sum())
            record["truth"] = {"filled": count, "right": right, "share": right / max(count, 1)}
        records[name] = record
    return records
