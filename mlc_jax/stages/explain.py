"""Explain: what in a picture speaks for a label, and whether saying so explains anything.

Every explanation is a heat map over an image for one label. Whatever made it, it is judged in the
same way: hide what it calls important, and see whether the classifier loses the label sooner than
where superpixels are hidden in an order dealt at random.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mlc_jax.assess.faithfulness import BEATS_CHANCE, Curves
from mlc_jax.data.delimited import csv_line, shown
from mlc_jax.data.images import decode_image
from mlc_jax.data.labels import Quarantined, write_quarantine
from mlc_jax.data.pixels import resize_image
from mlc_jax.data.stream import Listing, list_images, stream_images
from mlc_jax.errors import ConfigError, ImageError
from mlc_jax.files.atomic import write_text
from mlc_jax.files.outputs import Results
from mlc_jax.files.runs import open_run
from mlc_jax.files.workdir import owned
from mlc_jax.journal import Journal
from mlc_jax.report.overlays import overlay, write_picture
from mlc_jax.report.page import report_beside
from mlc_jax.report.terminal import show
from mlc_jax.training.explainer import METHODS, Explained, Explainer
from mlc_jax.training.provenance import describe_circumstances
from mlc_jax.training.restore import TrainedRun, open_classifier

OUTPUTS = ("explanations.csv", "quarantine.csv", "overlays", "plots", "report.html")
COLUMNS = (
    "filename,label,probability,threshold,empty,method,deletion,insertion,gain,chance,fidelity,"
    "overlay"
)
SHOWN = 10
PICTURE = 320  # pixels of the longer side of an overlay
GRID = np.linspace(0, 1, 21)  # shares at which curves are averaged


def run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Explains, and writes over an earlier run of this job in the same workdir.

    Args:
      config: of configs/explain.py, as the command line left it.
      workdir: where overlays/, explanations.csv, quarantine.csv, summary.json and report.html go.

    Returns:
      What summary.json holds.

    Raises:
      ConfigError: a value that cannot be used, or no image that can be read.
    """
    journal = Journal()
    config = config.copy_and_resolve_references()
    check(config)
    listing = list_images(config.data.images, config.data.root, config.data.follow_links)
    listing.refuse_inside(workdir)
    run_read = open_run(Path(config.checkpoint))
    with owned(workdir):
        results = Results(workdir, config.stage, run_read, OUTPUTS)
        results.check()
        trained = open_classifier(run_read, journal, config.backbone.weights)
        if trained.backbone.given:
            raise ConfigError(
                f"config.checkpoint={config.checkpoint!r} was trained on own features: "
                "an explanation is of pixels"
            )
        chosen = label_columns(config.explain.labels, trained.names)
        explainer = Explainer(trained, config)
        journal.note(explainer.cost())
        results.replace(journal.note)
        made: list[Explained] = []
        refused: list[Quarantined] = []
        lines: list[str] = []
        with journal.phase("explain", 0, "passes") as advance:
            for batch in stream_images(listing, trained.spec.image_size, 1):
                refused += batch.refused
                for row, filename, image in zip(
                    batch.rows, batch.filenames, batch.images, strict=True
                ):
                    explained = explainer.explain(filename, image, chosen, advance)
                    if explained is None:
                        refused.append(Quarantined(filename, row, "not_finite"))
                        continue
                    made.append(explained)
                    folder = f"{len(made):03}_{safe(Path(filename).stem)}"
                    overlays = workdir / "overlays" / folder
                    lines += draw(overlays, listing, trained, image, explained)
                if config.explain.limit and len(made) == config.explain.limit:
                    break
        write_quarantine(workdir / "quarantine.csv", refused)
        if not made:
            raise listing.nothing_readable(len(refused), workdir / "quarantine.csv")
        write_text(workdir / "explanations.csv", "".join([f"{COLUMNS}\n", *lines]))
        say(config, made, refused, journal)
        summary = results.finish(describe(config, trained, made, refused, journal))
        report_beside(summary, workdir, journal)
        results.record()  # the report's plots as well
        show(summary, workdir, journal)
        return summary


def check(config: ConfigDict) -> None:
    """Refuses values that cannot be used.

    Raises:
      ConfigError: naming key, value and what was expected.
    """
    explain = config.explain
    checks = {
        "batch_size": ("1 or more, or 0", config.batch_size, config.batch_size >= 0),
        "explain.limit": ("1 or more, or 0 for all", explain.limit, explain.limit >= 0),
        "explain.methods": (
            f"some of {', '.join(METHODS)}",
            explain.methods,
            bool(explain.methods) and all(method in METHODS for method in explain.methods),
        ),
        "explain.superpixels": (
            "10 to 1000",
            explain.superpixels,
            10 <= explain.superpixels <= 1000,
        ),
        "explain.samples": ("50 or more", explain.samples, explain.samples >= 50),
        "explain.patch": ("above 0 and at most 0.5", explain.patch, 0 < explain.patch <= 0.5),
        "explain.steps": ("2 or more", explain.steps, explain.steps >= 2),
        # With fewer, chance could never be said to do as well in less than one of twenty.
        "explain.random_orders": (
            "10 or more",
            explain.random_orders,
            explain.random_orders >= 10,
        ),
    }
    for key, (expected, value, good) in checks.items():
        if not good:
            raise ConfigError(f"config.{key}={value!r} cannot be used; expected {expected}")


def label_columns(wanted: Sequence[Any], names: tuple[str, ...]) -> list[int]:
    """The columns of the labels that are asked for; none where that is left open.

    A label whose name is a number comes as one from the command line.

    Raises:
      ConfigError: the classifier has no label of a name.
    """
    asked = [str(name) for name in wanted]
    for name in asked:
        if name not in names:
            raise ConfigError(
                f"config.explain.labels: {shown(name)} is no label of the run; choose of "
                f"{', '.join(names)}"
            )
    return [names.index(name) for name in dict.fromkeys(asked)]


def draw(
    folder: Path,
    listing: Listing,
    trained: TrainedRun,
    image: np.ndarray,
    explained: Explained,
) -> list[str]:
    """Writes the picture and its overlays into a folder; returns the lines of explanations.csv.

    Args:
      folder: of the image, in overlays/.
      listing: the images.
      trained: the run that is explained.
      image: uint8 [H, W, 3], as the classifier sees it.
      explained: what is drawn.

    Raises:
      WorkdirError: a picture cannot be written.
    """
    try:
        # In its own proportions, which the classifier's view of it has lost.
        picture = decode_image(listing.resolve(explained.filename))
    except ImageError:
        picture = image
    scale = PICTURE / max(picture.shape[:2])
    height, width = (max(1, round(scale * side)) for side in picture.shape[:2])
    picture = resize_image(picture, (height, width))
    write_picture(folder / "picture.png", picture)
    lines = []
    for made in explained.explanations:
        name = trained.names[made.label]
        path = folder / f"{made.label + 1}_{safe(name)}_{made.method}.png"
        write_picture(path, overlay(picture, made.heat, smooth=made.method != "lime"))
        figures = (
            explained.whole[made.label],
            trained.classifier.threshold[made.label],
            explained.nothing[made.label],
            made.curves.deletion_area,
            made.curves.insertion_area,
            made.curves.gain,
            made.chance,
            made.fidelity,
        )
        texts = ["" if np.isnan(figure) else f"{figure:.6g}" for figure in figures]
        place = f"{folder.name}/{path.name}"
        fields = [explained.filename, name, *texts[:3], made.method, *texts[3:], place]
        lines.append(csv_line(fields))
    return lines


def safe(name: str) -> str:
    """A name as part of a file's name: letters, digits, dots and lines, 40 at most."""
    return re.sub(r"[^\w.-]+", "_", name)[:40]


def say(
    config: ConfigDict, made: Sequence[Explained], refused: Sequence[Quarantined], journal: Journal
) -> None:
    """Says which images were taken, and which could not be."""
    names = ", ".join(shown(explained.filename) for explained in made[:SHOWN])
    more = f" and {len(made) - SHOWN} more" if len(made) > SHOWN else ""
    first = "the first " if config.explain.limit == len(made) else "all "
    journal.note(
        f"explained {first}{len(made)} images: {names}{more}; config.explain.limit says how many"
    )
    if refused:
        listed = ", ".join(f"{shown(item.filename)} ({item.reason})" for item in refused[:SHOWN])
        journal.warn(f"{len(refused)} images cannot be read: {listed}; see quarantine.csv")


def describe(
    config: ConfigDict,
    trained: TrainedRun,
    made: Sequence[Explained],
    refused: Sequence[Quarantined],
    journal: Journal,
) -> dict[str, Any]:
    """What summary.json holds."""
    methods = {}
    for method in config.explain.methods:
        own = [e for one in made for e in one.explanations if e.method == method]
        fidelity = [e.fidelity for e in own if np.isfinite(e.fidelity)]
        methods[method] = {
            "explanations": len(own),
            "better_than_chance": sum(e.chance <= BEATS_CHANCE for e in own),
            "fidelity": float(np.mean(fidelity)) if fidelity else None,
        } | mean_figures([e.curves for e in own])
    labels = [trained.names[e.label] for one in made for e in one.explanations]
    size = trained.spec.image_size
    return {
        "data": {
            "demo": trained.run.demo,
            "images": config.data.images,
            "explained": len(made),
            "left_out": len(refused),
            "image_size": list(size),
            "taken": [one.filename for one in made],
        },
        "checkpoint": {
            "workdir": str(trained.run.workdir.absolute()),
            "kind": config.checkpoint_kind,
            "digest": trained.digest,
        },
        "digests": {"classifier": trained.digest, "weights": trained.backbone.digest},
        "methods": methods,
        "random": mean_figures([curves for one in made for curves in one.random]),
        "shares": GRID.tolist(),
        "labels": {
            name: {"explained": labels.count(name) // len(config.explain.methods)}
            for name in trained.names
            if name in labels
        },
    } | describe_circumstances(config, trained.backbone, size, journal)


def mean_figures(curves: Sequence[Curves]) -> dict[str, Any]:
    """Mean areas and mean curves at the shares of `GRID`."""
    return {
        "deletion": float(np.mean([one.deletion_area for one in curves])),
        "insertion": float(np.mean([one.insertion_area for one in curves])),
        "gain": float(np.mean([one.gain for one in curves])),
        "curves": {
            "deletion": np.mean(
                [np.interp(GRID, one.shares, one.deletion) for one in curves], axis=0
            ).tolist(),
            "insertion": np.mean(
                [np.interp(GRID, one.shares, one.insertion) for one in curves], axis=0
            ).tolist(),
        },
    }
