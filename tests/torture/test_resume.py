"""Runs that go on in a changed world: refused where the result would differ, equal elsewhere."""

import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlc_jax.data.demo import draw_demo
from mlc_jax.models.backbones import load_backbone
from mlc_jax.models.weights import write_weights
from tests.torture.conftest import Table, full_round
from tests.torture.runs import as_anybody, completed, finish, outcome, refused, start, tiny

IMPUTE = ("impute",)


def killed(cache: Path, command: list[str], fault: str = "after_save", number: int = 2) -> None:
    assert finish(start(cache, command, fault, number))[0] == -signal.SIGKILL


def weights(path: Path, seed: int) -> None:
    backbone = load_backbone("mobilenet_v2", "random", seed=seed, fold=False)
    write_weights(path, "mobilenet_v2", backbone.params, backbone.preprocess)


def another_cell(data: Path) -> None:
    text = (data / "labels.csv").read_text()
    lines = text.splitlines()
    row = lines.index(next(line for line in lines if line.startswith("image_5.jpg")))
    name, *cells = lines[row].split(",")
    cells[0] = "0" if cells[0] == "1" else "1"
    lines[row] = ",".join([name, *cells])
    (data / "labels.csv").write_text("\n".join(lines) + "\n")


def another_image(data: Path) -> None:
    shutil.copy(data / "images" / "image_6.jpg", data / "images" / "image_7.jpg")


# What is changed, and what the refusal must say of it.
CHANGES: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    "labels": (another_cell, [], "'image_5.jpg' has labels"),
    "image": (another_image, [], "'image_7.jpg' is another image"),
    "weights": (lambda data: weights(data / "weights.safetensors", 1), [], "weights: "),
    "config": (lambda _: None, ["--config.seed=1"], "config.seed: 0 there, 1 here"),
}


@full_round
def test_t9_changed_between_kill_and_resume(table: Table, tmp_path: Path) -> None:
    draw_demo(tmp_path / "set", rows=90)
    weights(tmp_path / "set" / "weights.safetensors", 0)
    cache = tmp_path / "cache"

    def command(data: Path, folder: Path) -> list[str]:
        own = f"--config.backbone.weights={data / 'weights.safetensors'}"
        return tiny(data, "impute", folder / "impute", own)

    killed(cache, command(tmp_path / "set", tmp_path / "killed"))
    completed(cache, command(tmp_path / "set", tmp_path / "undisturbed"))
    with table.row("T9") as row:
        for name, (change, more, said) in CHANGES.items():
            data = shutil.copytree(tmp_path / "set", tmp_path / f"set-{name}")
            folder = shutil.copytree(tmp_path / "killed", tmp_path / name)
            change(data)
            with row.trial(f"{name} is refused"):
                line = refused(cache, [*command(data, folder), *more])
                assert said in line, line
                assert "--config.accept_changes=true" in line
            with row.trial(f"{name} put back goes on"):
                again = shutil.copytree(folder, tmp_path / f"{name}-again")
                completed(cache, command(tmp_path / "set", again))
                assert outcome(again, IMPUTE) == outcome(tmp_path / "undisturbed", IMPUTE)
            with row.trial(f"{name} accepted is a fresh run, and recorded"):
                completed(cache, [*command(data, folder), *more, "--config.accept_changes=true"])
                fresh = tmp_path / f"{name}-fresh"
                completed(cache, [*command(data, fresh), *more])
                assert outcome(folder, IMPUTE) == outcome(fresh, IMPUTE)
                summary = json.loads((folder / "impute" / "summary.json").read_text())
                assert any(said in warning for warning in summary["warnings"])
                assert said in (folder / "impute" / "changes.json").read_text()
                assert (folder / "impute" / "superseded-1" / "checkpoints").is_dir()


def metrics(folder: Path) -> list[float]:
    summary = json.loads((folder / "impute" / "summary.json").read_text())
    return [
        record["metrics"][name]
        for record in summary["labels"].values()
        for name in ("roc_auc", "log_loss", "brier")
    ]


def samples(told: str) -> list[str]:
    """The digest of each epoch's plan: which rows, in which views, in which order."""
    return [line for line in told.splitlines() if line.startswith("samples ")]


@full_round
def test_t10_other_counts_of_workers_and_devices(table: Table, tmp_path: Path) -> None:
    data = draw_demo(tmp_path / "set", rows=90).labels.parent
    told = completed(
        tmp_path / "cache",
        tiny(data, "impute", tmp_path / "whole" / "impute"),
        fault="tell_samples",
    )
    wanted, order = outcome(tmp_path / "whole", IMPUTE), samples(told)
    assert len(set(order)) > 6, "plans of several epochs"
    with table.row("T10") as row:
        for workers in (1, 3, 7):
            folder = tmp_path / f"workers{workers}"
            command = tiny(data, "impute", folder / "impute")
            with row.trial(f"{workers} workers"):
                killed(folder / "cache", command, "after_block", 1)
                completed(folder / "cache", command, fault="processors", number=workers)
                assert outcome(folder, IMPUTE) == wanted
        for devices in (1, 2, 4):
            for parallel in ("jit", "pmap"):
                folder = tmp_path / f"{devices} {parallel}"
                command = tiny(data, "impute", folder / "impute", f"--config.parallel={parallel}")
                with row.trial(f"{devices} devices under {parallel}"):
                    killed(folder / "cache", command)
                    flag = f"--xla_force_host_platform_device_count={devices}"
                    told = completed(
                        folder / "cache",
                        command,
                        fault="tell_samples",
                        environment={"XLA_FLAGS": flag, "NPROC": "16"},
                    )
                    own = samples(told)
                    assert 0 < len(own) < len(order)
                    assert own == order[-len(own) :]
                    np.testing.assert_allclose(
                        metrics(folder), metrics(tmp_path / "whole"), atol=0.005
                    )


@full_round
def test_t14_another_environment_gives_the_same_digests(table: Table, tmp_path: Path) -> None:
    data = draw_demo(tmp_path / "set", rows=90).labels.parent
    completed(tmp_path / "cache", tiny(data, "impute", tmp_path / "whole" / "impute"))
    wanted = outcome(tmp_path / "whole", IMPUTE)
    home = tmp_path / "home"
    home.mkdir(mode=0o555)
    turkish = {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "LOCPATH": str(tmp_path / "tr")}
    (tmp_path / "tr").mkdir()
    # The C library falls back to C in silence where a locale is not there, so it is made.
    make = ["localedef", "-i", "tr_TR", "-f", "UTF-8", str(tmp_path / "tr" / "tr_TR.UTF-8")]
    subprocess.run(make, check=True)
    settings: dict[str, dict[str, Any]] = {
        "hash seed 0": {"environment": {"PYTHONHASHSEED": "0"}},
        "hash seed 4242": {"environment": {"PYTHONHASHSEED": "4242"}},
        "locale C": {"environment": {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0"}},
        "locale tr_TR": {"environment": turkish},
        "time zone": {"environment": {"TZ": "Pacific/Kiritimati"}},
        "umask 077": {"umask": 0o077},
        "umask 000": {"umask": 0},
        "read-only home": {"environment": {"HOME": str(home)}, "prefix": as_anybody()},
    }
    with table.row("T14") as row:
        for name, given in settings.items():
            folder = tmp_path / name
            with row.trial(name):
                completed(folder / "cache", tiny(data, "impute", folder / "impute"), **given)
                assert outcome(folder, IMPUTE) == wanted
        with row.trial("a path with a space and an umlaut"):
            folder = tmp_path / "mein schöner Läufer"
            shutil.copytree(data, folder / "Bilder ü")
            command = tiny(folder / "Bilder ü", "impute", folder / "impute")
            completed(folder / "cache ö", command)
            assert outcome(folder, IMPUTE) == wanted
    assert not list(home.iterdir())
