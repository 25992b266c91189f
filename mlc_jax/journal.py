"""What a run says: its phases with a bar, a rate and the time left, its notes and its warnings.

On a terminal a phase is a live bar; elsewhere it is plain lines. Warnings are kept as well, for the
report and for summary.json, and so are the seconds and rates of the phases.
"""

import contextlib
import io
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_EVERY_SECONDS = 10.0


class _Screen:
    """Standard output that may be lost, to a closed pipe or a full disk, without ending the run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._lost = stream, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._unless_lost(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._unless_lost(self._stream.flush)

    def _unless_lost(self, act: Callable[[], object]) -> None:
        if self._lost:
            return
        try:
            act()
        except OSError as error:
            self._lost = True
            with contextlib.suppress(OSError, ValueError, AttributeError):
                sys.stderr.write(
                    f"standard output: {error.strerror}; the run goes on, and its summary.json "
                    "will hold what it found\n"
                )
                sys.stderr.flush()


class Journal:
    """Collects and prints what a run says.

    Attributes:
      warnings: in the order they were given.
      notes: what was dropped, guessed or chosen, in order.
      seconds: wall time of each phase.
      rates: units per second of each phase, with the unit's name.
      first: seconds from the start of the run to the end of each phase's first unit, compiling and
        waiting for data included.
      waits: seconds for which computing stood still for want of something, within the phases.
    """

    def __init__(self) -> None:
        stream = sys.stdout or io.StringIO()  # None where it was closed before Python began
        if isinstance(stream, io.TextIOWrapper):
            # A locale without our letters must not stop a run for the sake of an ellipsis.
            stream.reconfigure(errors="backslashreplace")
        # A pipe has no width of its own; 120 columns keep the tables whole.
        width = None if stream.isatty() else 120
        screen = cast(TextIO, _Screen(stream))
        self.console = Console(file=screen, highlight=False, width=width)
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self._started = time.perf_counter()
        self.seconds: dict[str, float] = {}
        self.rates: dict[str, dict[str, float | str]] = {}
        self.first: dict[str, float] = {}
        self.waits: dict[str, float] = {}

    def note(self, text: str) -> None:
        """Says something worth knowing."""
        self.notes.append(text)
        self.line(text)

    def warn(self, text: str) -> None:
        """Says something that must not be overlooked. The same warning is given once."""
        if text not in self.warnings:
            self.warnings.append(text)
            self.line(f"WARNING: {text}", style="bold yellow")

    def line(self, text: str, style: str | None = None) -> None:
        """Prints one line as it is, however long."""
        self.console.print(text, style=style, markup=False, soft_wrap=True)

    def wait(self, what: str, seconds: float) -> None:
        """Adds to the time for which computing stood still for want of something."""
        self.waits[what] = self.waits.get(what, 0.0) + seconds

    @contextlib.contextmanager
    def phase(self, name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """Times a phase of the run and shows how far it is.

        Args:
          name: shown, and the key in `seconds` and `rates`.
          total: number of units; 0 where it is not known.
          unit: what is counted, in the plural.

        Yields:
          A function that is told how many units were done since the last call.
        """
        started = time.perf_counter()
        done = 0
        bar = self._bar() if self.console.is_terminal else None
        task = bar.add_task(name, total=total or None, rate="") if bar else None
        spoken = started
        if bar:
            bar.start()
        else:
            self.line(f"{name} …")

        def advance(count: int) -> None:
            nonlocal done, spoken
            done += count
            now = time.perf_counter()
            self.first.setdefault(name, now - self._started)
            rate = done / max(now - started, 1e-9)
            if bar is not None and task is not None:
                bar.update(task, completed=done, rate=f"{rate:.1f} {unit}/s")
            elif now - spoken > PLAIN_EVERY_SECONDS:
                spoken = now
                left = f", {(total - done) / rate:.0f} s left" if total else ""
                self.line(f"{name}: {done}/{total or '?'} {unit}, {rate:.1f} {unit}/s{left}")

        try:
            yield advance
        finally:
            if bar:
                bar.stop()
            seconds = time.perf_counter() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
            told = ""
            if done:
                self.rates[name] = {"unit": unit, "per_second": done / seconds}
                told = f", {done} {unit}, {done / seconds:.1f} {unit}/s"
            self.line(f"{name}: {seconds:.1f} s{told}")

    def _bar(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
