"""Features read from disk step by step: the same as those in memory, in memory that stays flat."""

import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mlc_jax.data import watch
from mlc_jax.data.sampling import Plan
from mlc_jax.errors import PipelineError, WorkdirError
from mlc_jax.loss_settings import loss_config
from mlc_jax.models.feature_store import FeatureReader
from mlc_jax.models.heads import HeadStack
from mlc_jax.training.cached import CachedFeatures
from mlc_jax.training.features import Cells, Features
from mlc_jax.training.optimizers import make_optimizer
from mlc_jax.training.parallel import Devices
from mlc_jax.training.step import Frozen, Recipe, init_state
from mlc_jax.training.streamed import StreamedFeatures
from mlc_jax.training.targets import LabelStatistics

ROWS, VIEWS, HEADS, BATCH, STEPS, SHAPE = 50, 3, 3, 8, 4, (2, 2, 16)
ROOT = Path(__file__).parents[2]


Sums = dict[Path, list[list[int]]]


def blocks(
    folder: Path, features: np.ndarray, per_block: int = 7
) -> tuple[list[tuple[Path, int]], Sums]:
    """Writes block files as the store does; returns the place of each row, and checksums."""
    places, sums = [], {}
    for start in range(0, len(features), per_block):
        own = features[start : start + per_block]
        path = folder / f"block-{start}.npy"
        np.save(path, own.view(np.uint16) if own.itemsize == 2 else own)
        places += [(path, place) for place in range(len(own))]
        sums[path] = [[zlib.crc32(view.tobytes()) for view in image] for image in own]
    return places, sums


def drawn(dtype: str) -> np.ndarray:
    made = np.random.default_rng(0).normal(size=(ROWS, VIEWS, *SHAPE))
    return np.asarray(jnp.asarray(made, dtype))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_every_row_and_view_is_the_one_that_was_written(tmp_path: Path, dtype: str) -> None:
    features = drawn(dtype)
    reader = FeatureReader(*blocks(tmp_path, features), features.shape[1:], dtype)
    rng = np.random.default_rng(1)
    rows, views = rng.integers(0, ROWS, (4, 5)), rng.integers(0, VIEWS, (4, 5))
    taken = reader.take(rows, views)
    assert reader.shape == features.shape
    assert taken.dtype == features.dtype
    assert taken.tobytes() == np.ascontiguousarray(features[rows, views]).tobytes()


def test_a_file_that_was_cut_is_said(tmp_path: Path) -> None:
    features = drawn("float32")
    places, sums = blocks(tmp_path, features)
    path = places[0][0]
    path.write_bytes(path.read_bytes()[:-100])
    reader = FeatureReader(places, sums, features.shape[1:], "float32")
    with pytest.raises(WorkdirError, match="was cut while it was in use"):
        reader.take(np.array(6), np.array(VIEWS - 1))


def test_a_bit_that_flips_while_a_run_reads_is_said(tmp_path: Path) -> None:
    features = drawn("float16")
    places, sums = blocks(tmp_path, features)
    reader = FeatureReader(places, sums, features.shape[1:], "float16")
    reader.take(np.array(6), np.array(VIEWS - 1))
    path = places[6][0]
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    with pytest.raises(WorkdirError, match=f"{path.name} was changed while it was in use"):
        reader.take(np.array(6), np.array(VIEWS - 1))
    reader.take(np.array(6), np.array(0))  # the others are what they were


def test_a_read_that_hangs_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = drawn("float32")
    over = threading.Event()

    class Stuck(FeatureReader):
        def take(self, rows: np.ndarray, views: np.ndarray) -> np.ndarray:
            if self.left == 0:
                over.wait(20)
            self.left -= 1
            return super().take(rows, views)

    monkeypatch.setattr(watch, "STALL_SECONDS", 0.3)
    for left in (0, 1, 3):  # the moments, the first step, a later one
        reader = Stuck(*blocks(tmp_path, features), features.shape[1:], "float32")
        reader.left = left
        source = StreamedFeatures(reader, Devices("jit", jax.local_devices()[:1]), (), print)
        began = time.monotonic()
        with pytest.raises(PipelineError, match="the features on disk: nothing was read"):
            one_epoch(source)
        assert time.monotonic() - began < 15
    over.set()


def one_epoch(features: Features) -> Any:
    schedule = ConfigDict({"name": "constant", "factor": 0.7, "rtol": 0.004, "warmup": 0.1})
    keys = ConfigDict({"name": "sgd", "learning_rate": 0.1, "l2": 0.0})
    how = Recipe(
        HeadStack("linear", SHAPE, 1),
        make_optimizer(keys, schedule, STEPS, 1),
        loss_config(),
        STEPS,
    )
    feed = features.feed(how)
    rng = np.random.default_rng(2)
    rows = rng.integers(0, ROWS, (STEPS, HEADS, BATCH)).astype(np.int32)
    plan = Plan(rows, rows % VIEWS, rng.random(rows.shape) < 0.9)
    means, squares = features.moments
    mean = np.tile(means.mean(axis=0), (HEADS, 1))
    frozen = Frozen(
        jnp.asarray(mean, jnp.float32),
        jnp.ones_like(jnp.asarray(mean, jnp.float32)),
        LabelStatistics(*jnp.ones((3, HEADS, 1))),
        {},
    )
    labels = jnp.asarray(rng.integers(0, 2, (1, ROWS, 1)), jnp.float32)
    heads = jnp.zeros((HEADS,), jnp.int32)
    nothing, numbers = jnp.zeros((1, ROWS, 0)), jnp.arange(HEADS)
    cells = Cells(labels, jnp.ones_like(labels), nothing, heads, heads[:, None], numbers)
    state = jax.tree.map(jnp.copy, init_state(how, feed.init(0, HEADS)))
    state, sums = feed.train_epoch(state, frozen, cells, plan)
    logits = feed.logits(state.params, frozen, cells, plan)
    return jax.device_get((state.params, sums)), logits, means, squares


@pytest.mark.parametrize(("kind", "devices"), [("jit", 1), ("jit", 4), ("jit", 6), ("pmap", 3)])
def test_streamed_and_held_features_train_alike(tmp_path: Path, kind: str, devices: int) -> None:
    features = drawn("float16")
    runner = Devices(kind, jax.local_devices()[:devices])
    reader = FeatureReader(*blocks(tmp_path, features), features.shape[1:], "float16")
    waits: list[float] = []
    streamed = one_epoch(StreamedFeatures(reader, runner, (), waits.append))
    held = one_epoch(CachedFeatures(features, runner))
    for one, other in zip(jax.tree.leaves(streamed), jax.tree.leaves(held), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    # Every step but the first of each pass tells how long it waited: training and asking.
    assert len(waits) == 2 * (STEPS - 1)
    assert min(waits) >= 0


PROGRAM = """
import resource, sys
from pathlib import Path
import numpy as np
import tests.training.test_streamed as t
from mlc_jax.models.feature_store import FeatureReader
from mlc_jax.training.parallel import Devices
from mlc_jax.training.streamed import StreamedFeatures
records, folder = int(sys.argv[1]), Path(sys.argv[2])
t.ROWS, t.VIEWS, t.STEPS, t.BATCH, t.SHAPE = records, 1, 64, 32, (14, 10, 512)
block = np.random.default_rng(0).normal(size=(16, 1, 14, 10, 512)).astype(np.float16)
places, sums = t.blocks(folder, block, 16)
reader = FeatureReader(
    [places[row % 16] for row in range(records)], sums, block.shape[1:], "float16"
)
t.one_epoch(StreamedFeatures(reader, Devices("jit"), (), lambda _: None))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_hundred_thousand_records_take_no_more_memory_than_a_thousand(tmp_path: Path) -> None:
    """14 GB of VGG19 features: the records of the store repeat, what is read and held does not."""
    peaks = []
    for records in (1_000, 100_000):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(records), str(tmp_path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout))
    small, large = peaks
    # Of 100,000 rows: three float64 arrays of 512 channels, and the squares of one of them.
    moments = 100_000 * 512 * 8 * 4 / 2**20
    assert large < 1.1 * small + moments, peaks
    assert large < 4096, peaks
