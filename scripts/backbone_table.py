"""Prints the README's table of backbones, as Markdown.

  python scripts/backbone_table.py                    every backbone, nothing measured
  python scripts/backbone_table.py --seconds 10       with images per second on this machine
  python scripts/backbone_table.py --seconds 10 vgg19 mobilenet_v2

Features and speed are for images of 450x350, two at a time, with weights drawn at random, which
take as long as any. The speed is that of the fastest call in the given time, after one that
compiles.
"""

import argparse
import itertools
import math
import sys
import time

import jax
import numpy as np

from mlc_jax.models.backbones import NETWORKS, Backbone, load_backbone
from mlc_jax.models.hub_files import HUB_FILES
from mlc_jax.models.layers import layer_specs
from mlc_jax.models.published import PUBLISHED

SIZE = (450, 350)
AT_ONCE = 2


def main(arguments: list[str] | None = None) -> int:
    """Prints the table, row by row; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=0.0, help="time to measure each for")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NETWORKS))
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(NETWORKS):
        parser.error(f"no backbone is called {', '.join(sorted(unknown))}")
    print("| backbone | parameters | features | images/s | licence of the weights |")
    print("|---|---:|---|---:|---|")
    for name in options.names or NETWORKS:
        backbone = load_backbone(name, "random")
        features = "×".join(map(str, backbone.feature_shape(SIZE)))
        speed = f"{images_per_second(backbone, options.seconds):.2g}" if options.seconds else ""
        print(
            f"| `{name}` | {parameters(name):,} | {features} | {speed} | "
            f"{(PUBLISHED.get(name) or HUB_FILES[name]).licence} |",
            flush=True,
        )
    return 0


def parameters(name: str) -> int:
    """Parameters of a backbone as they are published, batch norms unfolded."""
    shapes = itertools.chain(*(spec.shapes.values() for spec in layer_specs(NETWORKS[name]())))
    return sum(math.prod(shape) for shape in shapes)


def images_per_second(backbone: Backbone, seconds: float) -> float:
    """Images per second of the fastest call within `seconds`."""
    images = np.random.default_rng(0).integers(0, 256, (AT_ONCE, *SIZE, 3), np.uint8)
    run = jax.jit(backbone.apply)
    run(backbone.params, images).block_until_ready()
    fastest, began = math.inf, time.perf_counter()
    while math.isinf(fastest) or time.perf_counter() - began < seconds:
        started = time.perf_counter()
        run(backbone.params, images).block_until_ready()
        fastest = min(fastest, time.perf_counter() - started)
    return AT_ONCE / fastest


if __name__ == "__main__":
    sys.exit(main())
