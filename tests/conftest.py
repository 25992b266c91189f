"""Settings that every test runs under."""

import atexit
import os
import shutil
import tempfile

import pytest
from hypothesis import settings

# The same examples every time, so that a run fails for what it changed. To look for others:
# python -m pytest --hypothesis-profile=default tests/data
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

# Simulated devices for the parallel tests. NPROC: without it, eight of them on two cores stall in
# the all-reduce rendezvous. Both are read when jax is imported, so they must be set here.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("NPROC", "16")
os.environ.setdefault("KERAS_BACKEND", "jax")

# Many tests compile what another compiled before, in this process or beside it: they share a folder
# as runs do (`mlc_jax.runtime`). Whoever makes it is there before its workers, and after them.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compiled = tempfile.mkdtemp(prefix="mlc-jax-tests-")
    atexit.register(shutil.rmtree, compiled, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

# Whole runs, which take minutes. First, so that no process is left with one when the rest is done.
LONGEST = ("test_photographs.py", "test_readme.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first; the order within a file stays."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
