"""Laws of the guards: they look at the cells they say they look at, and raise the right alarm."""

from dataclasses import asdict

import numpy as np

from mlc_jax.assess.blankness import judge_blankness
from mlc_jax.assess.copies import agreement_of_copies
from mlc_jax.assess.guards import Guards, guard
from mlc_jax.assess.prevalence import compare_prevalence

ROWS = 300


def guarded() -> tuple[list[Guards], dict[str, np.ndarray]]:
    """Label 0 is filled with ones alone, label 1 as it was given, label 2 not at all."""
    rng = np.random.default_rng(0)
    labels = (rng.random((ROWS, 3)) < 0.5).astype(np.int8)
    human = rng.random((ROWS, 3)) < 0.7
    human[:, 2] = True
    filled = ~human
    labels[filled[:, 0], 0] = 1
    data = {
        "labels": labels,
        "human": human,
        "filled": filled,
        "features": rng.normal(size=(ROWS, 4)),
        "folds": np.arange(ROWS) % 5,
        "groups": np.arange(ROWS) // 2,
    }
    return guard(**data, seed=0), data


def test_cells_filled_unlike_the_given_ones_raise_an_alarm_and_others_do_not() -> None:
    found, data = guarded()
    assert [label.prevalence_differs for label in found] == [True, False, False]
    ones = data["labels"] == 1
    for column, label in enumerate(found):
        counts = [
            int((part[:, column] & more).sum())
            for part in (data["human"], data["filled"])
            for more in (ones[:, column], True)
        ]
        np.testing.assert_equal(label.prevalence, compare_prevalence(*counts))
    assert np.isnan(found[2].prevalence_p)
    # Holm: of two tests, the smaller p counts twice.
    assert found[0].prevalence_p == min(1, 2 * found[0].prevalence.p)


def test_blankness_is_of_what_people_left_blank_and_copies_of_what_they_gave() -> None:
    found, data = guarded()
    blank = judge_blankness(data["features"], ~data["human"], data["folds"], data["groups"], seed=0)
    copies = agreement_of_copies(data["labels"], data["human"], data["groups"])
    for label, expected, agreement in zip(found, blank, copies, strict=True):
        np.testing.assert_equal(asdict(label.blankness), asdict(expected))
        np.testing.assert_equal(asdict(label.copies), asdict(agreement))


def test_a_blank_that_was_left_blank_is_no_filled_cell() -> None:
    _, data = guarded()
    abstained = data["filled"] & (np.arange(ROWS) % 2 == 0)[:, None]
    found = guard(**{**data, "filled": abstained}, seed=0)
    assert found[0].prevalence.filled == 1.0
    observed, filled = (part[:, 1] for part in (data["human"], abstained))
    ones = data["labels"][:, 1] == 1
    assert found[1].prevalence == compare_prevalence(
        int((observed & ones).sum()),
        int(observed.sum()),
        int((filled & ones).sum()),
        int(filled.sum()),
    )
