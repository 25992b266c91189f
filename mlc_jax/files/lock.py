"""A lock that keeps two runs out of one folder, and dies with the process that holds it."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from mlc_jax.errors import WorkdirError


@contextlib.contextmanager
def exclusive(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds the lock file `path` for the length of the block.

    Args:
      path: the lock file; made when missing.
      wait: whether to wait while another process holds it.

    The kernel lets go of the lock when the process ends, however it ends, so no stale lock is left.

    Raises:
      WorkdirError: the file cannot be made or written; or another process holds it and `wait` is
        false, and the message names its number.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise WorkdirError(
            f"{path}: {error.strerror}; choose a folder that can be written"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise WorkdirError(
                f"{path.parent} is in use by process {holder}; wait for it, or choose another "
                "--workdir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
