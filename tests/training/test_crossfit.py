"""Laws of cross-fitting: signal is found, noise is not, and no row has a say about itself."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mlc_jax.assess.calibration import sigmoid
from mlc_jax.data.folds import Split, assign_folds, rotations
from mlc_jax.training.crossfit import CrossFit, left_out_warnings, make_heads, unfit_reason
from mlc_jax.training.standards import channel_statistics, label_statistics
from tests.training.synthetic import FOLDS, ROWS, drawn, fitted


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> CrossFit:
    return fitted(tmp_path_factory.mktemp("plain"), *drawn())


def test_signal_is_found_and_noise_is_not(plain: CrossFit) -> None:
    labels = drawn()[1]
    areas = [roc_auc_score(labels[:, label], plain.logits[:, label]) for label in range(3)]
    assert areas[0] > 0.97
    assert areas[2] > 0.97
    # Four standard deviations of the AUC of scores that know nothing.
    assert abs(areas[1] - 0.5) < 4 * np.sqrt((ROWS + 1) / (12 * (ROWS / 2) ** 2))
    assert plain.logits.dtype == np.float64
    assert np.isfinite(plain.logits).all()


@pytest.mark.parametrize(
    "fold",
    [1, pytest.param(0, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)],
)
def test_a_row_has_no_say_about_its_own_logits(tmp_path: Path, plain: CrossFit, fold: int) -> None:
    """Turning round all labels of a fold changes not one bit of the fold's logits."""
    features, labels = drawn()
    fold_of = assign_folds(np.arange(ROWS), labels, FOLDS, 0)
    own = fold_of == fold
    turned = np.where(own[:, None], 1 - labels, labels).astype(np.int8)
    result = fitted(tmp_path, features, turned, fold_of=fold_of)
    np.testing.assert_array_equal(result.logits[own], plain.logits[own])
    assert (result.logits[~own] != plain.logits[~own]).any()


def test_unknown_cells_have_logits_and_no_say(tmp_path: Path) -> None:
    features, labels = drawn()
    fold_of = assign_folds(np.arange(ROWS), labels, FOLDS, 0)
    hidden = np.random.default_rng(1).random(labels.shape) < 0.3
    values = np.where(hidden, -1, labels).astype(np.int8)
    result = fitted(tmp_path, features, values, fold_of=fold_of)
    assert np.isfinite(result.logits).all()
    assert roc_auc_score(labels[hidden[:, 0], 0], result.logits[hidden[:, 0], 0]) > 0.95
    for head in result.heads:
        assert (values[head.rows.rows, head.label] >= 0).all()
        assert (values[head.stop, head.label] >= 0).all()
        parts = [set(head.rows.rows), set(head.stop), set(head.split.predict)]
        assert not parts[0] & parts[1] | parts[1] & parts[2] | parts[0] & parts[2]


def test_a_label_alone_gets_the_logits_it_gets_among_others(
    tmp_path: Path, plain: CrossFit
) -> None:
    alone = fitted(tmp_path, *drawn(), labels=(0,))
    np.testing.assert_allclose(alone.logits[:, 0], plain.logits[:, 0], rtol=1e-4, atol=1e-4)
    assert np.isnan(alone.logits[:, 1:]).all()
    np.testing.assert_array_equal(alone.best_epoch, plain.best_epoch[:FOLDS])


def test_oversampling_is_taken_back(tmp_path: Path, plain: CrossFit) -> None:
    share = drawn()[1][:, 2].mean()
    assert 0.1 < share < 0.2
    sampled = fitted(tmp_path, *drawn(), ratio=0.5)
    means = [sigmoid(result.logits[:, 2]).mean() for result in (plain, sampled)]
    assert means == pytest.approx([share, share], abs=0.05)
    # The sampled odds are even, so that the shift is the true odds; uncorrected logits are higher.
    as_sampled = sigmoid(sampled.logits[:, 2] - np.log(share / (1 - share))).mean()
    # Without the correction the law above would not hold.
    assert as_sampled > share + 0.08


def test_every_view_of_an_image_has_a_part_in_its_logit(tmp_path: Path, plain: CrossFit) -> None:
    """The augmented view of one image is changed; it is fitted by the heads of other folds."""
    features, labels = drawn()
    row = int(plain.heads[0].split.predict[0])
    moved = features.copy()
    moved[row, 1] = -2 * features[row, 1]
    after = fitted(tmp_path, moved, labels)
    others = np.setdiff1d(plain.heads[0].split.predict, [row])
    np.testing.assert_array_equal(after.logits[others], plain.logits[others])
    assert (after.logits[row] != plain.logits[row]).all()


def test_label_statistics_are_of_known_cells_of_the_training_rows() -> None:
    rng = np.random.default_rng(0)
    human = rng.integers(-1, 2, (40, 3)).astype(np.int8)
    train = [np.arange(0, 20), np.arange(10, 40)]
    outputs = np.array([[2, 0], [1, 1]])
    found = label_statistics(human, train, outputs)
    for head, rows in enumerate(train):
        for place, label in enumerate(outputs[head]):
            own = human[rows, label]
            assert found.positives[head, place] == (own == 1).sum()
            assert found.negatives[head, place] == (own == 0).sum()
            share = (own == 1).sum() / (own >= 0).sum()
            assert float(found.prior[head, place]) == pytest.approx(share)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    tmp_path: Path, plain: CrossFit
) -> None:
    again = fitted(tmp_path / "again", *drawn())
    np.testing.assert_array_equal(again.logits, plain.logits)
    other = fitted(tmp_path / "other", *drawn(), seed=1)
    assert (other.logits != plain.logits).any()


def test_heads_stand_label_by_label_fold_by_fold() -> None:
    _, labels = drawn()
    splits = rotations(assign_folds(np.arange(ROWS), labels, FOLDS, 0), FOLDS)
    heads = make_heads(labels, (2, 0), splits, 0.5)
    assert [head.label for head in heads] == [2] * FOLDS + [0] * FOLDS
    assert [head.split.fold for head in heads] == list(range(FOLDS)) * 2
    for head in heads:
        np.testing.assert_array_equal(head.rows.rows, head.split.train)
        np.testing.assert_array_equal(head.stop, head.split.stop)


def test_statistics_are_those_of_the_training_rows() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, 4, 5)) * np.array([1, 10, 0.01, 1, 0]) + np.array(
        [0, 5, 100, -3, 7]
    )
    splits = rotations(np.arange(30) % 3, 3)
    train = [split.train for split in splits]
    heads = [*train, *train]
    mean, std = channel_statistics(features.mean(axis=1), (features**2).mean(axis=1), heads)
    assert mean.dtype == std.dtype == np.float32
    for head, rows in enumerate(heads):
        seen = features[rows].reshape(-1, 5)
        np.testing.assert_allclose(mean[head], seen.mean(axis=0), rtol=1e-5)
        expected = seen.std(axis=0)
        expected[4] = 1.0  # a constant channel is only moved
        np.testing.assert_allclose(std[head], expected, rtol=1e-4)


def splits_of(*folds: int) -> tuple[Split, ...]:
    return rotations(np.array(folds), 3)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([-1] * 9, "no cell is known"),
        ([1, 1, 1, -1, 1, 1, -1, 1, 1], "all 7 known cells are 1"),
        ([0] * 9, "all 9 known cells are 0"),
        ([1, 0, 0, 0, 0, 0, 0, 0, 0], "1 positives and 8 negatives are too few for 3 folds"),
        ([1, -1, 0, 0, -1, 1, -1, -1, -1], "too few for 3 folds"),
        ([1, 0, 1, 0, 1, 0, 1, 0, 1], None),
    ],
)
def test_what_cannot_be_fitted_has_a_reason(labels: list[int], reason: str | None) -> None:
    found = unfit_reason(
        np.array(labels, np.int8), splits_of(0, 0, 0, 1, 1, 1, 2, 2, 2), exact=False
    )
    assert (found is None) == (reason is None)
    assert found is None or (reason is not None and reason in found)


def test_as_few_cells_as_may_be_are_fitted_without_an_accident(tmp_path: Path) -> None:
    """A stop fold that holds one class has no AUC; its loss alone decides."""
    features, labels = drawn()
    fold_of = np.arange(ROWS) % 4
    values = labels.copy()
    values[:, 2] = -1
    values[:8, 2] = [1, 1, 1, 1, -1, 0, 0, 0]
    splits = rotations(fold_of, 4)
    held = [set(values[split.stop, 2].tolist()) - {-1} for split in splits]
    assert {1} in held
    assert unfit_reason(values[:, 2], splits, exact=False) is None
    result = fitted(tmp_path, features, values, fold_of=fold_of)
    assert np.isfinite(result.logits).all()
    assert '"stop_auc": null' in (tmp_path / "metrics.jsonl").read_text()


def test_labels_that_are_left_out_for_one_reason_share_a_warning() -> None:
    names = ["a", "b", "c, d", "e"]
    unfit = {0: "no cell is known", 1: "all 3 known cells are 0", 2: "no cell is known"}
    assert left_out_warnings(names, unfit) == [
        "2 labels 'a', 'c, d': left out of fitting, no cell is known",
        "label 'b': left out of fitting, all 3 known cells are 0",
    ]
    assert left_out_warnings(names, {}) == []
