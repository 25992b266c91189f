"""The strength of the prior: chosen on inner folds, never by what judges the head."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from mlc_jax.data.folds import assign_folds, rotations
from mlc_jax.interrupt import Interrupted
from mlc_jax.training.cached import CachedFeatures
from mlc_jax.training.checkpoint import Checkpoints
from mlc_jax.training.crossfit import CrossFit, human_lesson, unfit_reason
from mlc_jax.training.linear_crossfit import LinearCrossFit, fitted_rows
from mlc_jax.training.linear_heads import PathStep
from mlc_jax.training.parallel import Devices
from mlc_jax.training.strengths import (
    BORROWED,
    FACTOR,
    choose_strengths,
    inner_folds,
    path_strength,
)
from tests.training.synthetic import configuration

ROWS, CHANNELS, FOLDS = 240, 40, 5


def drawn(positives: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features float16 [N, 1, 1, 1, C] and values int8 [N, 3]: a clear, a dim and a rare label."""
    rng = np.random.default_rng(2)
    seen = rng.normal(size=(ROWS, CHANNELS))
    clear = seen[:, :4].sum(axis=1) > 0
    dim = seen[:, 5] + 2 * rng.normal(size=ROWS) > 0
    rare = seen[:, 7] > 0.8
    if positives:
        rare = np.zeros(ROWS, np.bool_)
        rare[np.argsort(-seen[:, 7])[:positives]] = True
    values = np.stack([clear, dim, rare], axis=1).astype(np.int8)
    return seen[:, None, None, None].astype(np.float16), values


def expected(warning: str) -> None:
    """A label that is told apart perfectly is best with the weakest prior; nothing else warns."""
    assert "were best with the weakest prior that is tried, a strength of 1;" in warning


def crossed(
    values: np.ndarray,
    fold_of: np.ndarray,
    checkpoints_of: Callable[[int], Checkpoints | None] = lambda _: None,
    on_step: Callable[[PathStep], None] = lambda _: None,
    features: np.ndarray | None = None,
) -> tuple[CrossFit, np.ndarray]:
    config = configuration(loss__name="bce", folds=FOLDS, features__mirror=False)
    devices = Devices("jit", jax.local_devices()[:1])
    source = CachedFeatures(drawn()[0] if features is None else features, devices)
    splits = rotations(fold_of, FOLDS)
    made = LinearCrossFit(config, values, range(values.shape[1]), [splits], source, devices)
    fitted = made.fit(human_lesson(values), checkpoints_of, on_step, expected)
    return fitted, made.strengths[0].of_split


@pytest.fixture(scope="module")
def fold_of() -> np.ndarray:
    return assign_folds(np.arange(ROWS), drawn()[1], FOLDS, 0)


def test_every_outer_fold_has_two_inner_ones_that_none_of_its_heads_saw(
    fold_of: np.ndarray,
) -> None:
    inner = inner_folds(rotations(fold_of, FOLDS), ROWS)
    for split, measured in enumerate(inner.measured):
        folds = [set(fold_of[rows].tolist()) for _, rows in measured]
        assert sorted(fold for own in folds for fold in own) == sorted(
            [(split + 1) % FOLDS, (split - 1) % FOLDS]
        )
        for pair, rows in measured:
            assert not inner.rows[pair, rows].any()
            assert not inner.rows[pair, fold_of == split].any()


def test_given_test_rows_and_torn_groups_choose_nothing() -> None:
    """A group on both sides of a given split measures no strength for the split that judges it."""
    fold_of = np.arange(60) % 5
    groups = np.arange(60)
    groups[[0, 1]] = 0  # rows of the folds 0 and 1
    splits = rotations(fold_of, 5, groups)
    inner = inner_folds(splits, 60)
    for number, measured in enumerate(inner.measured):
        judged = set(groups[splits[number].predict].tolist())
        for pair, rows in measured:
            assert not judged & set(groups[rows].tolist())
            assert not judged & set(groups[np.flatnonzero(inner.rows[pair])].tolist())


def test_no_value_of_a_fold_chooses_for_its_heads(fold_of: np.ndarray) -> None:
    """All values of a fold are turned round: its strengths and its logits stay to the last bit."""
    values = drawn()[1]
    before, chosen = crossed(values, fold_of)
    turned = np.where((fold_of == 2)[:, None], 1 - values, values).astype(np.int8)
    after, moved = crossed(turned, fold_of)
    np.testing.assert_array_equal(moved[2], chosen[2])
    np.testing.assert_array_equal(after.by_split[2], before.by_split[2])
    assert (after.by_split[0] != before.by_split[0]).any()


def test_a_label_that_images_show_less_of_gets_a_stronger_prior(fold_of: np.ndarray) -> None:
    _, chosen = crossed(drawn()[1], fold_of)
    assert (chosen[:, 1] > 3 * chosen[:, 0]).all()


def test_the_choice_is_the_smallest_curve_and_a_rare_label_borrows() -> None:
    steps, splits = 6, 2
    at = np.arange(steps)[:, None, None]
    common = 100 * (at - 2.0) ** 2 * np.ones((1, splits, 1))
    rare = 0.5 * (at - 4.0) ** 2 * np.ones((1, splits, 1))
    losses = np.concatenate([common, common, rare], axis=2)
    rarer = np.array([[500.0, 500.0, 2.0]] * splits)
    made, enough = choose_strengths(losses, rarer)
    assert enough
    assert made.of_split[:, 0].tolist() == [path_strength(2)] * splits
    # Its own two positives want the fifth step; the curves of all labels pull it back.
    assert (path_strength(2) >= made.of_split[:, 2]).all()
    assert (made.of_split[:, 2] > path_strength(4)).all()
    # With many positives of its own it has its way.
    many, _ = choose_strengths(1000 * losses, 1000 * rarer)
    assert many.of_split[:, 2].tolist() == [path_strength(4)] * splits
    assert BORROWED > 2


def test_a_path_goes_on_while_its_weakest_strength_is_the_best() -> None:
    falling = np.arange(4, 0, -1.0)[:, None, None] * np.ones((1, 3, 2))
    made, enough = choose_strengths(falling, np.full((3, 2), 50.0))
    assert not enough
    assert made.at_weakest == 6
    assert path_strength(0) / path_strength(1) == pytest.approx(FACTOR)


def test_the_weakest_prior_is_not_taken_silently(fold_of: np.ndarray) -> None:
    """The first label is told apart perfectly: the weaker the prior, the smaller the loss."""
    features, values = drawn()
    perfect = np.repeat(values[:, :1], 2, axis=1)
    features[:, 0, 0, 0, :4] = 3 * perfect[:, :1]
    warnings: list[str] = []
    devices = Devices("jit", jax.local_devices()[:1])
    config = configuration(loss__name="bce", folds=FOLDS, features__mirror=False)
    splits = rotations(fold_of, FOLDS)
    source = CachedFeatures(features, devices)
    made = LinearCrossFit(config, perfect, range(2), [splits], source, devices)
    made.fit(human_lesson(perfect), lambda _: None, lambda _: None, warnings.append)
    assert made.strengths[0].at_weakest == 2 * FOLDS
    (only,) = warnings
    assert only.startswith(f"{2 * FOLDS} of {2 * FOLDS} linear heads were best")
    assert "config.head.strength" in only


@pytest.mark.parametrize("positives", [2, 3, 10])
def test_a_label_with_a_few_positives_is_fitted(positives: int) -> None:
    """It was left out, since a fold had none to stop on."""
    features, values = drawn(positives)
    fold_of = assign_folds(np.arange(ROWS), values, FOLDS, 0)
    splits = rotations(fold_of, FOLDS)
    assert unfit_reason(values[:, 2], splits, exact=True) is None
    assert positives > 2 or unfit_reason(values[:, 2], splits, exact=False) is not None
    fitted, _ = crossed(values, fold_of, features=features)
    own = fitted.logits[:, 2]
    assert np.isfinite(own).all()
    assert own.std() > 0
    # Two or three positives among forty channels show a head nothing.
    if positives == 10:
        assert own[values[:, 2] == 1].mean() > own[values[:, 2] == 0].mean() + 0.5


def test_positives_in_one_fold_alone_cannot_be_judged() -> None:
    _, values = drawn(4)
    fold_of = np.zeros(ROWS, np.int64)
    negative = values[:, 2] == 0
    fold_of[negative] = np.arange(negative.sum()) % FOLDS
    reason = unfit_reason(values[:, 2], rotations(fold_of, FOLDS), exact=True)
    assert reason is not None
    assert "4 positives lie in one fold" in reason


def test_heads_are_fitted_on_all_but_their_fold(fold_of: np.ndarray) -> None:
    rows = fitted_rows(rotations(fold_of, FOLDS), ROWS)
    np.testing.assert_array_equal(rows, fold_of != np.arange(FOLDS)[:, None])


def test_a_fit_that_is_stopped_anywhere_goes_on_to_the_same_bits(
    tmp_path: Path, fold_of: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = drawn()[1]
    steps: list[int] = []
    whole, chosen = crossed(values, fold_of, on_step=lambda step: steps.append(step.step))

    def checkpoints(_: int) -> Checkpoints:
        return Checkpoints(tmp_path / "checkpoints", {"values": 1})

    monkeypatch.setattr("mlc_jax.training.linear_heads.SAVE_SECONDS", 0.0)
    seen: list[int] = []

    def stopping(step: PathStep) -> None:
        if step.step not in seen:
            seen.append(step.step)
            if step.step in (1, 3):
                raise Interrupted(15)

    for _ in range(2):
        with pytest.raises(Interrupted):
            crossed(values, fold_of, checkpoints, stopping)
    after, again = crossed(values, fold_of, checkpoints, stopping)
    assert seen == steps
    np.testing.assert_array_equal(again, chosen)
    np.testing.assert_array_equal(after.logits, whole.logits)

    def refused(_: PathStep) -> None:
        raise AssertionError("nothing is left to fit")

    restored, _ = crossed(values, fold_of, checkpoints, refused)
    np.testing.assert_array_equal(restored.by_split, whole.by_split)
    np.testing.assert_array_equal(
        restored.params.head["dense"]["kernel"], whole.params.head["dense"]["kernel"]
    )
