"""Predict: the labels of any number of images, by the classifier of a finished multilabel run.

Files are read, scored and written batch by batch, so that neither memory nor the first result waits
for the number of images. What cannot be read is listed, and stops nothing.
"""

import contextlib
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from ml_collections import ConfigDict

from mlc_jax import __version__
from mlc_jax.data.delimited import csv_line, shown
from mlc_jax.data.embeddings import stream_embeddings
from mlc_jax.data.images import decode_image
from mlc_jax.data.labels import Quarantined
from mlc_jax.data.stream import ImageBatch, Listing, list_images, stream_images
from mlc_jax.errors import ConfigError, ImageError
from mlc_jax.files.atomic import replacing
from mlc_jax.files.outputs import Results
from mlc_jax.files.runs import open_run
from mlc_jax.files.workdir import owned
from mlc_jax.journal import Journal
from mlc_jax.report.annotate import write_annotated
from mlc_jax.report.fonts import lacking
from mlc_jax.settings import cache_folder
from mlc_jax.training.parallel import Devices
from mlc_jax.training.provenance import plain
from mlc_jax.training.restore import TrainedRun, open_classifier, scorer

OUTPUTS = ("predictions.csv", "quarantine.csv", "annotated")
SHOWN = 10


@dataclass
class Tally:
    """What was done so far.

    Attributes:
      predicted, left_out: number of files.
      first_left_out: the first few of the latter.
      given: int64 [L], images that got each label.
      probability_sum: float64 [L].
      not_annotated, first_not_annotated: pictures that could not be written, and why the first.
    """

    given: np.ndarray
    probability_sum: np.ndarray
    predicted: int = 0
    left_out: int = 0
    first_left_out: list[Quarantined] = field(default_factory=list)
    not_annotated: int = 0
    first_not_annotated: str = ""


def run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Predicts, and writes over an earlier prediction in the same workdir.

    Args:
      config: of configs/predict.py, as the command line left it.
      workdir: where predictions.csv, quarantine.csv, summary.json and annotated/ go.

    Returns:
      What summary.json holds.

    Raises:
      ConfigError: a value that cannot be used, or no image that can be read.
    """
    journal = Journal()
    config = config.copy_and_resolve_references()
    if config.batch_size < 0:
        raise ConfigError(f"config.batch_size={config.batch_size}: give 1 or more, or 0")
    own = config.features.file
    if own and (config.annotate or config.data.images):
        raise ConfigError("config.features.file takes the place of config.data.images and annotate")
    listing = (
        None if own else list_images(config.data.images, config.data.root, config.data.follow_links)
    )
    if listing is not None:
        listing.refuse_inside(workdir)
    run_read = open_run(Path(config.checkpoint))
    with owned(workdir):
        results = Results(workdir, config.stage, run_read, OUTPUTS)
        results.check()
        trained = open_classifier(run_read, journal, config.backbone.weights, own)
        if trained.backbone.given and not own:
            raise ConfigError(
                f"config.checkpoint={config.checkpoint!r} was trained on own features: give those "
                "of the images as config.features.file"
            )
        score, most = scorer(
            trained, config.checkpoint_kind, Devices(config.parallel), config.batch_size
        )
        results.replace(journal.note)

        pictures = workdir / "annotated"
        if config.annotate and (without := lacking(trained.names)):
            journal.warn(
                f"no font of this machine has all letters of {', '.join(map(shown, without))}: "
                "boxes stand for them on the pictures; install one that has, such as Noto"
            )
        tally = Tally(np.zeros(len(trained.names), np.int64), np.zeros(len(trained.names)))
        with (
            journal.phase("predict", 0, "images") as advance,
            csv_file(workdir / "quarantine.csv", ["filename", "row", "reason"]) as quarantine,
            csv_file(workdir / "predictions.csv", header(trained.names, journal)) as predictions,
        ):
            batches = (
                stream_embeddings(Path(own), cache_folder(), most)
                if listing is None
                else stream_images(listing, trained.spec.image_size, most)
            )
            for batch in batches:
                probabilities = score(batch.images) if batch.filenames else None
                for item in write_batch(predictions, trained, batch, probabilities, tally):
                    quarantine.write(csv_line([item.filename, str(item.row), item.reason]))
                if config.annotate and probabilities is not None and listing is not None:
                    annotate(pictures, listing, trained, batch, probabilities, tally, journal)
                advance(len(batch.filenames) + len(batch.refused))
        say(tally, listing, journal)
        if not tally.predicted and listing is None:
            raise ConfigError(f"config.features.file={own!r} holds no image with finite features")
        if not tally.predicted and listing is not None:
            raise listing.nothing_readable(tally.left_out, workdir / "quarantine.csv")
        summary = results.finish(describe(config, trained, listing, tally, journal))
        for name, record in summary["labels"].items():
            journal.line(f"{name}: given to {record['given']} of {tally.predicted} images")
        journal.line(f"predictions {workdir / 'predictions.csv'}")
        return summary


@contextlib.contextmanager
def csv_file(path: Path, columns: list[str]) -> Iterator[TextIO]:
    """A CSV file that is written row by row and appears when it is whole."""
    # A file name need not be UTF-8. One that is not is refused, but its row has to be written.
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        file.write(csv_line(columns))
        yield file


def header(names: tuple[str, ...], journal: Journal) -> list[str]:
    """The columns of predictions.csv."""
    columns = ["filename"]
    for name in names:
        columns += [f"{name}_probability", name]
    if len(set(columns)) < len(columns):
        journal.warn("columns of predictions.csv share a name; read them by their places")
    return columns


def write_batch(
    predictions: TextIO,
    trained: TrainedRun,
    batch: ImageBatch,
    probabilities: np.ndarray | None,
    tally: Tally,
) -> list[Quarantined]:
    """Writes and counts a batch; returns what is left out of it.

    Args:
      predictions: the file.
      trained: the run that predicts.
      batch: the images.
      probabilities: float64 [b, L]; NaN where there is none; None where b is 0.
      tally: counted up.
    """
    refused = list(batch.refused)
    for place, filename in enumerate(batch.filenames):
        assert probabilities is not None
        own = probabilities[place]
        if np.isnan(own).any():
            refused.append(Quarantined(filename, batch.rows[place], "not_finite"))
            continue
        given = own > trained.classifier.threshold
        cells = [filename]
        for probability, is_given in zip(own, given, strict=True):
            cells += [f"{probability:.9g}", str(int(is_given))]
        predictions.write(csv_line(cells))
        tally.predicted += 1
        tally.given += given
        tally.probability_sum += own
    refused.sort(key=lambda item: item.row)
    tally.left_out += len(refused)
    tally.first_left_out += refused[: SHOWN - len(tally.first_left_out)]
    return refused


def annotate(
    folder: Path,
    listing: Listing,
    trained: TrainedRun,
    batch: ImageBatch,
    probabilities: np.ndarray,
    tally: Tally,
    journal: Journal,
) -> None:
    """Writes the pictures of a batch, in their own size, with their labels on them.

    A picture that cannot be drawn or written is counted, and ends nothing.
    """
    for filename, own in zip(batch.filenames, probabilities, strict=True):
        if np.isnan(own).any():
            continue
        try:
            # Decoded again: the stream keeps no picture in its own size, which may be large.
            picture = decode_image(listing.resolve(filename))
        except ImageError as error:
            journal.warn(f"{shown(filename)} changed while it was read: {error}")
            continue
        given = own > trained.classifier.threshold
        try:
            write_annotated(folder / filename, picture, trained.names, own, given)
        except Exception as error:  # of the font, the encoder or the disk
            tally.not_annotated += 1
            tally.first_not_annotated = tally.first_not_annotated or (
                f"{shown(filename)}: {' '.join(str(error).split())}"
            )


def say(tally: Tally, listing: Listing | None, journal: Journal) -> None:
    """Says what was left out, and what was passed over."""
    if tally.left_out:
        first = ", ".join(
            f"{shown(item.filename)} ({item.reason})" for item in tally.first_left_out
        )
        more = tally.left_out - len(tally.first_left_out)
        journal.warn(
            f"{tally.left_out} of {tally.left_out + tally.predicted} images cannot be read: {first}"
            f"{f' and {more} more' if more else ''}; see quarantine.csv"
        )
    if tally.not_annotated:
        journal.warn(
            f"{tally.not_annotated} pictures are not in annotated/ ({tally.first_not_annotated}); "
            "predictions.csv has all predictions"
        )
    if listing is not None and listing.passed_over:
        journal.note(f"{listing.passed_over} files passed over: their names are no images' names")


def describe(
    config: ConfigDict,
    trained: TrainedRun,
    listing: Listing | None,
    tally: Tally,
    journal: Journal,
) -> dict[str, Any]:
    """What summary.json holds."""
    return {
        "data": {
            "demo": trained.run.demo,
            "images": config.data.images,
            "listed": tally.predicted + tally.left_out,
            "predicted": tally.predicted,
            "left_out": tally.left_out,
            "passed_over": 0 if listing is None else listing.passed_over,
            "image_size": list(trained.spec.image_size),
        },
        "checkpoint": {
            "workdir": str(trained.run.workdir.absolute()),
            "kind": config.checkpoint_kind,
            "digest": trained.digest,
            "weights": trained.backbone.digest,
        },
        "labels": {
            name: {
                "given": int(tally.given[at]),
                "mean_probability": float(tally.probability_sum[at] / tally.predicted),
                "threshold": float(trained.classifier.threshold[at]),
            }
            for at, name in enumerate(trained.names)
        },
        "warnings": journal.warnings,
        "notes": journal.notes,
        "seconds": journal.seconds,
        "rates": journal.rates,
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "versions": {"mlc_jax": __version__},
        "config": plain(config),
        "command": f"python -m mlc_jax.main {' '.join(sys.argv[1:])}",
    }
