"""What a process keeps: memory, compiled programs; and that neither changes what it computes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlc_jax import runtime

PROGRAM = """
import sys
from pathlib import Path
from mlc_jax.runtime import prepare
prepare(Path(sys.argv[1]))
assert "jax" not in sys.modules
import jax, numpy as np
def chain(x):
    for _ in range(12):
        x = jax.lax.map(lambda row: jax.numpy.tanh(row @ row), x)
    return x
seen = []
jax.monitoring.register_event_listener(lambda event, **_: seen.append(event))
made = jax.jit(chain)(np.random.default_rng(0).standard_normal((4, 32, 32), np.float32))
print(seen.count("/jax/compilation_cache/cache_hits"), np.asarray(made).tobytes().hex())
"""


def hits_and_result(cache: Path) -> tuple[int, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(cache)],
        env=clean | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    hits, result = done.stdout.split()
    return int(hits), result


def test_a_compiled_program_is_kept_and_gives_the_same_bits(tmp_path: Path) -> None:
    first_hits, first = hits_and_result(tmp_path)
    assert list((tmp_path / "compiled").rglob("*-cache"))
    again_hits, again = hits_and_result(tmp_path)
    assert (first_hits, again_hits > 0) == (0, True)
    assert again == first


def test_what_the_user_has_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    runtime.keep_compiled_programs(tmp_path)
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "elsewhere"


def test_another_processor_has_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = set()
    for processor in ("one", "two", "one"):
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        monkeypatch.setattr(runtime, "_processor", lambda name=processor: name)
        runtime.keep_compiled_programs(tmp_path)
        folders.add(os.environ["JAX_COMPILATION_CACHE_DIR"])
    assert len(folders) == 2
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is not glibc")
def test_freed_memory_is_kept_for_the_next_call() -> None:
    """Page faults of a second array as large as one that was freed."""
    program = (
        "import resource, numpy as np\n"
        "from mlc_jax.runtime import keep_freed_memory\n"
        "keep_freed_memory()\n"
        "np.ones(20_000_000)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "np.ones(20_000_000)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 1000, "160 MB are 40,000 pages"
