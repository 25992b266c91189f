"""Locks that keep two runs out of one folder, and die with the process that holds them."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from mlc_jax.errors import WorkdirError

# What a file system answers that has no locks of one kind, or none at all (NFS, Lustre).
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}


@contextlib.contextmanager
def exclusive(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds the lock file `path` for the length of the block.

    Args:
      path: the lock file; made when missing.
      wait: whether to wait while another process holds it.

    The kernel lets go of the lock when the process ends, however it ends, so no stale lock is left.

    Raises:
      WorkdirError: the file cannot be made or written; its file system has no locks; or another
        process holds it and `wait` is false, and the message names its number.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise WorkdirError(
            f"{path}: {error.strerror}; choose a folder that can be written"
        ) from error
    try:
        _lock(descriptor, path, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def shared(path: Path) -> Iterator[None]:
    """Keeps holders of `exclusive` out for the length of the block, while others read as well.

    Where the lock file is not there, or not to be opened, nobody can write, and nothing is locked.

    Raises:
      WorkdirError: a process holds it by `exclusive`; the message names its number.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        _lock(descriptor, path, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, how: int) -> None:
    """Locks an open file by flock, or by POSIX locks where its file system has no flock."""
    try:
        try:
            fcntl.flock(descriptor, how)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            fcntl.lockf(descriptor, how)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise WorkdirError(
                f"{path.parent} is in use by process {holder}; wait for it, or choose another "
                "--workdir"
            ) from None
        if error.errno in _NO_LOCKS:
            raise WorkdirError(
                f"{path}: its file system has no locks, so nothing would keep two runs apart; "
                "choose a --workdir and an MLC_JAX_CACHE on another"
            ) from None
        raise
