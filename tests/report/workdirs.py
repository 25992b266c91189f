"""Finished working directories as the impute stage leaves them; their figures fit each other."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlc_jax.assess.acceptance import upper_bound
from mlc_jax.assess.calibration import sigmoid
from mlc_jax.assess.intervals import macro_roc_auc_interval
from mlc_jax.assess.learnability import prior_log_loss
from mlc_jax.assess.metrics import binary_metrics, roc_auc
from mlc_jax.assess.prevalence import compare_prevalence, population_prevalence
from mlc_jax.assess.thresholds import matched_threshold
from mlc_jax.data.cells import COLUMNS, write_cells
from mlc_jax.data.labels import Quarantined, write_quarantine
from mlc_jax.data.table import MISSING
from mlc_jax.files.atomic import write_json, write_text

FOLDS = 5
EPOCHS = 15
DEMO = {"sleeves": 2.6, "collar": 1.9, "stripes": 1.6, "print": 2.2}
PREVALENCES = (0.88, 0.80, 0.52, 0.08)


def make_workdir(
    workdir: Path,
    separations: dict[str, float] = DEMO,
    *,
    rows: int = 972,
    one_class: tuple[str, ...] = (),
    filename: str = "image_{}.jpg",
    demo: bool = True,
) -> dict[str, Any]:
    """Writes the files; returns the summary.

    Args:
      workdir: made when missing.
      separations: label to how many standard deviations lie between the logits of its classes.
      rows: how many images.
      one_class: labels that are 1 in every known cell.
      filename: of image {}.
      demo: whether truth is known.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    names = list(separations)
    folds = np.arange(rows) % FOLDS
    frames, labels, known_labels, masks, scores = [], {}, [], [], []
    for column, name in enumerate(names):
        prevalence = PREVALENCES[column % len(PREVALENCES)]
        truth = (rng.random(rows) < prevalence).astype(np.int8)
        if name in one_class:
            truth[:] = 1
        mask = rng.random(rows) > 0.09
        gap = separations[name]
        logits = gap * (gap * (truth - 0.5) + rng.normal(size=rows))
        logits += math.log(prevalence / (1 - prevalence))
        probabilities = sigmoid(logits if name not in one_class else np.full(rows, np.nan))
        labels[name], frame = _label(name, truth, mask, probabilities, folds, demo)
        frame["filename"] = [filename.format(row) for row in range(rows)]
        frames.append(frame[list(COLUMNS)])
        if name not in one_class:
            known_labels.append(truth)
            masks.append(mask)
            scores.append(logits)
    write_cells(workdir / "cells.csv", pd.concat(frames))
    quarantine = [Quarantined(filename.format(n), n + 1, "absent") for n in range(rows, rows + 3)]
    write_quarantine(workdir / "quarantine.csv", quarantine)
    write_text(workdir / "metrics.jsonl", "".join(_epochs(separations, one_class, rng)))
    cells = (np.stack(s, axis=1) for s in (known_labels, masks, scores))
    auc = macro_roc_auc_interval(*cells, folds, np.arange(rows))
    summary = _summary(labels, rows, len(quarantine), demo) | {
        "oof": {"macro_roc_auc": auc._asdict()}
    }
    write_json(workdir / "summary.json", summary)
    return summary


def rewrite(workdir: Path, summary: dict[str, Any]) -> None:
    """Puts a changed summary into the folder."""
    write_json(workdir / "summary.json", summary)


def _label(
    name: str,
    truth: np.ndarray,
    mask: np.ndarray,
    probabilities: np.ndarray,
    folds: np.ndarray,
    demo: bool,
) -> tuple[dict[str, Any], pd.DataFrame]:
    fitted = not np.isnan(probabilities).any()
    threshold, spread, filled = None, None, np.zeros(0, np.int8)
    limit = 0.5
    if fitted:
        limit = matched_threshold(probabilities[~mask], float(probabilities[~mask].mean()))
        threshold, spread = limit, [0.93 * limit, min(1.04 * limit, 0.99)]
        filled = (probabilities[~mask] > limit).astype(np.int8)
    figures = binary_metrics(truth, mask, np.where(fitted, probabilities, 0.5), limit)
    metrics = {key: None if math.isnan(v) else v for key, v in figures.values.items()}
    area = roc_auc(truth[mask], probabilities[mask]) if fitted else math.nan
    learnable = area > 0.6
    verdict = f"all {mask.sum()} human labels are 1: nothing to learn"
    if fitted:
        rest = "better than chance" if learnable else "no better than chance"
        p = 0.0004 if learnable else 0.41
        verdict = f"AUC {area:.2f} before calibration, p {p} after Holm: {rest}"
    value = truth.copy()
    value[~mask] = filled if fitted else MISSING
    frame = pd.DataFrame(
        {
            "label": name,
            "value": value,
            "source": np.where(mask, "observed", "imputed"),
            "probability": probabilities,
            "threshold": math.nan if threshold is None else threshold,
            "accepted": mask | fitted,
            "fold": folds,
            "model": [f"{name}/fold{fold}/round0" if fitted else "" for fold in folds],
        }
    )
    right = int((filled == truth[~mask]).sum()) if fitted else 0
    label = {
        "learnable": bool(learnable),
        "verdict": verdict,
        "fitted": fitted,
        "p_value": (0.0004 if learnable else 0.41) if fitted else None,
        "known": int(mask.sum()),
        "blank": int((~mask).sum()),
        "filled_prevalence": float(filled.mean()) if fitted else None,
        "threshold": threshold,
        "threshold_spread": spread,
        "prior_log_loss": prior_log_loss(truth, mask, folds) if fitted else None,
        "metrics": metrics,
        "undefined": figures.reasons,
        "uncalibrated": {key: metrics[key] for key in ("log_loss", "brier", "ece")},
        "round": 0,
        "prevalence": _prevalence(truth, mask, probabilities, fitted),
        "suspects": 0,
        "guards": _guards(value, mask, probabilities),
        "error": _errors(truth, mask, probabilities > limit, filled, fitted),
    }
    if demo:
        count = len(filled)
        label["truth"] = {"filled": count, "right": right, "share": right / max(count, 1)}
    return label, frame


def _prevalence(
    truth: np.ndarray, mask: np.ndarray, probabilities: np.ndarray, fitted: bool
) -> dict[str, float | None]:
    if not fitted:
        return dict.fromkeys(("value", "low", "high"))
    labels = np.where(mask, truth, MISSING).astype(np.int8)
    chance = np.full(labels.shape, mask.mean())
    groups = np.arange(len(labels))
    return population_prevalence(labels, mask, probabilities, chance, groups)._asdict()


def _errors(
    truth: np.ndarray, mask: np.ndarray, said: np.ndarray, filled: np.ndarray, fitted: bool
) -> dict[str, Any]:
    record: dict[str, Any] = {"cut": 0.0, "expected": None}
    if fitted:
        record["expected"] = float((said != truth)[mask].mean())
    for value, name in enumerate(("zeros", "ones")):
        own = mask & (said == value) & fitted
        errors, count = int((truth != value)[own].sum()), int(own.sum())
        bound = float(upper_bound(errors, count))
        count_filled = int((filled == value).sum())
        record[name] = {"filled": count_filled, "errors": errors, "count": count, "bound": bound}
    return record


def _guards(value: np.ndarray, mask: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    test = compare_prevalence(value, mask, probabilities, np.arange(len(value)))
    return {
        "filled_prevalence": {
            "observed": test.observed,
            "expected": test.expected,
            "z": test.z,
            "p_value": test.p,
            "differs": test.p < 0.01,
        },
        "blankness": {
            "auc": {"value": 0.51, "low": 0.45, "high": 0.57},
            "p_value": 0.8,
            "predictable": False,
            "reason": "AUC 0.51 (0.45 to 0.57), p 0.8 after Holm",
        },
        "copies": {"pairs": 7, "disagree": 0, "ceiling": 1.0},
    }


def _epochs(
    separations: dict[str, float], one_class: tuple[str, ...], rng: np.random.Generator
) -> list[str]:
    lines = []
    for epoch in range(EPOCHS):
        figures: dict[str, Any] = {}
        learned = 1 - math.exp(-epoch / 4)
        for name, gap in separations.items():
            if name in one_class:
                continue
            noise = rng.normal(0, 0.008, 5)
            reach = 0.5 + 0.49 * math.tanh(gap / 2)
            figures[name] = {
                "train_loss": 0.7 - 0.55 * learned * reach + noise[0],
                "train_accuracy": 0.55 + 0.42 * learned * reach + noise[1],
                "stop_loss": 0.7 - 0.45 * learned * reach + noise[2],
                "stop_accuracy": 0.55 + 0.36 * learned * reach + noise[3],
                "stop_auc": 0.5 + (reach - 0.5) * learned + noise[4] if epoch else None,
                "rate_scale": 0.7 ** (epoch // 5),
            }
        line = {"epoch": epoch, "round": 0, "active_heads": 20 - epoch // 2, "labels": figures}
        lines.append(json.dumps(line) + "\n")
    return lines


def _summary(labels: dict[str, Any], rows: int, left_out: int, demo: bool) -> dict[str, Any]:
    blank = sum(label["blank"] for label in labels.values())
    warnings = [
        f"{name}: {label['verdict']}; do not rely on its filled cells"
        for name, label in labels.items()
        if not label["learnable"]
    ]
    return {
        "finished": True,
        "stage": "impute",
        "data": {
            "rows": rows + left_out,
            "usable": rows,
            "left_out": left_out,
            "copies": 7,
            "near_copies": [["image_3.jpg", "image_8.jpg"]] * 2,
            "groups": {"count": rows - 9, "images_in_groups": 18, "largest": 6, "large": []},
            "given_groups": {"source": "column 'rack'", "groups": 5, "images": 20},
            "given_split": {"source": "split.csv", "images": {"train": rows - 30, "test": 30}},
            "observed": sum(label["known"] for label in labels.values()),
            "blank": blank,
            "filled": sum(label["blank"] for label in labels.values() if label["fitted"]),
            "image_size": [450, 350],
            "demo": demo,
            "labels_file": "garments/labels.csv",
            "image_folder": "garments/images",
        },
        "labels": labels,
        "acceptance": {
            "max_error": 1.0,
            "max_error_of": "pooled",
            "cut": 0.0,
            "known_coverage": 1.0,
            "known_errors": 0,
            "known_accepted": 0,
            "bound": None,
            "level": 0.95,
            "filled": sum(label["blank"] for label in labels.values() if label["fitted"]),
            "reason": "every cell is accepted",
        },
        "rounds": [],
        "warnings": warnings,
    } | how_it_went()


def how_it_went() -> dict[str, Any]:
    """The part of summary.json that does not depend on the data."""
    return {
        "notes": ["the labels file has a header", "defaults for the demo: epochs=15"],
        "seconds": {"prepare images": 3.21, "extract features": 250.4, "train": 41.7},
        "seconds_to_first": {"prepare images": 0.2, "extract features": 8.9, "train": 263.1},
        "seconds_waited": {"images": 2.4},
        "peak_memory_mb": 1234,
        "peak_device_memory_mb": None,
        "rates": {
            "prepare images": {"unit": "images", "per_second": 303.7},
            "extract features": {"unit": "images", "per_second": 7.764},
        },
        "backbone": {
            "name": "vgg19",
            "origin": "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "random": False,
            "digest": "9c1f" * 16,
            "feature_shape": [14, 10, 512],
        },
        "device": "cpu × 1 (2 cores)",
        "versions": {"mlc_jax": "0.1.0", "jax": "0.10.2", "numpy": "2.4.1"},
        "digests": {"data": "a1b2" * 16, "weights": "9c1f" * 16, "config": "77ee" * 16},
        "config": {
            "seed": 0,
            "data": {"labels": "garments/labels.csv", "image_size": [450, 350]},
            "head": {"name": "conv"},
            "optimizer": {"learning_rate": 1e-05},
        },
        "command": "python -m mlc_jax.main --config=configs/impute.py --workdir='my run'",
    }
