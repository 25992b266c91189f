"""What the report of a comparison says: who learns best, on which backbone, or what comes back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlc_jax.report import numbers
from mlc_jax.report.circumstances import how_it_ran, how_to_repeat, what_went_in
from mlc_jax.report.comparison_plots import gap_plot, share_lines
from mlc_jax.report.parts import (
    Cell,
    Column,
    Listing,
    Page,
    Part,
    Picture,
    Section,
    Table,
    Text,
    Tile,
)
from mlc_jax.report.run import FinishedRun

_CONTEST = {
    "log_loss": Column("Log loss", "nats per cell; the table is sorted by it"),
    "macro_roc_auc": Column("Macro AUC", "below, its 95 % interval over images"),
    "map": Column("mAP", "mean over labels of the average precision"),
    "brier": Column("Brier", "mean squared error of the probabilities"),
    "ece": Column("ECE", "expected calibration error, ten bins"),
    "hamming_score": Column("Accuracy", "share of cells that are right, each way's own cut"),
    "macro_f1": Column("Macro F1", "mean over labels"),
}
_AUDIT = {
    "accuracy": "Accuracy",
    "accuracy_at_half": "Accuracy, cut 0.5",
    "balanced_accuracy": "Balanced",
    "mcc": "MCC",
    "roc_auc": "AUC",
    "brier": "Brier",
    "ece": "ECE",
    "prevalence_error": "Prevalence error",
    "accepted_share": "Accepted",
    "accepted_error": "Error of accepted",
}
_JUDGED_ON = (
    "All ways see the same images in the same folds with the same features. Figures are of cells "
    "that people gave, each asked of models that had not seen the image."
)
_RANKED_ON = (
    "All backbones see the same images, of the same size, in the same folds, and the same heads "
    "learn from their features. Near copies were found with the features of “{}”. Figures are of "
    "cells that people gave, each asked of heads that had not seen the image."
)
_NO_SECONDS = (
    "not timed: the features lay in the cache already, or are not kept and computed in every step"
)


def compare_page(run: FinishedRun, plots_folder: Path) -> Page:
    """Draws the plot and puts the page together.

    Args:
      run: a finished run of the compare stage.
      plots_folder: where the PNG files go.
    """
    summary = run.summary
    if "audit" in summary:
        outcome, tiles, section = _audit(summary["audit"], plots_folder)
    elif "filling" in summary:
        outcome, tiles, section = _filling(summary["filling"], plots_folder)
    elif "backbones" in summary:
        outcome, tiles, section = _ranking(summary, plots_folder)
    else:
        outcome, tiles, section = _contest(summary, plots_folder)
    return Page(
        title="Comparison",
        outcome=outcome,
        trusted=not summary["warnings"],
        tiles=tiles,
        warnings=tuple(summary["warnings"]),
        sections=(section, what_went_in(run), how_it_ran(run), how_to_repeat(run)),
    )


def _contest(summary: dict[str, Any], folder: Path) -> tuple[str, tuple[Tile, ...], Section]:
    rows, reference = summary["rows"], summary["reference"]
    parts: list[Part] = [Text(_JUDGED_ON)]
    tiles = [Tile(numbers.figure(rows[0]["macro_roc_auc"]), f"macro AUC of {rows[0]['name']}")]
    leak = summary.get("leak")
    if leak is not None:
        parts.append(
            Text(
                "The original oversampled before it split. Replayed, "
                f"{numbers.percent(leak['seen'])} of its validation rows show an image that was "
                f"trained on, and its macro AUC reads {numbers.figure(leak['macro_roc_auc'])}; the "
                "same recipe with the split first has "
                f"{numbers.figure(leak['honest_macro_roc_auc'])}."
            )
        )
        tiles.append(
            Tile(
                numbers.figure(leak["macro_roc_auc"]),
                "macro AUC of the original's leaky split",
                f"honestly {numbers.figure(leak['honest_macro_roc_auc'])}",
            )
        )
    seconds = [(Cell(f"{row['seconds']:.1f}"),) for row in rows]
    parts.append(_standings("Way to learn", rows, (Column("Seconds"),), seconds))
    parts.append(_gaps(rows, reference, folder))
    if summary["better"]:
        parts.append(Listing(tuple(summary["better"])))
    outcome = (
        f"Of {len(rows)} ways to learn from this table, “{rows[0]['name']}” has the lowest log "
        "loss out of fold."
    )
    return outcome, tuple(tiles), Section("contest", "Side by side", tuple(parts))


def _ranking(summary: dict[str, Any], folder: Path) -> tuple[str, tuple[Tile, ...], Section]:
    rows, reference = summary["backbones"], summary["reference"]
    costs = (
        Column("Features, s", "in which the backbone ran over all views of all images"),
        Column("Heads, s", "in which all heads were fitted and asked"),
        Column("Weights, MB", "in memory, float32; below, millions of parameters"),
        Column("Features, MB", "of all views of all images, as they are kept"),
    )
    cells = [
        (
            _cost(row["feature_seconds"], note=_NO_SECONDS),
            _cost(row["head_seconds"]),
            Cell(f"{row['weight_megabytes']:.1f}", detail=f"{row['parameters'] / 1e6:.1f} M"),
            _cost(row["feature_megabytes"], note="not kept"),
        )
        for row in rows
    ]
    parts: list[Part] = [
        Text(_RANKED_ON.format(reference)),
        _standings("Backbone", rows, costs, cells, detail="weights"),
        _gaps(rows, reference, folder),
    ]
    left_out = summary["left_out"]
    absent = [name for name, reason in left_out.items() if reason == "absent"]
    if absent:
        parts.append(
            Text(
                "Left out, because their ImageNet weights are not in the cache: "
                f"{', '.join(absent)}. “python scripts/convert_weights.py --list” says where each "
                "file comes from and where it belongs."
            )
        )
    others = {name: reason for name, reason in left_out.items() if reason != "absent"}
    if others:
        parts.append(Listing(tuple(f"{name} is left out: {why}" for name, why in others.items())))
    best = rows[0]
    outcome = (
        f"Of {len(rows)} backbones, “{best['name']}” has the lowest log loss out of fold."
        if len(rows) > 1
        else f"Only “{best['name']}” could be ranked: the weights of no other backbone are here."
    )
    tiles = (Tile(numbers.figure(best["macro_roc_auc"]), f"macro AUC of {best['name']}"),)
    return outcome, tiles, Section("backbones", "Backbones side by side", tuple(parts))


def _cost(value: float | None, note: str = "") -> Cell:
    return Cell(numbers.DASH, note=note) if value is None else Cell(f"{value:.1f}")


def _standings(
    title: str,
    rows: list[dict[str, Any]],
    costs: tuple[Column, ...],
    cells: Sequence[tuple[Cell, ...]],
    detail: str = "",
) -> Table:
    """A row's name, its figures, and what it cost; `detail` names what is said below the name."""
    return Table(
        (Column(title, words=True), *_CONTEST.values(), *costs),
        tuple(
            (
                Cell(row["name"], detail=row[detail] if detail else ""),
                *(
                    Cell(
                        _figure(row[name]),
                        detail=_span(row["auc"]) if name == "macro_roc_auc" else "",
                    )
                    for name in _CONTEST
                ),
                *own,
            )
            for row, own in zip(rows, cells, strict=True)
        ),
    )


def _gaps(rows: list[dict[str, Any]], reference: str, folder: Path) -> Picture:
    file = folder / "comparison.png"
    alt = gap_plot(file, rows, reference)
    return Picture(
        file,
        "Paired differences",
        alt,
        f"Macro AUC minus that of “{reference}”, with 95 % intervals: both are resampled over "
        "the same images. An interval that crosses the line is no difference that these data "
        "could show.",
    )


def _audit(rows: list[dict[str, Any]], folder: Path) -> tuple[str, tuple[Tile, ...], Section]:
    first = rows[0]
    file = folder / "recovery.png"
    series = {
        f"{kind}, {title}": [(r["hidden"], r[name]) for r in rows if r["kind"] == kind]
        for name, title in (("accuracy", "accuracy"), ("roc_auc", "AUC"))
        for kind in dict.fromkeys(row["kind"] for row in rows)
    }
    alt = share_lines(file, series, "share of known cells that were hidden", "")
    coverage = [name for name in first if name.startswith("precision_at_")]
    parts: tuple[Part, ...] = (
        Text(
            "Known cells were hidden, the table was completed from the rest, and what was filled "
            "in was compared with what had been there. “By class” hides positives three times as "
            "readily, so that blanks are not missing at random. Intervals are over images."
        ),
        _interval_table(rows, _AUDIT),
        Picture(file, "Recovered", alt, "The whiskers are 95 % intervals over images."),
        Text("Share of cells that are right among the most confident ones:"),
        _interval_table(
            rows, {name: f"{name.removeprefix('precision_at_')} %" for name in coverage}
        ),
    )
    outcome = (
        f"With {numbers.percent(first['hidden'])} of the known cells hidden at random, "
        f"{numbers.percent(first['accuracy']['value'])} came back right."
    )
    tiles = (
        Tile(numbers.percent(first["accuracy"]["value"]), "of hidden cells came back right"),
        Tile(
            numbers.percent(first["accepted_share"]["value"]),
            "of them were accepted under impute.max_error",
            f"{numbers.percent(first['accepted_error']['value'])} of those were wrong"
            if first["accepted_error"]["value"] is not None
            else "",
        ),
    )
    return outcome, tiles, Section("audit", "Hide and recover", parts)


def _interval_table(rows: list[dict[str, Any]], columns: dict[str, str]) -> Table:
    return Table(
        (
            Column("Hidden", words=True),
            Column("How", words=True),
            *(Column(title) for title in columns.values()),
        ),
        tuple(
            (
                Cell(numbers.percent(row["hidden"])),
                Cell(row["kind"]),
                *(Cell(_figure(row[name]["value"]), detail=_span(row[name])) for name in columns),
            )
            for row in rows
        ),
    )


def _filling(rows: list[dict[str, Any]], folder: Path) -> tuple[str, tuple[Tile, ...], Section]:
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    file = folder / "filling.png"
    series = {
        variant: [
            (row["hidden"], {"value": row["map"], "low": row["map"], "high": row["map"]})
            for row in rows
            if row["variant"] == variant
        ]
        for variant in variants
    }
    alt = share_lines(file, series, "share of cells that were hidden", "mAP on the test split")
    parts: tuple[Part, ...] = (
        Text(
            "Cells of the images that are learned from were hidden, filled by stage 1, and stage 2 "
            "was taught in four ways. The test split was held out first, from both stages."
        ),
        Table(
            (
                Column("Hidden", words=True),
                Column("Taught", words=True),
                Column("mAP"),
                Column("Macro AUC"),
            ),
            tuple(
                (
                    Cell(numbers.percent(row["hidden"])),
                    Cell(row["variant"]),
                    Cell(_figure(row["map"])),
                    Cell(_figure(row["macro_roc_auc"])),
                )
                for row in rows
            ),
        ),
        Picture(file, "Test mAP", alt, "One split and one seed; small differences mean little."),
    )
    most = rows[-len(variants) :]
    best = max(most[:-1], key=lambda row: row["map"])
    outcome = (
        f"With {numbers.percent(most[0]['hidden'])} of the cells hidden, “{best['variant']}” "
        f"teaches stage 2 best: mAP {_figure(best['map'])}, against {_figure(most[-1]['map'])} "
        "with the true labels."
    )
    tiles = (Tile(_figure(best["map"]), f"mAP, {best['variant']}"),)
    return outcome, tiles, Section("filling", "Does stage 2 gain from filled cells?", parts)


def _figure(value: float | None) -> str:
    return numbers.DASH if value is None else numbers.figure(value)


def _span(interval: dict[str, Any]) -> str:
    if interval["low"] is None:
        return ""
    return numbers.span(interval["low"], interval["high"])
