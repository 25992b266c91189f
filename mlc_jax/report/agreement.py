"""How far annotators agree, beside how far the model agrees with them: the same figure of both."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mlc_jax.data.annotators import krippendorff_alpha
from mlc_jax.report import numbers
from mlc_jax.report.parts import Cell, Column
from mlc_jax.report.tables import cell

_ANNOTATORS = Column(
    "Annotators\u2019 \u03b1",
    "Krippendorff\u2019s alpha between annotators: 1 agreement, 0 chance; a model that learns from "
    "them cannot be expected to exceed it",
)
_MODEL = Column(
    "Model\u2019s \u03b1",
    "the same alpha between the model\u2019s predictions, at the threshold, and the merged labels",
)
_NO_PAIRS = "no image has two votes, or all votes are equal"


def agreement_columns(summary: Mapping[str, Any]) -> tuple[Column, ...]:
    """The columns of a table of labels; none where no image was labelled by several people."""
    known = any(alpha is not None for alpha in _agreement(summary).values())
    return (_ANNOTATORS, _MODEL) if known else ()


def agreement_cells(
    summary: Mapping[str, Any], name: str, label: Mapping[str, Any]
) -> tuple[Cell, ...]:
    """The cells of a label in those columns.

    Args:
      summary: summary.json, whose receipt holds the annotators' agreement.
      name: of the label.
      label: as summary.json has it under labels.NAME.
    """
    if not agreement_columns(summary):
        return ()
    return (
        cell(_agreement(summary).get(name), numbers.figure, _NO_PAIRS),
        cell(_of_model(label.get("metrics", {})), numbers.figure, str(label["verdict"])),
    )


def _agreement(summary: Mapping[str, Any]) -> Mapping[str, float | None]:
    found: Mapping[str, float | None] = summary.get("receipt", {}).get("agreement", {})
    return found


def _of_model(metrics: Mapping[str, Any]) -> float | None:
    """Alpha of two annotators, one of them the model, from the counts of a label."""
    counts = [metrics.get(key) for key in ("tp", "fp", "tn", "fn")]
    if None in counts:
        return None
    tp, fp, tn, fn = np.array(counts, np.float64)
    wrong = fp + fn
    paired = np.array([[2 * tn + wrong], [2 * tp + wrong]])
    alpha = float(krippendorff_alpha(paired, np.array([wrong]))[0])
    return None if np.isnan(alpha) else alpha
