"""UC Merced beside published results: the published split, and few labelled images.

    python scripts/published.py DATA mobilenet_v2=WEIGHTS [--draws 5] [--image-size 256]
        [--scales 1.0]

DATA holds `images/`, `labels.csv` (17 labels, no blanks) and `split.csv` (file name, train, val or
test); several NAME=FILE stand side by side. The images are also in TensorFlow
Datasets as `uc_merced`; the labels are those of Chaudhuri et al. (IEEE TGRS 2018), the split that
of AiTLAS Benchmark Arena (Dimitrovski et al., ISPRS J. 2023).

All labels: `multilabel` with the published split; mean average precision on its test images.
Few labels: a share of all images, drawn at random, keeps its labels; `impute` fills the table, and
the mean average precision is over the other images. Published semi-supervised results (SSL-MAE,
IEEE JSTARS 2025) are on a split of their own, so the two stand side by side and no closer.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from jobs import backbone_keys, parser_of, run_job
from sklearn.metrics import average_precision_score

PUBLISHED = {
    "all labels, published split": "VGG16 .928, EfficientNetB0 .954, ResNet50 .957, Swin .968",
    "1 %": "semi-supervised ViT-B .392",
    "5 %": "semi-supervised ViT-B .856",
    "10 %": "semi-supervised ViT-B .886",
    "25 %": "semi-supervised ViT-B .930",
}
SHARES = (0.01, 0.05, 0.1, 0.25)


def all_labels(data: Path, workdir: Path, keys: dict[str, str]) -> float:
    """Test mAP of a classifier on the published split."""
    run_job(
        "multilabel",
        workdir,
        keys | {"data.labels": str(data / "labels.csv"), "data.split": str(data / "split.csv")},
    )
    summary = json.loads((workdir / "summary.json").read_text())
    return float(summary["test"]["map"]["value"])


def few_labels(data: Path, workdir: Path, keys: dict[str, str], share: float, seed: int) -> float:
    """mAP over the images that lost their labels; a label without a model ranks nothing."""
    truth = pd.read_csv(data / "labels.csv", index_col=0, dtype=str)
    rng = np.random.default_rng(seed)
    kept = rng.permutation(len(truth)) < round(share * len(truth))
    labels = workdir.with_suffix(".csv")
    given = truth.copy()
    given[~kept] = ""
    given.to_csv(labels)
    run_job("impute", workdir, keys | {"data.labels": str(labels)})
    cells = pd.read_csv(workdir / "cells.csv", dtype={"filename": str, "label": str})
    table = cells.pivot(index="filename", columns="label", values="probability")
    scores = table.reindex(index=truth.index, columns=truth.columns).to_numpy()
    values = truth.to_numpy().astype(int)
    return float(
        np.mean(
            [
                average_precision_score(values[~kept, label], np.nan_to_num(scores[~kept, label]))
                for label in range(values.shape[1])
            ]
        )
    )


def main() -> None:
    """Prints the table, one line per protocol."""
    parser = parser_of(__doc__.splitlines()[0], 256)
    given = parser.parse_args()
    keys = backbone_keys(given.weights, given.image_size, given.scales)
    keys["data.images"] = str(given.data / "images")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        value = all_labels(given.data, root / "all", keys)
        name = "all labels, published split"
        print(f"| {name} | {value:.3f} | {PUBLISHED[name]} |", flush=True)
        for share in SHARES:
            found = [
                few_labels(given.data, root / f"{share}-{seed}", keys, share, seed)
                for seed in range(given.draws)
            ]
            name = f"{share * 100:g} %"
            spread = f"{np.mean(found):.3f} ({min(found):.3f} to {max(found):.3f})"
            print(f"| {name} | {spread} | {PUBLISHED[name]} |", flush=True)


if __name__ == "__main__":
    main()
