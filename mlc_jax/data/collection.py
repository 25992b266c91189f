"""A labelled collection: labels file and image folder joined, with all that was left out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from mlc_jax.data.cells import read_cells, with_cells
from mlc_jax.data.dataset import ImageSet, prepare_images
from mlc_jax.data.demo import draw_demo
from mlc_jax.data.labels import Conflict, read_labels, refuse_without_zeros
from mlc_jax.data.raw_table import Quarantined
from mlc_jax.data.receipt import Receipt
from mlc_jax.data.stream import Listing
from mlc_jax.data.table import MISSING, LabelTable, Source
from mlc_jax.errors import LabelsError
from mlc_jax.journal import Journal
from mlc_jax.label_settings import OURS, ReadOptions
from mlc_jax.processes import leader_first

SHOWN = 10


@dataclass(frozen=True)
class Collection:
    """The usable rows of a labels file with their images; row i of one is row i of the other.

    Attributes:
      labels_file, image_folder: where they were read.
      table: labels of the usable images, in input order.
      images: the prepared images.
      quarantine: what was left out, and why.
      confidence: float64 [N, L], how probably each filled cell is right, by the cells.csv that lies
        beside the labels file; NaN for cells that no model filled.
      truth: the labels without blanks where they are known, of the demo only.
      conflicts: cells on which rows of the same file disagree; they are blank.
      extra_columns: columns of the label file that hold no labels, by name: one text per image.
      receipt: what the label file was read as.
    """

    labels_file: Path
    image_folder: Path
    table: LabelTable
    images: ImageSet
    quarantine: tuple[Quarantined, ...]
    confidence: np.ndarray
    truth: LabelTable | None
    conflicts: tuple[Conflict, ...]
    extra_columns: dict[str, tuple[str, ...]]
    receipt: Receipt


def open_collection(config: ConfigDict, cache: Path, journal: Journal) -> Collection:
    """Reads the labels, prepares the images, and leaves out the rows that cannot be used.

    Args:
      config: a resolved configuration; the embedded demo where it names no data.
      cache: where the demo and the prepared images are kept.
      journal: told of everything that was sniffed, merged or left out.

    Raises:
      LabelsError: the labels cannot be read, or more rows are unusable than
        `config.data.max_bad_fraction` allows.
    """
    labels_file, image_folder = Path(config.data.labels), Path(config.data.images)
    truth_file = None
    if not config.data.labels:
        with leader_first(), journal.phase("draw the demo", 0, ""):
            demo = draw_demo(cache / "demo")
        labels_file, image_folder, truth_file = demo.labels, demo.images, demo.truth
    if not image_folder.is_dir():
        raise LabelsError(f"config.data.images={str(image_folder)!r} is no folder")
    listed = [name for _, name in Listing(image_folder, image_folder)]
    cells_file = labels_file.parent / "cells.csv"
    options = ReadOptions.of(config.data)
    if labels_file.is_file() and cells_file.exists():
        # A completed table: every column is a label, whatever its name, and every text is ours.
        options = ReadOptions(label_columns=tuple(read_cells(cells_file)["label"].unique()))
    file = read_labels(
        config.data.labels or labels_file, options, images=image_folder, listed=listed
    )
    if not cells_file.exists():
        refuse_without_zeros(file, options, str(labels_file))
    journal.note(f"{labels_file}: {', '.join(file.notes)}")
    for line in file.receipt.lines():
        journal.note(line)
    table, confidence = _histories(file.table, cells_file, journal)
    with (
        leader_first(),
        journal.phase("prepare images", len(table.filenames), "images") as advance,
    ):
        images = prepare_images(
            image_folder, table.filenames, tuple(config.data.image_size), cache, advance
        )
    quarantine = file.quarantine + tuple(
        Quarantined(table.filenames[item.place], int(table.rows[item.place]), item.reason)
        for item in images.rejected
    )
    hints = {
        table.filenames[item.place]: item.message.rpartition("; ")[2]
        for item in images.rejected
        if "did you mean" in item.message
    }
    _check_budget(quarantine, hints, len(images), config.data.max_bad_fraction, journal)
    if images.several:
        journal.note(f"of several frames the first is taken: {_first(images.several)}")
    if unlisted := _unlisted(listed, set(table.filenames)):
        journal.note(f"in {image_folder}, but in no row: {_first(unlisted)}")
    if noisy := _noise(table.select(images.places), images):
        journal.note(f"same pixels, other labels (label noise): {_first(noisy)}")
    truth = (
        None if truth_file is None else read_labels(truth_file, OURS).table.select(images.places)
    )
    return Collection(
        labels_file,
        image_folder,
        table.select(images.places),
        images,
        quarantine,
        confidence[images.places],
        truth,
        file.conflicts,
        {
            column: tuple(texts[place] for place in images.places.tolist())
            for column, texts in file.extra_columns.items()
        },
        file.receipt,
    )


def without_filled(collection: Collection) -> Collection:
    """The collection with the cells that a model filled blank again: what impute learns from.

    A completed table may be imputed anew, and no head may be fitted or stopped on a filled cell.
    """
    table = collection.table
    return replace(collection, table=table.hide(table.source == Source.IMPUTED))


def _histories(
    table: LabelTable, cells_file: Path, journal: Journal
) -> tuple[LabelTable, np.ndarray]:
    """Gives a completed table its sources back, so that filled cells are known as filled."""
    confidence = np.full(table.values.shape, np.nan)
    if not cells_file.exists():
        return table, confidence
    cells = read_cells(cells_file)
    table = with_cells(table, cells)
    filled = table.source == Source.IMPUTED
    columns = {name: number for number, name in enumerate(table.names)}
    rows = {name: number for number, name in enumerate(table.filenames)}
    places = cells["filename"].map(rows).to_numpy(), cells["label"].map(columns).to_numpy()
    probability = np.full(table.values.shape, np.nan)
    probability[places] = cells["probability"]
    right = np.where(table.values == 1, probability, 1.0 - probability)
    confidence[filled] = right[filled]
    journal.note(
        f"{cells_file}: {int(filled.sum())} cells were filled by a model; no metric looks at them"
    )
    return table, confidence


def _first(texts: Sequence[str]) -> str:
    """How many there are, and the first ten."""
    more = " …" if len(texts) > SHOWN else ""
    return f"{len(texts)} ({', '.join(texts[:SHOWN])}{more})"


def _unlisted(listed: Sequence[str], named: set[str]) -> list[str]:
    """Images that lie in the folder or in folders of it and are named in no row."""
    return [name for name in listed if name not in named]


def _noise(table: LabelTable, images: ImageSet) -> list[str]:
    """Images with the pixels of an earlier one, and a label that a person gave otherwise."""
    first: dict[str, int] = {}
    human = np.where(table.human, table.values, np.int8(MISSING))
    noisy = []
    for row, digest in enumerate(images.digests):
        other = human[first.setdefault(digest, row)]
        if ((other != human[row]) & (other != MISSING) & (human[row] != MISSING)).any():
            noisy.append(f"{images.filenames[row]} and {images.filenames[first[digest]]}")
    return noisy


def _check_budget(
    quarantine: tuple[Quarantined, ...],
    hints: dict[str, str],
    usable: int,
    budget: float,
    journal: Journal,
) -> None:
    if not quarantine and usable:
        return
    total = len(quarantine) + usable
    first = ", ".join(
        f"{item.filename} ({'; '.join(filter(None, (item.reason, hints.get(item.filename))))})"
        for item in quarantine[:SHOWN]
    )
    told = f"{len(quarantine)} of {total} rows cannot be used: {first}"
    if not usable or len(quarantine) > budget * total:
        reasons = {item.reason for item in quarantine}
        if not usable and reasons == {"absent"}:
            raise LabelsError(
                f"{told}; none of these names is in the image folder: give the folder that holds "
                "the images, or say how their names differ with --config.data.suffix=.jpg, "
                "config.data.prefix or config.data.file_column"
            )
        raise LabelsError(
            f"{told}; config.data.max_bad_fraction={budget} allows fewer: mend them"
            + (", or raise it" if usable else "")
        )
    journal.note(f"{told}; see quarantine.csv")
