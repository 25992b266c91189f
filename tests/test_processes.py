"""Several processes make the run that one makes, and go on with each other's checkpoints."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from mlc_jax.data.demo import draw_demo
from tests.torture.runs import completed, finish, refused, start, tiny
from tests.torture.together import completed_together, finish_together, start_together

pytestmark = pytest.mark.slow


def figures(workdir: Path) -> list[float]:
    """The metrics of each label, and what is measured on the whole."""
    summary = json.loads((workdir / "summary.json").read_text())
    return [
        record["metrics"][name]
        for record in summary["labels"].values()
        for name in ("roc_auc", "log_loss", "brier")
    ]


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
@pytest.mark.parametrize("job", ["impute", "multilabel"])
def test_two_and_four_processes_agree_with_one(tmp_path: Path, job: str, parallel: str) -> None:
    data = draw_demo(tmp_path / "set", rows=90).labels.parent
    more = f"--config.parallel={parallel}"
    completed(tmp_path / "cache", tiny(data, job, tmp_path / "1", more))
    for count in (2, 4):
        command = tiny(data, job, tmp_path / str(count), more)
        completed_together(tmp_path / f"cache{count}", command, count)
        np.testing.assert_allclose(
            figures(tmp_path / str(count)), figures(tmp_path / "1"), atol=0.005
        )


@pytest.mark.parametrize("job", ["impute", "multilabel"])
@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_checkpoint_is_gone_on_with_by_another_count(
    tmp_path: Path, job: str, first: int, then: int
) -> None:
    data = draw_demo(tmp_path / "set", rows=90).labels.parent
    cache = tmp_path / "cache"
    completed(cache, tiny(data, job, tmp_path / "whole"))
    command = tiny(data, job, tmp_path / "run")
    if first == 1:
        assert finish(start(cache, command, "after_save", 2))[0] == -signal.SIGKILL
        completed_together(cache, command, then)
    else:
        began = start_together(cache, command, first, {0: ("after_save", 2)})
        assert all(status != 0 for status, _, _ in finish_together(began))
        completed(cache, command)
    np.testing.assert_allclose(figures(tmp_path / "run"), figures(tmp_path / "whole"), atol=0.005)


def test_a_signal_to_one_process_stops_all_behind_a_checkpoint(tmp_path: Path) -> None:
    data = draw_demo(tmp_path / "set", rows=90).labels.parent
    command = tiny(data, "impute", tmp_path / "run")
    began = start_together(tmp_path / "cache", command, 2, {1: ("term_in_epoch", 3)})
    assert [status for status, _, _ in finish_together(began)] == [143, 143]
    assert (tmp_path / "run" / "checkpoints" / "round_0" / "3").is_dir()


def test_an_error_of_one_ends_all_and_other_jobs_are_refused(tmp_path: Path) -> None:
    data = draw_demo(tmp_path / "set", rows=90).labels.parent
    command = [*tiny(data, "impute", tmp_path / "run"), "--config.folds=1000"]
    ends = finish_together(start_together(tmp_path / "cache", command, 2))
    assert [status for status, _, _ in ends] == [2, 2], [err for _, _, err in ends]
    line = refused(tmp_path / "cache", ["--config=configs/compare.py", "--distributed"])
    assert "--distributed is for impute and multilabel" in line
