"""Several processes that make one run, on this machine."""

import contextlib
import socket
import subprocess
from pathlib import Path

from tests.torture.runs import finish, start


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def start_together(
    cache: Path, command: list[str], count: int, faults: dict[int, tuple[str, int]] | None = None
) -> list[subprocess.Popen[str]]:
    """Starts `count` processes of one run; `faults` strike in those whose numbers are named."""
    address = f"127.0.0.1:{free_port()}"
    started = []
    for index in range(count):
        fault, number = (faults or {}).get(index, ("none", 0))
        settings = {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": str(count),
            "JAX_PROCESS_ID": str(index),
        }
        started.append(
            start(cache, [*command, "--distributed"], fault, number, environment=settings)
        )
    return started


def finish_together(
    processes: list[subprocess.Popen[str]], seconds: float = 300
) -> list[tuple[int, str, str]]:
    """Waits for all of them; what is left when the time is over is killed."""
    with contextlib.ExitStack() as stack:
        for process in processes:
            stack.callback(process.kill)
        return [finish(process, seconds) for process in processes]


def completed_together(cache: Path, command: list[str], count: int) -> None:
    ends = finish_together(start_together(cache, command, count))
    assert [status for status, _, _ in ends] == [0] * count, [err[-2000:] for _, _, err in ends]
