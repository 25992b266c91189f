"""A labelled collection: labels file and image folder joined, with all that was left out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from ml_collections import ConfigDict

from mlc_jax.data.cells import read_cells, with_cells
from mlc_jax.data.dataset import ImageSet, prepare_images
from mlc_jax.data.demo import draw_demo
from mlc_jax.data.embeddings import open_embeddings
from mlc_jax.data.labels import Conflict, read_labels, refuse_without_zeros
from mlc_jax.data.raw_table import Quarantined
from mlc_jax.data.receipt import Receipt
from mlc_jax.data.splits import Given, check_split, group_numbers, make_split, read_given
from mlc_jax.data.stream import Listing
from mlc_jax.data.table import MISSING, LabelTable, Source
from mlc_jax.errors import LabelsError
from mlc_jax.journal import Journal
from mlc_jax.label_settings import OURS, ReadOptions
from mlc_jax.processes import leader_first
from mlc_jax.settings import DEMO, prepared_size

SHOWN = 10


@dataclass(frozen=True)
class Collection:
    """The usable rows of a labels file with their images; row i of one is row i of the other.

    Attributes:
      labels_file, image_folder: where they were read.
      table: labels of the usable images, in input order.
      images: the prepared images; or what stands in their place, an `EmbeddingSet`.
      quarantine: what was left out, and why.
      confidence: float64 [N, L], how probably each filled cell is right, by the cells.csv that lies
        beside the labels file; NaN for cells that no model filled.
      truth: the labels without blanks where they are known, of the demo only.
      conflicts: cells on which rows of the same file disagree; they are blank.
      receipt: what the label file was read as.
      groups: which images the user says belong together, one text per image; None: not given.
      split: the user's train, val and test, or fold numbers, likewise.
    """

    labels_file: Path
    image_folder: Path
    table: LabelTable
    images: ImageSet
    quarantine: tuple[Quarantined, ...]
    confidence: np.ndarray
    truth: LabelTable | None
    conflicts: tuple[Conflict, ...]
    receipt: Receipt
    groups: Given | None = None
    split: Given | None = None


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
    if config.data.demo:
        journal.warn(f"{DEMO}; give config.data.labels and config.data.images for your own")
    if not config.data.labels:
        with leader_first(), journal.phase("draw the demo", 0, ""):
            demo = draw_demo(cache / "demo")
        labels_file, image_folder, truth_file = demo.labels, demo.images, demo.truth
    own = Path(config.features.file) if config.features.get("file", "") else None
    if own is None and not image_folder.is_dir():
        raise LabelsError(f"config.data.images={str(image_folder)!r} is no folder")
    # The rows of own features go by the names in their file, as they stand there.
    listed = [] if own is not None else [name for _, name in Listing(image_folder, image_folder)]
    cells_file = labels_file.parent / "cells.csv"
    completed = labels_file.is_file() and cells_file.exists()
    # Of a completed table every column is a label, whatever its name.
    options = OURS if completed else ReadOptions.of(config.data)
    path = config.data.labels or str(labels_file)
    folder = image_folder if own is None else None
    file = read_labels(path, options, images=folder, listed=listed)
    if not completed:
        refuse_without_zeros(file, options, str(labels_file))
    journal.note(f"{labels_file}: {', '.join(file.notes)}")
    for line in file.receipt.lines():
        journal.note(line)
    table, confidence = file.table, np.full(file.table.values.shape, np.nan)
    if completed:
        table, confidence = _histories(table, cells_file, journal)
    groups, split = _groups_and_split(config, table, file.extra_columns, labels_file)
    with (
        leader_first(),
        journal.phase("prepare images", len(table.filenames), "images") as advance,
    ):
        images = (
            cast(ImageSet, open_embeddings(own, table.filenames, cache, advance))
            if own is not None
            else prepare_images(
                image_folder,
                table.filenames,
                prepared_size(config),
                cache,
                advance,
                follow_links=config.data.follow_links,
            )
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
    _check_budget(quarantine, hints, file.hint, len(images), config.data.max_bad_fraction, journal)
    if images.several:
        journal.note(f"of several frames the first is taken: {_first(images.several)}")
    if unlisted := _unlisted(listed, set(table.filenames)):
        journal.note(f"in {image_folder}, but in no row: {_first(unlisted)}")
    if noisy := _noise(table.select(images.places), images):
        journal.note(f"same pixels, other labels (label noise): {_first(noisy)}")
    groups, split = (given and given.select(images.places) for given in (groups, split))
    _say_given(groups, split, table.select(images.places), journal)
    truth = None
    if truth_file is not None:
        truth = read_labels(truth_file, OURS).table.select(images.places)
    return Collection(
        labels_file,
        image_folder,
        table.select(images.places),
        images,
        quarantine,
        confidence[images.places],
        truth,
        file.conflicts,
        file.receipt,
        groups,
        split,
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


def _groups_and_split(
    config: ConfigDict,
    table: LabelTable,
    columns: dict[str, tuple[str, ...]],
    labels_file: Path,
) -> tuple[Given | None, Given | None]:
    """What `config.data.groups` and `config.data.split` give, checked before an image is decoded.

    Raises:
      ConfigError, LabelsError: see `read_given`, `make_split`, `check_split`.
    """
    groups, split = (
        read_given(key, config.data[key], columns, table.filenames, labels_file)
        for key in ("groups", "split")
    )
    if split is not None:
        made = make_split(split, table.filenames)
        if groups is not None:
            check_split(groups, split, made, table.filenames, table.rows)
    return groups, split


def _say_given(
    groups: Given | None, split: Given | None, table: LabelTable, journal: Journal
) -> None:
    """Says what was given, in numbers, and warns of images without a group."""
    if groups is not None:
        numbers = group_numbers(groups)
        journal.note(
            f"config.data.groups: {len(numbers)} images form {int(numbers.max()) + 1} groups, by "
            f"{groups.source}; each lies in one fold, and is resampled as one"
        )
        alone = [name for name, v in zip(table.filenames, groups.values, strict=True) if not v]
        if alone:
            journal.warn(f"without a group, so each on its own: {_first(alone)}")
    if split is not None:
        counts = Counter(value.lower() for value in split.values)
        told = ", ".join(f"{count} {value}" for value, count in sorted(counts.items()))
        journal.note(f"config.data.split: {told}, by {split.source}; used as given")


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
    way: str,
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
        if "outside_root" in reasons:
            raise LabelsError(
                f"{told}; links that lead out of the image folder are followed with "
                "--config.data.follow_links=true"
            )
        if "absent" in reasons and "--config.data." in way:
            raise LabelsError(f"{told}; {way}")
        if not usable and reasons == {"absent"}:
            raise LabelsError(
                f"{told}; none of these names is in the image folder"
                f"{f' ({way})' if way else ''}: give the folder that holds the images in "
                "config.data.images, or the column of their names in config.data.file_column"
            )
        raise LabelsError(
            f"{told}; config.data.max_bad_fraction={budget} allows fewer: mend them"
            + (", or raise it" if usable else "")
        )
    journal.note(f"{told}; see quarantine.csv")
