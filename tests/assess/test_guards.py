"""Laws of the diagnostics: they look at the cells they say they look at, and raise the alarm."""

from dataclasses import asdict

import numpy as np

from mlc_jax.assess.blankness import judge_blankness, known_chances, ridge_scores
from mlc_jax.assess.copies import agreement_of_copies
from mlc_jax.assess.guards import Guards, guard
from mlc_jax.assess.prevalence import compare_prevalence, population_prevalence

ROWS = 300


def guarded() -> tuple[list[Guards], dict[str, np.ndarray]]:
    """Blanks of label 0 are expected to be ones, of label 1 as given; label 2 has no model."""
    rng = np.random.default_rng(0)
    labels = (rng.random((ROWS, 3)) < 0.5).astype(np.int8)
    mask = rng.random((ROWS, 3)) < 0.7
    probabilities = np.where(labels == 1, 0.8, 0.2)
    probabilities[~mask[:, 0], 0] = 0.9
    probabilities[:, 2] = np.nan
    data = {
        "labels": np.where(mask, labels, -1).astype(np.int8),
        "mask": mask,
        "probabilities": probabilities,
        "features": rng.normal(size=(ROWS, 4)),
        "folds": np.arange(ROWS) // 2 % 5,
        "groups": np.arange(ROWS) // 2,
        "copies": np.arange(ROWS) // 3,
    }
    return guard(**data, seed=0), data


def test_blanks_unlike_the_given_cells_raise_an_alarm_and_others_do_not() -> None:
    found, data = guarded()
    assert [label.prevalence_differs for label in found] == [True, False, False]
    for column, label in enumerate(found):
        cells = (data[name][:, column] for name in ("labels", "mask", "probabilities"))
        np.testing.assert_equal(label.prevalence, compare_prevalence(*cells, data["groups"]))
    assert np.isnan(found[2].prevalence_p)
    # Holm: of two tests, the smaller p counts twice.
    assert found[0].prevalence_p == min(1, 2 * found[0].prevalence.p)


def test_each_part_is_given_what_it_is_about() -> None:
    found, data = guarded()
    blank = ~data["mask"]
    scores = ridge_scores(data["features"], blank.astype(np.float64), data["folds"])
    blankness = judge_blankness(scores, blank, data["folds"], data["groups"], seed=0)
    chances = known_chances(scores, blank, data["folds"])
    copies = agreement_of_copies(data["labels"], data["mask"], data["copies"])
    for label, expected, agreement in zip(found, blankness, copies, strict=True):
        np.testing.assert_equal(asdict(label.blankness), asdict(expected))
        np.testing.assert_equal(asdict(label.copies), asdict(agreement))
    for column in range(2):
        cells = (data[name][:, column] for name in ("labels", "mask", "probabilities"))
        share = population_prevalence(*cells, chances[:, column], data["groups"])
        assert found[column].all_images == share
    assert np.isnan(found[2].all_images).all()
