"""What to trust of a filled table: guards per label, and error against coverage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlc_jax.assess.acceptance import confidence_of
from mlc_jax.report import numbers
from mlc_jax.report.cell_scores import LabelScores
from mlc_jax.report.panels import BLUE, FAINT, ORANGE, panel_grid, save
from mlc_jax.report.parts import Cell, Column, Part, Picture, Section, Table, Text
from mlc_jax.report.tables import glossary

_COLUMNS = (
    Column("Label", words=True),
    Column(
        "Prevalence, all",
        "share of ones among all images, corrected by what known cells tell, each weighed by its "
        "chance of being blank",
    ),
    Column("Observed", "share of ones among cells that people gave"),
    Column(
        "Blanks",
        "share of ones that the model expects among blank cells; below, z and p of the difference "
        "from the observed share",
    ),
    Column("Blanks told", "AUC of telling from the image which cells are blank; 0.5 is at random"),
    Column("ECE", "calibration error after calibration; below, before it"),
    Column("Brier", "after calibration; below, before it"),
    Column("Suspects", "cells that people gave and the model contradicts; see suspects.csv"),
    Column("Copies", "pairs of copies that disagree, of all whose two cells are known"),
    Column("Round", "of self-training whose models speak of the label; 0 is the first fit"),
)
_ERRORS = (
    Column("Label", words=True),
    Column("Filled with 0", "blanks"),
    Column("Of those wrong", "share of known cells filled likewise; below, errors of cells"),
    Column("At most", "upper bound of the share, at 95 %, each taken alone; groups count as one"),
    Column("Filled with 1", "blanks"),
    Column("Of these wrong", "as before"),
    Column("At most, of ones", "as before"),
)


def trust_section(
    summary: Mapping[str, Any], cells: Mapping[str, LabelScores], folder: Path
) -> Section:
    """The section, with its plot.

    Args:
      summary: summary.json of an impute run.
      cells: label to its cells.
      folder: where the PNG file goes.
    """
    labels, acceptance = summary["labels"], summary["acceptance"]
    parts: list[Part] = [
        Table(_COLUMNS, tuple(_row(name, label) for name, label in labels.items())),
        glossary(_COLUMNS),
    ]
    if acceptance["max_error"] < 1:
        of = "all labels together" if acceptance["max_error_of"] == "pooled" else "each label"
        parts.append(
            Text(
                f"Accepted under a promised error of {numbers.percent(acceptance['max_error'])} of "
                f"{of}: {numbers.count(acceptance['filled'])} blanks; {acceptance['reason']}. The "
                "promise is of the error to be expected; of a few blanks more may be wrong by "
                "chance."
            )
        )
    parts += [
        Text(
            "How often what is filled in is wrong, by known cells that would have got the same "
            "value: a promise for all labels together says little of the ones of a rare label."
        ),
        Table(_ERRORS, tuple(_error_row(name, label["error"]) for name, label in labels.items())),
        glossary(_ERRORS),
    ]
    for number, gained in enumerate(summary["rounds"], 1):
        said = "; ".join(
            f"{name} {gain['log_loss_fall']:+.4f} ± {gain['standard_error']:.4f}"
            f"{'' if gain['kept'] else ' (not kept)'}"
            for name, gain in gained.items()
        )
        parts.append(Text(f"Round {number} of self-training, fall of the log loss: {said}."))
    judged = [name for name, own in cells.items() if own.observed.size and labels[name]["fitted"]]
    if judged:
        file = folder / "coverage.png"
        thresholds = {name: labels[name]["threshold"] for name in judged}
        alt = coverage_curve(file, {name: cells[name] for name in judged}, thresholds)
        parts.append(
            Picture(
                file,
                "Coverage and error",
                alt,
                "If only the most confident share of cells is filled, so many of them are wrong: "
                "known cells of all labels, out of fold. impute.max_error cuts this curve, with a "
                "margin for chance, and leaves the rest blank.",
            )
        )
    return Section("trust", "What to trust", tuple(parts))


def coverage_curve(
    path: Path, cells: Mapping[str, LabelScores], thresholds: Mapping[str, float]
) -> str:
    """Error of the most confident cells against their share.

    Args:
      path: of the PNG file.
      cells: label to its cells, at least one observed.
      thresholds: label to its threshold.

    Returns:
      the alt text.
    """
    confidence, wrong = [], []
    for name, own in cells.items():
        decided = own.probabilities > thresholds[name]
        confidence.append(confidence_of(decided.astype(np.int8), own.probabilities))
        wrong.append(decided != own.observed)
    order = np.argsort(-np.concatenate(confidence), kind="stable")
    errors = np.cumsum(np.concatenate(wrong)[order]) / np.arange(1, order.size + 1)
    coverage = np.arange(1, order.size + 1) / order.size
    figure, panels = panel_grid(1, 1, height=2.2, top=0.25)
    axes = panels[0][0]
    first = min(order.size - 1, 30)  # the error of a handful of cells is noise
    axes.plot(coverage[first:], errors[first:], color=BLUE, linewidth=1.8)
    axes.axhline(errors[-1], color=FAINT, linewidth=1, linestyle=":")
    axes.plot(1.0, errors[-1], "o", color=ORANGE, markersize=5)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("share of cells filled, the most confident first")
    axes.set_ylabel("share of them wrong")
    save(figure, path)
    told = ", ".join(
        f"{errors[max(1, round(share * order.size)) - 1]:.3f} at {share:.0%}"
        for share in (0.5, 0.75, 0.9, 1.0)
    )
    return f"Share of wrong cells against the share filled: {told}."


def _error_row(name: str, error: Mapping[str, Any]) -> tuple[Cell, ...]:
    cells = [Cell(name)]
    for value in ("zeros", "ones"):
        found = error[value]
        none = "no known cell is accepted with this value"
        cells.append(Cell(numbers.count(found["filled"])))
        if found["count"]:
            share = numbers.percent(found["errors"] / found["count"])
            cells.append(Cell(share, detail=f"{found['errors']} of {found['count']}"))
            cells.append(Cell(numbers.percent(found["bound"])))
        else:
            cells += [Cell(numbers.DASH, note=none)] * 2
    return tuple(cells)


def _row(name: str, label: Mapping[str, Any]) -> tuple[Cell, ...]:
    guards, prevalence = label["guards"], label["prevalence"]
    filled, blank = guards["filled_prevalence"], guards["blankness"]
    copies = guards["copies"]

    def share(value: float | None, detail: str = "", why: str = "") -> Cell:
        if value is None:
            return Cell(numbers.DASH, note=why or str(label["verdict"]))
        return Cell(numbers.percent(value), detail=detail)

    def after(metric: str) -> Cell:
        value, before = label["metrics"][metric], label["uncalibrated"][metric]
        if value is None or before is None:
            return Cell(numbers.DASH, note=str(label["verdict"]))
        return Cell(numbers.figure(value), detail=f"before {numbers.figure(before)}")

    low, high = prevalence["low"], prevalence["high"]
    between = ""
    if low is not None and high is not None:
        between = f"{numbers.percent(low)} to {numbers.percent(high)}"
    differs = ""
    if filled["z"] is not None:
        differs = f"z {filled['z']:+.1f}, p {numbers.p_value(filled['p_value'])}"
    area = blank["auc"]["value"]
    told = numbers.DASH if area is None else numbers.figure(area)
    return (
        Cell(name),
        share(prevalence["value"], between),
        share(filled["observed"], why="no cell was given"),
        share(filled["expected"], differs, why="no cell is blank"),
        Cell(told, note="" if area is not None else str(blank["reason"])),
        after("ece"),
        after("brier"),
        Cell(numbers.count(label["suspects"])),
        Cell(f"{copies['disagree']} of {copies['pairs']}"),
        Cell(str(label["round"])),
    )
