"""The sections that every stage's report ends with: what went in, how it ran, how to repeat it."""

import json
from collections import Counter
from typing import Any

from mlc_jax.report import numbers
from mlc_jax.report.parts import (
    Cell,
    Code,
    Column,
    Facts,
    Folded,
    Listing,
    Part,
    Section,
    Table,
    Text,
)
from mlc_jax.report.run import FinishedRun

QUARANTINE_ROWS = 50

_COUNTS = {  # of summary.json's `data`; some are of one stage only
    "rows": "Rows",
    "usable": "Usable images",
    "left_out": "Left out",
    "copies": "Copies of another image",
    "held_in": "Images learned from",
    "test": "Images held out for the test",
    "observed": "Cells that people gave",
    "blank": "Blank cells",
}


def what_went_in(run: FinishedRun) -> Section:
    """Counts, notes, and what was left out."""
    data = run.summary["data"]
    height, width = data["image_size"]
    rows = [
        ("Labels file", data["labels_file"]),
        ("Image folder", data["image_folder"]),
        *((title, numbers.count(data[key])) for key, title in _COUNTS.items() if key in data),
        *_groups(data),
        ("Image size", f"{height} × {width} pixels, height × width"),
    ]
    if data["demo"]:
        rows.insert(0, ("Data set", "the embedded demo, whose truth is known"))
    parts: list[Part] = [Facts(tuple(rows))]
    if run.summary["notes"]:
        parts.append(Listing(tuple(run.summary["notes"])))
    if run.quarantine:
        reasons = Counter(reason for _, _, reason in run.quarantine).most_common()
        said = ", ".join(f"{numbers.count(times)} × {reason}" for reason, times in reasons)
        parts.append(Text(f"Left out: {said}."))
        parts.append(
            Table(
                (Column("File", words=True), Column("Row"), Column("Reason", words=True)),
                tuple(
                    (Cell(filename), Cell(row), Cell(reason))
                    for filename, row, reason in run.quarantine[:QUARANTINE_ROWS]
                ),
            )
        )
        more = len(run.quarantine) - QUARANTINE_ROWS
        if more > 0:
            parts.append(Text(f"{numbers.count(more)} more are in quarantine.csv."))
    return Section("data", "What went in", tuple(parts))


def _groups(data: dict[str, Any]) -> list[tuple[str, str]]:
    """Which images go together, and what the user gave of it; nothing in an older run."""
    rows = []
    if "groups" in data:
        count, largest = (numbers.count(data["groups"][key]) for key in ("count", "largest"))
        rows = [
            ("Near copies of another image", numbers.count(len(data["near_copies"]))),
            ("Groups of images that go together", f"{count}, the largest of {largest}"),
        ]
    if "given_groups" in data:
        given = data["given_groups"]
        said = f"{numbers.count(given['groups'])} of {numbers.count(given['images'])} images"
        rows.append(("Groups that were given", f"{said}, by {given['source']}"))
    if "given_split" in data:
        given = data["given_split"]
        said = ", ".join(f"{numbers.count(n)} {part}" for part, n in given["images"].items())
        rows.append(("Split that was given", f"{said}, by {given['source']}"))
    return rows


def how_it_ran(run: FinishedRun) -> Section:
    """Time, machine, versions, digests, configuration."""
    summary = run.summary
    backbone = summary["backbone"]
    rates = summary["rates"]
    weights = "random: it has learned nothing from ImageNet" if backbone["random"] else "pretrained"
    first = summary["seconds_to_first"]
    phases = tuple(
        (
            Cell(phase),
            Cell(numbers.duration(seconds)),
            Cell(numbers.rate(**rates[phase]) if phase in rates else ""),
            Cell(numbers.duration(first[phase]) if phase in first else ""),
        )
        for phase, seconds in summary["seconds"].items()
    )
    blank = Cell("")
    together = numbers.duration(sum(summary["seconds"].values()))
    total = (Cell("together"), Cell(together), blank, blank)
    waits = tuple(
        (Cell(f"of it waiting for {what}"), Cell(numbers.duration(seconds)), blank, blank)
        for what, seconds in summary["seconds_waited"].items()
    )
    return Section(
        "run",
        "How it ran",
        (
            Facts(
                (
                    ("Device", summary["device"]),
                    ("Most memory used", _peak(summary)),
                    ("Backbone", backbone["name"]),
                    ("Weights", weights),
                    ("Weights from", backbone["origin"]),
                    ("Digest of the weights", backbone["digest"]),
                    ("Features per image", " × ".join(map(str, backbone["feature_shape"]))),
                )
            ),
            Table(
                (
                    Column("Phase", words=True),
                    Column("Time"),
                    Column("Rate"),
                    Column("First after", "since the run began; compiling included"),
                ),
                (*phases, total, *waits),
            ),
            Folded("Versions", (Facts(tuple(summary["versions"].items())),)),
            Folded("Digests of the inputs", (Facts(tuple(summary["digests"].items())),)),
            Folded("Configuration", (Facts(tuple(_flat("", summary["config"]))),)),
        ),
    )


def _peak(summary: dict[str, Any]) -> str:
    on_device = summary["peak_device_memory_mb"]
    told = f"{numbers.count(summary['peak_memory_mb'])} MB"
    return told if on_device is None else f"{told}, and {numbers.count(on_device)} MB of a device"


def how_to_repeat(run: FinishedRun) -> Section:
    """The command."""
    return Section(
        "repeat",
        "How to run it again",
        (
            Text("The same command on the same data gives the same result, on the same machine."),
            Code(run.summary["command"]),
        ),
    )


def _flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    """A nested configuration as (dotted key, JSON value)."""
    if not isinstance(value, dict):
        return [(prefix, json.dumps(value, ensure_ascii=False))]
    return [
        leaf
        for key, item in value.items()
        for leaf in _flat(f"{prefix}.{key}" if prefix else key, item)
    ]
