"""What a finished run prints: its tables, the warnings once more, and where everything is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from mlc_jax.journal import Journal

_WHOLE = {
    "map": "mAP",
    "macro_roc_auc": "macro AUC",
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "hamming_score": "Hamming score",
    "subset_accuracy": "subset accuracy",
    "lrap": "LRAP",
}


def show(summary: dict[str, Any], workdir: Path, journal: Journal) -> None:
    """Prints the results of a run, its warnings, and where everything is.

    Args:
      summary: summary.json; NaN may stand for its null.
      workdir: of the run.
      journal: prints it.
    """
    demo = "DEMO: " if summary["data"].get("demo") else ""
    for table in _TABLES[summary["stage"]](summary):
        table.title = f"{demo}{table.title}"
        journal.console.print(table)
    outcome, places = _LINES[summary["stage"]](summary, workdir)
    lines = [
        f"{demo}{outcome}, {sum(summary['seconds'].values()):.0f} s",
        *(f"WARNING: {warning}" for warning in summary["warnings"]),
        places,
        f"report {workdir / 'report.html'}",
    ]
    for line in lines:
        journal.line(line)


def _impute_tables(summary: dict[str, Any]) -> list[Table]:
    headings = ["known", "blank", "AUC", "log loss", "prior's", "F1", "learnable"]
    truths = any("truth" in record for record in summary["labels"].values())
    if truths:
        headings.append("filled right")
    table = _table(f"{summary['stage']}: human labels only, out of fold", "label", headings)
    for name, record in summary["labels"].items():
        metrics = record["metrics"]
        cells = [
            str(record["known"]),
            str(record["blank"]),
            _figure(metrics["roc_auc"]),
            _figure(metrics["log_loss"]),
            _figure(record["prior_log_loss"]),
            _figure(metrics["f1"]),
            "yes" if record["learnable"] else "NO",
        ]
        if truths:
            truth = record["truth"]
            cells.append(f"{truth['right']} of {truth['filled']}")
        # As Text, or brackets in a label's name would be read as a style.
        table.add_row(Text(name), *cells)
    return [table]


def _impute_lines(summary: dict[str, Any], workdir: Path) -> tuple[str, str]:
    auc = summary["oof"]["macro_roc_auc"]
    outcome = (
        f"macro AUC {_figure(auc['value'])} (95 % interval {_figure(auc['low'])} to "
        f"{_figure(auc['high'])}), {summary['data']['filled']} of {summary['data']['blank']} "
        "blanks filled"
    )
    return (
        outcome,
        f"completed table {workdir / 'labels.csv'}, every cell's history {workdir / 'cells.csv'}",
    )


def _multilabel_tables(summary: dict[str, Any]) -> list[Table]:
    title = f"{summary['stage']}: human labels only, {summary['data']['test']} test images"
    headings = ["cells", "prevalence", "AUC", "PR AUC", "F1", "MCC", "threshold", "learnable"]
    labels = _table(title, "label", headings)
    for name, record in summary["labels"].items():
        metrics = record.get("metrics", {})
        cells = metrics.get("count")
        labels.add_row(
            Text(name),
            "–" if cells is None else f"{cells:.0f}",
            *(_figure(metrics.get(k)) for k in ("prevalence", "roc_auc", "pr_auc", "f1", "mcc")),
            _figure(record.get("threshold")),
            "yes" if record["learnable"] else "NO" if record["fitted"] else "not fitted",
        )
    return [labels, _whole_table(summary["test"])]


def _whole_table(figures: dict[str, Any]) -> Table:
    whole = _table("all labels together", "figure", ["value", "95 % interval"])
    for name, title in _WHOLE.items():
        if name in figures:
            figure = figures[name]
            interval = f"{_figure(figure['low'])} to {_figure(figure['high'])}"
            whole.add_row(title, _figure(figure["value"]), interval)
    return whole


def _compare_tables(summary: dict[str, Any]) -> list[Table]:
    if "audit" in summary:
        names = ["accuracy", "balanced_accuracy", "roc_auc", "brier", "ece", "prevalence_error"]
        names += ["accepted_share", "accepted_error"]
        table = _table("hide and recover", "hidden", [name.replace("_", " ") for name in names])
        for row in summary["audit"]:
            own = [_figure(row[name]["value"]) for name in names]
            table.add_row(f"{row['hidden']:.0%} {row['kind']}", *own)
        return [table]
    if "filling" in summary:
        table = _table("stage 2, taught with filled cells", "hidden", ["taught", "mAP", "AUC"])
        for row in summary["filling"]:
            figures = (_figure(row["map"]), _figure(row["macro_roc_auc"]))
            table.add_row(f"{row['hidden']:.0%}", row["variant"], *figures)
        return [table]
    if "backbones" in summary:
        costs = ("feature_seconds", "head_seconds", "weight_megabytes", "feature_megabytes")
        headings = ["log loss", "macro AUC", "gap of AUC"]
        headings += ["features s", "heads s", "weights MB", "features MB"]
        title = f"backbones: human labels only, out of fold; gaps to {summary['reference']}"
        table = _table(title, "backbone", headings)
        for row in summary["backbones"]:
            spent = ("–" if row[name] is None else f"{row[name]:.1f}" for name in costs)
            table.add_row(*_standing(row), *spent)
        return [table]
    headings = ["log loss", "macro AUC", "gap to " + summary["reference"], "mAP", "Brier", "ECE"]
    table = _table("compare: human labels only, out of fold", "way to learn", headings)
    for row in summary["rows"]:
        table.add_row(*_standing(row), *(_figure(row[name]) for name in ("map", "brier", "ece")))
    return [table]


def _standing(row: dict[str, Any]) -> tuple[Text, str, str, str]:
    gap = row["auc_gap"]
    return (
        Text(row["name"]),
        _figure(row["log_loss"]),
        _figure(row["macro_roc_auc"]),
        f"{_figure(gap['value'])} ({_figure(gap['low'])} to {_figure(gap['high'])})",
    )


def _compare_lines(summary: dict[str, Any], workdir: Path) -> tuple[str, str]:
    outcome = "compared"
    if "backbones" in summary:
        outcome = f"{len(summary['backbones'])} ranked, {len(summary['left_out'])} left out"
    if "leak" in summary:
        leak = summary["leak"]
        outcome = (
            f"the original's leaky split reads macro AUC {_figure(leak['macro_roc_auc'])}, its "
            f"repaired one {_figure(leak['honest_macro_roc_auc'])}"
        )
    return outcome, f"table {workdir / 'compare.csv'}"


def show_evaluation(summary: dict[str, Any], workdir: Path, journal: Journal) -> None:
    """Prints what an evaluation found: its tables, its verdict and its warnings."""
    demo = "DEMO: " if summary["data"]["demo"] else ""
    title = f"{demo}evaluate: human labels only, {summary['data']['judged']} images"
    labels = _table(title, "label", ["cells", "prevalence", "AUC", "PR AUC", "F1", "MCC"])
    for name, record in summary["labels"].items():
        metrics = record["metrics"]
        labels.add_row(
            Text(name),
            f"{metrics['count']:.0f}",
            *(_figure(metrics[k]) for k in ("prevalence", "roc_auc", "pr_auc", "f1", "mcc")),
        )
    journal.console.print(labels)
    journal.console.print(_whole_table(summary["test"]))
    journal.line(summary["verdict"])
    for warning in summary["warnings"]:
        journal.line(f"WARNING: {warning}")
    journal.line(f"figures {workdir / 'summary.json'}")


def show_changes(labels: dict[str, dict[str, int]], workdir: Path, journal: Journal) -> None:
    """Prints per label how many cells were confirmed, corrected and filled, and are still blank."""
    headings = ["confirmed", "corrected", "filled", "still blank"]
    table = _table("review: what the decisions did", "label", headings)
    for name, counts in labels.items():
        table.add_row(Text(name), *(str(counts[key.replace(" ", "_")]) for key in headings))
    journal.console.print(table)
    journal.line(
        f"reviewed table {workdir / 'labels.csv'}, every cell's history {workdir / 'cells.csv'}, "
        f"what was before {workdir / 'changes.csv'}"
    )


def _multilabel_lines(summary: dict[str, Any], workdir: Path) -> tuple[str, str]:
    return (
        summary["verdict"],
        f"classifier {workdir / 'classifier'}, its thresholds {workdir / 'thresholds.json'}, "
        f"probabilities of human cells {workdir / 'scores.csv'}",
    )


def _explain_tables(summary: dict[str, Any]) -> list[Table]:
    headings = ["beat chance", "deletion (low)", "insertion (high)", "gain", "fidelity"]
    table = _table(f"explain: {summary['data']['explained']} images", "method", headings)
    for name, method in (summary["methods"] | {"random orders": summary["random"]}).items():
        counts = ""
        if "explanations" in method:
            counts = f"{method['better_than_chance']} of {method['explanations']}"
        figures = (_figure(method.get(k)) for k in ("deletion", "insertion", "gain", "fidelity"))
        table.add_row(name, counts or "–", *figures)
    return [table]


def _explain_lines(summary: dict[str, Any], workdir: Path) -> tuple[str, str]:
    methods = summary["methods"].values()
    best = max(method["better_than_chance"] for method in methods)
    count = next(iter(methods))["explanations"]
    return (
        f"{count} labels on {summary['data']['explained']} images explained, {best} of them better "
        "than chance by the best method",
        f"overlays {workdir / 'overlays'}, their scores {workdir / 'explanations.csv'}",
    )


_TABLES: dict[str, Callable[[dict[str, Any]], list[Table]]] = {
    "impute": _impute_tables,
    "multilabel": _multilabel_tables,
    "compare": _compare_tables,
    "explain": _explain_tables,
}
_LINES: dict[str, Callable[[dict[str, Any], Path], tuple[str, str]]] = {
    "impute": _impute_lines,
    "multilabel": _multilabel_lines,
    "compare": _compare_lines,
    "explain": _explain_lines,
}


def _table(title: str, first: str, headings: list[str]) -> Table:
    table = Table(title=title)
    table.add_column(first)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _figure(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.3f}"
