"""What the command line says to mistakes: one line and status 2, never a traceback."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlc_jax import main

ROOT = Path(__file__).parents[1]
IMPUTE = "--config=configs/impute.py"


def command(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlc_jax.main", *arguments],
        cwd=ROOT,
        env={**os.environ, "MLC_JAX_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def refused(cache: Path, *arguments: str) -> str:
    """The one line that a refused command says."""
    done = command(cache, *arguments)
    assert done.returncode == 2, (done.stdout, done.stderr)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--config=configs/JOB.py"),
        (["--config"], "--config"),
        (["--config=configs/nothing.py"], "configs/nothing.py"),
        ([IMPUTE, "--confg.epochs=3"], "confg"),
        ([IMPUTE, "--config.epoch=3"], "did you mean --config.epochs?"),
        ([IMPUTE, "--config.lerning_rate=3"], ".learning_rate?"),
        ([IMPUTE, "--config.data.xyzzy=3"], "--config.data.xyzzy: there is no such key"),
        ([IMPUTE, "--config.head=linear"], "--config.head is a group; give one of its keys: head."),
        (["--config=configs/predict.py", "--dry_run"], "--dry_run is for impute and multilabel"),
        ([IMPUTE, "--config.epochs=many"], "--config.epochs=many"),
        ([IMPUTE, "--config.stage=dance"], "config.stage='dance'"),
        ([IMPUTE, "epochs=3"], "'epochs=3' is not a flag"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistyped_command_is_one_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    assert said in refused(tmp_path, *arguments)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def get_config(:\n", "SyntaxError"),
        ("import nothing_of_that_name\n", "nothing_of_that_name"),
        ("x = 1\n", "get_config"),
        ("def get_config():\n    return 3\n", "'int'"),
    ],
)
def test_a_configuration_file_that_fails_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    assert said in refused(tmp_path, f"--config={tmp_path / 'mine.py'}")


def test_what_the_run_itself_refuses_is_one_line(tmp_path: Path) -> None:
    """Values, data and places, each by the job."""
    workdir = f"--workdir={tmp_path / 'run'}"
    line = refused(tmp_path, IMPUTE, workdir, "--config.folds=2")
    assert "config.folds=2" in line
    data = f"--config.data.labels={tmp_path / 'no.csv'}", f"--config.data.images={tmp_path}"
    assert str(tmp_path / "no.csv") in refused(tmp_path, IMPUTE, workdir, *data)
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refused(tmp_path, IMPUTE, f"--workdir={tmp_path / 'file'}")
    assert str(tmp_path / "file") in refused(tmp_path / "file", IMPUTE, workdir)


def test_a_folder_without_the_images_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels.csv").write_text("filename,a\n1.jpg,0\n2.jpg,1\n")
    line = refused(
        tmp_path / "cache",
        IMPUTE,
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.labels={tmp_path / 'labels.csv'}",
        f"--config.data.images={tmp_path / 'images'}",
    )
    assert "2 of 2 rows cannot be used" in line
    assert "1.jpg (absent)" in line


def test_a_traceback_on_request(tmp_path: Path) -> None:
    done = command(tmp_path, IMPUTE, "--config.folds=2", "--verbosity=1")
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "config.folds=2" in done.stderr


def test_help_is_quick_and_lists_the_keys(tmp_path: Path) -> None:
    seconds = []
    for words in (["--help"], ["-h"], [IMPUTE, "--help"]):
        started = time.monotonic()
        done = command(tmp_path, *words)
        seconds.append(time.monotonic() - started)
        assert done.returncode == 0, done.stderr
        assert "--workdir" in done.stdout
    for key in ("learning_rate", "image_size", "max_bad_fraction", "threshold"):
        assert key in done.stdout
    # All three, since the machine may be busy; none imports JAX, which takes as long by itself.
    assert min(seconds) < 2
    assert sum(seconds) < 10
    assert not list(tmp_path.iterdir())


def test_what_the_machine_refuses_is_one_line_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(error: OSError) -> str:
        def run(argv: object) -> None:
            del argv
            raise error

        monkeypatch.setattr(main, "_run", run)
        assert main.main(["main"]) == 2
        return capsys.readouterr().err

    file = str(tmp_path / "labels.csv")
    line = refuse(OSError(errno.ENOSPC, "full", file))
    assert line == f"error: {file}: No space left on device; {main._REFUSALS[errno.ENOSPC]}\n"
    assert "can be written" in refuse(PermissionError(errno.EACCES, "no", file))
    assert "10 requested and 4 written; free space" in refuse(OSError("10 requested and 4 written"))
    # What no machine refuses is a defect of ours.
    with pytest.raises(OSError, match="bad descriptor"):
        refuse(OSError(errno.EBADF, "bad descriptor"))


@pytest.mark.parametrize(
    ("arguments", "key", "expected"),
    [
        (["--config.data.true_values=yes,ja"], "data.true_values", ("yes", "ja")),
        (["--config.data.true_values=1.00"], "data.true_values", ("1.00",)),
        (["--config.data.true_values", "yes,ja"], "data.true_values", ("yes", "ja")),
        (["--config.data.missing_values=-1"], "data.missing_values", ("-1",)),
        (['--config.data.true_values="1,0",yes'], "data.true_values", ("1,0", "yes")),
        (["--config.data.false_values="], "data.false_values", ("",)),
        (["--config.data.false_values=('a','b')"], "data.false_values", ("a", "b")),
        (["--config.explain.labels=sea,sky"], "explain.labels", ("sea", "sky")),
        (["--config.explain.labels="], "explain.labels", ()),
        (["--config.explain.methods=lime,occlusion"], "explain.methods", ("lime", "occlusion")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_lists_of_words_are_read_as_they_are_written(
    arguments: list[str], key: str, expected: tuple[str, ...]
) -> None:
    """As configs/KEYS.md shows them; in a process of its own, since flags are parsed once."""
    job = "explain" if key.startswith("explain") else "impute"
    program = (
        "import sys; from mlc_jax import main; config = main._parse(sys.argv)\n"
        f"print(repr(tuple(config.{key})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, f"--config=configs/{job}.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == repr(expected)
