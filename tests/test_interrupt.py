"""Laws of stopping: what is deferred is finished, the rest ends at once, a second Ctrl-C always."""

import gc
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlc_jax.interrupt import Interrupted, check, deferred, handled, requested

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_raises_at_once_and_says_the_status(number: int, status: int) -> None:
    def work() -> None:
        with handled():
            os.kill(os.getpid(), number)
            time.sleep(5)
            pytest.fail("the signal was not heard")

    with pytest.raises(Interrupted) as caught:
        work()
    assert caught.value.status == status
    assert not isinstance(caught.value, Exception), "code that guards files would swallow it"


def test_what_is_deferred_is_finished_first() -> None:
    done = []

    def work() -> None:
        with handled():
            with deferred(), deferred():
                os.kill(os.getpid(), signal.SIGTERM)
                done.append(requested())
            pytest.fail("the end of the block is where it is raised")

    with pytest.raises(Interrupted):
        work()
    assert done == [True]
    assert not requested()


def test_a_failure_inside_is_the_one_that_is_told() -> None:
    def work() -> None:
        with handled(), deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()


def test_without_a_signal_nothing_happens_and_the_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with handled(), deferred():
        check()
    check()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def signalled(*_: Any) -> None:
    """Gets a signal, and is not over before the handler has run between two of its steps."""
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(1000):
        pass


class Closing:
    """Takes long to go."""

    def __del__(self) -> None:
        signalled()


def in_a_destructor() -> None:
    closing = Closing()
    del closing


def in_a_weak_reference() -> None:
    kept = {1}
    reference = weakref.ref(kept, signalled)
    del kept
    assert reference() is None


def while_garbage_is_collected() -> None:
    gc.callbacks.append(signalled)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(signalled)


@pytest.mark.parametrize(
    "dropping", [in_a_destructor, in_a_weak_reference, while_garbage_is_collected]
)
def test_a_signal_where_python_drops_what_is_raised_is_not_lost(
    dropping: Callable[[], None],
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    def work() -> None:
        with handled():
            dropping()
            time.sleep(5)
            pytest.fail("the signal was lost")

    with pytest.raises(Interrupted):
        work()
    assert not recwarn.list
    assert "Traceback" not in capsys.readouterr().err


BUSY = """
import sys, time
from mlc_jax import interrupt
interrupt.GRACE_SECONDS = float(sys.argv[1])
with interrupt.handled(), interrupt.deferred():
    print("busy", flush=True)
    time.sleep(60)  # goes on after a handler has run
"""


def busy(grace: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY, str(grace)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "busy\n"
    return process


def test_a_second_ctrl_c_ends_a_busy_process_at_once() -> None:
    with busy(60) as process:
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 130


def test_the_grace_has_an_end() -> None:
    with busy(0.5) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 143
        assert process.stderr is not None
        assert "the same command goes on" in process.stderr.read()
