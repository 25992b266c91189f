"""The benchmark runs: every row of ours is there, and peers that are not installed are said so."""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[1]
OURS = {
    ("forward, VGG19", "forward_ours"),
    ("forward, VGG19", "forward_lax"),
    ("files to augmented batches", "input_ours"),
    ("4 heads, batch 32", "heads_conv"),
    ("4 heads, batch 32", "heads_linear"),
    ("20 heads, batch 32", "heads_conv"),
    ("20 heads, batch 32", "heads_linear"),
    ("whole job, run", "job"),
}
# As `benchmark.py` starts a worker; the contestant's name says how it behaves.
FAKE_WORKER = """
import json, sys
print(json.dumps({"units": 1, "result": None, "backend": "cpu"}), flush=True)
for turn, _ in enumerate(sys.stdin):
    if sys.argv[2] == "dies" and turn == 1:
        sys.exit(1)
    print(json.dumps({"wall": 0.5, "cpu": 0.25}), flush=True)
"""


def run_benchmark(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # One device, as users have.
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "NPROC")}
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "benchmark.py", *arguments],
        env=environment | {"MLC_JAX_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("benchmark")


def test_a_tiny_run_measures_ours_and_says_which_peers_are_not_installed(tmp_path: Path) -> None:
    done = run_benchmark(tmp_path / "cache", "--tiny", "--json", str(tmp_path / "tiny.json"))
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((tmp_path / "tiny.json").read_text())
    rows = {
        (row["group"], row["contestant"]): row
        for row in record["rows"]
        if "extrapolated" not in row["group"]
    }
    assert rows.keys() >= OURS
    for key in OURS:
        assert "failed" not in rows[key], rows[key]
        assert rows[key]["median"] > 0
    assert rows["whole job, run", "job"]["unit"] == "seconds"
    assert "5 folds x 4 labels = 20 conv heads" in rows["whole job, run", "job"]["note"]
    assert rows["forward, VGG19", "forward_ours"]["off_by"] < 1e-3
    peers = rows.keys() - OURS
    assert {name.split("_")[-1] for _, name in peers} > {"torch", "bfloat16", "keras jax"}
    for key in peers:
        needed = [package for package in ("keras", "torch") if package in key[1]]
        missing = [package for package in needed if importlib.util.find_spec(package) is None]
        said = f"{missing[0]} is not installed" if missing else None
        assert rows[key].get("failed") == said, rows[key]
    assert record["machine"]["commit"]
    for group, contestant in rows:
        assert f"{group:30} {contestant:30} " in done.stdout


def test_the_rows_of_a_gpu_are_refused_where_there_is_none(tmp_path: Path) -> None:
    done = run_benchmark(tmp_path / "cache", "--gpu", "--tiny")
    assert done.returncode == 2, done.stderr[-3000:]
    assert "--gpu: jax finds no GPU here" in done.stderr
    assert not done.stdout


@pytest.mark.parametrize("gpu", [False, True])
def test_one_that_dies_is_marked_and_the_others_go_on(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool
) -> None:
    (tmp_path / "worker.py").write_text(FAKE_WORKER)
    monkeypatch.setattr(benchmark, "__file__", str(tmp_path / "worker.py"))
    settings = benchmark.Settings(64, 64, 2, 2, 20, 8, 8)
    names = [("dies", ""), ("lives", "")]
    dead, alive = benchmark.race("group", "images", names, settings, turns=4, gpu=gpu)
    if gpu:
        assert dead["failed"] == alive["failed"] == "its jax ran on the CPU"
    else:
        assert dead["failed"].startswith("stopped in the middle")
        assert "median" not in dead
        assert "failed" not in alive
        assert alive["wall"] == [0.5] * 4
        assert alive["median"] == 2


def test_verdicts_are_drawn_from_the_rows(benchmark: ModuleType) -> None:
    rates = {
        ("forward, VGG19", "matmul_bfloat16"): 1000.0,
        ("forward, VGG19", "forward_bfloat16_ours"): 600.0,
        ("forward, VGG19", "forward_torch_compile_bfloat16"): 500.0,
        ("forward, VGG19", "forward_torch"): 100.0,
        ("forward, VGG19", "forward_torch_bfloat16"): 200.0,
        ("forward, VGG19", "forward_ours"): 150.0,
        ("files to augmented batches", "input_ours"): 90.0,
        ("files to augmented batches", "input_torch"): 50.0,
        ("4 heads, batch 32", "heads_conv"): 8.0,
        ("20 heads, batch 32", "heads_conv"): 10.0,
        ("20 heads, batch 32", "heads_linear"): 10.0,
        ("400 heads, batch 32", "heads_conv"): 12.5,
        ("400 heads, batch 32", "heads_linear"): 100.0,
    }
    rows = [
        {"group": group, "contestant": name, "unit": "images/s", "median": rate}
        for (group, name), rate in rates.items()
    ]
    verdicts = {row["contestant"]: row for row in benchmark.verdicts(rows)}
    # The linear heads' units grow with their number: 20 times the work at 10 times the rate.
    assert {name: row["median"] for name, row in verdicts.items()} == pytest.approx(
        {
            "ours / torch, float32": 1.5,
            "ours float32 / torch bfloat16": 0.75,
            "ours / DataLoader, Pillow": 1.8,
            "ours / matmul, bfloat16": 0.6,
            "ours / torch.compile, bfloat16": 1.2,
            "400 / 20 heads, linear": 2.0,
            "400 / 20 heads, conv, a head": 0.8,
        }
    )
    assert verdicts["400 / 20 heads, linear"]["holds"]
    assert [row["contestant"] for row in benchmark.whole_job(rows)] == ["ours"]
    assert not list(benchmark.verdicts(rows[4:7]))
