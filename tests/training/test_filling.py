"""Stage 1 fills for stage 2 without a test label or a hidden cell."""

from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.compare import get_config
from mlc_jax.assess.out_of_fold import Judgement
from mlc_jax.data.folds import divide
from mlc_jax.settings import resolve
from mlc_jax.training.cached import CachedFeatures
from mlc_jax.training.completion import deal_out
from mlc_jax.training.contenders import Bench
from mlc_jax.training.filling import VARIANTS, filling_rows
from mlc_jax.training.parallel import Devices
from tests.training.synthetic import ROWS, drawn


def test_what_fills_sees_neither_test_labels_nor_hidden_cells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features, labels = drawn()
    config = get_config()
    config.update_from_flattened_dict(
        {"folds": 3, "impute.rounds": 0, "compare.hidden": (0.4,), "data.demo": True}
    )
    config = resolve(config, lambda _: None)
    groups, devices = np.arange(ROWS), Devices("jit", jax.local_devices()[:1])
    source = CachedFeatures(features, devices)
    deal = deal_out(config, labels, groups)
    bench = Bench(config, labels, groups, deal, source, features.shape[2:], devices)
    given = []
    completing = Bench.judge

    def watched(self: Bench, config: ConfigDict, values: np.ndarray, *rest: Any) -> Judgement:
        given.append(values)
        return completing(self, config, values, *rest)

    monkeypatch.setattr(Bench, "judge", watched)
    rows = list(filling_rows(bench))
    assert [row.variant for row in rows] == list(VARIANTS)
    division = divide(groups, labels, 0.2, 3, config.seed)
    (values,) = given
    assert (values[division.test] == -1).all()
    left = (values[division.held_in] >= 0).mean()
    assert left == pytest.approx(0.6, abs=0.02)
    # Knowing the hidden cells helps, or there would be nothing to fill.
    assert rows[-1].macro_roc_auc > 0.6
