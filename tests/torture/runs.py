"""What the torture tests share: tiny runs in processes of their own, and what must be equal."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlc_jax.files.digest import digest_bytes

ROOT = Path(__file__).parents[2]
IMPUTE_FILES = ("labels.csv", "cells.csv", "metrics.jsonl", "thresholds.json", "quarantine.csv")
MULTILABEL_FILES = ("scores.csv", "metrics.jsonl", "thresholds.json", "split.json")


def tiny(data: Path, job: str, workdir: Path, *more: str) -> list[str]:
    """The command of a job on a drawn set, with every network as small as it gets."""
    source = [f"--config.source={workdir.parent / 'impute'}"] if job == "multilabel" else []
    return [
        f"--config=configs/{job}.py",
        f"--workdir={workdir}",
        *source,
        f"--config.data.labels={data / 'labels.csv'}",
        f"--config.data.images={data / 'images'}",
        "--config.data.image_size=32,32",
        "--config.backbone.name=mobilenet_v2",
        "--config.backbone.weights=random",
        "--config.features.views=1",
        "--config.head.name=linear",
        # Trained step by step: many epochs and checkpoints to be killed at. Heads that are solved
        # have one checkpoint a round; test_strengths.py stops them between strengths.
        "--config.loss.name=focal",
        "--config.impute.rounds=1" if job == "impute" else "--config.loss.gamma=2.0",
        "--config.epochs=6",
        "--config.save_every=2",
        "--config.folds=3",
        "--config.batch_size=16",
        *more,
    ]


def both(data: Path, folder: Path, *more: str) -> list[str]:
    """The commands of impute and then multilabel, as the driver takes them."""
    return [
        *tiny(data, "impute", folder / "impute", *more),
        "--",
        *tiny(data, "multilabel", folder / "multilabel", *more),
    ]


def environment(cache: Path, **more: str) -> dict[str, str]:
    # One device unless a test says otherwise; pytest's own settings are not the runs'.
    kept = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "NPROC")}
    return {
        **kept,
        "MLC_JAX_CACHE": str(cache),
        # What was compiled once, by the undisturbed run, is not compiled again for every trial.
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".torture-compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(ROOT),
        **more,
    }


def start(
    cache: Path, arguments: list[str], fault: str = "none", number: int = 0, **more: Any
) -> subprocess.Popen[str]:
    """Starts the driver, in a session of its own."""
    settings = more.pop("environment", {})
    driver = [sys.executable, "-m", "tests.torture.driver", fault, str(number), "--"]
    return subprocess.Popen(
        [*more.pop("prefix", []), *driver, *arguments],
        cwd=more.pop("cwd", ROOT),
        env=environment(cache, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **more,
    )


def finish(process: subprocess.Popen[str], seconds: float = 300) -> tuple[int, str, str]:
    """Waits for the driver: (exit status, stdout, stderr)."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, out, err


def completed(cache: Path, arguments: list[str], **more: Any) -> str:
    """Runs to the end without a fault; gives stdout."""
    status, out, err = finish(start(cache, arguments, **more))
    assert status == 0, err[-3000:]
    return out


def refused(cache: Path, arguments: list[str], *fault: Any, **more: Any) -> str:
    """Runs into an error: status 2, and one line, which is given."""
    status, _, err = finish(start(cache, arguments, *fault, **more))
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2, (status, err[-3000:])
    assert "Traceback" not in err, err[-3000:]
    assert len(lines) == 1, err[-3000:]
    return lines[0]


def latest_arrays(folder: Path) -> str:
    """The digest of the latest checkpoint's arrays, by the record that vouches for them."""
    found = {}
    for step in folder.glob("[0-9]*"):
        for file in (step / "meta").rglob("*"):
            text = file.read_text(errors="replace") if file.is_file() else ""
            if '"arrays' in text.replace("\\", "") and "record" in text:
                record = json.loads(json.loads(text)["record"])
                found[int(step.name)] = str(record["arrays"])
    assert found, f"no record in {folder}"
    return found[max(found)]


def outcome(folder: Path, jobs: tuple[str, ...] = ("impute", "multilabel")) -> dict[str, Any]:
    """What must not depend on how often a run was stopped."""
    result: dict[str, Any] = {}
    for job in jobs:
        files = IMPUTE_FILES if job == "impute" else MULTILABEL_FILES
        for name in files:
            result[f"{job}/{name}"] = digest_bytes((folder / job / name).read_bytes())
        kept = folder / job / "checkpoints"
        places = (
            sorted(kept.glob("round_*")) if job == "impute" else [kept, folder / job / "classifier"]
        )
        for place in places:
            result[f"{job}/{place.name}"] = latest_arrays(place)
    return result


def as_anybody() -> list[str]:
    """What makes root obey permissions: without these capabilities it is like anybody."""
    if os.getuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("permissions mean nothing to root, and setpriv is not there")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
