"""Which algorithm each frozen convolution runs by, chosen by measuring, once for every cache.

A measurement is never the same twice, and features depend on the algorithm in their last digits. So
the choice is made once for each network and image size, kept beside the features, and part of their
key: what was chosen first stays chosen until somebody removes the file.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlc_jax.files.atomic import write_json
from mlc_jax.files.digest import digest_json
from mlc_jax.files.lock import exclusive
from mlc_jax.journal import Journal
from mlc_jax.models.backbones import Backbone
from mlc_jax.models.layers import LAYOUT
from mlc_jax.models.winograd import convolve, eligible, transform_filters, with_winograd

VERSION = 1
# Smaller images take less time to extract than to measure, so `lax.conv` runs them everywhere.
LEAST_PIXELS = 128 * 128
LEAST_CHANNELS = 32
# Winograd's algorithm has to win by this much: it needs more memory and compiles more slowly.
MARGIN = 1.05
ROUNDS = 3
BATCH_SIZES = (2, 4, 8)


class Algorithm(NamedTuple):
    """How the frozen network is run; by default by `lax.conv` everywhere.

    Attributes:
      winograd: names of the layers that run by Winograd's algorithm.
      batch_size: passes per call; 0 where it was not measured.
    """

    winograd: tuple[str, ...] = ()
    batch_size: int = 0


DIRECT = Algorithm()


def candidates(backbone: Backbone, image_size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """The layers that are worth a measurement: name to (height, width, channels in and out)."""
    if image_size[0] * image_size[1] < LEAST_PIXELS:
        return {}
    return {
        name: shape
        for name, shape in eligible(backbone, image_size).items()
        if min(shape[2:]) >= LEAST_CHANNELS
    }


def stored_algorithm(backbone: Backbone, image_size: tuple[int, int], cache: Path) -> Algorithm:
    """The choice that was made for this network and size in this cache, or the default."""
    shapes = candidates(backbone, image_size)
    return (_read(_file(cache, shapes)) if shapes else None) or DIRECT


def choose_algorithm(
    backbone: Backbone, image_size: tuple[int, int], cache: Path, journal: Journal
) -> Algorithm:
    """The stored choice, or a new one by measuring on this machine, which is then stored.

    Args:
      backbone: frozen.
      image_size: (height, width).
      cache: the folder of caches.
      journal: told of the measurements and of the choice.
    """
    shapes = candidates(backbone, image_size)
    if not shapes:
        return DIRECT
    file = _file(cache, shapes)
    choice = _read(file)  # read without a lock, so that its cache may be read-only
    if choice is None:
        with exclusive(file.with_suffix(".lock"), wait=True):
            # Once more behind the lock, since another run may have measured.
            choice = _read(file) or _measure(backbone, image_size, shapes, file, journal)
    journal.note(
        f"frozen convolutions: Winograd's algorithm in {len(choice.winograd)} of {len(shapes)} "
        f"layers, {choice.batch_size} images per call, as measured once ({file})"
    )
    return choice


def _measure(
    backbone: Backbone,
    image_size: tuple[int, int],
    shapes: Mapping[str, tuple[int, ...]],
    file: Path,
    journal: Journal,
) -> Algorithm:
    different = list(dict.fromkeys(shapes.values()))
    count = len(different) + len(BATCH_SIZES)
    with journal.phase("measure convolutions", count, "measurements") as advance:
        seconds = {}
        for shape in different:
            seconds[shape] = time_convolutions(shape)
            advance(1)
        winograd = tuple(
            name
            for name, shape in shapes.items()
            if seconds[shape]["winograd"] * MARGIN < seconds[shape]["direct"]
        )
        passes = time_batches(with_winograd(backbone, winograd), image_size, advance)
        best = max(passes.values())
        # The smallest that is as fast as any, within the noise of a measurement.
        batch_size = next(size for size, rate in passes.items() if rate > 0.97 * best)
        choice = Algorithm(winograd, batch_size)
        record = {
            "seconds": {" x ".join(map(str, shape)): own for shape, own in seconds.items()},
            "images_per_second": {str(size): rate for size, rate in passes.items()},
            "image_size": list(image_size),
            "backbone": backbone.name,
        }
        write_json(file, {**choice._asdict(), "measured": record})
    return choice


def time_convolutions(shape: Sequence[int]) -> dict[str, float]:
    """Seconds that a convolution takes for two images, by each algorithm."""
    height, width, channels, features = shape
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, height, width, channels), np.float32))
    kernel = rng.standard_normal((3, 3, channels, features), np.float32)
    filters = tuple(jnp.asarray(matrix) for matrix in transform_filters(kernel))

    def direct(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT)

    return fastest(
        {
            "direct": (jax.jit(direct), (x, jnp.asarray(kernel))),
            "winograd": (jax.jit(convolve), (x, filters)),
        }
    )


def time_batches(
    backbone: Backbone, image_size: tuple[int, int], advance: Callable[[int], None]
) -> dict[int, float]:
    """Images per second of the whole network, by batch size."""
    apply = jax.jit(backbone.apply)
    rates = {}
    for size in BATCH_SIZES:
        images = np.zeros((size, *image_size, 3), np.uint8)
        rates[size] = size / fastest({"all": (apply, (backbone.params, images))})["all"]
        advance(1)
    return rates


def fastest(
    programs: Mapping[str, tuple[Callable[..., Any], tuple[Any, ...]]], rounds: int = ROUNDS
) -> dict[str, float]:
    """The shortest of some runs of each program, in seconds, after one that compiles it.

    The programs take turns, so that what else the machine does meets all of them alike.
    """
    for program, arguments in programs.values():
        jax.block_until_ready(program(*arguments))
    seconds = {name: float("inf") for name in programs}
    for _ in range(rounds):
        for name, (program, arguments) in programs.items():
            started = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds


def _file(cache: Path, shapes: Mapping[str, tuple[int, ...]]) -> Path:
    key = digest_json({"version": VERSION, "shapes": {k: list(v) for k, v in shapes.items()}})
    return cache / "algorithms" / f"{key[:32]}.json"


def _read(file: Path) -> Algorithm | None:
    try:
        record = json.loads(file.read_text())
        return Algorithm(tuple(map(str, record["winograd"])), int(record["batch_size"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
