"""Answers side by side: their figures, and paired intervals of how far each is from a reference."""

from dataclasses import dataclass

import numpy as np

from mlc_jax.assess.intervals import (
    Interval,
    bootstrap_interval,
    macro_roc_auc_interval,
    macro_roc_auc_statistic,
)
from mlc_jax.assess.metrics import log_loss
from mlc_jax.assess.multilabel import multilabel_metrics


@dataclass(frozen=True)
class Standing:
    """What one answer is worth, on cells that people gave, out of fold.

    Attributes:
      figures: macro_roc_auc, map, macro_f1, hamming_score, brier, ece, log_loss; NaN where not
        defined.
      auc: macro ROC AUC with its 95 % interval over images.
      auc_gap, log_loss_gap: this answer's figure minus the reference's, with paired 95 % intervals:
        both are resampled together, so what is hard for both does not blur the difference.
    """

    figures: dict[str, float]
    auc: Interval
    auc_gap: Interval
    log_loss_gap: Interval


def stand(
    labels: np.ndarray,
    mask: np.ndarray,
    probabilities: np.ndarray,
    thresholds: np.ndarray,
    reference: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int,
) -> Standing:
    """Measures one answer against a reference.

    Args:
      labels: int8 [N, L], 0 or 1 where known.
      mask: bool [N, L], cells that a person gave, of labels that have a model.
      probabilities, reference: float64 [N, L] in [0, 1] where `mask`.
      thresholds: float64 [N, L].
      groups: int [N], equal for copies of an image, which are resampled together.
      seed: of the resamples.
    """
    own, other = np.nan_to_num(probabilities), np.nan_to_num(reference)
    metrics = multilabel_metrics(labels, mask, own, np.nan_to_num(thresholds, nan=1.0)).values
    names = ("macro_roc_auc", "map", "macro_f1", "hamming_score", "brier", "ece")
    figures = {name: metrics[name] for name in names}
    figures["log_loss"] = log_loss(labels[mask] == 1, own[mask])
    mine = macro_roc_auc_statistic(labels, mask, own)
    theirs = macro_roc_auc_statistic(labels, mask, other)
    losses = _row_losses(labels, mask, own) - _row_losses(labels, mask, other)
    cells = mask.sum(axis=1).astype(np.float64)
    count = len(labels)
    return Standing(
        figures,
        macro_roc_auc_interval(labels, mask, own, seed=seed, groups=groups),
        bootstrap_interval(lambda w: mine(w) - theirs(w), count, seed=seed, groups=groups),
        bootstrap_interval(
            lambda w: (w @ losses) / np.maximum(w @ cells, 1.0), count, seed=seed, groups=groups
        ),
    )


def _row_losses(labels: np.ndarray, mask: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    right = np.where(labels == 1, probabilities, 1 - probabilities)
    return np.where(mask, -np.log(np.clip(right, 1e-15, 1.0)), 0.0).sum(axis=1)
