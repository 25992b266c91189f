"""One label's figures against scikit-learn's, and what they do where they are not defined."""

import numpy as np
import pytest
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from mlc_jax.assess.metrics import binary_metrics, log_loss, reliability
from mlc_jax.errors import NumericsError

COUNTS = {"count", "positives", "prevalence", "tp", "fp", "tn", "fn"}


def _draw(
    seed: int, n: int = 400, ties: bool = True, prevalence: float = 0.4
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < prevalence).astype(np.int8)
    probabilities = np.clip(0.25 * labels + rng.random(n) * 0.75, 0, 1)
    if ties:
        probabilities = np.round(probabilities, 1)
    return labels, rng.random(n) < 0.8, probabilities


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("seed", "prevalence"), [(0, 0.4), (1, 0.05), (2, 0.95)])
def test_equal_to_scikit_learn(seed: int, prevalence: float, ties: bool) -> None:
    labels, mask, probabilities = _draw(seed, ties=ties, prevalence=prevalence)
    threshold = 0.45
    ours = binary_metrics(labels, mask, probabilities, threshold)
    y, p = labels[mask], probabilities[mask]
    predicted = p > threshold
    tn, fp, fn, tp = reference.confusion_matrix(y, predicted).ravel()
    expected = {
        "count": y.size,
        "positives": y.sum(),
        "prevalence": y.mean(),
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
        "precision": reference.precision_score(y, predicted),
        "recall": reference.recall_score(y, predicted),
        "specificity": reference.recall_score(y, predicted, pos_label=0),
        "accuracy": reference.accuracy_score(y, predicted),
        "balanced_accuracy": reference.balanced_accuracy_score(y, predicted),
        "f1": reference.f1_score(y, predicted),
        "g_mean": np.sqrt(
            reference.recall_score(y, predicted) * reference.recall_score(y, predicted, pos_label=0)
        ),
        "mcc": reference.matthews_corrcoef(y, predicted),
        "roc_auc": reference.roc_auc_score(y, p),
        "pr_auc": reference.average_precision_score(y, p),
        "log_loss": reference.log_loss(y, p),
        "brier": reference.brier_score_loss(y, p),
    }
    assert ours.reasons == {}
    assert ours.values.keys() == expected.keys() | {"ece"}
    for name, value in expected.items():
        assert ours.values[name] == pytest.approx(value, rel=1e-12, abs=1e-12), name


def test_bins_equal_scikit_learns_calibration_curve() -> None:
    # Untied values: scikit-learn closes its bins on the other side.
    labels, mask, probabilities = _draw(3, ties=False)
    y, p = labels[mask], probabilities[mask]
    shares, means = calibration_curve(y, p, n_bins=10)
    bins = reliability(y, p)
    filled = bins.count > 0
    np.testing.assert_allclose(bins.positive_sum[filled] / bins.count[filled], shares)
    np.testing.assert_allclose(bins.probability_sum[filled] / bins.count[filled], means)
    ece = np.sum(bins.count[filled] * np.abs(shares - means)) / y.size
    assert binary_metrics(labels, mask, probabilities, 0.5).values["ece"] == pytest.approx(ece)


def test_what_is_masked_is_never_read() -> None:
    labels, mask, probabilities = _draw(4)
    expected = binary_metrics(labels, mask, probabilities, 0.5)
    labels[~mask], probabilities[~mask] = -1, np.nan
    assert binary_metrics(labels, mask, probabilities, 0.5) == expected
    alone = binary_metrics(labels[mask], np.ones(mask.sum(), bool), probabilities[mask], 0.5)
    assert alone == expected


def test_order_of_images_does_not_matter() -> None:
    labels, mask, probabilities = _draw(5)
    order = np.random.default_rng(0).permutation(labels.size)
    ours = binary_metrics(labels, mask, probabilities, 0.5).values
    shuffled = binary_metrics(labels[order], mask[order], probabilities[order], 0.5).values
    assert shuffled == pytest.approx(ours, rel=1e-12)


def test_exchanging_the_classes() -> None:
    labels, mask, probabilities = _draw(6, ties=False)
    ours = binary_metrics(labels, mask, probabilities, 0.5).values
    other = binary_metrics(1 - labels, mask, 1 - probabilities, 0.5).values
    for name, mirrored in [("recall", "specificity"), ("tp", "tn"), ("fp", "fn")]:
        assert ours[name] == other[mirrored]
    for name in ("roc_auc", "mcc", "accuracy", "g_mean", "log_loss", "brier", "ece"):
        assert ours[name] == pytest.approx(other[name], rel=1e-12)


def test_a_threshold_for_each_image() -> None:
    labels, mask, probabilities = _draw(7)
    one = binary_metrics(labels, mask, probabilities, 0.35)
    assert binary_metrics(labels, mask, probabilities, np.full(labels.shape, 0.35)) == one
    limits = np.where(np.arange(labels.size) % 2, 0.2, 0.8)
    moved = binary_metrics(labels, mask, probabilities, limits)
    y, predicted = labels[mask], (probabilities > limits)[mask]
    assert moved.values["f1"] == pytest.approx(reference.f1_score(y, predicted))


def test_the_threshold_itself_is_negative() -> None:
    labels = np.array([0, 1], np.int8)
    ours = binary_metrics(labels, labels >= 0, np.array([0.5, 0.5]), 0.5)
    assert (ours.values["tp"], ours.values["fp"]) == (0, 0)


@pytest.mark.parametrize("only", [0, 1])
def test_one_class_judges_nothing(only: int) -> None:
    labels, mask, probabilities = _draw(8)
    labels[mask] = only
    ours = binary_metrics(labels, mask, probabilities, 0.5)
    undefined = {name for name, value in ours.values.items() if np.isnan(value)}
    assert undefined == ours.values.keys() - COUNTS == ours.reasons.keys()
    assert ours.reasons["roc_auc"] == f"all {mask.sum()} human labels are {only}"
    assert ours.values["prevalence"] == only


def test_no_human_label() -> None:
    labels, mask, probabilities = _draw(9)
    ours = binary_metrics(labels, mask & False, probabilities, 0.5)
    defined = {name for name, value in ours.values.items() if not np.isnan(value)}
    assert defined == COUNTS - {"prevalence"}
    assert set(ours.reasons.values()) == {"no human label"}
    assert binary_metrics(labels[:0], mask[:0], probabilities[:0], 0.5).values["count"] == 0


@pytest.mark.parametrize(("threshold", "undefined"), [(1.0, {"precision", "mcc"}), (-1, {"mcc"})])
def test_constant_predictions(threshold: float, undefined: set[str]) -> None:
    ours = binary_metrics(*_draw(10), threshold)
    assert {name for name, value in ours.values.items() if np.isnan(value)} == undefined
    assert ours.reasons.keys() == undefined
    side = "negative" if threshold == 1.0 else "positive"
    assert all(reason.endswith(f"predicted {side}") for reason in ours.reasons.values())


def test_certain_and_wrong_is_finite() -> None:
    assert 0 < log_loss(np.array([1, 0]), np.array([0.0, 1.0])) < 40


@pytest.mark.parametrize(("bad", "message"), [(np.nan, "nan"), (1.5, "not logits")])
def test_probabilities_that_are_none(bad: float, message: str) -> None:
    labels, mask, probabilities = _draw(11)
    probabilities[np.flatnonzero(mask)[3]] = bad
    with pytest.raises(NumericsError, match=message):
        binary_metrics(labels, mask, probabilities, 0.5)


def test_a_bad_score_is_named_by_its_row() -> None:
    labels, mask, probabilities = _draw(12)
    mask[:], probabilities[17] = True, np.inf
    with pytest.raises(NumericsError, match="row 17"):
        binary_metrics(labels, mask, probabilities, 0.5)


def test_labels_that_are_none() -> None:
    labels, mask, probabilities = _draw(13)
    with pytest.raises(ValueError, match="0 or 1"):
        binary_metrics(labels * 2, mask, probabilities, 0.5)
    with pytest.raises(ValueError, match="shapes"):
        binary_metrics(labels[1:], mask, probabilities, 0.5)
