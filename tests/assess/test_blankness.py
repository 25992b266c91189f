"""Laws of blankness: blanks that follow the images are found out, blanks at random are not."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlc_jax.assess.blankness import FEWEST, judge_blankness, known_chances, ridge_scores

ROWS, CHANNELS, FOLDS = 300, 8, 5


@pytest.mark.parametrize(("rows", "channels"), [(90, 7), (60, 200), (75, 60)])
def test_scores_are_those_of_a_library(rows: int, channels: int) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(rows, channels)) * np.geomspace(0.1, 10, channels) + 5
    features[:, 3] = 2.5  # a channel that says nothing
    targets = rng.random((rows, 3))
    folds = np.arange(rows) % 3
    found = ridge_scores(features.astype(np.float32), targets, folds)
    for fold in range(3):
        own = folds == fold
        model = make_pipeline(StandardScaler(), Ridge(alpha=float((~own).sum())))
        model.fit(features.astype(np.float32).astype(np.float64)[~own], targets[~own])
        expected = model.predict(features.astype(np.float32).astype(np.float64)[own])
        np.testing.assert_allclose(found[own], expected, rtol=1e-7, atol=1e-9)


def test_a_row_has_no_say_about_its_own_score() -> None:
    rng = np.random.default_rng(1)
    features, targets = rng.normal(size=(60, 5)), rng.random((60, 2))
    folds = np.arange(60) % 3
    before = ridge_scores(features, targets, folds)
    own = folds == 1
    after = ridge_scores(features, np.where(own[:, None], 1 - targets, targets), folds)
    np.testing.assert_array_equal(after[own], before[own])
    assert (after[~own] != before[~own]).all()


def blanks(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Of label 0, images with a high channel are blank more often; of 1 any; of 2 hardly one."""
    features = rng.normal(size=(ROWS, CHANNELS))
    chance = np.stack(
        [np.where(features[:, 2] > 0.5, 0.5, 0.1), np.full(ROWS, 0.2), np.zeros(ROWS)], axis=1
    )
    blank = rng.random((ROWS, 3)) < chance
    blank[: FEWEST - 1, 2] = True
    return features, blank


def test_blanks_that_follow_the_images_are_predictable_and_random_ones_are_not() -> None:
    found_out, alarms = 0, 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        features, blank = blanks(rng)
        folds = rng.permutation(ROWS) % FOLDS
        scores = ridge_scores(features, blank.astype(np.float64), folds)
        follows, at_random, few = judge_blankness(scores, blank, folds, np.arange(ROWS), seed=seed)
        found_out += follows.predictable
        alarms += at_random.predictable
        if follows.predictable:
            assert 0.5 < follows.auc.low < follows.auc.value < follows.auc.high
            assert follows.p_holm < 0.01
        assert not few.predictable
        assert np.isnan(few.auc).all()
        assert np.isnan(few.p_holm)
        assert f"{FEWEST - 1} of {ROWS} cells are blank" in few.reason
    assert found_out >= 5
    # Each is an alarm with a chance of one percent at most: two of six would be one in 700.
    assert alarms <= 1


@pytest.mark.parametrize("blank", [False, True])
def test_a_label_that_is_all_blank_or_all_known_is_not_tested(blank: bool) -> None:
    rng = np.random.default_rng(0)
    (found,) = judge_blankness(
        rng.normal(size=(40, 1)),
        np.full((40, 1), blank),
        np.arange(40) % 4,
        np.arange(40),
        seed=0,
    )
    assert not found.predictable
    assert np.isnan(found.p_holm)


def test_the_chance_of_a_known_cell_is_what_it_was_drawn_with() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4000, CHANNELS))
    chance = np.stack([1 / (1 + np.exp(-features[:, 2])), np.full(4000, 0.7)], axis=1)
    blank = rng.random((4000, 2)) >= chance
    folds = np.arange(4000) % FOLDS
    found = known_chances(ridge_scores(features, blank.astype(float), folds), blank, folds)
    assert np.abs(found - chance).mean() < 0.02
    few = np.zeros((4000, 1), np.bool_)
    few[: FEWEST - 1] = True
    alike = known_chances(rng.normal(size=(4000, 1)), few, folds)
    np.testing.assert_allclose(alike, 1 - (FEWEST - 1) / 4000)
