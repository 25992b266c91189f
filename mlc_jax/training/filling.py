"""Does stage 2 gain from filled cells? Cells are hidden, filled by stage 1, and learned from.

The test split is held out first and its labels are hidden from stage 1 too, so nothing that fills a
cell has seen a test label.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlc_jax.assess.calibration import sigmoid
from mlc_jax.assess.multilabel import multilabel_metrics
from mlc_jax.assess.recovery import hide_cells
from mlc_jax.data.folds import divide
from mlc_jax.data.table import MISSING
from mlc_jax.training.completion import deal_out
from mlc_jax.training.contenders import Bench
from mlc_jax.training.joint import fit_joint
from mlc_jax.training.jointfit import Teaching

VARIANTS = ("masked", "filled hard", "filled soft", "true labels")


@dataclass(frozen=True)
class Taught:
    """What a classifier of stage 2 is worth on the test split, taught in one of `VARIANTS`.

    Attributes:
      hidden: share of the held-in cells that were hidden.
      variant: what was done with them.
      map, macro_roc_auc: on the test split, all of whose cells are known.
    """

    hidden: float
    variant: str
    map: float
    macro_roc_auc: float


def filling_rows(bench: Bench) -> Iterator[Taught]:
    """Runs every variant at every share of `config.compare.hidden`.

    Args:
      bench: labels that cannot be fitted once cells are hidden teach nothing.
    """
    config, values = bench.config, bench.values
    stage_2 = config.copy_and_resolve_references()
    stage_2.oversample = "none"  # the default of configs/multilabel.py
    division = divide(bench.groups, values, 0.2, config.folds, config.seed, bench.split)
    test = division.test
    human = values.copy()
    human[np.concatenate([test, division.left_out])] = MISSING
    for share in config.compare.hidden:
        hidden = hide_cells(human, share, "random", config.seed)
        left = np.where(hidden, np.int8(MISSING), human)
        deal = deal_out(config, left, bench.groups, bench.split)
        judged = bench.judge(config, left, deal)
        fitted = [label for label in range(values.shape[1]) if label not in deal.unfit]
        said = np.nan_to_num(judged.probabilities, nan=0.5)
        filled = said > np.nan_to_num(judged.cell_thresholds, nan=0.5)
        known = left != MISSING
        right = np.where(filled, said, 1 - said)
        taught = {
            "masked": (left, known.astype(float)),
            "filled hard": (np.where(hidden, filled, left), np.where(hidden, 1.0, known)),
            "filled soft": (np.where(hidden, said, left), np.where(hidden, right, known)),
            "true labels": (human, (human != MISSING).astype(float)),
        }
        for variant in VARIANTS:
            labels, weights = taught[variant]
            joint = fit_joint(
                stage_2,
                Teaching(left[:, fitted], labels[:, fitted], weights[:, fitted]),
                division.held_in,
                division.splits,
                bench.features,
                bench.shape,
                bench.devices,
                None,
                lambda *_: None,
                lambda _: None,
            )
            truth = values[test][:, fitted]
            figures = multilabel_metrics(
                truth,
                truth != MISSING,
                sigmoid(joint.raw_logits[test]),
                np.full(len(fitted), 0.5),
            ).values
            yield Taught(share, variant, figures["map"], figures["macro_roc_auc"])
