"""Stage 1: fill the blanks of a labels file, and say how far each filled cell can be trusted.

One classifier per label and fold over a frozen backbone. Every image, blank or not, is asked about
only by heads that never saw it, so what the heads say about known cells tells how good they are on
the blanks.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from mlc_jax.assess.acceptance import LEVEL
from mlc_jax.assess.guards import Guards, guard
from mlc_jax.assess.metrics import reliability
from mlc_jax.assess.out_of_fold import Judgement
from mlc_jax.data.cells import write_cells
from mlc_jax.data.collection import Collection, open_collection, without_filled
from mlc_jax.data.folds import groups_of_copies
from mlc_jax.data.groups import given_split, group_record, known_groups
from mlc_jax.data.labels import write_labels, write_quarantine
from mlc_jax.data.splits import write_given
from mlc_jax.data.table import MISSING, LabelTable, Source
from mlc_jax.files.atomic import replacing, write_json
from mlc_jax.files.workdir import changes, claim, owned
from mlc_jax.journal import Journal
from mlc_jax.models.backbones import Backbone
from mlc_jax.processes import agreed, check_alike, leave_to_leader
from mlc_jax.report import numbers
from mlc_jax.report.page import report_beside
from mlc_jax.report.terminal import show
from mlc_jax.settings import cache_folder, resolve
from mlc_jax.training.completion import Completion, deal_out, first_heads
from mlc_jax.training.feeds import choose_backbone
from mlc_jax.training.imputation import impute_collection
from mlc_jax.training.provenance import describe_run, row_inputs, run_inputs
from mlc_jax.training.rehearsal import Course, rehearse

CALIBRATION = ("log_loss", "brier", "ece")


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
        inputs = run_inputs(config, collection, backbone)
        check_alike(inputs)
        finished = claim(workdir, inputs, row_inputs(collection), accept=config.accept_changes)
        for change in changes(workdir):
            journal.warn(change)
        if agreed(finished is not None):
            leave_to_leader()
        if finished is not None:
            journal.note(f"{workdir} holds this run, finished; nothing to do")
            if not (workdir / "report.html").exists():
                report_beside(finished, workdir, journal)
            show(finished, workdir, journal)
            return finished
        table = collection.table
        made = impute_collection(config, workdir, collection, backbone, journal)
        leave_to_leader()
        deal, judgement = made.completion.deal, made.completion.judgement
        completed = fill(table, judgement)
        with journal.phase("guard", len(table.names), "labels") as advance:
            guards = guard(
                table.values,
                table.human,
                judgement.out_of_fold,
                made.features.moments[0],
                deal.fold_of,
                made.groups.of_image,
                # Near copies may differ in what matters, and features that tell little apart find
                # copies that are none: only equal pixels prove that two labels contradict.
                groups_of_copies(collection.images.digests),
                seed=config.seed,
            )
            advance(len(table.names))
        warn_of_guards(table, judgement, guards, deal.unfit, journal)
        say_accepted(config, table, completed, judgement, journal)

        write_labels(workdir / "labels.csv", completed)
        write_cells(workdir / "cells.csv", cell_histories(table, completed, made.completion))
        write_suspects(workdir / "suspects.csv", table, judgement)
        write_quarantine(workdir / "quarantine.csv", collection.quarantine)
        # Beside the completed table, where the next job finds them.
        for key, given in (("groups", collection.groups), ("split", collection.split)):
            if given is not None:
                write_given(workdir / f"{key}.csv", given, table.filenames)
        write_json(workdir / "thresholds.json", threshold_records(config, table, judgement))
        summary = describe_run(config, workdir, collection, backbone, journal) | {
            "labels": label_records(table, completed, made.completion, guards, collection.truth),
            "oof": {"macro_roc_auc": judgement.macro_roc_auc._asdict()},
            "acceptance": acceptance_record(config, completed, judgement),
            "rounds": round_records(table, made.completion),
        }
        summary["data"] |= group_record(made.groups, collection)
        summary["data"]["filled"] = int((completed.source == Source.IMPUTED).sum())
        # The summary marks the run as finished, so it comes after every file but the report.
        write_json(workdir / "summary.json", summary)
        report_beside(summary, workdir, journal)
        show(summary, workdir, journal)
        return summary


def dry_run(
    config: ConfigDict, workdir: Path, collection: Collection, backbone: Backbone, journal: Journal
) -> dict[str, Any]:
    """Tries every phase of the run, and keeps nothing; see `rehearse`.

    Near copies are found by their features, so here only exact ones, and what the user gave, share
    a fold.
    """
    table = collection.table
    values = np.where(table.human, table.values, np.int8(MISSING))
    deal = deal_out(config, values, known_groups(collection), given_split(collection))
    heads = first_heads(config, values, deal)
    course = Course(
        tuple(head.rows for head in heads),
        np.array([[head.label] for head in heads]),
        max(head.stop.size for head in heads),
    )
    return rehearse(config, workdir, collection, backbone, course, journal)


def warn_of_guards(
    table: LabelTable,
    judgement: Judgement,
    guards: list[Guards],
    unfit: Mapping[int, str],
    journal: Journal,
) -> None:
    """Warns of labels whose filled cells should not be taken at their word, once for each reason.

    What was found for each label stands in summary.json and in the report's tables.
    """
    found = list(zip(table.names, judgement.verdicts, guards, strict=True))
    unlearnable = [
        f"{name} ({verdict.reason}; about "
        f"{1 - judgement.metrics[column].values['accuracy']:.0%} of it is wrong)"
        for column, (name, verdict, _) in enumerate(found)
        if column not in unfit and not verdict.learnable
    ]
    differing = [
        f"{name} ({test.expected:.0%} against {test.observed:.0%}, z {test.z:+.1f}, "
        f"p {own.prevalence_p:.2g} after Holm)"
        for name, _, own in found
        if own.prevalence_differs and (test := own.prevalence)
    ]
    predictable = [
        f"{name} ({own.blankness.reason})" for name, _, own in found if own.blankness.predictable
    ]
    contradictory = [
        f"{name} ({own.copies.disagree} of {own.copies.pairs} pairs; no model can agree with more "
        f"than about {own.copies.ceiling:.1%} of such labels)"
        for name, _, own in found
        if own.copies.contradictory
    ]
    total = len(table.names)
    for labels, told in (
        (
            unlearnable,
            "{} cannot be learned from these images; what config.impute.unlearnable fills in there "
            "is a guess: {}",
        ),
        (differing, "the blanks of {} are 1 in another share than the given cells: {}"),
        (
            predictable,
            "the blanks of {} can be predicted from the images, so metrics on known cells may not "
            "hold for them: {}",
        ),
        (contradictory, "images of equal pixels were given different values of {}: {}"),
    ):
        if labels:
            of = f"{len(labels)} of {total} labels"
            journal.warn(told.format(of, numbers.shortened(labels)))


def say_accepted(
    config: ConfigDict,
    table: LabelTable,
    completed: LabelTable,
    judgement: Judgement,
    journal: Journal,
) -> None:
    """Says how many blanks were filled under the promise of `config.impute.max_error`."""
    if config.impute.max_error < 1:
        blank = int((~table.known).sum())
        filled = int((completed.source == Source.IMPUTED).sum())
        told = (
            f"impute.max_error={config.impute.max_error:g}: {filled} of {blank} blanks accepted, "
            f"{acceptance_reason(config, judgement)}"
        )
        (journal.note if filled else journal.warn)(told)


def fill(table: LabelTable, judgement: Judgement) -> LabelTable:
    """The table with every blank filled that is decided; observed cells stay."""
    decided = (judgement.probabilities > judgement.cell_thresholds).astype(np.int8)
    fillable = ~table.known & judgement.decided
    return dataclasses.replace(
        table,
        values=np.where(fillable, decided, table.values),
        source=np.where(fillable, np.uint8(Source.IMPUTED), table.source),
    )


def cell_histories(
    table: LabelTable, completed: LabelTable, completion: Completion
) -> pd.DataFrame:
    """One row per image and label, in the order of the table: the columns of cells.csv."""
    judgement, fold_of = completion.judgement, completion.deal.fold_of
    rows, columns = table.values.shape
    blank = ~table.known.ravel()
    filled = completed.values.ravel() != MISSING
    probabilities = judgement.probabilities.ravel()
    asked = np.isfinite(probabilities)
    names = np.tile(np.array(table.names, object), rows)
    folds = np.repeat(fold_of, columns)
    # A known cell is predicted by the head that never saw it, a blank one by those of all folds.
    heads = np.where(blank, "all", np.char.add("fold", folds.astype(str)))
    words = np.array([Source(s).word for s in completed.source.ravel()], object)
    return pd.DataFrame(
        {
            "filename": np.repeat(np.array(table.filenames, object), columns),
            "label": names,
            "value": completed.values.ravel(),
            "source": np.where(blank, Source.IMPUTED.word, words),
            "probability": probabilities,
            "threshold": np.where(asked, judgement.cell_thresholds.ravel(), np.nan),
            "accepted": (~blank | (judgement.accepted.ravel() & filled)),
            "fold": folds,
            "model": [
                f"{name}/{which}/round{number}" if ok else ""
                for name, which, number, ok in zip(
                    names, heads, np.tile(completion.model_round, rows), asked, strict=True
                )
            ],
        }
    )


def write_suspects(path: Path, table: LabelTable, judgement: Judgement) -> None:
    """suspects.csv: cells that people gave and the model contradicts, the surest first."""
    rows = [
        (
            table.filenames[row],
            name,
            int(table.values[row, column]),
            float(judgement.probabilities[row, column]),
            float(confidence),
        )
        for column, name in enumerate(table.names)
        for row, confidence in zip(
            judgement.suspects[column].rows.tolist(),
            judgement.suspects[column].confidence.tolist(),
            strict=True,
        )
    ]
    columns = ["filename", "label", "value", "probability", "confidence"]
    frame = pd.DataFrame(rows, columns=columns)
    with replacing(path) as temporary:
        frame.sort_values("confidence", ascending=False, kind="stable").to_csv(
            temporary, index=False
        )


def acceptance_record(
    config: ConfigDict, completed: LabelTable, judgement: Judgement
) -> dict[str, Any]:
    """summary.json's `acceptance`: the promise, and what known cells say of it."""
    pooled = config.impute.max_error_of == "pooled"
    rules = judgement.acceptance[:1] if pooled else judgement.acceptance
    accepted = sum(rule.count for rule in rules)
    known = accepted
    if config.impute.max_error < 1:
        known = sum(int(metrics.values["count"]) for metrics in judgement.metrics)
    return {
        "max_error": config.impute.max_error,
        "max_error_of": config.impute.max_error_of,
        "cut": rules[0].cut if pooled and np.isfinite(rules[0].cut) else None,
        "known_coverage": rules[0].coverage if pooled else accepted / max(known, 1),
        "known_errors": sum(rule.errors for rule in rules),
        "known_accepted": accepted,
        "bound": rules[0].bound if pooled else float("nan"),
        "level": LEVEL,
        "filled": int((completed.source == Source.IMPUTED).sum()),
        "reason": acceptance_reason(config, judgement),
    }


def acceptance_reason(config: ConfigDict, judgement: Judgement) -> str:
    """What known cells say of the promise, for people."""
    if config.impute.max_error_of == "pooled":
        return judgement.acceptance[0].reason
    kept = sum(np.isfinite(rule.cut) for rule in judgement.acceptance)
    return f"{kept} of {len(judgement.acceptance)} labels keep it with some of their cells"


def error_records(judgement: Judgement, column: int, filled: np.ndarray) -> dict[str, Any]:
    """A label's `error` in summary.json: of what is filled with 0 and with 1, by known cells.

    Args:
      judgement: the judged cross-fit.
      column: the label's.
      filled: int8 [M], what its blanks were filled with.
    """
    rule = judgement.acceptance[column]
    records: dict[str, Any] = {
        "cut": rule.cut if np.isfinite(rule.cut) else None,
        "expected": 1 - judgement.metrics[column].values["accuracy"],
    }
    for value, name in enumerate(("zeros", "ones")):
        found = judgement.error_bounds[column][value]
        count = int((filled == value).sum())
        records[name] = {"filled": count, **dataclasses.asdict(found)}
    return records


def round_records(table: LabelTable, completion: Completion) -> list[dict[str, Any]]:
    """summary.json's `rounds`: what each round of self-training gained, and what was kept."""
    return [
        {
            table.names[label]: {
                "log_loss_fall": gain.mean,
                "standard_error": gain.error,
                "kept": gain.accepted,
            }
            for label, gain in gained.items()
        }
        for gained in completion.rounds
    ]


def threshold_records(
    config: ConfigDict, table: LabelTable, judgement: Judgement
) -> dict[str, dict[str, Any]]:
    """thresholds.json: per label the threshold, its rule, and its spread over folds."""
    return {
        name: {
            "threshold": float(judgement.thresholds[column]),
            "rule": rule_of_threshold(config, judgement.verdicts[column].learnable),
            "spread": list(judgement.spreads[column]),
        }
        for column, name in enumerate(table.names)
    }


def rule_of_threshold(config: ConfigDict, learnable: bool) -> str:
    """The rule that gave a label its threshold: its own where it cannot be learned."""
    guessed = not learnable and config.impute.method != "notebook"
    if guessed and config.impute.unlearnable != "matched":
        return "majority"
    return str(config.impute.threshold)


def label_records(
    table: LabelTable,
    completed: LabelTable,
    completion: Completion,
    guards: list[Guards],
    truth: LabelTable | None,
) -> dict[str, dict[str, Any]]:
    """summary.json's `labels`: what each label's filled cells are worth."""
    judgement, unfit = completion.judgement, completion.deal.unfit
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
            "uncalibrated": uncalibrated_record(table, judgement, column),
            "round": int(completion.model_round[column]),
            "prevalence": guards[column].all_images._asdict(),
            "suspects": len(judgement.suspects[column].rows),
            "guards": guard_record(guards[column]),
            "error": error_records(judgement, column, values),
        }
        if truth is not None:
            right = int((values == truth.values[filled, column]).sum())
            count = int(filled.sum())
            record["truth"] = {"filled": count, "right": right, "share": right / max(count, 1)}
        records[name] = record
    return records


def uncalibrated_record(table: LabelTable, judgement: Judgement, column: int) -> dict[str, Any]:
    """A label's figures and reliability before calibration; no reliability without a model."""
    values = judgement.uncalibrated[column].values
    record: dict[str, Any] = {key: values[key] for key in CALIBRATION}
    known = table.human[:, column]
    if np.isfinite(judgement.out_of_fold[:, column]).any() and known.any():
        bins = reliability(table.values[known, column] == 1, judgement.raw[known, column])
        used = bins.count > 0
        record["reliability"] = {
            "probability": (bins.probability_sum[used] / bins.count[used]).tolist(),
            "positive": (bins.positive_sum[used] / bins.count[used]).tolist(),
        }
    return record


def guard_record(found: Guards) -> dict[str, Any]:
    """A label's `guards` in summary.json."""
    return {
        "filled_prevalence": {
            "observed": found.prevalence.observed,
            "expected": found.prevalence.expected,
            "z": found.prevalence.z,
            "p_value": found.prevalence_p,
            "differs": found.prevalence_differs,
        },
        "blankness": {
            "auc": found.blankness.auc._asdict(),
            "p_value": found.blankness.p_holm,
            "predictable": found.blankness.predictable,
            "reason": found.blankness.reason,
        },
        "copies": dataclasses.asdict(found.copies),
    }
