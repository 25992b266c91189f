"""The review page in a real browser: keys, filters, what is kept and saved, ten thousand cells."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import ATTRIBUTE, SCRIPT
from review_pages import RUN, make_page

from mlc_jax.data.decisions import read_decisions
from tests.chromium import Browser, chromium

LABELS = ("sea", "sun")
MANY = 10_000


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Path:
    """A page of twelve cells, opened, with nothing decided yet."""
    path = tmp_path / "review.html"
    make_page(path, 12, images=6)
    browser.emulate(width=1400, height=900, dark=False)
    browser.open(path)
    browser.run("localStorage.clear()")
    browser.open(path)
    return path


def saved(browser: Browser) -> Path:
    """Presses save; waits for the file."""
    for old in browser.downloads.iterdir():
        old.unlink()
    browser.click("#save")
    end = time.monotonic() + 20
    while time.monotonic() < end:
        files = [path for path in browser.downloads.iterdir() if path.suffix == ".json"]
        if files:
            return files[0]
        time.sleep(0.05)
    raise AssertionError("nothing was downloaded")


def test_keys_decide_skip_and_undo_and_the_file_says_so(browser: Browser, page: Path) -> None:
    assert browser.text("rank") == "1 of 12"
    assert not browser.run("return document.getElementById('save').disabled === false")
    browser.press("1", "0", " ", "s", "1", "1", "u", "\ue003")
    assert browser.text("rank") == "5 of 12"
    assert browser.text("progress-text") == "2 of 12 decided, 2 skipped"
    browser.press("0")
    decisions = read_decisions(saved(browser), RUN, LABELS)
    assert decisions.values == {("0.jpg", "sea"): 1, ("1.jpg", "sea"): 0, ("4.jpg", "sea"): 0}
    assert decisions.left_open == 2
    assert browser.complaints() == []


def test_a_key_that_is_held_down_decides_one_cell(browser: Browser, page: Path) -> None:
    browser.run(
        "for (const repeat of [false, true, true]) document.body.dispatchEvent("
        "new KeyboardEvent('keydown', {key: '1', repeat, bubbles: true}))"
    )
    assert browser.text("progress-text") == "1 of 12 decided"


def test_buttons_and_tiles_do_what_the_keys_do(browser: Browser, page: Path) -> None:
    browser.click('[data-cell="7"]')
    assert browser.text("label") == "sun"
    assert browser.text("unlearnable") == "Not learnable: no better than chance."
    assert browser.text("state") == "No value was filled in."
    browser.click("#no")
    browser.click("#skip")
    assert browser.text("progress-text") == "1 of 12 decided, 1 skipped"
    browser.click("#undo")
    assert browser.text("rank") == "9 of 12"
    # A space on a button presses it, and does not skip as well.
    browser.run("document.getElementById('yes').focus()")
    browser.press(" ")
    assert browser.text("progress-text") == "2 of 12 decided"
    tile = browser.driver.find_element("css selector", '[data-cell="7"]')
    assert tile.get_attribute("aria-label") == "sun, 1.jpg. No value was filled in. You decided 0."


def test_filters_show_what_they_name(browser: Browser, page: Path) -> None:
    browser.press("1", "1")
    browser.choose("by-label", "sun (6)")
    assert browser.text("count") == "6 of 12 cells"
    browser.choose("by-reason", "suspect (4)")
    assert browser.text("count") == "2 of 12 cells"
    assert browser.text("rank") == "7 of 12"
    browser.press("0", "0")
    assert "All 2 cells" in browser.text("done-text")
    browser.choose("by-state", "open")
    assert "no cell" in browser.text("done-text")
    browser.choose("by-label", "all")
    browser.choose("by-reason", "all")
    assert browser.text("count") == "8 of 12 cells"
    browser.choose("by-state", "looked at")
    assert browser.text("count") == "4 of 12 cells"


def test_the_heat_map_lies_on_the_picture_on_request(browser: Browser, page: Path) -> None:
    def large() -> bool:
        return bool(browser.run("return !document.getElementById('heat-large').hidden"))

    assert not large()
    browser.press("h")
    assert large()
    pixels = browser.run(
        "const c = document.getElementById('heat-large');"
        "return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    )
    first, last = pixels[:4], pixels[-4:]
    assert first[2] > first[0], "what speaks most against is blue"
    assert last[0] > last[2], "what speaks for is orange"
    assert first[3] > last[3], "twice as strong"
    browser.press("\ue014")
    assert not large(), "the second cell has no map"


def test_a_closed_browser_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "review.html"
    make_page(path, 12, images=6)
    with chromium(tmp_path / "one") as first:
        first.open(path)
        first.press("1", "s")
    make_page(path, 9, images=6)  # the page is written anew, with fewer cells
    with chromium(tmp_path / "one") as second:
        second.open(path)
        assert second.text("progress-text") == "1 of 9 decided, 1 skipped"
        assert second.text("rank") == "3 of 9"
        make_page(path, 9, images=6, run="cd34" * 16)
        second.open(path)
        assert second.text("progress-text") == "0 of 9 decided", "of another run"


def test_names_that_are_code_are_shown_as_text(browser: Browser, tmp_path: Path) -> None:
    closing = "</script><img src=x onerror=alert(1)>"
    path = tmp_path / "review.html"
    make_page(path, 12, images=6, labels=(SCRIPT, ATTRIBUTE), filename=f"{closing}{{}}.jpg")
    browser.open(path)
    assert browser.text("label") == SCRIPT
    assert browser.text("filename") == f"{closing}0.jpg"
    assert browser.run("return document.querySelectorAll('img[src=x]').length") == 0
    browser.press("1")
    decided: list[dict[str, Any]] = json.loads(saved(browser).read_text())["decisions"]
    assert decided == [{"filename": f"{closing}0.jpg", "label": SCRIPT, "value": 1}]
    assert browser.complaints() == []


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_has_room_for_all_of_it(browser: Browser, page: Path, dark: bool) -> None:
    browser.emulate(width=360, height=740, dark=dark)
    browser.open(page)
    wide, low, light = browser.run(
        "const own = getComputedStyle(document.body);"
        "return [document.documentElement.scrollWidth,"
        "  document.getElementById('yes').getBoundingClientRect().bottom,"
        "  +own.backgroundColor.match(/\\d+/)[0] > +own.color.match(/\\d+/)[0]]"
    )
    assert wide <= 360
    assert 600 < low <= 740, "the buttons lie at the thumb"
    assert light != dark
    assert browser.run("return [...document.images].every((i) => i.hasAttribute('alt'))")


def test_ten_thousand_cells_start_at_once_and_do_not_lag(browser: Browser, tmp_path: Path) -> None:
    """Bounds for a busy machine: measured on an idle one, a tenth of them."""
    path = tmp_path / "review.html"
    make_page(path, MANY, images=5_000)
    browser.emulate(width=1400, height=900, dark=False)
    browser.open(path)
    assert browser.run("return performance.getEntriesByName('shown')[0].startTime") < 10_000
    lags = browser.driver.execute_async_script(
        """
        const done = arguments[0], lags = [];
        function press() {
          const before = performance.now();
          document.body.dispatchEvent(new KeyboardEvent('keydown', {key: '1', bubbles: true}));
          // After the next frame is painted.
          requestAnimationFrame(() => setTimeout(() => {
            lags.push(performance.now() - before);
            if (lags.length < 60) press(); else done(lags);
          }));
        }
        press();
        """
    )
    assert sorted(lags)[len(lags) // 2] < 250
    assert browser.text("progress-text") == f"60 of {MANY} decided"
    browser.run("window.scrollTo(0, document.body.scrollHeight)")
    browser.driver.execute_async_script(
        "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"
    )
    assert browser.driver.find_elements("css selector", f'[data-cell="{MANY - 1}"]')
    assert browser.run("return document.querySelectorAll('.tile').length") < 200
