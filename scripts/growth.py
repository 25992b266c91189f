"""Times stage 1 against the number of images and of labels, and draws both.

  python scripts/growth.py --json scripts/benchmarks/growth-cpu-2-cores.json \
      --plot scripts/benchmarks/growth-cpu-2-cores.png

What is timed is all that an impute run does once it has its features: folds, training, rounds of
self-training, calibration, learnability, with the defaults of the linear head. Features are drawn
(1,280 channels, as MobileNetV2 pools them), and a third of the cells is blank. Extraction is left
out: it takes its time for each image, whatever their number. Each size is timed after a run of two
epochs that compiles what it can.
"""

import argparse
import json
import math
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from benchmark import machine
from ml_collections import ConfigDict

from mlc_jax.settings import cache_folder, resolve

CONFIG = Path(__file__).parents[1] / "configs" / "impute.py"
IMAGES, LABELS = (1000, 2000, 4000, 8000, 16000), (5, 10, 20, 40, 80)
FEW_LABELS, FEW_IMAGES, CHANNELS = 5, 1000, 1280


def main(arguments: list[str] | None = None) -> int:
    """Times both series; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--plot", type=Path, help="where to draw them")
    parser.add_argument("--most", type=int, default=max(IMAGES), help="images, at most")
    options = parser.parse_args(arguments)
    from mlc_jax.runtime import prepare

    prepare(cache_folder())  # as the command line does
    series = {
        "images": [(n, FEW_LABELS) for n in IMAGES if n <= options.most],
        "labels": [(FEW_IMAGES, n) for n in LABELS if n * FEW_IMAGES <= FEW_LABELS * options.most],
    }
    rows = []
    for name, sizes in series.items():
        for images, labels in sizes:
            seconds = seconds_of(images, labels)
            rows.append({"series": name, "images": images, "labels": labels, "seconds": seconds})
            print(f"{images:6} images, {labels:3} labels: {seconds:7.1f} s", flush=True)
    slopes = {name: slope(rows, name) for name in series}
    for name, power in slopes.items():
        print(f"seconds grow with {name} to the power of {power:.2f}; 1 is a straight line")
    if options.json:
        record = {
            "command": f"python scripts/growth.py {' '.join(sys.argv[1:])}",
            "machine": machine(),
            "rows": rows,
            "slopes": slopes,
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    if options.plot:
        draw(rows, options.plot)
    return 0


def seconds_of(images: int, labels: int) -> float:
    """Seconds of one completion of a table, compilation left out where it can be."""
    import jax

    from mlc_jax.training.cached import CachedFeatures
    from mlc_jax.training.completion import complete, deal_out
    from mlc_jax.training.parallel import Devices

    rng = np.random.default_rng([images, labels])
    features = rng.standard_normal((images, 2, 1, 1, CHANNELS), np.float32)
    scores = features[:, 0, 0, 0] @ rng.standard_normal((CHANNELS, labels)) / math.sqrt(CHANNELS)
    values = (scores + rng.standard_normal(scores.shape) > 0).astype(np.int8)
    values[rng.random(values.shape) < 1 / 3] = -1
    devices = Devices("jit")
    cached = CachedFeatures(features.astype(np.float16), devices)
    groups = np.arange(images)

    def run(config: ConfigDict) -> None:
        complete(
            config,
            values,
            groups,
            deal_out(config, values, groups),
            cached,
            (1, 1, CHANNELS),
            devices,
            lambda _: None,
            lambda *_: None,
            lambda _: None,
        )

    config = configuration()
    run(configuration(epochs=2))
    started = time.perf_counter()
    run(config)
    seconds = time.perf_counter() - started
    jax.clear_caches()
    return round(seconds, 2)


def configuration(**changes: Any) -> ConfigDict:
    """The defaults for own data and the linear head, one augmented view."""
    config: ConfigDict = runpy.run_path(str(CONFIG))["get_config"]()
    given = {"data.labels": "drawn", "data.images": "drawn", "head.name": "linear"}
    config.update_from_flattened_dict({**given, "features.views": 1, **changes})
    return resolve(config, lambda _: None)


def slope(rows: list[dict[str, Any]], series: str) -> float:
    """The power of the growth: slope of log seconds over log size, by least squares."""
    own = [(row[series], row["seconds"]) for row in rows if row["series"] == series]
    sizes, seconds = np.log(np.array(own, np.float64)).T
    return round(float(np.polyfit(sizes, seconds, 1)[0]), 3)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds against images and against labels, beside the straight line through the first."""
    figure, panes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for pane, series in zip(panes, ("images", "labels"), strict=True):
        own = [row for row in rows if row["series"] == series]
        sizes = np.array([row[series] for row in own])
        seconds = np.array([row["seconds"] for row in own])
        pane.plot(sizes, seconds, "o-", label="measured")
        pane.plot(sizes, seconds[0] * sizes / sizes[0], ":", label="straight through the first")
        other = f"{FEW_LABELS} labels" if series == "images" else f"{FEW_IMAGES:,} images"
        pane.set(xlabel=f"{series} ({other})", ylabel="seconds", ylim=(0, None), xlim=(0, None))
        pane.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
