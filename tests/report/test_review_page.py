"""The review page holds all it needs and nothing that acts; its pictures fit the room they get."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import ATTRIBUTE, SCRIPT, Parsed
from PIL import Image
from review_pages import RUN, make_page

from mlc_jax.errors import ImageError
from mlc_jax.report.thumbnails import SMALLEST, fitting_thumbnails


def blocks(path: Path) -> list[tuple[str, str]]:
    """Attributes and content of every script in the page, as a browser cuts them."""
    return re.findall(r"<script([^>]*)>(.*?)</script", path.read_text(), re.DOTALL)


def data_of(path: Path) -> tuple[dict[str, Any], list[str]]:
    (_, cells), (_, thumbnails), _ = blocks(path)
    return json.loads(cells), json.loads(thumbnails)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "review.html"
    closing = "</script><img src=x onerror=alert(1)>"
    make_page(path, 30, images=6, labels=(SCRIPT, closing, ATTRIBUTE), filename=f"{closing}{{}}")
    return path


def test_names_that_are_code_stay_data(hostile: Path) -> None:
    page = Parsed(hostile)
    attributes = [a for a, _ in blocks(hostile)]
    assert attributes == [
        ' type="application/json" id="cells-json"',
        ' type="application/json" id="thumbnails-json"',
        "",
    ]
    assert page.open == []
    assert not [key for _, attrs in page.tags for key in attrs if key.startswith("on")]
    cells, _ = data_of(hostile)
    assert SCRIPT in [label["name"] for label in cells["labels"]]


def test_the_page_loads_nothing_and_runs_its_own_script_only(hostile: Path) -> None:
    text = hostile.read_text()
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttpRequest|import\(", text)
    (policy,) = [
        a for a in Parsed(hostile).all("meta") if a.get("http-equiv") == "Content-Security-Policy"
    ]
    script = blocks(hostile)[-1][1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy["content"] == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    assert "innerHTML" not in script


def test_a_picture_is_held_once_however_many_cells_show_it(hostile: Path) -> None:
    cells, thumbnails = data_of(hostile)
    assert len(cells["cells"]) == 30
    assert len(thumbnails) == len(cells["images"]) == 6
    for data, image in zip(thumbnails, cells["images"], strict=True):
        assert base64.b64decode(data).startswith(b"\xff\xd8\xff")
        assert (image["width"], image["height"]) == (24, 16)


def test_a_heat_map_is_drawn_against_its_own_greatest_size(hostile: Path) -> None:
    cells, _ = data_of(hostile)
    first = cells["maps"][cells["cells"][0]["map"]]
    assert (first["height"], first["width"]) == (3, 4)
    np.testing.assert_array_equal(first["values"], np.rint(50 * np.linspace(-2, 1, 12)))
    assert cells["cells"][1]["map"] is None


def test_what_the_page_says(hostile: Path) -> None:
    page = Parsed(hostile)
    for words in ("Most useful first", "7 cells are left out.", "configs/review.py", RUN[:12]):
        assert words in page.text
    named = {a["id"] for _, a in page.tags if "id" in a}
    asked = set(re.findall(r'element\("([\w-]+)"\)', blocks(hostile)[-1][1]))
    assert asked <= named, "the script asks for what is there"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of noise, which JPEG cannot pack."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(rng.integers(0, 255, (400, 300, 3), np.uint8)).save(root / f"{number}.png")
    return root


NAMES = [f"{number}.png" for number in range(12)]


def length(jpeg: bytes) -> int:
    return len(base64.b64encode(jpeg))


@pytest.mark.parametrize("side", [200, 1000])
def test_thumbnails_have_the_side_asked_for_where_there_is_room(folder: Path, side: int) -> None:
    made = fitting_thumbnails(folder, NAMES, side, 10**8, lambda _: None)
    assert list(made) == NAMES
    high = min(side, 400)
    assert {(picture.width, picture.height) for picture in made.values()} == {(high * 3 // 4, high)}


def test_thumbnails_shrink_to_fit_and_then_the_last_are_left_out(folder: Path) -> None:
    whole = fitting_thumbnails(folder, NAMES, 400, 10**8, lambda _: None)
    size = sum(length(picture.jpeg) for picture in whole.values())
    fitted = fitting_thumbnails(folder, NAMES, 400, size // 3, lambda _: None)
    assert list(fitted) == NAMES
    assert sum(length(picture.jpeg) for picture in fitted.values()) <= size // 3
    (high,) = {picture.height for picture in fitted.values()}
    assert SMALLEST < high < 400
    smallest = fitting_thumbnails(folder, NAMES, SMALLEST, 10**8, lambda _: None)
    room = sum(length(smallest[name].jpeg) for name in NAMES[:5])
    assert fitting_thumbnails(folder, NAMES, 400, room, lambda _: None) == {
        name: smallest[name] for name in NAMES[:5]
    }


def test_a_picture_outside_the_folder_is_refused(folder: Path) -> None:
    with pytest.raises(ImageError, match=r"\.\."):
        fitting_thumbnails(folder, ["../x.png"], 200, 10**8, lambda _: None)
