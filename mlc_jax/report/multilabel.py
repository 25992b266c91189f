"""What the report of the multilabel stage says: what the classifier is worth on unseen images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlc_jax.report import numbers
from mlc_jax.report.agreement import agreement_cells, agreement_columns
from mlc_jax.report.circumstances import how_it_ran, how_to_repeat, what_went_in
from mlc_jax.report.cooccurrence import cooccurrence_map
from mlc_jax.report.decisions import threshold_curves
from mlc_jax.report.learning import (
    COURSE,
    PATH_CAPTION,
    learning_curves,
    path_strengths,
)
from mlc_jax.report.parts import Cell, Column, Page, Part, Picture, Section, Table, Text, Tile
from mlc_jax.report.pictures import choose_labels, judging_pictures
from mlc_jax.report.run import FinishedRun
from mlc_jax.report.samples import ranked_samples, readable, sample_grid
from mlc_jax.report.split_scores import SplitScores, read_split_scores
from mlc_jax.report.tables import (
    METRICS,
    P_VALUE,
    THRESHOLD,
    glossary,
    interval_tile,
    log_loss_cell,
    metric_cell,
    metrics_table,
    threshold_cell,
    verdict_cell,
    whole_tables,
)

_P_VALUES = {
    "test_p_value": Column("p", f"on the test cells, {P_VALUE.hint}"),
    "p_value": Column("p, held in", f"out of fold on the images learned from, {P_VALUE.hint}"),
}
_OUT_OF_FOLD = Column(
    "Log loss, held in",
    "in nats, out of fold on the images learned from; below, that of knowing nothing but the "
    "prevalence",
)
_JUDGED_ON = (
    "All figures are of test images, which were held out before anything was fitted, and of cells "
    "that people gave. Verdicts, thresholds and calibration come from the other images alone: from "
    "siblings of the classifier, each asked about images that it was not fitted on."
)


def multilabel_page(run: FinishedRun, plots_folder: Path) -> Page:
    """Draws the plots and puts the page together.

    Args:
      run: a finished run of the multilabel stage.
      plots_folder: where the PNG files go.

    Raises:
      WorkdirError: scores.csv is missing or damaged.
    """
    summary = run.summary
    labels, warnings = summary["labels"], tuple(summary["warnings"])
    fitted = [name for name, label in labels.items() if label["fitted"]]
    scores = read_split_scores(run.workdir / "scores.csv", fitted)
    overview = _overview(summary)
    metrics = metrics_table(labels, _P_VALUES)
    return Page(
        title="Multi-label classifier",
        outcome=f"{summary['verdict'][:1].upper()}{summary['verdict'][1:]}.",
        trusted=not warnings and all(label["learnable"] for label in labels.values()),
        tiles=_tiles(summary),
        warnings=warnings,
        sections=(
            Section("labels", "Labels", (Text(_JUDGED_ON), overview, glossary(overview.columns))),
            Section(
                "whole",
                "All labels together",
                whole_tables(summary["test"], summary["undefined"]),
            ),
            Section("metrics", "All figures", (metrics, glossary(metrics.columns))),
            Section("plots", "Plots", _plots(run, scores, plots_folder)),
            Section("samples", "Sample predictions", _samples(run, scores, plots_folder)),
            what_went_in(run),
            how_it_ran(run),
            how_to_repeat(run),
        ),
    )


def _tiles(summary: Mapping[str, Any]) -> tuple[Tile, ...]:
    labels, test = summary["labels"], summary["test"]
    learnable = sum(label["learnable"] for label in labels.values())
    return (
        interval_tile(test["macro_roc_auc"], "macro ROC AUC on test images"),
        interval_tile(test["map"], "mAP"),
        interval_tile(test["micro_f1"], "micro F1"),
        Tile(f"{learnable} / {len(labels)}", "labels can be learned"),
        Tile(numbers.count(summary["data"]["test"]), "test images"),
    )


def _overview(summary: Mapping[str, Any]) -> Table:
    labels: Mapping[str, Mapping[str, Any]] = summary["labels"]
    shown = ("count", "prevalence", "roc_auc", "pr_auc", "f1", "mcc")
    titles = METRICS | {"count": Column("Test cells", "cells of test images that people gave")}
    return Table(
        (
            Column("Label", words=True),
            Column("Verdict", "by the images learned from, out of fold", words=True),
            *(titles[name] for name in shown),
            *agreement_columns(summary),
            THRESHOLD,
            _OUT_OF_FOLD,
        ),
        tuple(
            (
                Cell(name),
                verdict_cell(label),
                *(metric_cell(label, metric) for metric in shown),
                *agreement_cells(summary, name, label),
                threshold_cell(label),
                log_loss_cell(label, label.get("log_loss_out_of_fold")),
            )
            for name, label in labels.items()
        ),
    )


def _plots(run: FinishedRun, scores: SplitScores, folder: Path) -> tuple[Part, ...]:
    labels = run.summary["labels"]
    test, held_in = scores.cells(test=True), scores.cells(test=False)
    shown, parts = choose_labels(labels, test)
    if run.epochs:
        file = folder / "learning_curves.png"
        kept, strengths = run.summary["best_epoch"], path_strengths(run.epochs)
        alt = learning_curves(
            file,
            {"all labels": _course(run.epochs)},
            trained="training",
            watched="validation",
            kept=kept,
            strengths=strengths,
            height=2.2,
        )
        if strengths:
            parts.append(Picture(file, "Strength of the prior", alt, PATH_CAPTION))
        else:
            caption = _COURSE_CAPTION.format(kept=kept + 1, all=len(run.epochs))
            parts.append(Picture(file, "Learning curves", alt, caption))
    if shown:
        parts += judging_pictures(folder, {name: test[name] for name in shown}, labels, {})
        file = folder / "thresholds.png"
        alt = threshold_curves(
            file,
            {name: held_in[name] for name in shown},
            {name: labels[name]["threshold"] for name in shown},
            {name: labels[name]["threshold_spread"] for name in shown},
        )
        caption = _THRESHOLDS_CAPTION.format(rule=run.summary["config"]["threshold"]["rule"])
        parts.append(Picture(file, "Thresholds", alt, caption))
    if len(shown) > 1:
        file = folder / "cooccurrence.png"
        columns = [scores.names.index(name) for name in shown]
        alt = cooccurrence_map(file, tuple(shown), scores.values[:, columns])
        parts.append(Picture(file, "Labels that go together", alt, _COOCCURRENCE_CAPTION))
    return tuple(parts)


def _course(epochs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    return {
        # None becomes NaN in the conversion.
        name: np.array([epoch[name.replace("stop_", "validation_")] for epoch in epochs], float)
        for name in COURSE
    }


def _samples(run: FinishedRun, scores: SplitScores, folder: Path) -> tuple[Part, ...]:
    images = Path(run.summary["data"]["image_folder"])
    if not images.is_dir():
        return (Text(f"The image folder {images} is gone, so there are no pictures to show."),)
    follow_links = bool(run.summary["config"]["data"].get("follow_links"))
    parts: list[Part] = []
    for right, name, caption in ((True, "right", _RIGHT_CAPTION), (False, "wrong", _WRONG_CAPTION)):
        samples = readable(ranked_samples(scores, right=right), images, follow_links)
        if samples:
            file = folder / f"samples_{name}.png"
            alt = sample_grid(file, samples)
            parts.append(Picture(file, f"Most confidently {name}", alt, caption))
        else:
            parts.append(Text(f"No test picture that can be read in {images} is {name}."))
    return tuple(parts)


_COURSE_CAPTION = (
    "Training: the classifier on the batches of the epoch, oversampled and augmented, so the two "
    "lines are not of the same cells. Validation: the mean over the classifier's siblings, each on "
    "a fold that it was not fitted on. The parameters after epoch {kept} of {all} were kept, for "
    "all labels."
)
_THRESHOLDS_CAPTION = (
    "On the images learned from, out of fold, where the thresholds were chosen by the rule "
    "“{rule}” (config.threshold.rule). A flat top means that the exact threshold matters little; "
    "the test cells had no say."
)
_COOCCURRENCE_CAPTION = (
    "Of the images where the row's label is 1 and people decided on the column's, the share where "
    "the column's label is 1 too. A classifier may lean on such company instead of on the picture."
)
_RIGHT_CAPTION = (
    "Test images that are right in every known cell, the surest first; each set of true labels "
    "once before any again. Labels that nobody decided on are not shown."
)
_WRONG_CAPTION = (
    "Test images with a mistake, the most confident mistake first; each set of true labels once "
    "before any again. Look whether the classifier or "
    "the label is wrong. Labels that nobody decided on are not shown."
)
