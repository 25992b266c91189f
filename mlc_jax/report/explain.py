"""What the report of the explain stage says: what speaks for a label, and which map to believe."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from mlc_jax.assess.faithfulness import BEATS_CHANCE
from mlc_jax.errors import WorkdirError
from mlc_jax.report import numbers
from mlc_jax.report.circumstances import how_it_ran, how_to_repeat
from mlc_jax.report.panels import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    label_edges,
    legend,
    name_panel,
    panel_grid,
    save,
)
from mlc_jax.report.parts import (
    Cell,
    Column,
    Facts,
    Listing,
    Page,
    Part,
    Picture,
    Section,
    Table,
    Text,
    Thumbnail,
    Thumbnails,
    Tile,
)
from mlc_jax.report.run import REMEDY, FinishedRun
from mlc_jax.report.tables import glossary

METHODS = {"grad_cam": "Grad-CAM", "lime": "LIME", "occlusion": "Occlusion"}
_COLOURS = {"grad_cam": ORANGE, "lime": BLUE, "occlusion": INK}
_IMAGES = 24  # that are shown
_HOW_MADE = (
    "Grad-CAM: where the backbone's final maps hold what raises the label, by the gradient. For a "
    "linear head it is the class activation map, exactly. It is as coarse as those maps.",
    "LIME: a linear model of the log odds around the image, fitted to what the classifier says "
    "where random superpixels are hidden. Its fidelity is R² on samples that were not fitted.",
    "Occlusion: how much probability is lost where a patch hides the image.",
    "Orange speaks for the label, blue against it. Each map is scaled to its own strongest place, "
    "so colours do not compare between maps.",
)
_HOW_JUDGED = (
    "Superpixels are hidden one after another, those first that the map calls important "
    "(deletion), or shown first on an empty image (insertion). The figures are the mean "
    "probability on the way. An order dealt at random has a gain of 0 on average. An explanation "
    "beats chance where no more than 1 in 20 such orders does as well: the classifier looks there. "
    "Whether it is right to look there, no figure here says. Comparing the methods, mind that LIME "
    "was fitted to these superpixels, hidden in this way, which favours it."
)
_COLUMNS = (
    Column("Method", words=True),
    Column("Better than chance", "explanations with at most 1 in 20 random orders as good"),
    Column("Deletion", "mean probability while the image is hidden; low is good"),
    Column("Insertion", "mean probability while the image is shown; high is good"),
    Column("Gain", "insertion minus deletion; 0 is chance"),
    Column("Fidelity", "R² of LIME's linear model on samples that were not fitted; 1 is perfect"),
)


@dataclass(frozen=True)
class Explained:
    """A line of explanations.csv.

    Attributes:
      probability, empty: of the label, for the image and for one that is hidden as a whole.
      fidelity: of LIME's linear model; None for other methods, or where nothing changed.
      overlay: PNG file.
    """

    filename: str
    label: str
    probability: float
    threshold: float
    empty: float
    method: str
    deletion: float
    insertion: float
    chance: float
    fidelity: float | None
    overlay: Path


def explain_page(run: FinishedRun, plots_folder: Path) -> Page:
    """Draws the plot and puts the page together.

    Args:
      run: a finished run of the explain stage.
      plots_folder: where the PNG file goes.

    Raises:
      WorkdirError: explanations.csv or an overlay is missing or damaged.
    """
    summary = run.summary
    methods = summary["methods"]
    good = {name: method["better_than_chance"] for name, method in methods.items()}
    count = next(iter(methods.values()))["explanations"]
    told = ", ".join(f"{METHODS[name]} for {better}" for name, better in good.items())
    return Page(
        title="Explanations",
        outcome=f"Of {count} labels on {summary['data']['explained']} images, an explanation beats "
        f"chance: {told}.",
        trusted=max(good.values()) == count,
        tiles=(
            Tile(numbers.count(summary["data"]["explained"]), "images"),
            Tile(numbers.count(count), "labels on them explained"),
            *(
                Tile(f"{better} / {count}", f"beat chance: {METHODS[name]}")
                for name, better in good.items()
            ),
        ),
        warnings=tuple(summary["warnings"]),
        sections=(
            Section("scores", "Do they explain?", _scores(run, plots_folder)),
            Section("images", "Images", _images(run)),
            Section("data", "What went in", _what_went_in(run)),
            how_it_ran(run),
            how_to_repeat(run),
        ),
    )


def _scores(run: FinishedRun, plots_folder: Path) -> tuple[Part, ...]:
    methods, random = run.summary["methods"], run.summary["random"]
    rows = [
        (
            Cell(METHODS[name]),
            Cell(f"{method['better_than_chance']} of {method['explanations']}"),
            *_areas(method),
            Cell(numbers.DASH, note="it has no linear model")
            if method["fidelity"] is None
            else Cell(numbers.figure(method["fidelity"])),
        )
        for name, method in methods.items()
    ]
    none = Cell(numbers.DASH, note="it is chance")
    rows.append((Cell("Random orders"), none, *_areas(random), none))
    file = plots_folder / "curves.png"
    alt = explanation_curves(file, run.summary)
    caption = (
        "Mean over all explanations. What explains falls early on the left and rises early on the "
        "right, away from the dotted line."
    )
    table = Table(_COLUMNS, tuple(rows))
    picture = Picture(file, "Deletion and insertion", alt, caption)
    return Text(_HOW_JUDGED), table, glossary(table.columns), picture


def _areas(figures: Mapping[str, Any]) -> tuple[Cell, ...]:
    return tuple(Cell(numbers.figure(figures[name])) for name in ("deletion", "insertion", "gain"))


def explanation_curves(path: Path, summary: Mapping[str, Any]) -> str:
    """The mean deletion and insertion curves of each method and of random orders.

    Args:
      path: of the PNG file.
      summary: summary.json.

    Returns:
      the alt text.
    """
    figure, panels = panel_grid(2, 2, height=2.4)
    shares = np.array(summary["shares"])
    names = {"deletion": "share hidden", "insertion": "share shown"}
    for (axes,), (name, across) in zip(panels, names.items(), strict=True):
        random = summary["random"]["curves"][name]
        axes.plot(shares, random, color=FAINT, linewidth=1.4, linestyle=":")
        for method, own in summary["methods"].items():
            axes.plot(shares, own["curves"][name], color=_COLOURS[method], linewidth=1.8)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(across)
        name_panel(axes, name.capitalize())
    label_edges([panels[0][0]], 2, names["deletion"], "mean probability")
    legend(
        figure,
        [
            *(
                Line2D([], [], color=_COLOURS[method], linewidth=1.8, label=METHODS[method])
                for method in summary["methods"]
            ),
            Line2D([], [], color=FAINT, linewidth=1.4, linestyle=":", label="random orders"),
        ],
    )
    save(figure, path)
    said = "; ".join(
        f"{METHODS[method]} {own['deletion']:.3f} and {own['insertion']:.3f}"
        for method, own in summary["methods"].items()
    )
    random = summary["random"]
    return (
        f"Deletion and insertion curves. Areas: {said}; random orders {random['deletion']:.3f} and "
        f"{random['insertion']:.3f}."
    )


def _images(run: FinishedRun) -> tuple[Part, ...]:
    made = read_explanations(run.workdir / "explanations.csv")
    parts: list[Part] = [Listing(_HOW_MADE)]
    by_image: dict[Path, dict[str, list[Explained]]] = {}
    for one in made:
        by_image.setdefault(one.overlay.parent, {}).setdefault(one.label, []).append(one)
    for folder, labels in list(by_image.items())[:_IMAGES]:
        for label, own in labels.items():
            first = own[0]
            verdict = "given" if first.probability > first.threshold else "not given"
            original = Thumbnail(
                folder / "picture.png",
                f"the image {first.filename}",
                f"{label} {first.probability:.2f}",
                (
                    f"{verdict}: the threshold is {first.threshold:.2f}",
                    f"an empty image gets {first.empty:.2f}",
                ),
            )
            title = f"{first.filename}: {label}"
            parts.append(Thumbnails(title, (original, *(_thumbnail(one) for one in own))))
    if len(by_image) > _IMAGES:
        more = len(by_image) - _IMAGES
        parts.append(Text(f"{numbers.count(more)} more images are in overlays/."))
    return tuple(parts)


def _thumbnail(one: Explained) -> Thumbnail:
    chance = "beats chance" if one.chance <= BEATS_CHANCE else "no better than chance"
    lines = [
        f"{chance}: deletion {numbers.figure(one.deletion)}, "
        f"insertion {numbers.figure(one.insertion)}"
    ]
    if one.fidelity is not None:
        lines.append(f"fidelity {numbers.figure(one.fidelity)}")
    alt = f"{METHODS[one.method]} for {one.label} over {one.filename}"
    return Thumbnail(one.overlay, alt, METHODS[one.method], tuple(lines))


def _what_went_in(run: FinishedRun) -> tuple[Part, ...]:
    summary = run.summary
    data, checkpoint = summary["data"], summary["checkpoint"]
    height, width = data["image_size"]
    parts: list[Part] = [
        Facts(
            (
                ("Images", data["images"]),
                ("Explained", numbers.count(data["explained"])),
                ("Left out", numbers.count(data["left_out"])),
                ("Classifier", f"{checkpoint['workdir']}, {checkpoint['kind']} epoch"),
                ("Image size", f"{height} × {width} pixels, height × width"),
            )
        )
    ]
    if summary["notes"]:
        parts.append(Listing(tuple(summary["notes"])))
    if run.quarantine:
        rows = tuple((Cell(name), Cell(row), Cell(why)) for name, row, why in run.quarantine)
        heads = (Column("File", words=True), Column("Row"), Column("Reason", words=True))
        parts.append(Table(heads, rows))
    return tuple(parts)


def read_explanations(path: Path) -> list[Explained]:
    """Reads explanations.csv.

    Raises:
      WorkdirError: it is missing or damaged, or names an overlay that is not there.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            made = [
                Explained(
                    filename=line["filename"],
                    label=line["label"],
                    probability=float(line["probability"]),
                    threshold=float(line["threshold"]),
                    empty=float(line["empty"]),
                    method=line["method"],
                    deletion=float(line["deletion"]),
                    insertion=float(line["insertion"]),
                    chance=float(line["chance"]),
                    fidelity=float(line["fidelity"]) if line["fidelity"] else None,
                    overlay=path.parent / "overlays" / line["overlay"],
                )
                for line in csv.DictReader(file)
            ]
    except OSError as error:
        raise WorkdirError(f"{path}: {error.strerror}; {REMEDY}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise WorkdirError(f"{path} is damaged ({error}); {REMEDY}") from error
    for one in made:
        if not one.overlay.is_file():
            raise WorkdirError(f"{one.overlay} is missing; {REMEDY}")
    return made
