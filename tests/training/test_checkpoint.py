"""Laws of checkpoints: what comes back is what was saved, or nothing does and it is said."""

import contextlib
import errno
import gc
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging

from mlc_jax.errors import CheckpointError, WorkdirError
from mlc_jax.training.checkpoint import Checkpoints

# Orbax starts a task per array and drops the others when one fails.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

INPUTS = {"config": {"seed": 0}, "data": "abc"}


class State(NamedTuple):
    """One leaf of every kind that a training state has."""

    step: Any
    params: dict[str, Any]
    active: Any
    empty: Any


def state(epoch: int) -> State:
    rng = np.random.default_rng(epoch)
    params = {
        "dense": {"kernel": rng.normal(size=(3, 40, 2)).astype(np.float32)},
        "half": jnp.asarray(rng.normal(size=7), jnp.float16),
    }
    return State(jnp.asarray(epoch, jnp.int32), params, rng.random(5) < 0.5, ())


def progress(epoch: int) -> dict[str, Any]:
    """Floats that are not in JSON are among it: a head before its first epoch has them."""
    return {
        "stopping": {"auc": [float("-inf"), float("nan"), 0.1 + epoch], "epoch": [epoch, -1]},
        "plans": {"next_index": epoch},
    }


def save(folder: Path, *epochs: int) -> None:
    checkpoints = Checkpoints(folder, INPUTS)
    for epoch in epochs:
        checkpoints.save(epoch, state(epoch), progress(epoch))
    checkpoints.close()


def restore(
    folder: Path, inputs: Any = None, like: Any = None
) -> tuple[tuple[State, dict[str, Any], int] | None, list[str]]:
    warnings: list[str] = []
    checkpoints = Checkpoints(folder, INPUTS if inputs is None else inputs)
    try:
        return checkpoints.restore_latest(like or state(0), warnings.append), warnings
    finally:
        checkpoints.close()


def assert_is_epoch(restored: tuple[State, dict[str, Any], int] | None, epoch: int) -> None:
    assert restored is not None
    assert restored[2] == epoch
    # repr tells NaN from nothing, and keeps every digit of a float.
    assert repr(restored[1]) == repr(progress(epoch))
    assert isinstance(restored[0], State)
    assert restored[0].params.keys() == state(epoch).params.keys()
    for got, given in zip(jax.tree.leaves(restored[0]), jax.tree.leaves(state(epoch)), strict=True):
        assert got.dtype == given.dtype
        assert np.asarray(got).tobytes() == np.asarray(given).tobytes()


@pytest.fixture(autouse=True)
def dropped_tasks_end_here() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of epochs 5, 10 and 15, of which two are kept."""
    folder = tmp_path_factory.mktemp("checkpoints") / "of a run"
    save(folder, 5, 10, 15)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "copy")


def test_nothing_is_restored_from_nothing(tmp_path: Path) -> None:
    assert restore(tmp_path / "new") == (None, [])


def test_the_latest_comes_back_bit_for_bit(saved: Path) -> None:
    restored, warnings = restore(saved)
    assert_is_epoch(restored, 15)
    assert not warnings


def test_the_last_two_are_kept(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["10", "15"]


def test_shapes_alone_tell_the_structure(saved: Path) -> None:
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state(0))
    assert_is_epoch(restore(saved, like=like)[0], 15)


def test_a_path_with_a_space_and_an_umlaut(tmp_path: Path) -> None:
    folder = tmp_path / "mein schöner Läufer" / "checkpoints"
    save(folder, 1)
    assert_is_epoch(restore(folder)[0], 1)


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("runs") / "one", 2)
    assert_is_epoch(restore(tmp_path / "runs" / "one")[0], 2)


def test_other_inputs_are_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match=r"15 was made from other inputs; .*--workdir"):
        restore(saved, inputs={**INPUTS, "data": "abd"})


@pytest.mark.parametrize("change", ["shape", "dtype", "name", "more"])
def test_another_structure_is_refused(saved: Path, change: str) -> None:
    params = dict(state(0).params)
    if change == "shape":
        params["dense"] = {"kernel": np.zeros((3, 2, 40), np.float32)}
    elif change == "dtype":
        params["half"] = params["half"].astype(jnp.float32)
    elif change == "name":
        params["whole"] = params.pop("half")
    else:
        params["more"] = np.zeros(2, np.float32)
    with pytest.raises(CheckpointError, match="another structure"):
        restore(saved, like=state(0)._replace(params=params))


def files_of(folder: Path, step: int) -> list[Path]:
    found = sorted(p for p in (folder / str(step)).rglob("*") if p.is_file() and p.stat().st_size)
    assert len(found) > 8
    return found


@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_damage_is_never_restored(saved: Path, tmp_path: Path, harm: str) -> None:
    """In any file of the latest step: the step as it was, or the one before and a warning."""
    rng = np.random.default_rng(["flip", "cut", "remove"].index(harm))
    fell_back = 0
    for number, original in enumerate(files_of(saved, 15)):
        folder = shutil.copytree(saved, tmp_path / str(number))
        victim = folder / original.relative_to(saved)
        data = bytearray(victim.read_bytes())
        place = int(rng.integers(len(data)))
        if harm == "remove":
            victim.unlink()
        elif harm == "cut":
            victim.write_bytes(data[:place])
        else:
            data[place] ^= 1 << int(rng.integers(8))
            victim.write_bytes(data)
        restored, warnings = restore(folder)
        if warnings:
            assert_is_epoch(restored, 10)
            assert re.search("15 (is damaged|was no whole checkpoint)", warnings[0])
            fell_back += 1
        elif restored is not None and restored[2] == 10:
            # Without its end mark Orbax takes a step for one whose save was stopped.
            assert original.name in ("_CHECKPOINT_METADATA", "commit_success.txt")
            assert_is_epoch(restored, 10)
        else:
            assert_is_epoch(restored, 15)
        shutil.rmtree(folder)
    assert fell_back


def flip_in_every_letter(victim: Path, text: bytes) -> list[bytes]:
    """The content of `victim` with one bit of each letter of `text` in it flipped in turn."""
    data = victim.read_bytes()
    start = data.index(text)
    return [
        data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        for place in range(start, start + len(text))
    ]


def test_a_flip_in_the_record_is_no_other_run(copied: Path) -> None:
    """The record says of which inputs, structure and progress the arrays are."""
    holder = next(p for p in files_of(copied, 15) if b"next_index" in p.read_bytes())
    for content in flip_in_every_letter(holder, b"next_index")[::4]:
        holder.write_bytes(content)
        again = shutil.copytree(copied, copied.with_name("again"))
        restored, warnings = restore(again)
        assert_is_epoch(restored, 10)
        assert len(warnings) == 1
        shutil.rmtree(again)


def test_damaged_arrays_are_found_where_orbax_finds_nothing(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest, alone: Orbax hands out an array that differs in one bit."""
    wrong = state(15)
    wrong.params["dense"]["kernel"].view(np.uint32)[1, 2, 0] ^= 1
    checkpoints = Checkpoints(copied, INPUTS)
    orbax = checkpoints._orbax
    load = orbax.load_checkpointables

    def load_wrong(step: int, abstract: dict[str, Any]) -> dict[str, Any]:
        loaded: dict[str, Any] = load(step, abstract)
        return {"state": wrong} if step == 15 and "state" in loaded else loaded

    monkeypatch.setattr(orbax, "load_checkpointables", load_wrong)
    warnings: list[str] = []
    assert_is_epoch(checkpoints.restore_latest(state(0), warnings.append), 10)
    assert "do not match their digest" in warnings[0]
    checkpoints.close()


def test_all_damaged_is_an_error_that_names_the_folder(copied: Path) -> None:
    for step in (10, 15):
        for file in (copied / str(step) / "state").rglob("*"):
            if file.is_file():
                file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(CheckpointError, match=r"none of the checkpoints \[15, 10\] is intact"):
        restore(copied)
    assert sorted(path.name for path in copied.iterdir()) == ["10", "15"]


@pytest.mark.parametrize("later", [12, 15, 20])
def test_after_falling_back_saving_goes_on(copied: Path, later: int) -> None:
    """Orbax skips, without a word, a save that is not later than the latest step."""
    shutil.rmtree(copied / "15" / "state" / "d")
    checkpoints = Checkpoints(copied, INPUTS)
    restored = checkpoints.restore_latest(state(0), lambda _: None)
    assert_is_epoch(restored, 10)
    checkpoints.save(later, state(later), progress(later))
    checkpoints.close()
    restored, warnings = restore(copied)
    assert_is_epoch(restored, later)
    assert not warnings


def test_half_a_step_and_foreign_files_are_never_the_latest(copied: Path) -> None:
    (copied / "97").mkdir()
    shutil.copytree(copied / "15", copied / "98")
    shutil.rmtree(copied / "98" / "state")
    shutil.copytree(copied / "15", copied / "99.orbax-checkpoint-tmp-123")
    (copied / "notes.txt").write_text("mine")
    restored, _ = restore(copied)
    assert_is_epoch(restored, 15)
    assert not list(copied.glob("*tmp*"))


def test_a_step_under_another_number_is_damaged(copied: Path) -> None:
    shutil.copytree(copied / "10", copied / "20")
    restored, warnings = restore(copied)
    assert_is_epoch(restored, 15)
    assert "a copy of that of epoch 10" in warnings[0]


def test_a_step_of_a_newer_version_keeps_nobody_from_the_others(copied: Path) -> None:
    shutil.copytree(copied / "15", copied / "20")
    (copied / "20" / "_CHECKPOINT_METADATA").write_text('{"format": 99}')
    restored, warnings = restore(copied)
    assert_is_epoch(restored, 15)
    assert "20 was no whole checkpoint of this version; it is set aside" in warnings[0]
    assert (copied / "strange-20-0").is_dir()
    assert restore(copied)[1] == []


def test_saving_an_epoch_again_replaces_it(copied: Path) -> None:
    checkpoints = Checkpoints(copied, INPUTS)
    checkpoints.save(15, state(3), progress(3))
    checkpoints.close()
    restored, _ = restore(copied)
    assert restored is not None
    assert restored[2] == 15
    assert repr(restored[1]) == repr(progress(3))


def test_after_a_failed_save_late_writers_are_not_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of the command line is as quiet as absl is by default."""
    heard: list[SimpleNamespace] = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    checkpoints = Checkpoints(tmp_path / "run", INPUTS)
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").write_text("in the way of the folder")
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        with pytest.raises(WorkdirError, match="5 cannot be written"):
            checkpoints.save(5, state(5), progress(5))
        checkpoints.close()
    finally:
        logging.set_verbosity(verbosity)
    heard.clear()
    for text in ("Event loop is closed", "mine"):
        told = SimpleNamespace(exc_type=RuntimeError, exc_value=RuntimeError(text))
        cast(Any, sys.unraisablehook)(told)
    assert heard == [told]


def test_a_failed_save_leaves_nothing_though_a_writer_is_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path / "run", INPUTS)
    half = tmp_path / "run" / "5.orbax-checkpoint-tmp"

    def write_on() -> None:
        for number in range(200):
            with contextlib.suppress(OSError):
                (half / "state").mkdir(parents=True, exist_ok=True)
                (half / "state" / str(number)).write_text("late")
            time.sleep(0.001)

    late = threading.Thread(target=write_on)

    def fail(*_: Any, **__: Any) -> None:
        late.start()
        time.sleep(0.05)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints._orbax, "save_checkpointables", fail)
    with pytest.raises(WorkdirError, match="No space left on device"):
        checkpoints.save(5, state(5), progress(5))
    late.join()
    checkpoints.close()
    assert not half.exists()
