"""Runs the command line as a newcomer does, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from mlc_jax.settings import cache_folder

ROOT = Path(__file__).parent.parent
# Read when the tests are collected: the tests of stages set a cache of their own later on.
CACHE = cache_folder()
WEIGHTS_FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"


def run_command(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    # One device, as a newcomer has: the tests' simulated ones are not for whole runs.
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "NPROC")}
    environment |= {"MLC_JAX_CACHE": str(CACHE), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "mlc_jax.main", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def summary_of(workdir: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((workdir / "summary.json").read_text())
    return loaded
