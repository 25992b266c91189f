"""The health check: what it says is so, and what stands in the way is said with status 2."""

import platform
import shutil
from pathlib import Path

import pytest

from mlc_jax import doctor
from mlc_jax.files.machine import folder_size, memory
from mlc_jax.models.download import PUBLISHED


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLC_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_sound_machine_passes(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "ENOUGH_BYTES", 0)
    assert doctor.main() == 0
    said = capsys.readouterr().out
    for word in (platform.python_version(), "jax ", "device 0: cpu", "GiB of memory", str(cache)):
        assert word in said
    for published in PUBLISHED.values():
        assert published.url in said, "weights that are not there are named with their address"


def test_spoilt_weights_are_found(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cache / "weights").mkdir(parents=True)
    (cache / "weights" / PUBLISHED["vgg19"].file).write_bytes(b"not these")
    assert doctor.main() == 2
    assert "damaged or another file" in capsys.readouterr().out


def test_a_cache_that_cannot_be_one_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLC_JAX_CACHE", str(tmp_path / "file"))
    assert doctor.main() == 2
    assert "set MLC_JAX_CACHE" in capsys.readouterr().out


def test_a_full_disk_is_found(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage(cache.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    assert doctor.main() == 2
    assert "only 0.0 GiB are free" in capsys.readouterr().out


def test_memory_and_folders_are_measured(tmp_path: Path) -> None:
    total, available = memory()
    assert 2**28 < available <= total
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(bytes(5))
    (tmp_path / "b").write_bytes(bytes(7))
    assert folder_size(tmp_path) == 12
