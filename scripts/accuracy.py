"""How good both stages are on a data set whose labels are all known.

    python scripts/accuracy.py DATA mobilenet_v2=WEIGHTS [--draws 5] [--image-size 224]
        [--scales 1.0] [--share 0.1]

DATA holds `images/` and `labels.csv` without blanks.

Stage 1: a share of the cells is hidden at random, `impute` fills the table (`oversample=none`,
with `impute.max_error=0.02` for what is accepted), and hidden cells are compared with the truth.
Stage 2: `multilabel` on all labels, its test split drawn with the seeds 20 to 25.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from jobs import backbone_keys, parser_of, run_job

from mlc_jax.assess.metrics import calibration_error, reliability
from mlc_jax.assess.recovery import hide_cells, recovery_figures

SEEDS = range(20, 26)
SHOWN = (
    "accuracy",
    "accuracy_at_half",
    "brier",
    "prevalence_error",
    "roc_auc",
    "accepted_share",
    "accepted_error",
)


def recovered(
    data: Path, workdir: Path, keys: dict[str, str], share: float, seed: int
) -> tuple[dict[str, float], np.ndarray]:
    """Figures of hidden cells of one draw, the out-of-fold macro AUC as `oof` among them.

    Also the hidden cells themselves, float64 [2, K]: what they are, and their probabilities.
    """
    truth = pd.read_csv(data / "labels.csv", index_col=0, dtype=str)
    values = truth.to_numpy().astype(np.int8)
    hidden = hide_cells(values, share, "random", seed)
    labels = workdir.with_suffix(".csv")
    truth.mask(hidden, "").to_csv(labels)
    run_job(
        "impute",
        workdir,
        keys | {"data.labels": str(labels), "oversample": "none", "impute.max_error": "0.02"},
    )
    cells = pd.read_csv(workdir / "cells.csv", dtype={"filename": str, "label": str})
    columns = {
        name: cells.pivot(index="filename", columns="label", values=name)
        .reindex(index=truth.index, columns=truth.columns)
        .to_numpy()
        for name in ("probability", "threshold", "accepted")
    }
    figures = recovery_figures(
        values,
        hidden,
        columns["probability"].astype(float),
        columns["threshold"].astype(float),
        columns["accepted"].astype(bool),
    )
    summary = json.loads((workdir / "summary.json").read_text())
    judged = np.stack([values[hidden], columns["probability"].astype(float)[hidden]])
    return figures | {"oof": summary["oof"]["macro_roc_auc"]["value"]}, judged


def classified(data: Path, workdir: Path, keys: dict[str, str], seed: int) -> dict[str, float]:
    """Macro AUC and mAP of the test split of one seed."""
    run_job(
        "multilabel",
        workdir,
        keys | {"data.labels": str(data / "labels.csv"), "seed": str(seed)},
    )
    test = json.loads((workdir / "summary.json").read_text())["test"]
    return {"map": test["map"]["value"], "roc_auc": test["macro_roc_auc"]["value"]}


def show(name: str, figures: list[dict[str, float]], columns: tuple[str, ...]) -> None:
    """Prints the mean of each figure and its range over draws."""
    for column in columns:
        own = [each[column] for each in figures]
        print(f"| {name} | {column} | {np.mean(own):.4f} | {min(own):.4f} to {max(own):.4f} |")


def main() -> None:
    """Prints the table, one line per figure."""
    parser = parser_of(__doc__.splitlines()[0], 224)
    parser.add_argument("--share", type=float, default=0.1)
    given = parser.parse_args()
    keys = backbone_keys(given.weights, given.image_size, given.scales)
    keys["data.images"] = str(given.data / "images")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        found = [
            recovered(given.data, root / f"hidden-{seed}", keys, given.share, seed)
            for seed in range(given.draws)
        ]
        name = f"{given.share:.0%} of cells hidden"
        show(name, [figures for figures, _ in found], (*SHOWN, "oof"))
        truth, p = np.concatenate([cells for _, cells in found], axis=1)
        # Of one draw's cells it is mostly the noise of its bins.
        print(
            f"| {name} | ECE of all draws | {calibration_error(reliability(truth == 1, p)):.4f} |"
        )
        tests = [classified(given.data, root / f"test-{seed}", keys, seed) for seed in SEEDS]
        show("test split", tests, ("map", "roc_auc"))


if __name__ == "__main__":
    main()
