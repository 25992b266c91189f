"""Machines as they are: odd paths, lost streams, no home, no such device: a line, or it works."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs.impute import get_config
from mlc_jax import doctor, main, runtime
from mlc_jax.errors import ConfigError
from mlc_jax.journal import Journal
from mlc_jax.settings import cache_folder, local_path, with_local_paths

ROOT = Path(__file__).parents[1]
IMPUTE = "--config=configs/impute.py"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of bash in which $MLC is the command."""
    clean = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "NPROC")}
    return subprocess.run(
        ["bash", "-c", line],
        cwd=ROOT,
        env=clean | {"MLC": f"{sys.executable} -m mlc_jax.main", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_tilde_is_the_home_folder_in_every_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = get_config()
    config.data.labels, config.data.images = "~/labels.csv", "~"
    config.backbone.weights = "random,~/w.h5"
    config.backbone.layer = "a~b"
    config.data.names = ("~/names.txt",)
    made = with_local_paths(config)
    assert made.data.labels == f"{tmp_path}/labels.csv"
    assert made.data.images == str(tmp_path)
    assert made.backbone.weights == f"random,{tmp_path}/w.h5"
    assert made.backbone.layer == "a~b"
    assert made.data.names == (f"{tmp_path}/names.txt",)
    assert config.data.labels == "~/labels.csv"
    monkeypatch.setenv("MLC_JAX_CACHE", "~/cache")
    assert cache_folder() == tmp_path / "cache"
    (tmp_path / "labels.csv").write_text("filename,a\n1.jpg,0\n2.jpg,1\n")
    data = "'--config.data.labels=~/labels.csv' '--config.data.images=~'"
    done = shell(f"$MLC {IMPUTE} '--workdir=~/run' {data}", HOME=str(tmp_path))
    assert "2 of 2 rows cannot be used" in done.stderr
    assert (tmp_path / "run" / ".lock").exists()
    assert not (ROOT / "~").exists()


@pytest.mark.parametrize("scheme", ["gs", "s3", "hdfs", "https", "file"])
def test_a_place_in_the_network_is_refused_by_name(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"{scheme}://bucket/run"
    with pytest.raises(ConfigError, match=f"--workdir={place}: .*mount {scheme}://"):
        local_path(place, "--workdir")
    config = get_config()
    config.data.images = place
    with pytest.raises(ConfigError, match=r"config\.data\.images="):
        with_local_paths(config)
    monkeypatch.setenv("MLC_JAX_CACHE", place)
    with pytest.raises(ConfigError, match=f"MLC_JAX_CACHE={place}"):
        cache_folder()


def test_a_workdir_in_the_network_is_refused_at_the_start(tmp_path: Path) -> None:
    done = shell(f"$MLC {IMPUTE} --workdir=gs://bucket/run", MLC_JAX_CACHE=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --workdir=gs://bucket/run: ")
    assert not (ROOT / "gs:").exists()


def test_no_home_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLC_JAX_CACHE", raising=False)

    def homeless(self: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(ConfigError, match=r"MLC_JAX_CACHE=~/\.cache/mlc_jax: no home folder"):
        cache_folder()
    assert doctor.main() == 2
    assert "no home folder is known" in capsys.readouterr().out
    assert main.main(["main", str(IMPUTE)]) == 2


def test_a_device_that_is_not_there_is_a_line(tmp_path: Path) -> None:
    for platform in ("cuda", "nothing"):
        environment = {"JAX_PLATFORMS": platform, "MLC_JAX_CACHE": str(tmp_path)}
        done = shell(f"$MLC {IMPUTE} --workdir={tmp_path}/run", **environment)
        assert done.returncode == 2, done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert platform in line
        assert "Traceback" not in done.stderr
    done = shell(f"{sys.executable} -m mlc_jax.doctor", **environment)
    assert done.returncode == 2
    assert "no device answers" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_run_computes_in_32_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    runtime.prepare(tmp_path)
    assert os.environ["JAX_ENABLE_X64"] == "0"
    assert "JAX_ENABLE_X64 is ignored" in capsys.readouterr().err


def test_streams_that_are_closed_or_full_end_nothing(tmp_path: Path) -> None:
    """`--help` prints much and needs no jax; status and the other stream are as ever."""
    helping = f"$MLC {IMPUTE} --help"
    for line in (f"{helping} >&-", f"{helping} 2>&-", f"{helping} >&- 2>&-", f"{helping} <&-"):
        done = shell(line)
        assert (done.returncode, done.stderr) == (0, ""), line
    wrong = shell("$MLC 2>&-")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    for line in (f"{helping} | true", f"{helping} > /dev/full"):
        done = shell(f"set -o pipefail; {line}")
        assert done.returncode == 0, (line, done.stderr)
        assert "Traceback" not in done.stderr


def test_a_screen_that_is_lost_is_said_once_and_the_run_goes_on() -> None:
    program = (
        "from mlc_jax.journal import Journal\n"
        "journal = Journal()\n"
        "for _ in range(5000): journal.note('something to read')\n"
        "with journal.phase('work', 1, 'steps') as advance: advance(1)\n"
        "assert len(journal.notes) == 5000 and 'work' in journal.seconds\n"
        "from mlc_jax.runtime import flush_streams\n"
        "flush_streams()\n"
    )
    for target in ("| head -1", "> /dev/full"):
        done = shell(f'set -o pipefail; {sys.executable} -c "{program}" {target}')
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("the run goes on") == 1
        assert len(done.stderr.splitlines()) == 1


def test_a_journal_without_a_screen_collects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    journal = Journal()
    journal.warn("heard")
    assert journal.warnings == ["heard"]
