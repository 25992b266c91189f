"""Stopping on request: SIGTERM and SIGINT end a run where nothing that was done is lost.

Outside of `deferred` a signal raises `Interrupted` at once. Inside, the code looks at `requested`,
brings what it did to the disk, and then calls `check`.

Python runs a handler between two bytecodes of the main thread only, and a compiled epoch has none.
So a thread of its own watches too: it ends the process when the grace is over, or at once when
SIGINT comes a second time. What had reached the disk by then is whole, as every file is renamed.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

GRACE_SECONDS = 25.0
ASK_AGAIN_SECONDS = 0.2
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop. `status` is what the process exits with: 143, or 130 for SIGINT.

    No `Exception`, so that nothing takes it for a file that cannot be read.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


class _State:
    """What the handler knows; signals belong to the process, and so does this."""

    number: int | None = None
    depth: int = 0
    raised: bool = False


def requested() -> bool:
    """Whether a signal has asked the run to stop."""
    return _State.number is not None


def number() -> int | None:
    """The signal that has asked the run to stop."""
    return _State.number


def ask(number: int) -> None:
    """Asks the run to stop as a signal would: another process of it has been asked."""
    if _State.number is None:
        _State.number = number


def check() -> None:
    """Raises `Interrupted` where a signal has asked the run to stop."""
    if _State.number is not None:
        _State.raised = True
        raise Interrupted(_State.number)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """A block that a signal does not break; it is told by `requested`, and raised at its end."""
    _State.depth += 1
    try:
        yield
    finally:
        _State.depth -= 1
    if _State.depth == 0:
        check()


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Handles SIGTERM and SIGINT for the length of the block; in the main thread only."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    _State.number, _State.raised = None, False
    former_hook = sys.unraisablehook
    sys.unraisablehook = hook = _asking_again(former_hook)
    former = {number: signal.signal(number, _on_signal) for number in SIGNALS}
    # Written by the C part of the handler, whatever the main thread is busy with.
    former_descriptor = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reading,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(former_descriptor)
        for number, handler in former.items():
            signal.signal(number, handler)
        os.close(writing)
        watcher.join()
        os.close(reading)
        if sys.unraisablehook is hook:  # or another one has been put around it
            sys.unraisablehook = former_hook
        _State.number, _State.raised = None, False


def _on_signal(number: int, frame: FrameType | None) -> None:
    del frame
    if _State.number is None:
        _State.number = number
    # Once only: a second one must not break the clearing up that the first has begun.
    if _State.depth == 0 and not _State.raised:
        check()


def _asking_again(hook: Callable[[Any], Any]) -> Callable[[Any], None]:
    """`hook`, which Python tells of what it must drop: raised in a destructor, by a weak reference
    or while garbage is collected. An `Interrupted` is not lost there: the watcher asks once more.
    """

    def told(dropped: Any) -> None:
        if issubclass(dropped.exc_type, Interrupted):
            _State.raised = False
        else:
            hook(dropped)

    return told


def _watch(reading: int) -> None:
    """Waits for signals until the pipe is closed; ends the process where the run does not."""
    first = _next_signal(reading, None)
    if first is None:
        return
    _say("stopping: what is being done is saved first; Ctrl-C once more stops at once")
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline:
        number = _next_signal(reading, ASK_AGAIN_SECONDS)
        if number is None:
            return
        if number == signal.SIGINT:
            os._exit(128 + number)
        main = threading.main_thread().ident
        if number == 0 and main is not None and _State.depth == 0 and not _State.raised:
            signal.pthread_kill(main, signal.SIGTERM)
    _say(f"stopped after {GRACE_SECONDS:.0f} s; the same command goes on from what is saved")
    os._exit(128 + first)


def _next_signal(reading: int, seconds: float | None) -> int | None:
    """The number of the next signal, 0 where none came in time, None where the pipe is closed."""
    while True:
        ready, _, _ = select.select([reading], [], [], seconds)
        if not ready:
            return 0
        byte = os.read(reading, 1)
        if not byte:
            return None
        if byte[0] in SIGNALS:
            return byte[0]


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{text}\n".encode())
