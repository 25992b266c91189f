"""Finished working directories as the multilabel stage leaves them; the figures fit each other."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from workdirs import how_it_went

from mlc_jax.assess.calibration import sigmoid
from mlc_jax.assess.multilabel import multilabel_metrics
from mlc_jax.assess.thresholds import choose_threshold
from mlc_jax.data.demo import draw_demo
from mlc_jax.data.labels import write_quarantine
from mlc_jax.files.atomic import write_json, write_text

ROWS, TEST, PICTURES = 90, 30, 12
EPOCHS = 6


def make_classifier_workdir(
    workdir: Path,
    names: tuple[str, ...] = ("sleeves", "collar", "stripes", "print"),
    *,
    unfit: tuple[str, ...] = (),
    gap: float = 2.0,
    filename: str = "image_{}.jpg",
) -> dict[str, Any]:
    """Writes the files and, beside them, the first `PICTURES` of the `TEST` test images.

    Args:
      workdir: made when missing.
      names: of the labels.
      unfit: those among them that have no model.
      gap: how many standard deviations lie between the logits of the classes; 0 is chance.
      filename: of image {}.

    Returns:
      the summary.
    """
    images = draw_demo(workdir / "demo", rows=PICTURES).images
    for row in range(PICTURES):
        (images / f"image_{row}.jpg").rename(images / filename.format(row))
    rng = np.random.default_rng(5)
    fitted = [name for name in names if name not in unfit]
    shape = (ROWS, len(fitted))
    truth = (rng.random(shape) < 0.4).astype(np.int8)
    mask = rng.random(shape) > 0.1
    probabilities = sigmoid(gap * (gap * (truth - 0.5) + rng.normal(size=shape)) - 0.4)
    test = np.arange(ROWS) < TEST
    own = [(truth[~test, i], mask[~test, i], probabilities[~test, i]) for i in range(len(fitted))]
    thresholds = np.array([choose_threshold("f1", *cells) for cells in own])
    figures = multilabel_metrics(truth[test], mask[test], probabilities[test], thresholds)

    rows, columns = np.nonzero(mask)
    frame = pd.DataFrame(
        {
            "filename": [filename.format(row) for row in rows],
            "label": [fitted[column] for column in columns],
            "value": truth[rows, columns],
            "split": np.where(test, "test", "held_in")[rows],
            "probability": probabilities[rows, columns],
            "threshold": thresholds[columns],
        }
    )
    frame.to_csv(workdir / "scores.csv", index=False)
    write_quarantine(workdir / "quarantine.csv", [])
    write_text(workdir / "metrics.jsonl", "".join(_epochs()))
    better = gap > 0.5
    labels: dict[str, Any] = {}
    for name in names:
        labels[name] = {"learnable": False, "verdict": "fewer than 5 ones", "fitted": False}
        if name in fitted:
            labels[name] = _label(name, fitted.index(name), figures, thresholds, better)
    area = figures.values["macro_roc_auc"]
    told = f"test macro AUC {area:.3f} (95 % interval {area - 0.04:.3f} to {area + 0.03:.3f})"
    verdict = f"{told} is no better than chance"
    if better:
        verdict = f"{told}: {len(fitted)} of {len(fitted)} labels are ranked better than chance"
    summary = how_it_went() | {
        "finished": True,
        "stage": "multilabel",
        "data": {
            "demo": False,
            "labels_file": "garments/labels.csv",
            "image_folder": str(images),
            "rows": ROWS,
            "usable": ROWS,
            "left_out": 0,
            "observed": int(mask.sum()),
            "blank": int((~mask).sum()),
            "image_size": [96, 72],
            "held_in": ROWS - TEST,
            "test": TEST,
        },
        "labels": labels,
        "test": {
            name: {"value": value, "low": 0.96 * value, "high": 1.03 * value}
            for name, value in figures.values.items()
        },
        "undefined": figures.reasons,
        "verdict": verdict,
        "best_epoch": EPOCHS - 2,
        "warnings": [f"label {name}: left out, fewer than 5 ones" for name in unfit],
    }
    summary["config"]["threshold"] = {"rule": "f1"}
    if not better:
        summary["warnings"].append(verdict)
    write_json(workdir / "summary.json", summary)
    return summary


def _label(
    name: str, column: int, figures: Any, thresholds: np.ndarray, better: bool
) -> dict[str, Any]:
    metrics, limit = figures.per_label[column], float(thresholds[column])
    return {
        "learnable": better,
        "verdict": f"{name}: AUC {0.9 if better else 0.5}: {'' if better else 'no '}better",
        "fitted": True,
        "p_value": 0.0025 if better else 0.61,
        "test_p_value": 0.0031 if better else 0.74,
        "threshold": limit,
        "threshold_spread": [0.9 * limit, min(1.0, 1.1 * limit)],
        "log_loss_out_of_fold": 0.4137 + column / 100,
        "prior_log_loss": 0.6731 + column / 100,
        "metrics": {k: None if math.isnan(v) else v for k, v in metrics.values.items()},
        "undefined": metrics.reasons,
    }


def _epochs() -> list[str]:
    return [
        json.dumps(
            {
                "epoch": epoch,
                "train_loss": 0.7 / (1 + epoch),
                "train_accuracy": 1 - 0.5 / (1 + epoch),
                "validation_loss": 0.72 / (1 + 0.9 * epoch),
                "validation_accuracy": 1 - 0.52 / (1 + epoch),
                "validation_auc": (1 - 0.5 / (1 + epoch)) if epoch else None,
                "rate_scale": 1.0,
            }
        )
        + "\n"
        for epoch in range(EPOCHS)
    ]
