"""What a process settles before its first computation: memory and compiled programs are kept.

Neither changes a result. Call it before jax is imported: some of it is read there.
"""

import ctypes
import os
import platform
from pathlib import Path

from mlc_jax.files.digest import digest_bytes

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def prepare(cache: Path) -> None:
    """Settles both for this process; what the user has set in the environment stays."""
    keep_freed_memory()
    keep_compiled_programs(cache)


def keep_freed_memory() -> None:
    """Tells the C library to keep what is freed for the next call instead of giving it back.

    A pass of a backbone takes and frees hundreds of megabytes. Given back, every page of them is
    mapped and zeroed anew at the next pass: a fifth of the time of VGG19 at 450x350 on a virtual
    machine. Does nothing where the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_THRESHOLD, 2**30)
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    # Arenas of other threads cannot hold blocks of that size, and would map them after all.
    libc.mallopt(_ARENA_MAX, 1)


def keep_compiled_programs(cache: Path) -> None:
    """Has jax keep compiled programs under `cache`, one folder for each kind of processor.

    A program compiled for one processor may not run on another that shares the cache.
    """
    folder = cache / "compiled" / digest_bytes(_processor().encode())[:16]
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


def _processor() -> str:
    """The processor's name and abilities; of the machine's kind where Linux does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    told = ("model name", "flags", "Features")
    return "\n".join(sorted({line for line in lines if line.startswith(told)}))
