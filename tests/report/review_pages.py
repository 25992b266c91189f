"""Review pages of any size, with pictures of one colour each."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from mlc_jax.report.review_page import (
    ABSTAINED,
    FILLED,
    SUSPECT,
    Cell,
    Label,
    ReviewPage,
    write_review,
)
from mlc_jax.report.thumbnails import Thumbnail

RUN = "ab12" * 16


def plain_picture(number: int, width: int = 24, height: int = 16) -> Thumbnail:
    packed = io.BytesIO()
    colour = tuple(np.random.default_rng(number).integers(0, 255, 3).tolist())
    Image.new("RGB", (width, height), colour).save(packed, "JPEG")
    return Thumbnail(packed.getvalue(), width, height)


def make_page(
    path: Path,
    cells: int,
    *,
    images: int,
    labels: tuple[str, ...] = ("sea", "sun"),
    filename: str = "{}.jpg",
    run: str = RUN,
) -> ReviewPage:
    """Writes a page of that many cells: every third suspect, abstained, filled; half with a map."""
    names = [filename.format(number) for number in range(images)]
    reasons = (SUSPECT, ABSTAINED, FILLED)
    page = ReviewPage(
        workdir="checkpoints/impute",
        run=run,
        command="python -m mlc_jax.main --config=configs/review.py",
        labels=[
            Label(name, place == 0, "no better than chance") for place, name in enumerate(labels)
        ],
        cells=[
            Cell(
                filename=names[number % images],
                label=number // images % len(labels),
                value=(1, -1, 0)[number % 3],
                reason=reasons[number % 3],
                probability=number % 100 / 100,
                threshold=0.4,
                error=0.5,
                neighbours=((names[(number + 1) % images], 1), (names[(number + 2) % images], 0)),
                heat=np.linspace(-2, 1, 12).reshape(3, 4) if number % 2 == 0 else None,
            )
            for number in range(cells)
        ],
        notes=["7 cells are left out."],
    )
    write_review(path, page, {name: plain_picture(number) for number, name in enumerate(names)})
    return page
