"""Opens weight files and tells what the process did meanwhile: see test_hostile_weights.py.

    python -m tests.torture.weights_opener NETWORK FILE …

prints one JSON line per file: the class of the error, and the audit events that mean harm.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

from mlc_jax.models.backbones import load_backbone

HARMFUL = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.mkdir",
    "os.remove",
    "os.fork",
    "subprocess.Popen",
    "pickle.find_class",
    "socket.connect",
    "exec",
    "compile",
    "ctypes.dlopen",
)


def run(network: str, files: list[str]) -> None:
    load_backbone(network, "random")  # so that what is imported late has been imported
    events: list[str] = []
    watching = False

    def watch(event: str, details: tuple[Any, ...]) -> None:
        outside = event == "open" and "outside" in str(details[0])
        if watching and (event in HARMFUL or outside):
            events.append(f"{event} {details!r}"[:200])

    sys.addaudithook(watch)
    for file in files:
        events.clear()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        watching = True
        try:
            load_backbone(network, Path(file))
            error = None
        except BaseException as caught:
            error = type(caught).__name__
        watching = False
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(json.dumps({"error": error, "events": events, "kib": grown}), flush=True)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2:])
