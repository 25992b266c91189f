"""Figures of all labels against scikit-learn's, and the laws of the mask."""

import time
import tracemalloc
import warnings

import numpy as np
import pytest
from sklearn import metrics as reference

from mlc_jax.assess import rowwise
from mlc_jax.assess.metrics import calibration_error, reliability
from mlc_jax.assess.multilabel import MultilabelMetrics, multilabel_metrics

Cells = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _draw(seed: int, n: int = 300, columns: int = 6, ties: bool = True) -> Cells:
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, columns)) < rng.uniform(0.1, 0.7, columns)).astype(np.int8)
    probabilities = np.clip(0.2 * labels + rng.random((n, columns)) * 0.8, 0, 1)
    if ties:
        probabilities = np.round(probabilities, 1)
    return (
        labels,
        rng.random((n, columns)) < 0.7,
        probabilities,
        rng.uniform(0.35, 0.75, columns),
    )


def _assert_close(ours: MultilabelMetrics, expected: MultilabelMetrics) -> None:
    assert ours.values == pytest.approx(expected.values, rel=1e-12, nan_ok=True)
    assert ours.reasons == expected.reasons


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_equal_to_scikit_learn_where_nothing_is_masked(
    seed: int, ties: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, _, p, thresholds = _draw(seed, ties=ties)
    monkeypatch.setattr(rowwise, "_BLOCK_CELLS", 200)
    ours = multilabel_metrics(labels, np.ones(labels.shape, bool), p, thresholds)
    predicted = p > thresholds
    expected = {
        "count": labels.size,
        "labels_judged": labels.shape[1],
        "map": reference.average_precision_score(labels, p, average="macro"),
        "macro_roc_auc": reference.roc_auc_score(labels, p, average="macro"),
        "macro_jaccard": reference.jaccard_score(labels, predicted, average="macro"),
        "hamming_score": 1 - reference.hamming_loss(labels, predicted),
        "subset_accuracy": 1 - reference.zero_one_loss(labels, predicted),
        "ranking_loss": reference.label_ranking_loss(labels, p),
        "coverage_error": reference.coverage_error(labels, p),
        "lrap": reference.label_ranking_average_precision_score(labels, p),
        "brier": np.mean((labels - p) ** 2),
        "ece": calibration_error(reliability(labels.ravel(), p.ravel())),
    }
    # scikit-learn leaves undefined images out of a mean with NaN, but knows no NaN for Jaccard.
    united = (labels == 1).any(axis=1) | predicted.any(axis=1)
    expected["sample_jaccard"] = reference.jaccard_score(
        labels[united], predicted[united], average="samples"
    )
    for kind, average in [("macro", "macro"), ("micro", "micro"), ("sample", "samples")]:
        for name, function in [
            ("precision", reference.precision_score),
            ("recall", reference.recall_score),
            ("f1", reference.f1_score),
        ]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                expected[f"{kind}_{name}"] = function(
                    labels, predicted, average=average, zero_division=np.nan
                )
    assert ours.reasons == {}
    assert not united.all()
    assert ours.values == pytest.approx(expected, rel=1e-12)


def test_masked_rows_equal_their_known_cells_alone() -> None:
    labels, mask, p, thresholds = _draw(2, n=120)
    mask[:3], mask[:3, 1] = False, True
    ours = multilabel_metrics(labels, mask, p, thresholds).values
    rows = [(labels[i, m], p[i, m], (p > thresholds)[i, m]) for i, m in enumerate(mask) if m.any()]
    expected = {
        "ranking_loss": [reference.label_ranking_loss([y], [s]) for y, s, _ in rows if y.size > 1],
        "coverage_error": [reference.coverage_error([y], [s]) for y, s, _ in rows if y.size > 1],
        "lrap": [
            reference.label_ranking_average_precision_score([y], [s])
            for y, s, _ in rows
            if y.size > 1
        ],
        "subset_accuracy": [float(np.array_equal(y, d)) for y, _, d in rows],
    }
    # scikit-learn refuses rows of one label; by definition they have nothing to put in order.
    single = [y[0] for y, _, _ in rows if y.size == 1]
    assert single
    expected["ranking_loss"] += [0.0] * len(single)
    expected["coverage_error"] += [float(y) for y in single]
    expected["lrap"] += [1.0] * len(single)
    for name, figures in expected.items():
        assert ours[name] == pytest.approx(np.mean(figures)), name


def test_masked_micro_equals_the_known_cells_alone() -> None:
    labels, mask, p, thresholds = _draw(3)
    ours = multilabel_metrics(labels, mask, p, thresholds).values
    y, predicted = labels[mask], (p > thresholds)[mask]
    assert ours["micro_f1"] == pytest.approx(reference.f1_score(y, predicted))
    assert ours["hamming_score"] == pytest.approx(reference.accuracy_score(y, predicted))
    assert ours["brier"] == pytest.approx(reference.brier_score_loss(y, p[mask]))


def test_what_is_masked_is_never_read_and_empty_rows_are_left_out() -> None:
    labels, mask, p, thresholds = _draw(4)
    mask[::7] = False
    expected = multilabel_metrics(labels, mask, p, thresholds)
    labels[~mask], p[~mask] = -1, np.nan
    _assert_close(multilabel_metrics(labels, mask, p, thresholds), expected)
    rows = mask.any(axis=1)
    _assert_close(multilabel_metrics(labels[rows], mask[rows], p[rows], thresholds), expected)


def test_order_of_images_and_labels_does_not_matter() -> None:
    labels, mask, p, thresholds = _draw(5)
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(len(labels)), rng.permutation(labels.shape[1])
    expected = multilabel_metrics(labels, mask, p, thresholds)
    both = np.ix_(rows, columns)
    ours = multilabel_metrics(labels[both], mask[both], p[both], thresholds[columns])
    _assert_close(ours, expected)
    for place, column in enumerate(columns):
        theirs = expected.per_label[column].values
        assert ours.per_label[place].values == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("kind", ["all 0", "all 1", "unknown"])
def test_a_label_that_judges_nothing_is_in_no_macro_mean(kind: str) -> None:
    labels, mask, p, thresholds = _draw(6)
    labels[:, 2] = kind == "all 1"
    mask[:, 2] &= kind != "unknown"
    ours = multilabel_metrics(labels, mask, p, thresholds)
    rest = [0, 1, 3, 4, 5]
    without = multilabel_metrics(labels[:, rest], mask[:, rest], p[:, rest], thresholds[rest])
    macro = [name for name in ours.values if name.startswith("macro")] + ["map", "labels_judged"]
    assert len(macro) == 7
    assert {name: ours.values[name] for name in macro} == {
        name: without.values[name] for name in macro
    }
    assert "roc_auc" in ours.per_label[2].reasons


def test_nothing_known() -> None:
    labels, mask, p, thresholds = _draw(7)
    ours = multilabel_metrics(labels, mask & False, p, thresholds)
    undefined = {name for name, value in ours.values.items() if np.isnan(value)}
    assert undefined == ours.values.keys() - {"count", "labels_judged"} == ours.reasons.keys()
    assert set(ours.reasons.values()) == {"no human label"}
    assert multilabel_metrics(labels[:0], mask[:0], p[:0], thresholds).reasons == ours.reasons


def test_nothing_predicted() -> None:
    labels, mask, p, thresholds = _draw(8)
    ours = multilabel_metrics(labels, mask, p, np.ones_like(thresholds))
    assert ours.reasons.keys() == {"macro_precision", "micro_precision", "sample_precision"}
    assert (ours.values["macro_f1"], ours.values["macro_recall"]) == (0, 0)


def test_a_threshold_for_each_cell() -> None:
    labels, mask, p, thresholds = _draw(9)
    limits = np.broadcast_to(thresholds, labels.shape)
    _assert_close(
        multilabel_metrics(labels, mask, p, limits), multilabel_metrics(labels, mask, p, thresholds)
    )


def _time_and_memory(n: int, columns: int) -> tuple[float, float]:
    """Seconds, and peak MiB above the inputs."""
    rng = np.random.default_rng(0)
    p = rng.random((n, columns), dtype=np.float32)
    labels = (rng.random((n, columns), dtype=np.float32) < p).astype(np.int8)
    mask = rng.random((n, columns), dtype=np.float32) < 0.9
    thresholds = np.full(columns, 0.5)
    tracemalloc.start()
    start = time.perf_counter()
    multilabel_metrics(labels, mask, p, thresholds)
    seconds = time.perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, peak / 2**20


def test_memory_does_not_grow_with_the_number_of_labels() -> None:
    _, narrow = _time_and_memory(50_000, 10)
    seconds, wide = _time_and_memory(50_000, 100)
    assert wide < 1.5 * narrow
    assert seconds < 10


@pytest.mark.slow
def test_a_million_images_of_eighty_labels() -> None:
    seconds, peak = _time_and_memory(1_000_000, 80)
    print(f"{seconds:.1f} s, {peak:.0f} MiB above the inputs")
    assert seconds < 60
    assert peak < 150
