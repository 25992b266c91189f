"""Runs that are killed, stopped, or in each other's way, in processes of their own."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mlc_jax.data.demo import draw_demo
from tests.torture.conftest import SHARE, Table, count, full_round
from tests.torture.runs import both, completed, finish, outcome, refused, start, tiny


class Undisturbed(NamedTuple):
    """The data, what an undisturbed run makes of them, and how long it takes from its beginning."""

    data: Path
    outcome: dict[str, Any]
    seconds: float


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    draw_demo(folder / "set", rows=90)
    # The first one fills the store of compiled programs, so that the second is as quick as trials.
    names = ("first", "second") if SHARE >= 1 else ("first",)
    for name in names:
        process = start(folder / f"cache-{name}", both(folder / "set", folder / name))
        assert process.stdout is not None
        assert process.stdout.readline() == "begins\n"
        began = time.monotonic()
        status, _, err = finish(process)
        assert status == 0, err[-3000:]
    made = outcome(folder / "first")
    assert outcome(folder / names[-1]) == made
    return Undisturbed(folder / "set", made, time.monotonic() - began)


# Occasions that the undisturbed run passes: it saves 3 times in each of two rounds of imputing,
# 3 times in training the classifier, and the classifier.
PLACES = {
    "before_save": (1, 5, 8),
    "in_save": (1, 2, 6, 10),
    "after_save": (3, 7),
    "in_block": (1, 2),
    "after_block": (1, 3),
    "before_rename": (4, 12),
    "after_rename": (9,),
    "between_stages": (2,),
}


def test_t1_killed_at_any_point(undisturbed: Undisturbed, table: Table, tmp_path: Path) -> None:
    places = [(place, number) for place, numbers in PLACES.items() for number in numbers]
    rng = random.Random(0)
    rng.shuffle(places)
    kills = count(25)
    by_place = places[: max(1, round(kills * len(places) / 25))]
    with table.row("T1") as row:
        for trial in range(kills):
            folder = tmp_path / str(trial)
            command, cache = both(undisturbed.data, folder), tmp_path / f"cache{trial}"
            if trial < len(by_place):
                fault, number = by_place[trial]
                with row.trial(f"{fault} {number}"):
                    status, _, err = finish(start(cache, command, fault, number))
                    assert status == -signal.SIGKILL, (status, err[-2000:])
                    completed(cache, command)
                    assert outcome(folder) == undisturbed.outcome
            else:
                seconds = rng.uniform(0, undisturbed.seconds)
                with row.trial(f"after {seconds:.2f} s"):
                    process = started_and_busy(cache, command, seconds)
                    process.kill()
                    assert finish(process)[0] == -signal.SIGKILL
                    completed(cache, command)
                    assert outcome(folder) == undisturbed.outcome
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(cache, ignore_errors=True)


def session_of(leader: int) -> list[int]:
    """The living processes of a session, by /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == leader and fields[0] != "Z":
                found.append(int(entry.name))
    return found


@full_round
@pytest.mark.parametrize("group", [False, True])
def test_t2_no_orphan_outlives_its_parent(
    undisturbed: Undisturbed, table: Table, tmp_path: Path, group: bool
) -> None:
    with table.row("T2") as row:
        for trial, seconds in enumerate((0.3, 0.5, 0.8)):
            with row.trial(f"group {group}, at {seconds} of the time"):
                shared = set(Path("/dev/shm").iterdir())
                process = start(
                    tmp_path / f"cache{trial}", both(undisturbed.data, tmp_path / str(trial))
                )
                assert process.stdout is not None
                process.stdout.readline()
                time.sleep(seconds * undisturbed.seconds)
                assert process.pid in session_of(process.pid)
                if group:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()
                finish(process)
                deadline = time.monotonic() + 5
                while (left := session_of(process.pid)) and time.monotonic() < deadline:
                    time.sleep(0.1)
                assert not left, f"processes {left} outlived their parent"
                assert set(Path("/dev/shm").iterdir()) <= shared


def started_and_busy(cache: Path, command: list[str], seconds: float) -> subprocess.Popen[str]:
    """A run that was begun so long ago and is not over; sooner, where the machine is quicker."""
    while True:
        process = start(cache, command)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(seconds)
        if process.poll() is None:
            return process
        finish(process)
        # It was over: a new workdir and a new cache for the next attempt.
        shutil.rmtree(cache)
        for word in command:
            if word.startswith("--workdir="):
                shutil.rmtree(word.removeprefix("--workdir="))
        seconds /= 2


@full_round
def test_t3_signals_save_and_exit(undisturbed: Undisturbed, table: Table, tmp_path: Path) -> None:
    rng = random.Random(1)
    with table.row("T3") as row:
        for trial, number in enumerate([signal.SIGTERM, signal.SIGINT] * 4):
            folder, cache = tmp_path / str(trial), tmp_path / f"cache{trial}"
            command = both(undisturbed.data, folder)
            seconds = rng.uniform(0, undisturbed.seconds * 0.9)
            with row.trial(f"{number.name} after {seconds:.2f} s"):
                process = started_and_busy(cache, command, seconds)
                sent = time.monotonic()
                process.send_signal(number)
                status, _, err = finish(process, 60)
                assert status == 128 + number, (status, err[-2000:])
                assert time.monotonic() - sent < 30
                assert "Traceback" not in err
                completed(cache, command)
                assert outcome(folder) == undisturbed.outcome
        for trial in range(2):
            with row.trial("in an epoch: the epoch is saved, out of turn"):
                folder, cache = tmp_path / f"epoch{trial}", tmp_path / f"cache-epoch{trial}"
                command = tiny(undisturbed.data, "impute", folder / "impute")
                epoch = 2 * trial + 1
                status, _, err = finish(start(cache, command, "term_in_epoch", epoch))
                assert status == 143, (status, err[-2000:])
                assert (folder / "impute" / "checkpoints" / "round_0" / str(epoch)).is_dir()
                completed(cache, both(undisturbed.data, folder))
                assert outcome(folder) == undisturbed.outcome
        for trial in range(2):
            with row.trial("SIGINT twice"):
                command = both(undisturbed.data, tmp_path / f"twice{trial}")
                process = start(tmp_path / f"cache-twice{trial}", command)
                assert process.stdout is not None
                process.stdout.readline()
                time.sleep(0.4 * undisturbed.seconds)
                process.send_signal(signal.SIGINT)
                time.sleep(0.01)
                process.send_signal(signal.SIGINT)
                sent = time.monotonic()
                assert finish(process, 30)[0] == 130
                assert time.monotonic() - sent < 3


@full_round
def test_t13_one_run_to_a_workdir(undisturbed: Undisturbed, table: Table, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    command = tiny(undisturbed.data, "impute", tmp_path / "impute")
    with table.row("T13") as row:
        first = start(cache, command, "read_stuck", 5)
        assert first.stdout is not None
        try:
            while "extract features" not in first.stdout.readline():
                assert first.poll() is None
            with row.trial("the second is refused and told by whom"):
                assert f"in use by process {first.pid}" in refused(cache, command)
        finally:
            first.kill()
            finish(first)
        with row.trial("the lock of a killed run holds nobody up"):
            assert (tmp_path / "impute" / ".lock").read_text().strip() == str(first.pid)
            completed(cache, command)
            wanted = {k: v for k, v in undisturbed.outcome.items() if k.startswith("impute")}
            assert outcome(tmp_path, ("impute",)) == wanted
