"""What a process settles before its first computation, so that it runs on any machine alike.

Memory and compiled programs are kept, numbers have 32 bits, and what is printed may get lost. None
of it changes a result. Call `prepare` before jax is imported: some of it is read there.
"""

import contextlib
import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import TextIO

from mlc_jax.errors import ConfigError
from mlc_jax.files.digest import digest_bytes

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def prepare(cache: Path) -> None:
    """Settles memory, programs and precision for this process.

    What the user has set in the environment stays, but for JAX_ENABLE_X64: states, features and
    programs of a run are of 32 bits, and would not fit those of 64.
    """
    keep_freed_memory()
    keep_compiled_programs(cache)
    if os.environ.get("JAX_ENABLE_X64", "").lower() in ("1", "true", "yes", "on", "t", "y"):
        say("JAX_ENABLE_X64 is ignored: a run computes in 32 bits")
        os.environ["JAX_ENABLE_X64"] = "0"


def check_devices() -> None:
    """Raises ConfigError where jax has no device to compute on."""
    if problem := device_problem():
        raise ConfigError(problem)


def device_problem() -> str | None:
    """Why jax has no device to compute on, with the remedy; None where it has one."""
    import jax

    try:
        jax.devices()
    except Exception as error:  # an AssertionError without text where a plugin is not installed
        wanted = os.environ.get("JAX_PLATFORMS", "")
        reason = (str(error).splitlines() or [f"JAX_PLATFORMS={wanted}"])[0]
        return (
            f"no device answers ({reason}); set JAX_PLATFORMS=cpu, or install the jax of your "
            "accelerator"
        )
    return None


def open_streams() -> None:
    """Puts /dev/null in the place of standard streams that were closed before the process began.

    Else the next file that is opened would get the number of one, and what is printed.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def say(text: str, stream: TextIO | None = None) -> None:
    """Prints a text to standard error, or another stream, if anyone is there to read it."""
    stream = stream or sys.stderr
    with contextlib.suppress(OSError, ValueError):
        stream.write(f"{text}\n")
        stream.flush()


def flush_streams() -> None:
    """Flushes what was printed; where nobody reads it, it is dropped without an error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            drop_stream(stream.fileno())


def drop_stream(number: int) -> None:
    """Sends what is printed from now on to /dev/null, what lies in Python's buffer included."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


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
