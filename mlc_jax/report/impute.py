"""What the report of the impute stage says: how far the filled cells can be trusted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlc_jax.report import numbers, plots
from mlc_jax.report.agreement import agreement_cells, agreement_columns
from mlc_jax.report.cell_scores import LabelScores, label_courses, read_cell_scores
from mlc_jax.report.circumstances import how_it_ran, how_to_repeat, what_went_in
from mlc_jax.report.learning import PATH_CAPTION, learning_curves, path_strengths
from mlc_jax.report.parts import Cell, Column, Page, Part, Picture, Section, Table, Text, Tile
from mlc_jax.report.pictures import choose_labels, judging_pictures
from mlc_jax.report.run import FinishedRun
from mlc_jax.report.tables import (
    METRICS,
    P_VALUE,
    THRESHOLD,
    cell,
    glossary,
    interval_tile,
    log_loss_cell,
    metric_cell,
    metrics_table,
    threshold_cell,
    verdict_cell,
)
from mlc_jax.report.trust import trust_section

_JUDGED_ON = (
    "All figures are of cells that people gave, each predicted by a model that was neither fitted "
    "nor stopped on it. No filled cell is in any of them."
)


def impute_page(run: FinishedRun, plots_folder: Path) -> Page:
    """Draws the plots and puts the page together.

    Args:
      run: a finished run of the impute stage.
      plots_folder: where the PNG files go.

    Raises:
      LabelsError: cells.csv is missing or damaged.
    """
    labels, warnings = run.summary["labels"], tuple(run.summary["warnings"])
    cells = read_cell_scores(run.workdir / "cells.csv", list(labels))
    overview = _overview(run.summary, cells)
    metrics = metrics_table(labels, {"p_value": P_VALUE})
    return Page(
        title="Filled labels",
        outcome=_outcome(run),
        trusted=not warnings and all(label["learnable"] for label in labels.values()),
        tiles=_tiles(run),
        warnings=warnings,
        sections=(
            Section("labels", "Labels", (Text(_JUDGED_ON), overview, glossary(overview.columns))),
            trust_section(run.summary, cells, plots_folder),
            Section("metrics", "All figures", (metrics, glossary(metrics.columns))),
            Section("plots", "Plots", _plots(run, cells, plots_folder)),
            what_went_in(run),
            how_it_ran(run),
            how_to_repeat(run),
        ),
    )


def _outcome(run: FinishedRun) -> str:
    data, labels = run.summary["data"], run.summary["labels"]
    filled = (
        f"{numbers.count(data['filled'])} of {numbers.count(data['blank'])} blank cells in "
        f"{numbers.count(data['usable'])} images were filled"
    )
    blind = [name for name, label in labels.items() if label["fitted"] and not label["learnable"]]
    left = [name for name, label in labels.items() if not label["fitted"]]
    clauses = []
    guessed = [
        name
        for name in blind
        if labels[name]["error"]["zeros"]["filled"] + labels[name]["error"]["ones"]["filled"]
    ]
    if guessed:
        wrong = [labels[name]["error"]["expected"] for name in guessed]
        about = numbers.percent(sum(wrong) / len(wrong))
        clauses.append(
            f"but what was filled in for {numbers.listed(guessed)} is a guess, because the images "
            f"did not tell these cells apart better than chance, and about {about} of it is wrong"
        )
    blank = [name for name in blind if name not in guessed and labels[name]["blank"]]
    if blank:
        clauses.append(
            f"the blanks of {numbers.listed(blank)} stay blank, because the images did not tell "
            "these cells apart better than chance"
        )
    without = [name for name in left if labels[name]["filled_prevalence"] is not None]
    if without:
        clauses.append(
            f"what was filled in for {numbers.listed(without)} is a guess, because no fold could "
            "judge the model there"
        )
    stay = [name for name in left if name not in without]
    if stay:
        clauses.append(
            f"for {numbers.listed(stay)} there was no model, so the blanks there stay blank"
        )
    if not blind and not left:
        clauses.append("and every label could be predicted better than chance")
    return f"{', '.join(filter(None, (filled, '; '.join(clauses))))}."


def _tiles(run: FinishedRun) -> tuple[Tile, ...]:
    data, labels = run.summary["data"], run.summary["labels"]
    learnable = sum(label["learnable"] for label in labels.values())
    tiles = [
        Tile(
            f"{numbers.count(data['filled'])} / {numbers.count(data['blank'])}",
            "blank cells filled",
        ),
        Tile(f"{learnable} / {len(labels)}", "labels can be learned"),
        interval_tile(run.summary["oof"]["macro_roc_auc"], "macro ROC AUC, out of fold"),
    ]
    truths = [label["truth"] for label in labels.values() if label.get("truth")]
    known = sum(truth["filled"] for truth in truths)
    if known:
        right = sum(truth["right"] for truth in truths)
        tiles.append(
            Tile(
                numbers.percent(right / known),
                "of filled cells are right",
                f"{numbers.count(right)} of {numbers.count(known)}, by the demo's truth",
            )
        )
    return tuple(tiles)


def _overview(summary: Mapping[str, Any], cells: Mapping[str, LabelScores]) -> Table:
    labels: Mapping[str, Mapping[str, Any]] = summary["labels"]
    demo = any(label.get("truth") for label in labels.values())
    columns = [
        Column("Label", words=True),
        Column("Verdict", words=True),
        Column("Known", "cells that people gave"),
        Column("Blank", "cells that nobody gave; below, how many are still blank"),
        METRICS["prevalence"],
        Column("Filled prev.", "share of filled cells that are 1"),
        THRESHOLD,
        METRICS["roc_auc"],
        METRICS["pr_auc"],
        Column("Log loss", "in nats; below, that of knowing nothing but the prevalence"),
        METRICS["f1"],
        METRICS["mcc"],
        *agreement_columns(summary),
    ]
    if demo:
        columns.append(Column("Filled right", "share of filled cells that are right, by the truth"))
    rows = []
    for name, label in labels.items():
        row = [
            Cell(name),
            verdict_cell(label),
            Cell(numbers.count(label["known"])),
            _blank(label, cells[name].empty),
            metric_cell(label, "prevalence"),
            cell(label["filled_prevalence"], numbers.percent, _unfilled(label)),
            threshold_cell(label),
            metric_cell(label, "roc_auc"),
            metric_cell(label, "pr_auc"),
            log_loss_cell(label, label["metrics"]["log_loss"]),
            metric_cell(label, "f1"),
            metric_cell(label, "mcc"),
            *agreement_cells(summary, name, label),
        ]
        if demo:
            row.append(_truth(label))
        rows.append(tuple(row))
    return Table(tuple(columns), tuple(rows))


def _blank(label: Mapping[str, Any], empty: int) -> Cell:
    detail = f"{numbers.count(empty)} left blank" if empty else ""
    return Cell(numbers.count(label["blank"]), detail=detail)


def _unfilled(label: Mapping[str, Any]) -> str:
    return "no cell was filled" if label["fitted"] else str(label["verdict"])


def _truth(label: Mapping[str, Any]) -> Cell:
    truth = label.get("truth") or {"filled": 0, "right": 0}
    share = truth["right"] / truth["filled"] if truth["filled"] else None
    detail = f"{numbers.count(truth['right'])} of {numbers.count(truth['filled'])}"
    return cell(share, numbers.percent, _unfilled(label), detail)


def _plots(run: FinishedRun, cells: Mapping[str, LabelScores], folder: Path) -> tuple[Part, ...]:
    labels = run.summary["labels"]
    shown, parts = choose_labels(labels, cells)
    courses = label_courses(run.epochs, shown)
    if courses:
        file = folder / "learning_curves.png"
        strengths = path_strengths(run.epochs)
        if strengths:
            alt = learning_curves(file, courses, watched="inner validation", strengths=strengths)
            parts.append(Picture(file, "Strength of the prior", alt, PATH_CAPTION))
        else:
            alt = learning_curves(file, courses)
            parts.append(Picture(file, "Learning curves", alt, _course_caption(run)))
    if not shown:
        return tuple(parts)

    scores = {name: cells[name] for name in shown}
    parts += judging_pictures(folder, scores, labels, uncalibrated(labels))
    file = folder / "probabilities.png"
    alt = plots.probability_histograms(
        file,
        scores,
        {name: labels[name]["threshold"] for name in shown},
        {name: labels[name]["threshold_spread"] for name in shown},
    )
    parts.append(Picture(file, "Probabilities", alt, _PROBABILITIES_CAPTION))
    return tuple(parts)


def uncalibrated(
    labels: Mapping[str, Mapping[str, Any]],
) -> dict[str, tuple[list[float], list[float]]]:
    """Label to (mean probabilities, shares of ones) per bin, before calibration."""
    return {
        name: (bins["probability"], bins["positive"])
        for name, label in labels.items()
        if (bins := label["uncalibrated"].get("reliability"))
    }


def _course_caption(run: FinishedRun) -> str:
    heads = [epoch["active_heads"] for epoch in run.epochs]
    rounds = max(epoch.get("round", 0) for epoch in run.epochs)
    anew = "Where the curves jump, a round of self-training fits anew. " if rounds else ""
    return anew + (
        "Means over a label's models, one for each fold. A model stops when its stop fold no "
        "longer gains; its figures stay where they are from then on. "
        f"{heads[0]} models were trained in the first of {len(heads)} epochs, "
        f"{heads[-1]} in the last."
    )


_PROBABILITIES_CAPTION = (
    "Well separated colours are easy cells. Filled cells should look like a mixture of the two; "
    "those close to the threshold are the ones to check by hand."
)
