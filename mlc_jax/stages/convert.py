"""Convert: a label file of any format as the table that the other jobs read, with its receipt."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mlc_jax.data.delimited import csv_line, shown
from mlc_jax.data.formats.write import FORMS
from mlc_jax.data.images import is_unsafe
from mlc_jax.data.labels import (
    LabelsFile,
    read_labels,
    refuse_without_zeros,
    write_labels,
    write_quarantine,
)
from mlc_jax.data.stream import Listing
from mlc_jax.errors import ConfigError, LabelsError, WorkdirError
from mlc_jax.files.atomic import write_json, write_text
from mlc_jax.files.workdir import owned
from mlc_jax.journal import Journal
from mlc_jax.label_settings import OURS, ReadOptions

OUTPUTS = ("labels.csv", "columns.csv", "receipt.json", "quarantine.csv")


def run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Reads labels, and writes what was read over an earlier conversion in the same workdir.

    Args:
      config: of configs/convert.py, as the command line left it.
      workdir: where the files go.

    Returns:
      What summary.json holds.

    Raises:
      ConfigError: a value that cannot be used, or no label file.
      LabelsError: it cannot be read; see `read_labels`.
    """
    journal = Journal()
    for form in config.to:
        if form not in FORMS:
            raise ConfigError(
                f"config.to={tuple(config.to)!r} cannot be used; expected some of "
                f"{', '.join(FORMS)}"
            )
    if not config.data.labels:
        raise ConfigError("config.data.labels is empty; give a label file or an export's folder")
    file = read(config)
    with owned(workdir):
        make_room(workdir, config.data.labels)
        for line in file.receipt.lines():
            journal.note(line)
        for text in file.notes:
            journal.note(text)
        if file.hint:
            journal.warn(file.hint)
        if outside := links_outside(config, file):
            journal.warn(
                f"{len(outside)} images are links that lead out of {config.data.images}, as "
                f"{shown(outside[0])}; jobs that read them need --config.data.follow_links=true"
            )
        if file.quarantine:
            journal.warn(f"{len(file.quarantine)} rows are left out; see quarantine.csv")
        write_labels(workdir / "labels.csv", file.table)
        write_quarantine(workdir / "quarantine.csv", file.quarantine)
        write_json(workdir / "receipt.json", file.receipt.as_json())
        if file.extra_columns:
            write_columns(workdir / "columns.csv", file)
        for form in config.to:
            name, write = FORMS[form]
            write(workdir / name, file.table)
            journal.line(f"{form} {workdir / name}")
        summary = {
            "finished": True,
            "stage": config.stage,
            "labels_file": config.data.labels,
            "image_folder": config.data.images,
            "receipt": file.receipt.as_json(),
            "notes": journal.notes,
            "warnings": journal.warnings,
        }
        write_json(workdir / "summary.json", summary)
        journal.line(f"labels {workdir / 'labels.csv'}")
        return summary


def read(config: ConfigDict) -> LabelsFile:
    """The label file that the configuration names; of a completed run, its blanks are kept."""
    path, folder = Path(config.data.labels), Path(config.data.images)
    if config.data.images and not folder.is_dir():
        raise LabelsError(f"config.data.images={str(folder)!r} is no folder")
    ours = path.is_file() and (path.parent / "cells.csv").exists()
    options = OURS if ours else ReadOptions.of(config.data)
    listed = [name for _, name in Listing(folder, folder)] if config.data.images else []
    images = folder if config.data.images else None
    file = read_labels(config.data.labels, options, images=images, listed=listed)
    if not ours:
        refuse_without_zeros(file, options, config.data.labels)
    return file


def links_outside(config: ConfigDict, file: LabelsFile) -> list[str]:
    """The images that are links out of their folder, unless these are allowed."""
    if not config.data.images or config.data.follow_links:
        return []
    folder = Path(config.data.images)
    root = folder.resolve()
    # Without a link on the way a name lies in the folder; most have none, and cost one look.
    links: dict[Path, bool] = {root: False, folder: False}

    def leads_out(path: Path) -> bool:
        if path not in links:
            links[path] = leads_out(path.parent) or (
                path.is_symlink() and not path.resolve().is_relative_to(root)
            )
        return links[path]

    return [
        name
        for name in file.table.filenames
        if not is_unsafe(name) and (leads_out((folder / name).parent) or leads_out(folder / name))
    ]


def make_room(workdir: Path, labels: str) -> None:
    """Removes an earlier conversion of the same label file.

    Raises:
      WorkdirError: anything else lies there under the names of the outputs.
    """
    outputs = ("run.json", "cells.csv", *OUTPUTS, *(name for name, _ in FORMS.values()))
    found = [name for name in outputs if (workdir / name).exists()]
    try:
        earlier = json.loads((workdir / "summary.json").read_text())
        own = earlier["stage"] == "convert" and earlier["labels_file"] == labels
    except (OSError, ValueError, KeyError, TypeError):
        own = not (workdir / "summary.json").exists() and not found
    if not own or {"run.json", "cells.csv"} & set(found):
        held = found[0] if found else "summary.json"
        raise WorkdirError(
            f"{workdir} holds {held}, which is no conversion of {labels}; choose another --workdir"
        )
    write_json(
        workdir / "summary.json", {"stage": "convert", "labels_file": labels, "finished": False}
    )
    for name in found:
        (workdir / name).unlink()


def write_columns(path: Path, file: LabelsFile) -> None:
    """Writes columns.csv: the columns that hold no labels, one row per image."""
    lines = [csv_line(["filename", *file.extra_columns])]
    rows = zip(file.table.filenames, *file.extra_columns.values(), strict=True)
    write_text(path, "".join([*lines, *map(csv_line, rows)]))
