"""Answers side by side: their figures, and paired intervals of how far each is from a reference."""

from dataclasses import dataclass

import numpy as np

from mlc_jax.assess.intervals import (
    Interval,
    linear_interval,
    macro_roc_auc_gap,
    macro_roc_auc_interval,
)
from mlc_jax.assess.metrics import log_loss
from mlc_jax.assess.multilabel import multilabel_metrics


@dataclass(frozen=True)
class Standing:
    """What one answer is worth, on cells that people gave, out of fold.

    Attributes:
      figures: macro_roc_auc, map, macro_f1, hamming_score, brier, ece, log_loss; NaN where not
        defined.
      auc: macro ROC AUC within folds with its 95 % interval over groups.
      auc_gap, log_loss_gap: this answer's figure minus the reference's, with paired 95 % intervals:
        what is hard for both does not blur the difference.
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
    folds: np.ndarray,
    groups: np.ndarray,
) -> Standing:
    """Measures one answer against a reference.

    Args:
      labels: int8 [N, L], 0 or 1 where known.
      mask: bool [N, L], cells that a person gave, of labels that have a model.
      probabilities, reference: float64 [N, L] in [0, 1] where `mask`.
      thresholds: float64 [N, L].
      folds: int [N], the fold that each image was scored in.
      groups: int [N], equal for copies of an image, which go together.
    """
    own, other = np.nan_to_num(probabilities), np.nan_to_num(reference)
    metrics = multilabel_metrics(labels, mask, own, np.nan_to_num(thresholds, nan=1.0)).values
    names = ("map", "macro_f1", "hamming_score", "brier", "ece")
    area = macro_roc_auc_interval(labels, mask, own, folds, groups)
    figures = {"macro_roc_auc": area.value} | {name: metrics[name] for name in names}
    figures["log_loss"] = log_loss(labels[mask] == 1, own[mask])
    losses = _row_losses(labels, mask, own) - _row_losses(labels, mask, other)
    cells = mask.sum(axis=1).astype(np.float64)
    count = max(float(cells.sum()), 1.0)
    gap = float(losses.sum()) / count
    return Standing(
        figures,
        area,
        macro_roc_auc_gap(labels, mask, own, other, folds, groups),
        linear_interval(gap, (losses - gap * cells) / count, groups),
    )


def _row_losses(labels: np.ndarray, mask: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    right = np.where(labels == 1, probabilities, 1 - probabilities)
    return np.where(mask, -np.log(np.clip(right, 1e-15, 1.0)), 0.0).sum(axis=1)
