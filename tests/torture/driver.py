"""The command line in a process of its own, with a fault at a chosen place.

    python -m tests.torture.driver FAULT NUMBER -- ARGUMENTS [-- ARGUMENTS]

runs `mlc_jax.main` with each list of arguments in turn, and the fault strikes at the NUMBERth
occasion. `none` strikes never.
"""

import errno
import os
import pathlib
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from mlc_jax import main
from mlc_jax.data import dataset, pipeline
from mlc_jax.files.digest import digest_bytes
from mlc_jax.models import feature_store
from mlc_jax.training import checkpoint, loop


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Occasion:
    """Calls `strike` at the given occasion."""

    def __init__(self, number: int, strike: Callable[..., None]) -> None:
        self.left, self.strike = number, strike

    def __call__(self, *given: Any) -> None:
        self.left -= 1
        if self.left == 0:
            self.strike(*given)


def around(
    owner: Any, name: str, before: Callable[..., None] | None, after: Callable[..., None] | None
) -> None:
    """Puts calls before and after a function."""
    inner = getattr(owner, name)

    def outer(*given: Any, **named: Any) -> Any:
        if before:
            before(*given)
        made = inner(*given, **named)
        if after:
            after(*given)
        return made

    setattr(owner, name, outer)


def in_save(checkpoints: Any, *_: object) -> None:
    """Dies while the temporary folder of a save is there, or else at the first look after it."""

    def watch() -> None:
        folder = checkpoints._folder
        for _ in range(4000):
            if any("tmp" in path.name for path in pathlib.Path(folder).iterdir()):
                die()
            time.sleep(0.0005)
        die()

    threading.Thread(target=watch, daemon=True).start()


def stuck(*_: object) -> None:
    time.sleep(3600)


def raising(*_: object) -> None:
    raise RuntimeError("a reader of the tests raises")


class Refusal:
    """Refuses the given one of the different files that are written; full, read-only or denied."""

    def __init__(self, number: int) -> None:
        self.number, self.seen = number, set[str]()

    def __call__(self, _: pathlib.Path, target: pathlib.Path) -> None:
        # Names that are digests differ from run to run in nothing else.
        self.seen.add(re.sub(r"[0-9a-f]{8,}", "", target.name))
        if len(self.seen) == self.number:
            self.number = 0
            code = (errno.ENOSPC, errno.EROFS, errno.EACCES)[len(self.seen) % 3]
            raise OSError(code, os.strerror(code), str(target))


def tell_samples() -> None:
    """Prints a digest of each epoch's plan when it is taken."""
    inner = pipeline.PlanIterator.__next__

    def outer(self: Any) -> Any:
        plan = inner(self)
        print(f"samples {digest_bytes(b''.join(part.tobytes() for part in plan))}", flush=True)
        return plan

    pipeline.PlanIterator.__next__ = outer


def install(fault: str, number: int) -> None:
    """Puts the fault in its place."""
    save, replace = (checkpoint.Checkpoints, "save"), (pathlib.Path, "replace")
    read = (dataset.ImageSet, "__getitem__")
    places: dict[str, tuple[Any, str, Any, Any]] = {
        "before_save": (*save, die, None),
        "in_save": (*save, in_save, None),
        "after_save": (*save, None, die),
        "before_rename": (*replace, die, None),
        "after_rename": (*replace, None, die),
        "in_block": (feature_store.FeatureStore, "_add", die, None),
        "after_block": (feature_store.FeatureStore, "_add", None, die),
        "between_stages": (main, "main", die, None),
        "read_stuck": (*read, stuck, None),
        "read_raises": (*read, raising, None),
        "hash_stuck": (dataset, "digest_file", stuck, None),
        "features_stuck": (feature_store.FeatureReader, "take", stuck, None),
    }
    if fault == "processors":
        os.cpu_count = lambda: number
    elif fault == "term_in_epoch":
        around(
            loop,
            "check_steps",
            Occasion(number, lambda *_: os.kill(os.getpid(), signal.SIGTERM)),
            None,
        )
    elif fault == "tell_samples":
        tell_samples()
    elif fault == "refuse_file":
        around(*replace, Refusal(number), None)
    elif fault != "none":
        owner, name, before, after = places[fault]
        around(
            owner,
            name,
            Occasion(number, before) if before else None,
            Occasion(number, after) if after else None,
        )


def forget_flags() -> None:
    """Makes a second command of one process possible: overrides are flags, defined as they come."""
    for name in [name for name in main.FLAGS if name.startswith("config.")]:
        delattr(main.FLAGS, name)
    main.FLAGS.unparse_flags()


def run(arguments: list[str]) -> int:
    # Blocks of a few images only, so that there are several.
    feature_store.BLOCK_BYTES = 30 * 2 * 1280 * 2
    fault, number, _, *rest = arguments
    install(fault, int(number))
    status = 0
    while rest and status == 0:
        end = rest.index("--") if "--" in rest else len(rest)
        own, rest = rest[:end], rest[end + 1 :]
        sys.argv = ["mlc_jax.main", *own]
        forget_flags()
        print("begins", flush=True)
        status = main.main(sys.argv)
    return status


if __name__ == "__main__":
    exit_status = run(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_status)
