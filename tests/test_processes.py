"""Several processes make the run that one makes, and go on with each other's checkpoints."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from mlc_jax.data.demo import draw_demo
from mlc_jax.training.parallel import Devices
from tests.torture.runs import ROOT, completed, environment, finish, refused, start, tiny
from tests.torture.together import (
    completed_together,
    finish_together,
    free_port,
    start_together,
)
from tests.training.test_logistic import fitted
from tests.training.test_step import assert_trees_close, one_step

pytestmark = pytest.mark.slow


def figures(workdir: Path) -> list[float]:
    """The metrics of each label, and what is measured on the whole."""
    summary = json.loads((workdir / "summary.json").read_text())
    return [
        record["metrics"][name]
        for record in summary["labels"].values()
        for name in ("roc_auc", "log_loss", "brier")
    ]


@pytest.mark.parametrize(
    ("parallel", "loss"), [("jit", "focal"), ("pmap", "focal"), ("jit", "bce")]
)
@pytest.mark.parametrize("job", ["impute", "multilabel"])
def test_two_and_four_processes_agree_with_one(
    tmp_path: Path, job: str, parallel: str, loss: str
) -> None:
    """Heads that are trained step by step, and such as are solved."""
    data = draw_demo(tmp_path / "set", rows=90).labels.parent
    more = f"--config.parallel={parallel}", f"--config.loss.name={loss}"
    completed(tmp_path / "cache", tiny(data, job, tmp_path / "1", *more))
    for count in (2, 4):
        command = tiny(data, job, tmp_path / str(count), *more)
        completed_together(tmp_path / f"cache{count}", command, count)
        np.testing.assert_allclose(
            figures(tmp_path / str(count)), figures(tmp_path / "1"), atol=0.005
        )


STEP = """
import os, sys
from pathlib import Path
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={sys.argv[1]}"
from mlc_jax import processes
processes.join(Path(sys.argv[2]))
import jax
import numpy as np
from mlc_jax.training.parallel import Devices
from tests.training.test_logistic import fitted
from tests.training.test_step import one_step
for kind in ("jit", "pmap"):
    leaves = jax.tree.leaves(one_step("linear", Devices(kind), 2))
    np.savez(Path(sys.argv[2]) / f"{kind}_{processes.index()}.npz", *leaves)
heads, logits = fitted(Devices("jit"), columns=4)
np.savez(Path(sys.argv[2]) / f"heads_{processes.index()}.npz", *heads, logits)
processes.finish()
"""


@pytest.mark.parametrize(("count", "devices"), [(2, 1), (4, 1), (2, 4)])
def test_sums_gradients_and_solved_heads_are_those_of_one_process(
    tmp_path: Path, count: int, devices: int
) -> None:
    """Four heads: with four devices in each process they are cut by heads, else by places."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-c", STEP, str(devices), str(tmp_path)]
    started = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(
                tmp_path,
                NPROC="16",
                JAX_COORDINATOR_ADDRESS=address,
                JAX_NUM_PROCESSES=str(count),
                JAX_PROCESS_ID=str(index),
            ),
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]
    ends = [process.communicate(timeout=200)[1] for process in started]
    assert all(process.returncode == 0 for process in started), ends
    one = one_step("linear", Devices("jit", jax.local_devices()[:1]), 2)
    for kind in ("jit", "pmap"):
        for index in range(count):
            found = np.load(tmp_path / f"{kind}_{index}.npz")
            assert_trees_close(list(found.values()), jax.tree.leaves(one), 1e-5)
    heads, logits = fitted(Devices("jit", jax.local_devices()[:1]), columns=4)
    for index in range(count):
        *found_heads, found_logits = np.load(tmp_path / f"heads_{index}.npz").values()
        for before, after in zip(heads, found_heads, strict=True):
            np.testing.assert_allclose(after, before, atol=1e-5)
        np.testing.assert_allclose(found_logits, logits, atol=2e-4)


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
