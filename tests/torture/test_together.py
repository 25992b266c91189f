"""T15: two processes make one run, and one of them is killed."""

import signal
import time
from pathlib import Path

from mlc_jax.data.demo import draw_demo
from tests.torture.conftest import Table, full_round
from tests.torture.runs import outcome, tiny
from tests.torture.together import completed_together, finish_together, start_together

IMPUTE = ("impute",)


@full_round
def test_t15_one_of_two_processes_is_killed(table: Table, tmp_path: Path) -> None:
    data = draw_demo(tmp_path / "set", rows=90).labels.parent
    completed_together(
        tmp_path / "cache", tiny(data, "impute", tmp_path / "whole" / "impute"), count=2
    )
    wanted = outcome(tmp_path / "whole", IMPUTE)
    places = [("after_save", 2), ("before_save", 4), ("in_block", 1), ("after_block", 1)]
    with table.row("T15") as row:
        for victim in (0, 1):
            for fault, number in places:
                folder = tmp_path / f"{victim} {fault}"
                command = tiny(data, "impute", folder / "impute")
                with row.trial(f"process {victim}, {fault} {number}"):
                    began = start_together(folder / "cache", command, 2, {victim: (fault, number)})
                    killed = finish_together([began[victim]])[0]
                    at = time.monotonic()
                    other = finish_together([began[1 - victim]], 90)[0]
                    assert time.monotonic() - at < 60
                    assert killed[0] == -signal.SIGKILL, killed[2][-2000:]
                    assert other[0] != 0
                    # What is left says how it goes on, and says it last.
                    for _, _, said in (killed, other):
                        last = said.splitlines()[-1]
                        assert last.startswith("error: ")
                        assert "start all of them again" in last
                    completed_together(folder / "cache", command, 2)
                    assert outcome(folder, IMPUTE) == wanted
