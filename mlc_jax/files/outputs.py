"""The files of a job that may be run again in the same directory: its own, and nobody else's."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from mlc_jax.errors import WorkdirError
from mlc_jax.files.atomic import write_json


def clear(workdir: Path, stage: str, outputs: Sequence[str]) -> None:
    """Makes room for a job that overwrites its own output, and for nothing else.

    Args:
      workdir: owned by this process. Its summary.json marks it as the job's from now on.
      stage: of the job.
      outputs: names of the files and folders that the job will write, summary.json aside.

    Raises:
      WorkdirError: another job's run, or files of those names that the job did not write, lie
        there; or they cannot be removed.
    """
    holder = _stage_of(workdir / "summary.json")
    found = [name for name in ("run.json", *outputs) if (workdir / name).exists()]
    if holder not in (None, stage):
        raise WorkdirError(f"{workdir} holds a run of stage {holder!r}; choose another --workdir")
    if "run.json" in found or (found and holder is None):
        raise WorkdirError(f"{workdir} holds {found[0]}; choose another --workdir")
    write_json(workdir / "summary.json", {"stage": stage, "finished": False})
    for name in outputs:
        path = workdir / name
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise WorkdirError(f"{path}: {error.strerror}; remove it") from error


def _stage_of(summary: Path) -> str | None:
    """The stage that a summary.json names; None where there is no such file."""
    if not summary.exists():
        return None
    try:
        return str(json.loads(summary.read_text())["stage"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkdirError(f"{summary} is damaged; choose another --workdir") from error
