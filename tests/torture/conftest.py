"""The torture tests: `python -m pytest -n 0 -m torture` runs them all and prints one table.

MLC_JAX_TORTURE is the share of the full counts that is tried, 1 unless said. Below 1 the round is
short, for CI: what needs many whole runs is left out, and the table says so.
"""

import contextlib
import os
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SHARE = float(os.environ.get("MLC_JAX_TORTURE", "1"))
ROWS = {
    "T1": "kill −9 at any point; the same command until done",
    "T2": "only the parent killed, then the group",
    "T3": "SIGTERM, SIGINT, SIGINT twice",
    "T4": "disk full, read-only, no permission",
    "T5": "bits flipped, files cut and deleted: checkpoints, features, prepared images",
    "T6": "half a step, a stale temporary folder, a newer version's folder",
    "T7": "a reader that is stuck, or raises",
    "T8": "1 % and 5 % bad images of each kind",
    "T9": "labels, an image, weights or config changed between kill and resume",
    "T10": "resumed with other worker and device counts",
    "T11": "gradient, metric or rate that is not finite",
    "T12": "ten times the data in the same memory",
    "T13": "two runs in one workdir; a stale lock",
    "T14": "hash seed, locale, time zone, umask, read-only HOME, odd path",
    "T15": "two processes, one killed",
    "T16": "fuzzed labels files, images, overrides",
    "T17": "malicious weights",
}


@dataclass
class Row:
    """One line of the table.

    Attributes:
      number: T1 to T17.
      trials: how many were made.
      failures: what each failed one said.
    """

    number: str
    trials: int = 0
    failures: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def trial(self, name: str) -> Iterator[None]:
        """One trial: a failure is counted and said at the end, and the others go on."""
        self.trials += 1
        try:
            yield
        except (Exception, pytest.fail.Exception):
            self.failures.append(f"{self.number}, {name}: {traceback.format_exc()}")


class Table:
    """All lines; a session has one."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    @contextlib.contextmanager
    def row(self, number: str) -> Iterator[Row]:
        """Collects trials; at the end fails if one of them did, or none was made."""
        row = self.rows.setdefault(number, Row(number))
        before = len(row.failures)
        made = row.trials
        try:
            yield row
        except Exception:
            row.failures.append(f"{number}: {traceback.format_exc()}")
            raise
        assert row.trials > made, "nothing was tried"
        assert len(row.failures) == before, "\n\n".join(row.failures[before:])


def count(full: int) -> int:
    """How many trials this round makes of a test whose full count is given."""
    return max(1, round(full * SHARE))


TABLE = pytest.StashKey[Table]()
full_round = pytest.mark.skipif(SHARE < 1, reason="in the full round only: many whole runs")


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> Table:
    return request.config.stash.setdefault(TABLE, Table())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.torture)
            item.add_marker(pytest.mark.timeout(3600))  # a row makes many whole runs


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if TABLE not in config.stash:
        return
    rows = config.stash[TABLE].rows
    terminalreporter.section(f"torture, {SHARE:.2%} of the full counts")
    lines = ["| # | test | trials | failures |", "|---|---|---|---|"]
    for number, what in ROWS.items():
        row = rows.get(number)
        told = f"{row.trials:,} | {len(row.failures)}" if row else "not in this round | –"
        lines.append(f"| {number} | {what} | {told} |")
    terminalreporter.write_line("\n".join(lines))
