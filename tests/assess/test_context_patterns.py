"""Laws of patterns: never more than is known, as many as blanks have, and no change where alike."""

import numpy as np
import pytest

from mlc_jax.assess.context_patterns import draw_patterns

ROWS = 3000


def drawn(known: np.ndarray, label: int = 0) -> np.ndarray:
    return draw_patterns(known, label, np.random.default_rng(7))


def beside(known: np.ndarray, label: int = 0) -> np.ndarray:
    """What is known beside the blanks of a label, its own column left out."""
    return np.delete(known[~known[:, label]], label, axis=1)


def given(known: np.ndarray, label: int = 0) -> np.ndarray:
    """The patterns that were drawn for the label's known cells."""
    return np.delete(drawn(known, label)[known[:, label]], label, axis=1)


@pytest.mark.parametrize("label", [0, 3])
def test_nothing_is_kept_that_is_not_known_nor_the_label_itself(label: int) -> None:
    known = np.random.default_rng(0).random((ROWS, 5)) < 0.6
    kept = drawn(known, label)
    assert not (kept & ~known).any()
    assert not kept[:, label].any()
    # Rows whose own cell is blank are left alone.
    blank = ~known[:, label]
    others = np.arange(5) != label
    np.testing.assert_array_equal(kept[blank][:, others], known[blank][:, others])


def test_whole_rows_without_labels_take_all_context_from_their_share_of_cells() -> None:
    """Half of the blanks of label 0 are in empty rows, the others in full ones."""
    known = np.ones((ROWS, 4), np.bool_)
    known[:400] = False
    known[400:800, 0] = False
    counts = given(known).sum(axis=1)
    assert set(counts.tolist()) == {0, 3}
    assert (counts == 0).mean() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("labels", [4, 40])
def test_where_cells_are_blank_at_random_next_to_nothing_is_left_out(labels: int) -> None:
    known = np.random.default_rng(1).random((ROWS, labels)) < 0.7
    lost = 1 - given(known).sum() / np.delete(known[known[:, 0]], 0, axis=1).sum()
    # Sampling noise of the numbers of known labels in both kinds of row.
    assert lost == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize("labels", [4, 40])
def test_patterns_are_as_frequent_as_beside_blanks(labels: int) -> None:
    """Rows without labels, and cells that are blank at rates of their own."""
    rng = np.random.default_rng(2)
    known = rng.random((ROWS, labels)) < np.linspace(0.9, 0.6, labels)
    known[rng.random(ROWS) < 0.3] = False
    wanted, found = beside(known), given(known)
    for moment in (1, 2):
        sums = [(own.sum(axis=1) ** moment).mean() for own in (wanted, found)]
        assert sums[1] == pytest.approx(sums[0], rel=0.02)
    assert np.abs(found.mean(axis=0) - wanted.mean(axis=0)).max() < 0.06
    assert np.abs(known[known[:, 0], 1:].mean(axis=0) - wanted.mean(axis=0)).max() > 0.3


def test_a_label_that_is_never_known_beside_a_blank_is_never_in_a_context() -> None:
    """Labels 0 and 1 are blank together; the others at random, half of the time."""
    rng = np.random.default_rng(3)
    known = rng.random((ROWS, 6)) < 0.5
    known[:, 1] = known[:, 0]
    found = given(known)
    assert not found[:, 0].any()
    assert found[:, 1:].mean() == pytest.approx(0.5, abs=0.02)


def test_a_label_without_blanks_keeps_the_context_it_has() -> None:
    known = np.random.default_rng(4).random((50, 3)) < 0.5
    known[:, 0] = True
    np.testing.assert_array_equal(given(known), known[:, 1:])
    known[:, 0] = False
    np.testing.assert_array_equal(drawn(known)[:, 1:], known[:, 1:])


def test_values_and_seeds_of_other_draws_have_no_part() -> None:
    known = np.random.default_rng(5).random((200, 4)) < 0.6
    np.testing.assert_array_equal(drawn(known), drawn(known))
    other = draw_patterns(known, 0, np.random.default_rng(8))
    assert (other != drawn(known)).any()
