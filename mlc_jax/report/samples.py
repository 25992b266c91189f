"""Sample predictions: test pictures with what people said of them, and what the classifier says."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from mlc_jax.data.images import decode_image, resolve_image
from mlc_jax.data.pixels import resize_image
from mlc_jax.data.table import MISSING
from mlc_jax.errors import ImageError
from mlc_jax.report.panels import BLUE, INK, ORANGE, drawable, panel_grid, save
from mlc_jax.report.split_scores import SplitScores

SAMPLES = 5

_THUMBNAIL = 280  # pixels of the longer side
_SIGNS, _LINES = 27, 4  # of text that fit below a picture
_PICTURE, _LINE = 1.65, 0.145  # heights of a picture and of a line below it, in inches


@dataclass(frozen=True)
class Sample:
    """One test image, as far as people labelled it.

    Attributes:
      filename: relative to the image folder.
      true: the labels that people gave it.
      predicted: the labels above their threshold, with their probabilities; no others than those
        that people decided on.
    """

    filename: str
    true: tuple[str, ...]
    predicted: tuple[tuple[str, float], ...]


def ranked_samples(scores: SplitScores, *, right: bool) -> Iterator[Sample]:
    """The test images, most confident first, that are right in every known cell; or those wrong.

    A right image is as sure as its least sure cell; those with more known cells come first, as
    one sure cell is no feat. A wrong one is as sure as its worst mistake. Sureness of a cell is
    the probability of the value that was predicted. Each set of true labels comes once before any
    comes again, so that the easiest label does not take all places.
    """
    rows = np.flatnonzero(scores.test)
    values, probabilities = scores.values[rows], scores.probabilities[rows]
    known = values != MISSING
    predicted = probabilities > scores.thresholds
    mistakes = known & (predicted != (values == 1))
    # The probability of what people said: low in a bad mistake, high in a sure hit.
    agreed = np.where(values == 1, probabilities, 1 - probabilities)
    least = np.where(known, agreed, 1.0).min(axis=1)
    worst = np.where(mistakes, agreed, 1.0).min(axis=1)
    if right:
        order = np.lexsort((-least, -known.sum(axis=1)))
        chosen = order[~mistakes.any(axis=1)[order]]
    else:
        order = np.argsort(worst, kind="stable")
        chosen = order[mistakes.any(axis=1)[order]]
    times: Counter[bytes] = Counter()
    turns = []
    for row in chosen:
        own = (values[row] == 1).tobytes()
        turns.append(times[own])
        times[own] += 1
    for row in chosen[np.argsort(np.array(turns, np.int64), kind="stable")]:
        yield Sample(
            scores.filenames[rows[row]],
            tuple(scores.names[i] for i in np.flatnonzero(values[row] == 1)),
            tuple(
                (scores.names[i], float(probabilities[row, i]))
                for i in np.flatnonzero(predicted[row])
            ),
        )


def readable(
    samples: Iterator[Sample], folder: Path, follow_links: bool = False
) -> list[tuple[Sample, np.ndarray]]:
    """The first `SAMPLES` whose picture can be read, with it: uint8 [H, W, 3], a thumbnail.

    Args:
      samples: as `ranked_samples` yields them.
      folder: the image folder.
      follow_links: whether links in it may lead out of it; else no file outside it is opened.
    """
    found: list[tuple[Sample, np.ndarray]] = []
    for sample in samples:
        try:
            picture = decode_image(
                resolve_image(folder, sample.filename, follow_links=follow_links)
            )
        except ImageError:
            continue
        height, width = picture.shape[:2]
        scale = _THUMBNAIL / max(height, width)
        size = (max(1, round(scale * height)), max(1, round(scale * width)))
        found.append((sample, resize_image(picture, size)))
        if len(found) == SAMPLES:
            break
    return found


def sample_grid(path: Path, samples: Sequence[tuple[Sample, np.ndarray]]) -> str:
    """Draws pictures side by side, true and predicted labels below each.

    Args:
      path: of the PNG file.
      samples: with their pictures, uint8 [H, W, 3]; at least one.

    Returns:
      the alt text.
    """
    texts, said = [], []
    for sample, _ in samples:
        true = ", ".join(sample.true) or "none"
        predicted = ", ".join(f"{name} {p:.2f}" for name, p in sample.predicted) or "none"
        texts.append(
            (
                drawable(sample.filename, _SIGNS),
                _wrapped(f"true: {true}"),
                _wrapped(f"predicted: {predicted}"),
            )
        )
        said.append(f"{sample.filename}, true: {true}, predicted: {predicted}")
    lines = max(1 + len(true) + len(predicted) for _, true, predicted in texts)
    figure, panels = panel_grid(
        len(samples),
        SAMPLES,
        height=_PICTURE + lines * _LINE,
        ratios=(_PICTURE, lines * _LINE),
        top=0.2,
    )
    for (axes, below), (sample, picture), text in zip(panels, samples, texts, strict=True):
        axes.imshow(picture)
        axes.set_anchor("SW")
        axes.set_axis_off()
        below.set_axis_off()
        filename, true_lines, predicted_lines = text
        right = set(sample.true) == {name for name, _ in sample.predicted}
        _write(below, 0, lines, [filename], INK, weight="bold")
        _write(below, 1, lines, true_lines, INK)
        _write(below, 1 + len(true_lines), lines, predicted_lines, BLUE if right else ORANGE)
    save(figure, path)
    return f"Test pictures. {'; '.join(said)}."


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(drawable(text, len(text)), _SIGNS, max_lines=_LINES, placeholder=" …")


def _write(
    axes: Axes, line: int, lines: int, text: list[str], colour: str, weight: str = "normal"
) -> None:
    """Writes text from a line on, the axes being so many lines high."""
    axes.text(
        0,
        1 - line / lines,
        "\n".join(text),
        transform=axes.transAxes,
        va="top",
        fontsize=7.5,
        linespacing=1.3,
        color=colour,
        fontweight=weight,
        parse_math=False,
    )
