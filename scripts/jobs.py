"""Running jobs from the scripts that measure them."""

import subprocess
import sys
from pathlib import Path


def run_job(job: str, workdir: Path, keys: dict[str, str]) -> None:
    """Runs a job of the command line in a process of its own.

    Args:
      job: such as impute.
      workdir: where it writes.
      keys: of the configuration.

    Raises:
      CalledProcessError: it failed; its messages are on stderr.
    """
    configs = Path(__file__).resolve().parents[1] / "configs"
    command = [sys.executable, "-m", "mlc_jax.main", f"--config={configs / job}.py"]
    command += [f"--workdir={workdir}", *(f"--config.{key}={value}" for key, value in keys.items())]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def backbone_keys(weights: list[str], image_size: int, scales: str) -> dict[str, str]:
    """Keys of linear heads on one backbone, or on several side by side.

    Args:
      weights: NAME=FILE each.
      image_size: pixels.
      scales: of `features.scales`, joined by commas.
    """
    named = [pair.split("=", 1) for pair in weights]
    listed = ",".join(str(float(scale)) for scale in scales.split(","))
    return {
        "data.image_size": f"{image_size},{image_size}",
        "backbone.name": ",".join(name for name, _ in named),
        "backbone.weights": ",".join(file for _, file in named),
        "head.name": "linear",
        "features.scales": f"({listed},)",
    }
