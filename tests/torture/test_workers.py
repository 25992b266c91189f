"""Readers that hang or fail: the run ends within a minute with one line, and goes on as before."""

import time
from pathlib import Path

from mlc_jax.data.demo import draw_demo
from tests.torture.conftest import Table, full_round
from tests.torture.runs import completed, finish, outcome, start, tiny


@full_round
def test_t7_a_reader_that_is_stuck_or_raises(table: Table, tmp_path: Path) -> None:
    """Readers are threads of the process: one cannot be killed without it, which is T1."""
    data = draw_demo(tmp_path / "set", rows=90).labels.parent
    streamed = ("--config.features.memory=1e-9",)
    wanted = {}
    for more in ((), streamed):
        folder = tmp_path / f"whole{len(more)}"
        completed(tmp_path / "cache", tiny(data, "impute", folder / "impute", *more))
        wanted[more] = outcome(folder, ("impute",))
    with table.row("T7") as row:
        for fault, number, more in (
            ("hash_stuck", 40, ()),
            ("read_stuck", 40, ()),
            ("read_raises", 40, ()),
            ("features_stuck", 5, streamed),
        ):
            folder = tmp_path / fault
            command = tiny(data, "impute", folder / "impute", *more)
            with row.trial(fault):
                began = time.monotonic()
                status, _, err = finish(start(folder / "cache", command, fault, number), 120)
                assert time.monotonic() - began < 60 + 30, "a minute, and the time to get there"
                assert status in (1, 2), err[-2000:]
                if fault != "read_raises":
                    assert status == 2
                    assert "nothing was read for 45 s" in err
                    assert "Traceback" not in err
                else:
                    assert "a reader of the tests raises" in err
                completed(folder / "cache", command)
                assert outcome(folder, ("impute",)) == wanted[more]
