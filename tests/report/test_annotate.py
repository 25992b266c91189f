"""Labels on pictures: in the corner, those given first, as many as there is room for."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.font_manager import FontEntry

from mlc_jax.report import fonts
from mlc_jax.report.annotate import write_labels_on

GREY = np.full((300, 200, 3), 128, np.uint8)


def written(names: list[str], given: list[bool], image: np.ndarray = GREY) -> np.ndarray:
    return write_labels_on(image, names, np.linspace(0.9, 0.1, len(names)), np.array(given))


@pytest.mark.parametrize("size", [(1, 1), (12, 12), (64, 48), (450, 350), (40, 2000)])
@pytest.mark.parametrize("count", [1, 4, 300])
def test_the_picture_keeps_its_size_and_its_input(size: tuple[int, int], count: int) -> None:
    image = np.full((*size, 3), 128, np.uint8)
    made = written([f"label {n}" for n in range(count)], [n % 2 == 0 for n in range(count)], image)
    assert made.shape == image.shape
    assert made.dtype == np.uint8
    assert (image == 128).all()


def test_labels_given_come_first_and_in_white() -> None:
    both, reverse = written(["cat", "dog"], [True, True]), written(["cat", "dog"], [False, True])
    assert (both == 255).all(axis=2).sum() > (reverse == 255).all(axis=2).sum() > 0
    # The order is that of being given, then of probability, and not that of the names.
    probabilities = np.array([0.2, 0.7])
    one = write_labels_on(GREY, ["a", "b"], probabilities, np.array([True, False]))
    other = write_labels_on(GREY, ["b", "a"], probabilities[::-1], np.array([False, True]))
    np.testing.assert_array_equal(one, other)


def test_what_has_no_room_is_counted_in_the_last_line() -> None:
    made = []
    for count in (200, 150):
        names = [f"label {number}" for number in range(count)]
        made.append(write_labels_on(GREY, names, np.full(count, 0.5), np.ones(count, bool)))
    rows = np.nonzero((made[0] != made[1]).any(axis=(1, 2)))[0]
    # The numbers of those left over differ, and nothing above them.
    assert rows.size > 0
    assert rows.min() > 270
    assert (written(names[:3], [True] * 3)[150:] == GREY[150:]).all()


def test_letters_beyond_english_have_shapes_of_their_own() -> None:
    words = ("Größe", "Gr¨¨e", "рубашка", "χρώμα")
    assert len({written([word], [True]).tobytes() for word in words}) == len(words)


def test_line_breaks_and_other_signs_without_a_shape_are_no_hindrance() -> None:
    made = written(["red\nlight", "a\tb\x07", "\n"], [True, True, False])
    np.testing.assert_array_equal(made, written(["red light", "a b", ""], [True, True, False]))


def test_a_label_is_drawn_in_a_font_that_has_its_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ⰰ (Glagolitic) is in no font of matplotlib's; here a font is found that has a letter more."""
    word = "\u2c00\u2c01"
    monkeypatch.setattr(fonts.fontManager, "ttflist", [])
    fonts.font_for.cache_clear()
    assert fonts.lacking(["cat", word, "a\nb"]) == [word]
    boxes = written([word], [True])
    np.testing.assert_array_equal(boxes, written(["□□"], [True]))

    other = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSerif-Bold.ttf")
    had = fonts._signs_of

    def signs_of(file: str) -> frozenset[int]:
        return had(file) | frozenset(map(ord, word)) if file == other else had(file)

    monkeypatch.setattr(fonts, "_signs_of", signs_of)
    monkeypatch.setattr(fonts.fontManager, "ttflist", [FontEntry(fname=other, weight=700)])
    fonts.font_for.cache_clear()
    assert fonts.font_for(word, bold=True) == other
    assert fonts.font_for("cat") != other
    assert fonts.lacking([word]) == []
    assert (written([word], [True]) != boxes).any()
    fonts.font_for.cache_clear()
