"""Laws of self-training: no cell has a say about itself, and a round is kept where it helps."""

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import pytest
from scipy.stats import sem

from mlc_jax.assess.calibration import sigmoid
from mlc_jax.data.folds import assign_folds, rotations
from mlc_jax.training.cached import CachedFeatures
from mlc_jax.training.completion import Completion, complete, deal_out
from mlc_jax.training.crossfit import (
    CrossFit,
    Lesson,
    cross_fit,
    human_lesson,
    make_heads,
    taught_heads,
)
from mlc_jax.training.linear_crossfit import LinearCrossFit
from mlc_jax.training.parallel import Devices
from mlc_jax.training.selftraining import clustered_mean, gains, self_taught
from tests.training.synthetic import FOLDS, configuration

ROWS, CHANNELS, LABELS = 360, 6, 6


def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features float16 [N, 2, 1, 1, C], labels and what is known of them, int8 [N, L].

    Labels 0 and 1 are nearly always equal, and the images show little of either; the others are
    noise. A fifth of the cells is blank.
    """
    rng = np.random.default_rng(3)
    first = rng.random(ROWS) < 0.5
    second = first ^ (rng.random(ROWS) < 0.05)
    noise = rng.random((ROWS, LABELS - 2)) < 0.5
    labels = np.column_stack([first, second, noise]).astype(np.int8)
    seen = rng.normal(size=(ROWS, CHANNELS))
    seen[:, 1] += 1.2 * (first - 0.5)
    features = seen[:, None] + 0.1 * rng.normal(size=(ROWS, 2, CHANNELS))
    values = np.where(rng.random(labels.shape) < 0.2, -1, labels).astype(np.int8)
    return features[:, :, None, None].astype(np.float16), labels, values


def two_rounds(values: np.ndarray, fold_of: np.ndarray) -> tuple[Lesson, CrossFit]:
    """The first fit, what it teaches, and the fit on that: what `complete` does in a round."""
    features, _, _ = drawn()
    config, devices = configuration(epochs=3), Devices("jit", jax.local_devices()[:1])
    splits = rotations(fold_of, FOLDS)
    fit = partial(
        cross_fit,
        features=CachedFeatures(features, devices),
        feature_shape=features.shape[2:],
        devices=devices,
        checkpoints=None,
        on_epoch=lambda _: None,
        warn=pytest.fail,
    )
    labels = range(values.shape[1])
    first = fit(
        config,
        values,
        human_lesson(values),
        make_heads(values, labels, splits, 0.0),
    )
    lesson = self_taught(values, splits, first.by_split, first.by_split)
    return lesson, fit(config, values, lesson, taught_heads(values, labels, splits))


@pytest.fixture(scope="module")
def fold_of() -> np.ndarray:
    """Dealt once: labels may balance folds, and that is no leak."""
    return assign_folds(np.arange(ROWS), drawn()[2], FOLDS, 0)


@pytest.fixture(scope="module")
def plain(fold_of: np.ndarray) -> tuple[Lesson, CrossFit]:
    return two_rounds(drawn()[2], fold_of)


def test_a_cell_has_no_say_about_its_own_logit(
    fold_of: np.ndarray, plain: tuple[Lesson, CrossFit]
) -> None:
    """Turning one given cell round moves no bit of its logit, nor of any other image of its fold.

    It does move what is said of the image's other label, which is told of it: so something would
    have been seen.
    """
    values = drawn()[2]
    row = int(np.flatnonzero((values >= 0).all(axis=1))[0])
    fold = int(fold_of[row])
    turned = values.copy()
    turned[row, 0] = 1 - turned[row, 0]
    lesson, after = two_rounds(turned, fold_of)
    before = plain[1]
    own = fold_of == fold
    own[row] = False
    np.testing.assert_array_equal(after.logits[own], before.logits[own])
    assert after.logits[row, 0] == before.logits[row, 0]
    assert after.logits[row, 1] != before.logits[row, 1]
    assert (after.logits[fold_of != fold] != before.logits[fold_of != fold]).any()
    # What the fold's heads were taught and told is the same but for that cell.
    same = np.ones(values.shape, np.bool_)
    same[row, 0] = False
    for name in ("labels", "weights", "context"):
        made, was = getattr(lesson, name)[fold], getattr(plain[0], name)[fold]
        np.testing.assert_array_equal(made[same], was[same])
        assert name == "weights" or made[row, 0] != was[row, 0]


def test_labels_of_a_fold_teach_its_heads_nothing_about_other_images(
    fold_of: np.ndarray, plain: tuple[Lesson, CrossFit]
) -> None:
    """All labels of a fold are turned round: its heads are taught the same on all other rows."""
    values = drawn()[2]
    own = fold_of == 1
    turned = np.where(own[:, None] & (values >= 0), 1 - values, values).astype(np.int8)
    lesson, _ = two_rounds(turned, fold_of)
    for name in ("labels", "weights", "context"):
        made, was = getattr(lesson, name), getattr(plain[0], name)
        np.testing.assert_array_equal(made[1][~own], was[1][~own])
        assert name == "weights" or (made[1][own] != was[1][own]).any()
        # The heads of other splits learn from these labels.
        assert name == "weights" or (made[0][~own] != was[0][~own]).any()


def completed(rounds: int) -> tuple[Completion, list[tuple[int, int]]]:
    features, _, values = drawn()
    config = configuration(impute__rounds=rounds, loss__name="bce", features__mirror=False)
    devices = Devices("jit", jax.local_devices()[:1])
    groups = np.arange(ROWS)
    told: list[tuple[int, int]] = []
    made = complete(
        config,
        values,
        groups,
        deal_out(config, values, groups),
        CachedFeatures(features, devices),
        features.shape[2:],
        devices,
        lambda _: None,
        lambda number, epoch, _: told.append((number, epoch)),
        pytest.fail,
    )
    return made, told


@pytest.fixture(scope="module")
def rounds_of() -> Callable[[int], tuple[Completion, list[tuple[int, int]]]]:
    made: dict[int, tuple[Completion, list[tuple[int, int]]]] = {}

    def of(rounds: int) -> tuple[Completion, list[tuple[int, int]]]:
        if rounds not in made:
            made[rounds] = completed(rounds)
        return made[rounds]

    return of


def test_a_round_is_kept_where_labels_tell_of_each_other_and_not_where_they_do_not(
    rounds_of: Callable[[int], tuple[Completion, list[tuple[int, int]]]],
) -> None:
    (none, _), (one, told) = rounds_of(0), rounds_of(1)
    assert none.rounds == []
    assert not none.model_round.any()
    (gained,) = one.rounds
    np.testing.assert_array_equal(
        one.model_round, [int(gained[label].accepted) for label in range(LABELS)]
    )
    for label in (0, 1):
        assert gained[label].accepted
        # The images alone leave half a nat to be had.
        assert gained[label].mean > 0.1
        before = none.judgement.metrics[label].values["log_loss"]
        after = one.judgement.metrics[label].values["log_loss"]
        # The gain is measured with Platt's map, the metrics with the map that is chosen.
        assert before - after == pytest.approx(gained[label].mean, abs=0.01)
    # One standard error is passed by luck once in six times and more, and then nothing is lost:
    # what is kept of noise gains next to nothing, and no noise becomes learnable by it.
    kept = [label for label in range(2, LABELS) if gained[label].accepted]
    assert len(kept) <= 2
    assert all(gained[label].mean < 0.05 for label in kept)
    assert [verdict.learnable for verdict in one.judgement.verdicts] == [True, True] + [False] * 4
    for label in set(range(2, LABELS)) - set(kept):
        assert gained[label].mean <= gained[label].error
        # Equal but for the last digits: maps of all labels are fitted together, to a tolerance.
        np.testing.assert_allclose(
            one.judgement.probabilities[:, label],
            none.judgement.probabilities[:, label],
            atol=1e-5,
        )
    # Strengths are chosen once, in the first fit.
    assert {number for number, _ in told} == {0}


def test_blank_cells_gain_as_the_given_ones_promise(
    rounds_of: Callable[[int], tuple[Completion, list[tuple[int, int]]]],
) -> None:
    """By the truth of blanks, which nothing has seen."""
    _, labels, values = drawn()
    blank = values < 0
    losses = []
    for rounds in (0, 1):
        said = rounds_of(rounds)[0].judgement.probabilities
        right = np.where(labels == 1, said, 1 - said)
        losses.append(-np.log(right))
    gained = rounds_of(1)[0].rounds[0]
    for label in (0, 1):
        fall = (losses[0] - losses[1])[blank[:, label], label]
        error = np.hypot(sem(fall), gained[label].error)
        assert fall.mean() == pytest.approx(gained[label].mean, abs=3 * error)
    both = (losses[0] - losses[1])[:, :2][blank[:, :2]]
    assert both.mean() > 2 * sem(both)


def test_a_lesson_is_what_people_gave_and_else_what_the_split_s_heads_said() -> None:
    """Targets come from the round before; context from the first fit, whose heads had none."""
    rng = np.random.default_rng(0)
    values = rng.integers(-1, 2, (60, 3)).astype(np.int8)
    splits = rotations(np.arange(60) % 3, 3)
    latest, first = rng.normal(size=(2, 3, 60, 3))
    latest[:, :, 2] = first[:, :, 2] = np.nan  # a label that has no model
    lesson = self_taught(values, splits, latest, first)
    for number, split in enumerate(splits):
        for row in range(60):
            for label in range(3):
                place = number, row, label
                train = values[split.train, label]
                share = (train == 1).sum() / (train >= 0).sum()
                if values[row, label] >= 0:
                    given = float(values[row, label])
                    expected = given, 1.0, 2 * (given - share)
                elif label == 2:
                    expected = 0.0, 0.0, 0.0
                else:
                    target = sigmoid(latest[place])
                    expected = target, max(target, 1 - target), 2 * (sigmoid(first[place]) - share)
                found = lesson.labels[place], lesson.weights[place], lesson.context[place]
                assert found == pytest.approx(expected, abs=1e-12)
    assert np.abs(lesson.context).max() <= 2


@pytest.mark.parametrize("rounds", [0, 1, 2, 3, 4])
def test_hidden_cells_lose_as_much_as_out_of_fold_ones_in_every_round(
    rounds_of: Callable[[int], tuple[Completion, list[tuple[int, int]]]], rounds: int
) -> None:
    """What the second round on used to get wrong: it was judged on cells that it had been given.

    Labels 0 and 1 are nearly equal, so a head that gets the judged cell back through the other
    label's probability is right about observed cells, and about no hidden one.
    """
    _, labels, values = drawn()
    probabilities = rounds_of(rounds)[0].judgement.probabilities[:, :2]
    losses = -np.log(np.where(labels[:, :2] == 1, probabilities, 1 - probabilities))
    blank = values[:, :2] < 0
    hidden, observed = losses[blank], losses[~blank]
    error = np.hypot(sem(hidden), sem(observed))
    assert abs(hidden.mean() - observed.mean()) < 2 * error


def test_no_value_of_a_fold_moves_what_its_heads_are_given_in_any_round(
    fold_of: np.ndarray,
) -> None:
    """One given cell is turned: no logit of its own moves, in the third round as in the first."""
    features, _, values = drawn()
    config = configuration(impute__rounds=3, loss__name="bce", features__mirror=False)
    devices = Devices("jit", jax.local_devices()[:1])
    source = CachedFeatures(features, devices)
    splits = rotations(fold_of, FOLDS)
    # Blank in the second label, so that its probability stands in the context.
    row = int(np.flatnonzero((values[:, 0] >= 0) & (values[:, 1] < 0))[0])
    turned = values.copy()
    turned[row, 0] = 1 - turned[row, 0]
    logits = []
    for table in (values, turned):
        rounds = LinearCrossFit(config, table, range(LABELS), [splits], source, devices)
        fitted = rounds.fit(human_lesson(table), lambda _: None, lambda _: None, pytest.fail)
        first, own = fitted.by_split, []
        for _ in range(3):
            lesson = self_taught(table, splits, fitted.by_split, first)
            fitted = rounds.fit(lesson, lambda _: None, lambda _: None, pytest.fail)
            own.append(fitted.logits[row, 0])
        logits.append(own)
    np.testing.assert_array_equal(logits[0], logits[1])


def test_equal_rounds_gain_nothing_and_a_better_one_does() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, (400, 2)).astype(np.int8)
    values = np.where(rng.random((400, 2)) < 0.2, -1, labels).astype(np.int8)
    before = 1.0 * (labels - 0.5) + rng.normal(size=(400, 2))
    after = before.copy()
    after[:, 1] += 2.0 * (labels[:, 1] - 0.5)
    folds = np.arange(400) % 4
    found = gains(values, before, after, folds, np.arange(400), [0, 1])
    assert (found[0].mean, found[0].error, found[0].accepted) == (0.0, 0.0, False)
    assert found[1].accepted
    assert found[1].mean > 5 * found[1].error
    back = gains(values, after, before, folds, np.arange(400), [1])
    assert back[1].mean == -found[1].mean
    assert not back[1].accepted
    # What stands in blank cells is not looked at.
    after[values < 0] = 1e3
    assert gains(values, before, after, folds, np.arange(400), [1])[1] == found[1]


def test_a_gain_within_its_error_is_not_kept_and_copies_of_an_image_are_one() -> None:
    rng = np.random.default_rng(4)
    images, copies = 60, 8
    labels = rng.integers(0, 2, (images, 1)).astype(np.int8)
    before = 1.0 * (labels - 0.5) + rng.normal(size=labels.shape)
    after = before + 0.3 * rng.normal(size=labels.shape)
    # A little is added until the gain is positive, and smaller than what chance gives.
    folds = np.arange(images) % 3
    while (one := gains(labels, before, after, folds, np.arange(images), [0])[0]).mean <= 0:
        after += 0.02 * (labels - 0.5)
    assert 0 < one.mean < one.error
    assert not one.accepted
    rows = np.repeat(np.arange(images), copies)
    repeated = labels[rows], before[rows], after[rows], folds[rows]
    together = gains(*repeated, rows, [0])[0]
    alone = gains(*repeated, np.arange(len(rows)), [0])[0]
    assert together.mean == alone.mean
    assert together.error == pytest.approx(np.sqrt(copies) * alone.error, rel=0.02)


def test_deals_of_an_ensemble_differ_and_each_has_a_part_in_every_logit() -> None:
    features, _, values = drawn()
    config = configuration(impute__deals=3, loss__name="bce", head__strength=30.0)
    deal = deal_out(config, values, np.arange(ROWS))
    assert len(deal.splits) == 3 * FOLDS
    parts = [
        np.concatenate([np.full(split.predict.size, split.fold) for split in own])[
            np.argsort(np.concatenate([split.predict for split in own]))
        ]
        for own in (deal.splits[start : start + FOLDS] for start in (0, FOLDS, 2 * FOLDS))
    ]
    np.testing.assert_array_equal(parts[0], deal.fold_of)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert 0.2 < (parts[one] == parts[other]).mean() < 0.5
    devices = Devices("jit", jax.local_devices()[:1])
    assignments = [deal.splits[start : start + FOLDS] for start in (0, FOLDS, 2 * FOLDS)]
    source = CachedFeatures(features, devices)
    rounds = LinearCrossFit(config, values, range(LABELS), assignments, source, devices)
    made = rounds.fit(human_lesson(values), lambda _: None, lambda _: None, pytest.fail)
    by_deal = np.zeros((3, *values.shape))
    for number, split in enumerate(deal.splits):
        by_deal[number // FOLDS, split.predict] = made.by_split[number, split.predict]
    np.testing.assert_allclose(made.logits, by_deal.mean(axis=0))
    assert (by_deal[0] != by_deal[1]).any()
    # A blank cell was seen by no head, so all of them predict it.
    np.testing.assert_allclose(made.of_blanks(), np.mean(list(made.by_split), axis=0))


def test_the_error_of_a_mean_is_the_usual_one_where_nothing_goes_together() -> None:
    values = np.random.default_rng(0).exponential(size=57)
    mean, error = clustered_mean(values, np.random.default_rng(1).permutation(57) + 100)
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(sem(values))


@pytest.mark.parametrize("size", [2, 5])
def test_groups_of_equal_size_count_as_their_means(size: int) -> None:
    rng = np.random.default_rng(0)
    values, groups = rng.normal(size=40 * size), np.repeat(np.arange(40), size)
    order = rng.permutation(40 * size)
    _, error = clustered_mean(values[order], groups[order])
    assert error == pytest.approx(sem(values.reshape(40, size).mean(axis=1)))


def test_the_error_of_unequal_groups_is_how_far_the_mean_moves() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 6, 120)
    groups = np.repeat(np.arange(120), sizes)
    means, errors = [], []
    for _ in range(500):
        values = rng.normal(size=120)[groups] + rng.normal(size=len(groups))
        mean, error = clustered_mean(values, groups)
        means.append(mean)
        errors.append(error)
    # Two standard deviations of a standard deviation of 500 draws are 6 %.
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.07)
    assert np.std(means) > 1.3 * np.sqrt(2 / len(groups)), "groups do not matter: nothing is shown"


def test_one_group_says_nothing_of_its_error() -> None:
    assert clustered_mean(np.arange(5.0), np.zeros(5, np.int64))[1] == np.inf
