"""Contenders are judged out of fold as mlc_jax is: no label of a fold has a part in its logits."""

import jax
import numpy as np
import pytest

from mlc_jax.assess.metrics import roc_auc
from mlc_jax.training import contenders
from mlc_jax.training.cached import CachedFeatures
from mlc_jax.training.completion import deal_out
from mlc_jax.training.contenders import Bench
from mlc_jax.training.parallel import Devices
from tests.training.synthetic import ROWS, configuration, drawn


def bench(values: np.ndarray, deal_of: np.ndarray, **changes: object) -> Bench:
    """A comparison of drawn features, with the folds of other labels."""
    features, _ = drawn()
    config = configuration(**({"loss__name": "bce", "epochs": 2} | changes))
    groups, devices = np.arange(ROWS), Devices("jit", jax.local_devices()[:1])
    source = CachedFeatures(features, devices)
    deal = deal_out(config, deal_of, groups)
    return Bench(config, values, groups, deal, source, features.shape[2:], devices)


@pytest.mark.parametrize(
    "name",
    [
        "majority",
        "masked BCE",
        "oversampling, corrected",
        "logistic regression (scikit-learn)",
        "logistic regression with the other labels (scikit-learn)",
        "the original recipe, split repaired",
    ],
)
def test_a_fold_s_labels_have_no_part_in_its_own_logits(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before calibration, through which other folds' logits, and so this one's labels, come in."""
    labels = drawn()[1]
    monkeypatch.setattr(contenders, "_calibrated", lambda _, logits: (logits, logits))
    found = []
    fold = deal_out(configuration(loss__name="bce"), labels, np.arange(ROWS)).fold_of == 1
    # With context the other labels of an image have a part, so one label alone is turned.
    turned = labels.copy()
    turned[fold, 0] = 1 - turned[fold, 0]
    for values in (labels, turned):
        own = bench(values, labels)
        np.testing.assert_array_equal(own.deal.fold_of == 1, fold)
        runs = dict(contenders.default_contenders(own))
        found.append(runs[name]()[0])
    np.testing.assert_array_equal(found[0][fold, 0], found[1][fold, 0])
    assert (found[0][~fold, 0] != found[1][~fold, 0]).any()


def test_context_helps_where_blanks_have_it_and_not_where_whole_rows_are_blank() -> None:
    """Labels 0 and 1 are nearly equal, and the features show nothing of either."""
    rng = np.random.default_rng(1)
    first = rng.random(ROWS) < 0.5
    labels = np.column_stack([first, first ^ (rng.random(ROWS) < 0.05), rng.random(ROWS) < 0.5])
    by_cell = np.where(rng.random(labels.shape) < 0.2, -1, labels).astype(np.int8)
    by_row = np.where(rng.random((ROWS, 1)) < 0.2, -1, labels).astype(np.int8)
    areas = {}
    for name, values in (("cell", by_cell), ("row", by_row)):
        own = bench(values, values)
        p, _ = contenders.logistic_regression(own, context=True)
        known = values[:, 0] >= 0
        areas[name] = roc_auc(values[known, 0], p[known, 0])
    assert areas["cell"] > 0.8
    assert areas["row"] < 0.65
