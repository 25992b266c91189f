"""Disks that are full, shut or lying: what is written is whole, and what is read is what it was."""

import contextlib
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlc_jax.data.augment import Augmentation
from mlc_jax.data.dataset import ImageSet, prepare_images
from mlc_jax.data.demo import draw_demo
from mlc_jax.data.pipeline import Views
from mlc_jax.errors import CheckpointError
from mlc_jax.models.feature_store import FeatureStore
from mlc_jax.models.features import FeatureSpec
from mlc_jax.training.checkpoint import Checkpoints
from tests.torture.conftest import Table, count, full_round
from tests.torture.runs import as_anybody, both, completed, finish, outcome, refused, start, tiny

# Orbax starts a task per array and drops the others when one fails.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@contextlib.contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own, of the given size, in memory."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


WRITTEN = {
    "labels.csv",
    "cells.csv",
    "scores.csv",
    "thresholds.json",
    "summary.json",
    "split.json",
}
"""Of the files that must have been refused once."""


def leftovers(folder: Path) -> list[str]:
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if any(word in path.name for word in (".partial", "-tmp", "incomplete."))
    ]


IMPUTE = ("impute",)


@full_round
def test_t4_disks_that_are_full_or_shut(table: Table, tmp_path: Path) -> None:
    data = draw_demo(tmp_path / "set", rows=90).labels.parent
    completed(tmp_path / "cache", tiny(data, "impute", tmp_path / "impute"))
    wanted = outcome(tmp_path, IMPUTE)
    with table.row("T4") as row:
        # From nothing at all to nearly enough: each size stops another writer.
        for kib in (8, 400, 1200, 1300, 1400, 1500, 1600, 1700, 1800, 1900, 2000, 2200, 2400):
            with (
                row.trial(f"{kib} KiB"),
                disk(tmp_path / f"disk{kib}", f"{kib}k") as mount,
            ):
                command = tiny(data, "impute", mount / "impute")
                try:
                    line = refused(mount / "cache", command)
                except AssertionError as error:
                    if "(0, " not in str(error):  # it fitted
                        raise
                else:
                    assert "space" in line, line
                assert not leftovers(mount), leftovers(mount)
                remount(mount, "size=64m")
                completed(mount / "cache", command)
                assert outcome(mount, IMPUTE) == wanted
        for shut in ("workdir", "cache"):
            with (
                row.trial(f"the {shut} is read-only"),
                disk(tmp_path / f"shut-{shut}", "64m") as mount,
            ):
                places = {"workdir": tmp_path / f"open-{shut}", "cache": tmp_path / f"room-{shut}"}
                places[shut] = mount
                command = tiny(data, "impute", places["workdir"] / "impute")
                remount(mount, "ro")
                line = refused(places["cache"] / "cache", command)
                assert "Read-only file system" in line, line
                remount(mount, "rw")
                completed(places["cache"] / "cache", command)
                assert outcome(places["workdir"], IMPUTE) == wanted
        for name in ("workdir", "cache"):
            with row.trial(f"no permission for the {name}"):
                folder = tmp_path / f"denied-{name}"
                for place in ("workdir", "cache"):
                    (folder / place).mkdir(parents=True)
                (folder / name).chmod(0o555)
                command = tiny(data, "impute", folder / "workdir" / "impute")
                line = refused(folder / "cache" / "cache", command, prefix=as_anybody())
                assert "ermission denied" in line, line
                (folder / name).chmod(0o755)
                completed(folder / "cache" / "cache", command)
                assert outcome(folder / "workdir", IMPUTE) == wanted


@full_round
def test_t4_each_file_is_refused_once(table: Table, tmp_path: Path) -> None:
    """By both stages, in the order of their writing, for one reason after the other."""
    data = draw_demo(tmp_path / "set", rows=90).labels.parent
    completed(tmp_path / "cache", both(data, tmp_path / "whole"))
    wanted = outcome(tmp_path / "whole")
    refused_ones: set[str] = set()
    reasons = ["No space left", "Read-only file system", "ermission denied"]
    with table.row("T4") as row:
        for number in range(1, 60):
            folder = tmp_path / str(number)
            command = both(data, folder)
            status, out, err = finish(start(folder / "cache", command, "refuse_file", number))
            if status == 0 and "cannot be written" not in out:
                break
            if status == 0:  # the report, which takes nothing with it
                with row.trial(f"file {number}"):
                    assert "report.html cannot be written" in out
                    completed(folder / "cache", command)
                    assert outcome(folder) == wanted
                continue
            with row.trial(f"file {number}"):
                (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
                assert status == 2, err[-2000:]
                assert "Traceback" not in err
                assert reasons[number % 3] in line, line
                refused_ones |= {name for name in WRITTEN if name in line}
                assert not leftovers(folder), leftovers(folder)
                completed(folder / "cache", command)
                assert outcome(folder) == wanted
            shutil.rmtree(folder)
        with row.trial("all of them"):
            assert refused_ones == WRITTEN


class State(NamedTuple):
    """One leaf of every kind that a training state has."""

    step: Any
    params: dict[str, Any]
    active: Any


def state(epoch: int) -> State:
    rng = np.random.default_rng(epoch)
    kernel = rng.normal(size=(3, 40, 2)).astype(np.float32)
    half = jnp.asarray(rng.normal(size=7), jnp.float16)
    return State(
        jnp.asarray(epoch, jnp.int32), {"kernel": kernel, "half": half}, rng.random(5) < 0.5
    )


def saved(folder: Path) -> Path:
    checkpoints = Checkpoints(folder, {"inputs": 1})
    for epoch in (5, 10):
        checkpoints.save(epoch, state(epoch), {"epoch": epoch})
    checkpoints.close()
    return folder


def restored(folder: Path) -> tuple[int | None, list[str]]:
    """The epoch that comes back, asserted to be what was saved, and the warnings."""
    warnings: list[str] = []
    checkpoints = Checkpoints(folder, {"inputs": 1})
    try:
        found = checkpoints.restore_latest(state(0), warnings.append)
    finally:
        checkpoints.close()
    if found is None:
        return None, warnings
    tree, progress, epoch = found
    assert progress == {"epoch": epoch}
    for got, given in zip(jax.tree.leaves(tree), jax.tree.leaves(state(epoch)), strict=True):
        assert np.asarray(got).tobytes() == np.asarray(given).tobytes(), "a silent wrong load"
    return epoch, warnings


def harm(victim: Path, kind: str, rng: random.Random) -> None:
    data = bytearray(victim.read_bytes())
    if kind == "delete":
        victim.unlink()
    elif kind == "cut":
        victim.write_bytes(data[: rng.randrange(len(data))])
    else:
        place = rng.randrange(len(data))
        data[place] ^= 1 << rng.randrange(8)
        victim.write_bytes(data)


STILL = Augmentation(0.0, 0.0, 0.0, 0.0, False, False, (1.0, 1.0))
SPEC = FeatureSpec(("drawn", "0"), (32, 32), True, "float16", Views(STILL, 0, 1))


def features_of(cache: Path, images: ImageSet, warnings: list[str]) -> np.ndarray:
    """Features that are made of the images alone, through the store."""
    store = FeatureStore(cache, SPEC, (1, 1, 12), warnings.append)
    if len(store.missing(images)):
        store.extract(
            images,
            lambda batch: jnp.asarray(batch, jnp.float16).reshape(len(batch), 4, -1, 12)[:, :1, :1],
            8,
            lambda _: None,
            lambda _: None,
        )
    return store.load(images)


def test_t5_nothing_damaged_is_ever_loaded(table: Table, tmp_path: Path) -> None:
    rng = random.Random(0)
    demo = draw_demo(tmp_path / "set", rows=25)
    names = sorted(path.name for path in demo.images.iterdir())

    def prepared(cache: Path) -> ImageSet:
        return prepare_images(demo.images, names, (32, 32), cache, lambda _: None)

    whole, cache = saved(tmp_path / "whole"), tmp_path / "cache"
    images = prepared(cache)
    pixels = [images[row] for row in range(len(images))]
    features = features_of(cache, images, [])
    stores = {"checkpoint": whole, "features": cache / "features", "images": cache / "datasets"}
    victims = {
        name: sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)
        for name, folder in stores.items()
    }
    with table.row("T5") as row:
        # 200 on checkpoints and features, 50 on prepared images.
        for trial in range(count(250)):
            name = ("checkpoint", "features", "checkpoint", "features", "images")[trial % 5]
            kind = ("flip", "cut", "flip", "delete")[trial // 5 % 4]
            original = rng.choice(victims[name])
            with row.trial(f"{name}: {kind} {original.name}"):
                copy = shutil.copytree(
                    whole if name == "checkpoint" else cache, tmp_path / f"copy{trial}"
                )
                base = whole if name == "checkpoint" else cache
                harm(copy / original.relative_to(base), kind, rng)
                if name == "checkpoint":
                    epoch, warnings = restored(copy)
                    assert epoch in (5, 10)
                    # A step without its mark counts as not finished, and needs no warning.
                    fell_back = epoch == 5 and "10" in original.relative_to(whole).parts
                    assert warnings or not fell_back or original.name == "commit_success.txt"
                elif name == "features":
                    warnings = []
                    again = features_of(copy, images, warnings)
                    assert again.tobytes() == features.tobytes(), "a silent wrong load"
                    if original.suffix == ".npy":
                        assert warnings, "a damaged block was not named"
                else:
                    with contextlib.suppress(CheckpointError):
                        opened = prepared(copy)
                        assert opened.digests == images.digests
                        for place, wanted in enumerate(pixels):
                            np.testing.assert_array_equal(opened[place], wanted)
                shutil.rmtree(copy)


def test_t6_what_is_no_checkpoint_is_never_the_latest(table: Table, tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole")
    rng = random.Random(0)
    with table.row("T6") as row:
        for trial in range(count(30)):
            kind = ("half", "stale", "newer")[trial % 3]
            with row.trial(f"{kind} {trial}"):
                copy = shutil.copytree(whole, tmp_path / f"copy{trial}")
                if kind == "half":
                    files = sorted(p for p in (copy / "10").rglob("*") if p.is_file())
                    kept = rng.sample(files, rng.randrange(len(files)))
                    for file in kept:
                        target = copy / "20" / file.relative_to(copy / "10")
                        target.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy(file, target)
                    (copy / "20").mkdir(exist_ok=True)
                elif kind == "stale":
                    name = rng.choice(("20.orbax-checkpoint-tmp", "20.orbax-checkpoint-tmp-17"))
                    shutil.copytree(copy / "10", copy / name)
                else:
                    shutil.copytree(copy / "10", copy / "20")
                    for file in (copy / "20").rglob("*METADATA"):
                        text = file.read_text()
                        file.write_text(text.replace("{", '{"version": "99.0", "format": 7,', 1))
                    for file in (copy / "20" / "state").rglob("*"):
                        if file.is_file():
                            file.write_bytes(b"a format of the future" + file.read_bytes()[22:])
                epoch, _ = restored(copy)
                assert epoch == 10
                shutil.rmtree(copy)
