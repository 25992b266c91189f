"""The review page: one HTML file in which a person looks at cells and decides them."""

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from mlc_jax.data.decisions import FORMAT, VERSION
from mlc_jax.files.atomic import write_text
from mlc_jax.report.thumbnails import Thumbnail

SCRIPTS = ("review_decisions.js", "review_card.js", "review_gallery.js", "review.js")
SUSPECT, ABSTAINED, FILLED = "suspect", "abstained", "filled"
RULE = (
    "Most useful first: a cell comes earlier the more probably its value is wrong, by its "
    "calibrated probability. For a suspect that is the model's confidence against the "
    "value that a person gave; for a blank it is the error of the better guess, largest at a coin "
    "toss. Labels that cannot be learned from these images come last, as their probabilities say "
    "nothing of a single cell. Neighbours are the images with the most similar features (cosine) "
    "among those for which a person gave the label."
)


@dataclass(frozen=True)
class Label:
    """A label: its name, and whether its probabilities mean anything, in words."""

    name: str
    learnable: bool
    verdict: str


@dataclass(frozen=True, eq=False)
class Cell:
    """A cell to be looked at.

    Attributes:
      filename: of its image.
      label: number of its label.
      value: 0, 1, or -1 where nothing was filled in.
      reason: SUSPECT, ABSTAINED or FILLED.
      probability, threshold, error: in [0, 1]; NaN where no model speaks of the label.
      neighbours: (file name, value that a person gave), most alike first.
      heat: float [h, w], evidence for 1 (positive) and against it, over the whole image; drawn
        against its own greatest size. None where there is no map.
    """

    filename: str
    label: int
    value: int
    reason: str
    probability: float
    threshold: float
    error: float
    neighbours: tuple[tuple[str, int], ...]
    heat: np.ndarray | None


@dataclass(frozen=True)
class ReviewPage:
    """What the page shows.

    Attributes:
      workdir: of the run that is reviewed.
      run: its digest.
      command: that brings the decisions back.
      labels: all labels of the run.
      cells: most useful first.
      notes: what was left out, and what else a person must know.
      demo: whether the run is on drawn pictures.
    """

    workdir: str
    run: str
    command: str
    labels: Sequence[Label]
    cells: Sequence[Cell]
    notes: Sequence[str]
    demo: bool = False
    rule: str = RULE


def write_review(path: Path, page: ReviewPage, pictures: dict[str, Thumbnail]) -> None:
    """Writes the page: it holds its pictures and its script, and loads nothing.

    Args:
      path: of the HTML file.
      page: what it shows.
      pictures: by file name: of every cell's image, and of those neighbours that are shown.
    """
    loader = PackageLoader("mlc_jax.report")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = "\n".join(loader.get_source(environment, name)[0] for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    saved_as = f"decisions-{page.run[:8]}.json"
    html = environment.get_template("review.html").render(
        page=page,
        saved_as=saved_as,
        cells=_cells_json(page, list(pictures), pictures, saved_as),
        thumbnails=[base64.b64encode(p.jpeg).decode("ascii") for p in pictures.values()],
        script=script,
        script_digest=f"sha256-{digest}",
    )
    write_text(path, html)


def _cells_json(
    page: ReviewPage, names: list[str], pictures: dict[str, Thumbnail], saved_as: str
) -> dict[str, Any]:
    image_of = {name: number for number, name in enumerate(names)}
    maps: list[dict[str, Any]] = []
    cells = []
    for cell in page.cells:
        if cell.heat is not None:
            height, width = cell.heat.shape
            greatest = float(np.abs(cell.heat).max()) or 1.0
            hundredths = np.rint(100 / greatest * cell.heat).astype(int).ravel().tolist()
            maps.append({"height": height, "width": width, "values": hundredths})
        cells.append(
            {
                "image": image_of[cell.filename],
                "label": cell.label,
                "value": cell.value,
                "reason": cell.reason,
                "probability": _number(cell.probability),
                "threshold": _number(cell.threshold),
                "error": _number(cell.error),
                "neighbours": [
                    [image_of[name], value] for name, value in cell.neighbours if name in image_of
                ],
                "map": None if cell.heat is None else len(maps) - 1,
            }
        )
    return {
        "format": FORMAT,
        "version": VERSION,
        "run": page.run,
        "saved_as": saved_as,
        "labels": [
            {"name": label.name, "learnable": label.learnable, "verdict": label.verdict}
            for label in page.labels
        ],
        "images": [
            {"name": name, "width": pictures[name].width, "height": pictures[name].height}
            for name in names
        ],
        "cells": cells,
        "maps": maps,
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
