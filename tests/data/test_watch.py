"""Laws of waiting for readers: what comes is handed on in order, what does not come is an error."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlc_jax.data import watch
from mlc_jax.data.watch import result_of, watched
from mlc_jax.errors import PipelineError


def test_items_come_in_order_and_errors_where_they_were() -> None:
    assert list(watched(iter(range(50)), "numbers")) == list(range(50))

    def failing() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    items = watched(failing(), "numbers")
    assert next(items) == 1
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_what_does_not_come_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "STALL_SECONDS", 0.2)
    release = threading.Event()

    def stuck() -> Iterator[int]:
        yield 1
        release.wait(20)

    items = watched(stuck(), "the disk of the tests")
    assert next(items) == 1
    started = time.monotonic()
    with pytest.raises(PipelineError, match="the disk of the tests: nothing was read"):
        next(items)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(release.wait, 20)
        with pytest.raises(PipelineError, match="file x: nothing was read"):
            result_of(future, "file x")
        release.set()
    assert time.monotonic() - started < 10


def test_a_consumer_that_stops_lets_the_reader_go() -> None:
    before = threading.active_count()
    items = watched(iter(range(10**9)), "numbers")
    next(items)
    items.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
