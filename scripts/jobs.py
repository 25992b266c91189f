"""Running jobs from the scripts that measure them."""

import argparse
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


def parser_of(description: str, image_size: int) -> argparse.ArgumentParser:
    """The arguments that scripts on a data set with known labels have in common.

    Args:
      description: of the script.
      image_size: pixels, by default.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=image_size)
    parser.add_argument("--scales", default="1.0")
    return parser


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
