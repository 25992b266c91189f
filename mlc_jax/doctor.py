"""The health check: `python -m mlc_jax.doctor` says what this machine has for a run.

Versions, devices, memory, disk, the cache, and whether the weights of each backbone are there.
Exit status 0 where a run could begin, 2 where something stands in its way, which is said.
"""

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

import jax

from mlc_jax import __version__
from mlc_jax.errors import ConfigError
from mlc_jax.files.machine import folder_size, memory
from mlc_jax.journal import Journal
from mlc_jax.models.backbones import NETWORKS
from mlc_jax.models.download import cache_state, cached_path
from mlc_jax.models.hub_files import HUB_FILES
from mlc_jax.models.published import PUBLISHED
from mlc_jax.runtime import device_problem, flush_streams, open_streams
from mlc_jax.settings import cache_folder
from mlc_jax.training.provenance import PACKAGES

GIB = 2**30
ENOUGH_BYTES = 2 * GIB


def examine(journal: Journal) -> list[str]:
    """Says what there is; returns what stands in the way of a run."""
    problems: list[str] = []
    journal.line(
        f"mlc_jax {__version__}, Python {platform.python_version()}, {platform.platform()}"
    )
    journal.line(", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES))
    if problem := device_problem():
        problems.append(problem)
    else:
        for device in jax.devices():
            journal.line(
                f"device {device.id}: {device.platform}, {device.device_kind}{_held(device)}"
            )
    total, available = memory()
    journal.line(
        f"{os.cpu_count()} processors, {total / GIB:.1f} GiB of memory, "
        f"{available / GIB:.1f} GiB free"
    )
    if available < ENOUGH_BYTES:
        problems.append(f"only {available / GIB:.1f} GiB of memory are free; close something")
    try:
        problems += _cache(cache_folder(), journal) + _weights(journal)
    except ConfigError as error:
        problems.append(str(error))
    return problems


def _held(device: jax.Device) -> str:
    """The memory of an accelerator; a CPU's is the machine's."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    return f", {stats['bytes_limit'] / GIB:.1f} GiB" if stats and "bytes_limit" in stats else ""


def _cache(cache: Path, journal: Journal) -> list[str]:
    """The cache: whether it can be written, what it holds, what room is left."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache):
            pass
        free = shutil.disk_usage(cache).free
        parts = [
            f"{name} {folder_size(cache / name) / GIB:.2f} GiB"
            for name in ("weights", "datasets", "features", "demo")
            if (cache / name).is_dir()
        ]
    except OSError as error:
        return [f"the cache {cache} cannot be used ({error.strerror}); set MLC_JAX_CACHE"]
    journal.line(f"cache {cache}: {', '.join(parts) or 'empty'}; {free / GIB:.1f} GiB free there")
    if free < ENOUGH_BYTES:
        return [f"only {free / GIB:.1f} GiB are free at {cache}; set MLC_JAX_CACHE"]
    return []


def _weights(journal: Journal) -> list[str]:
    """Whether ImageNet weights are there, and whole. Without them only own files or random do."""
    problems = []
    for name in NETWORKS:
        published, path = PUBLISHED.get(name) or HUB_FILES[name], cached_path(name)
        state = cache_state(name)
        if state == "absent":
            journal.line(f"weights of {name}: not there; {published.url} belongs at {path}")
        elif state == "damaged":
            problems.append(f"weights of {name}: damaged or another file; delete {path}")
        else:
            unknown = ", of which no digest is published" if published.digest is None else ""
            journal.line(f"weights of {name}: there{unknown}")
    return problems


def main() -> int:
    """Runs the check; returns the exit status."""
    open_streams()
    journal = Journal()
    problems = examine(journal)
    for problem in problems:
        journal.warn(problem)
    if not problems:
        journal.line("nothing stands in the way of a run")
    return 2 if problems else 0


if __name__ == "__main__":
    status = main()
    flush_streams()
    sys.exit(status)
