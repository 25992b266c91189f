"""Readers that are waited for, but not for ever: a hung disk ends the run instead of holding it."""

import contextlib
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from mlc_jax.errors import PipelineError

Item = TypeVar("Item")

STALL_SECONDS = 45.0


def result_of(future: Future[Item], what: str) -> Item:
    """The result of a reader's thread.

    Raises:
      PipelineError: nothing came for STALL_SECONDS; `what` says of what.
    """
    try:
        return future.result(timeout=STALL_SECONDS)
    except TimeoutError:
        if future.done():  # a time-out of the reader's own
            raise
        raise _stalled(what) from None


def watched(items: Iterator[Item], what: str) -> Iterator[Item]:
    """Hands on what an iterator gives, one item ahead, in order.

    Raises:
      PipelineError: nothing came for STALL_SECONDS; `what` says of what.
    """
    end = object()
    waiting: queue.Queue[Any] = queue.Queue(1)
    over = threading.Event()

    def hand(item: object) -> None:
        while not over.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=0.2)
                break

    def read() -> None:
        try:
            for item in items:
                hand(item)
                if over.is_set():
                    return
            hand(end)
        except BaseException as error:  # raised where it is waited for
            hand(error)

    threading.Thread(target=read, daemon=True).start()
    try:
        while True:
            try:
                item = waiting.get(timeout=STALL_SECONDS)
            except queue.Empty:
                raise _stalled(what) from None
            if item is end:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        over.set()


def _stalled(what: str) -> PipelineError:
    return PipelineError(
        f"{what}: nothing was read for {STALL_SECONDS:.0f} s; is its disk or network there? The "
        "same command goes on from what is saved"
    )
