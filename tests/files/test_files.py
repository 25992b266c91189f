"""Laws of the ground floor: whole files only, one run per folder, and digests that tell."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlc_jax.data import dataset as data_dataset
from mlc_jax.data import demo as data_demo
from mlc_jax.data.dataset import ImageSet, prepare_images
from mlc_jax.data.demo import draw_demo
from mlc_jax.errors import WorkdirError
from mlc_jax.files.atomic import remove_partial, replacing, write_bytes, write_json, write_text
from mlc_jax.files.digest import digest_arrays, digest_bytes, digest_file, digest_json
from mlc_jax.files.lock import exclusive, shared
from mlc_jax.files.workdir import claim, owned

HOLD = """
import sys, time
from pathlib import Path
from mlc_jax.files.lock import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


# Atomic writes.


@pytest.mark.parametrize("name", ["table.csv", "no_suffix", "zwei Wörter.tar.gz"])
def test_the_new_content_replaces_the_old(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new folder" / name
    for text in ("first", "", "zwölf\r\nlines\n"):
        write_text(path, text)
        assert path.read_bytes() == text.encode()
    write_bytes(path, b"\0\xff")
    assert path.read_bytes() == b"\0\xff"
    assert [p.name for p in path.parent.iterdir()] == [name]


@pytest.mark.parametrize("before", [None, "old"])
def test_a_failed_write_leaves_what_was_there(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "labels.csv"
    if before is not None:
        path.write_text(before)

    def write_half() -> None:
        with replacing(path) as temporary:
            assert (temporary.parent, temporary.suffix) == (path.parent, path.suffix)
            temporary.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert [p.name for p in tmp_path.iterdir()] == ([] if before is None else ["labels.csv"])
    assert before is None or path.read_text() == before


def test_a_writer_that_wrote_nothing_fails_and_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_text() == "old"


def test_a_reader_never_sees_a_half(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    write_text(path, "old")
    with path.open() as reader, replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_json_has_no_nan(tmp_path: Path) -> None:
    value = {"a": [1, float("nan"), (float("-inf"), 0.1)], "b": {"c": float("inf"), "d": "ü"}}
    write_json(tmp_path / "summary.json", value)

    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    text = (tmp_path / "summary.json").read_text()
    assert json.loads(text, parse_constant=refuse) == {
        "a": [1, None, [None, 0.1]],
        "b": {"c": None, "d": "ü"},
    }


# Digests.


def test_digests_are_sha_256(tmp_path: Path) -> None:
    # The vector of FIPS 180-4.
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "abc").write_bytes(b"abc")
    assert digest_bytes(b"abc") == digest_file(tmp_path / "abc") == abc


def test_json_digests_know_no_order_of_keys_and_refuse_nan() -> None:
    assert digest_json({"a": 1, "b": [2]}) == digest_json({"b": [2], "a": 1})
    values: list[Any] = [{"a": 1}, {"a": "1"}, {"a": 1.5}, {"a": None}, {"b": 1}, [1], [[1]], "a"]
    assert len({digest_json(value) for value in values}) == len(values)
    with pytest.raises(ValueError, match="JSON"):
        digest_json(float("nan"))


def test_array_digests_tell_every_difference() -> None:
    base = np.arange(6, dtype=np.int32).reshape(2, 3)
    flipped = base.copy()
    flipped.view(np.uint8)[0, 0] ^= 1
    different: list[dict[str, np.ndarray]] = [
        {"a": base},
        {"b": base},
        {"a": base.T},
        {"a": base.reshape(3, 2)},
        {"a": base.astype(np.uint32)},
        {"a": base.astype(">i4")},
        {"a": flipped},
        {"a": base, "b": base},
        {"a": base[:0]},
        {},
    ]
    assert len({digest_arrays(arrays) for arrays in different}) == len(different)
    strided = np.arange(12, dtype=np.int32).reshape(2, 6)[:, ::2] // 2
    assert digest_arrays({"b": base, "a": strided}) == digest_arrays({"a": base, "b": base})


# Locks.


def test_a_held_lock_refuses_and_names_the_holder(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with holder(path) as process:
        with pytest.raises(WorkdirError, match=rf"in use by process {process.pid}; .*--workdir"):
            exclusive(path).__enter__()
        # A refusal must not let go of the lock, nor take the holder's number away.
        with pytest.raises(WorkdirError, match=f"process {process.pid}"):
            exclusive(path).__enter__()


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with holder(path) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with exclusive(path):
            assert path.read_text() == f"{os.getpid()}\n"


def test_waiting_ends_when_the_holder_does(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path) as process:
        killer = subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {process.pid}"])
        with exclusive(path, wait=True):
            assert killer.wait() == 0


def test_an_exception_lets_go(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), exclusive(tmp_path / "lock"):
            raise KeyboardInterrupt


def test_a_lock_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "lock", tmp_path / "folder"):
        with pytest.raises(WorkdirError, match=str(path)) as caught:
            exclusive(path).__enter__()
        assert "\n" not in str(caught.value)


# Working directories.


def test_a_workdir_is_made_and_owned(tmp_path: Path) -> None:
    with owned(tmp_path / "a" / "b ü") as workdir:
        assert workdir.is_dir()
        with pytest.raises(WorkdirError, match=f"process {os.getpid()}"), owned(workdir):
            pass
    with owned(tmp_path / "a" / "b ü"):
        pass


def test_a_workdir_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(WorkdirError, match=rf"--workdir={path}: .*choose another"), owned(path):
            pass
    assert (tmp_path / "file").read_text() == "mine"


INPUTS = {"config": {"seed": 0, "data": {"size": [64, 64]}}, "labels": "ab" * 32}


def test_the_same_inputs_go_on_and_are_known_when_finished(tmp_path: Path) -> None:
    assert claim(tmp_path, INPUTS) is None
    assert claim(tmp_path, INPUTS) is None
    write_json(tmp_path / "summary.json", {"finished": True})
    assert claim(tmp_path, INPUTS) == {"finished": True}


def test_other_inputs_are_refused_and_the_difference_is_named(tmp_path: Path) -> None:
    claim(tmp_path, INPUTS)
    write_json(tmp_path / "summary.json", {"finished": True})
    other = {"config": {"seed": 7, "data": {"size": [64, 96]}, "new": None}, "labels": "cd" * 32}
    with pytest.raises(WorkdirError) as caught:
        claim(tmp_path, other)
    message = str(caught.value)
    assert "config.seed: 0 there, 7 here" in message
    assert "config.data.size: [64, 64] there, [64, 96] here" in message
    assert "labels: " in message
    assert "--workdir" in message
    assert "ab" * 32 not in message
    assert claim(tmp_path, INPUTS) == {"finished": True}, "a refusal changed the folder"


def test_many_differences_are_counted(tmp_path: Path) -> None:
    claim(tmp_path, {f"key{number}": number for number in range(9)})
    with pytest.raises(WorkdirError, match="; and 4 more"):
        claim(tmp_path, {f"key{number}": -1 for number in range(9)})


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "\xff"])
@pytest.mark.parametrize("name", ["run.json", "summary.json"])
def test_a_damaged_record_is_one_line(tmp_path: Path, name: str, content: str) -> None:
    claim(tmp_path, INPUTS)
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(WorkdirError, match=f"{name} is damaged; .*--workdir"):
        claim(tmp_path, INPUTS)


def test_a_name_that_is_no_text_is_written_as_an_escape(tmp_path: Path) -> None:
    write_text(tmp_path / "note", os.fsdecode(b"\xff.jpg"))
    assert (tmp_path / "note").read_bytes() == b"\\udcff.jpg"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_flock_posix_locks_hold_and_without_both_it_is_said(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(descriptor: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", absent)
    path = tmp_path / "lock"
    with exclusive(path):
        holder = (
            "import fcntl, sys\nfcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        )
        other = subprocess.run([sys.executable, "-c", holder, str(path)], capture_output=True)
        assert b"BlockingIOError" in other.stderr
    with exclusive(path, wait=True):
        pass
    monkeypatch.setattr(fcntl, "lockf", absent)
    with pytest.raises(WorkdirError, match="its file system has no locks"):
        exclusive(path).__enter__()


def test_readers_share_a_folder_and_keep_writers_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with shared(path):  # nothing to lock is nothing to fear: nobody writes there
        assert not path.exists()
    with exclusive(path), pytest.raises(WorkdirError, match=f"in use by process {os.getpid()}"):
        shared(path).__enter__()
    with shared(path), shared(path), pytest.raises(WorkdirError, match="in use"):
        exclusive(path).__enter__()


def test_a_finished_cache_is_read_without_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it may lie on storage that cannot be written."""
    demo = draw_demo(tmp_path / "demo", rows=3)
    names = [path.name for path in demo.images.iterdir()]

    def prepare() -> ImageSet:
        return prepare_images(demo.images, names, (32, 32), tmp_path / "cache", lambda _: None)

    made = prepare()

    def refused(*_: object, **__: object) -> None:
        raise WorkdirError("read-only")

    for module in (data_demo, data_dataset):
        monkeypatch.setattr(module, "exclusive", refused)
    assert draw_demo(tmp_path / "demo", rows=3) == demo
    again = prepare()
    assert again.digests == made.digests
    np.testing.assert_array_equal(again[0], made[0])


@pytest.mark.parametrize("name", ["a" * 250, "ü" * 125, "a" * 246 + ".png", "a." + "b" * 250])
def test_a_name_as_long_as_a_file_system_takes_is_written(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "content")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with replacing(tmp_path / name) as temporary:
        temporary.write_text("content")
    temporary.touch()  # as a killed writer leaves it
    (tmp_path / ".mine.partial").touch()
    remove_partial(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {name, ".mine.partial"}
