"""Times stage 1 against the number of images and of labels, and draws both.

  python scripts/growth.py --json scripts/benchmarks/growth-cpu-2-cores.json \
      --plot scripts/benchmarks/growth-cpu-2-cores.png

What is timed is all that an impute run does once it has its features: folds, training, rounds of
self-training, calibration, learnability, with the defaults of the linear head. Features are drawn
(1,280 channels, as MobileNetV2 pools them), and a third of the cells is blank. Extraction is left
out: it takes its time for each image, whatever their number. Each size is run three times, and the
faster of the last two counts: what compiles is kept, what is traced anew is not, and what else the
machine does is left out as far as it can be.
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
    where = machine()  # before files are written, which would make the tree a changed one
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
    lines = {name: line(rows, name) for name in series}
    for name, found in lines.items():
        print(
            f"{name}: {found['fixed']:.1f} s and {found['each']:.4f} s for each; in the last step "
            f"{found['last_each']:.4f} s for each"
        )
    if options.json:
        record = {
            "command": f"python scripts/growth.py {' '.join(sys.argv[1:])}",
            "machine": where,
            "rows": rows,
            "lines": lines,
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    if options.plot:
        draw(rows, options.plot)
    return 0


def seconds_of(images: int, labels: int) -> float:
    """Seconds of one completion of a table, its programs compiled before."""
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
    run(config)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        run(config)
        seconds.append(time.perf_counter() - started)
    jax.clear_caches()
    return round(min(seconds), 2)


def configuration() -> ConfigDict:
    """The defaults for own data and the linear head, one augmented view."""
    config: ConfigDict = runpy.run_path(str(CONFIG))["get_config"]()
    given = {"data.labels": "drawn", "data.images": "drawn", "head.name": "linear"}
    config.update_from_flattened_dict({**given, "features.views": 1})
    return resolve(config, lambda _: None)


def line(rows: list[dict[str, Any]], series: str) -> dict[str, float]:
    """The straight line through a series, by least squares, and what its last step cost.

    Returns:
      `fixed` seconds, `each`: seconds for each image or label; `last_each`: the same between the
      two largest sizes, which is above `each` where growth is worse than a straight line.
    """
    own = [(row[series], row["seconds"]) for row in rows if row["series"] == series]
    sizes, seconds = np.array(own, np.float64).T
    each, fixed = np.polyfit(sizes, seconds, 1)
    last = (seconds[-1] - seconds[-2]) / (sizes[-1] - sizes[-2])
    return {"fixed": round(fixed, 3), "each": round(each, 6), "last_each": round(last, 6)}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds against images and against labels, beside the straight line through the points."""
    figure, panes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for pane, series in zip(panes, ("images", "labels"), strict=True):
        own = [row for row in rows if row["series"] == series]
        sizes = np.array([row[series] for row in own])
        seconds = np.array([row["seconds"] for row in own])
        pane.plot(sizes, seconds, "o-", label="measured")
        fitted = line(rows, series)
        pane.plot(sizes, fitted["fixed"] + fitted["each"] * sizes, ":", label="straight line")
        other = f"{FEW_LABELS} labels" if series == "images" else f"{FEW_IMAGES:,} images"
        pane.set(xlabel=f"{series} ({other})", ylabel="seconds", ylim=(0, None), xlim=(0, None))
        pane.locator_params(axis="x", nbins=5)
        pane.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
