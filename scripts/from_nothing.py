"""From an empty cache to the report of `impute`, against what a practitioner writes, in turn.

    python scripts/from_nothing.py DATA WEIGHTS --peer PYTHON [--turns 2] [--json FILE]

PYTHON is the interpreter of an environment in which `practitioner.py` runs. DATA holds `images/`
and `labels.csv`; WEIGHTS is Keras's file of MobileNetV2 without its top. Both do one pass over each
photograph and one over its mirror image. Ours also starts without a compiled program, fits a round
of self-training, judges and writes the report. They take turns, so that what else the machine does
meets both.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmark import machine

SCRIPTS = Path(__file__).resolve().parent


def ours(data: Path, weights: Path) -> float:
    """Seconds of `impute` with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mlc_jax.main"]
        command += [f"--config={SCRIPTS.parent / 'configs/impute.py'}", f"--workdir={folder}/run"]
        keys = {
            "data.images": data / "images",
            "data.labels": data / "labels.csv",
            "data.image_size": "224,224",
            "backbone.name": "mobilenet_v2",
            "backbone.weights": weights,
            "head.name": "linear",
        }
        command += [f"--config.{key}={value}" for key, value in keys.items()]
        return _seconds(command, {"MLC_JAX_CACHE": f"{folder}/cache"})


def theirs(python: str, data: Path, weights: Path) -> float:
    """Seconds of `practitioner.py`."""
    return _seconds([python, str(SCRIPTS / "practitioner.py"), str(data), str(weights)], {})


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, env=os.environ | environment)
    return time.perf_counter() - started


def main() -> None:
    """Runs both in turn; prints the seconds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--peer", required=True, metavar="PYTHON")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    load, rows = os.getloadavg(), []
    for _ in range(given.turns):
        peer = theirs(given.peer, given.data, given.weights)
        rows.append({"ours": ours(given.data, given.weights), "practitioner": peer})
        print(rows[-1], flush=True)
    ratios = sorted(row["practitioner"] / row["ours"] for row in rows)
    print(f"{ratios[0]:.2f} to {ratios[-1]:.2f} times as fast")
    if given.json:
        record = {
            "command": f"scripts/from_nothing.py DATA WEIGHTS --peer PYTHON --turns {given.turns}",
            "machine": machine() | {"load_before": load, "load_after": os.getloadavg()},
            "rows": rows,
        }
        given.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
