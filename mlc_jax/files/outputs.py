"""The results of a job that reads a run: its own are replaced, and nobody else's."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mlc_jax.errors import WorkdirError
from mlc_jax.files.atomic import write_json, write_text
from mlc_jax.files.runs import Run

SUMMARY = "summary.json"
WRITTEN = ".written"  # names every file of the job that lies in a folder of its outputs


class Results:
    """The results of one job on one run, in a folder of their own.

    Args:
      workdir: owned by this process.
      job: that writes them.
      run: that they are about.
      outputs: names of the files and folders that the job will write, summary.json aside.
    """

    def __init__(self, workdir: Path, job: str, run: Run, outputs: Sequence[str]) -> None:
        self._workdir, self._job, self._run = workdir, job, run
        self._outputs = tuple(outputs)

    def check(self) -> None:
        """Makes sure that nothing but earlier results of this job on this run is replaced.

        Raises:
          WorkdirError: a run, results of another job or of another run, or files that no job wrote
            lie there under the names of the outputs.
        """
        workdir = self._workdir
        found = [name for name in ("run.json", *self._outputs) if (workdir / name).exists()]
        earlier = self._earlier()
        job = earlier.get("stage")
        if job not in (None, self._job):
            raise WorkdirError(f"{workdir} holds a run of stage {job!r}; choose another --workdir")
        if "run.json" in found or (found and job is None):
            raise WorkdirError(f"{workdir} holds {found[0]}; choose another --workdir")
        if job is not None and earlier.get("run") != self._run.digest:
            raise WorkdirError(
                f"{workdir} holds the results of {job} on another run than {self._run.workdir}; "
                "choose another --workdir"
            )
        if earlier.get("finished") is True:
            # Of an unfinished job nobody can have looked at the results.
            self._refuse_foreign()

    def replace(self, say: Callable[[str], None]) -> None:
        """Removes the earlier results, and marks the folder as this job's.

        Raises:
          WorkdirError: as `check`; or they cannot be removed.
        """
        self.check()
        workdir = self._workdir
        found = [name for name in self._outputs if (workdir / name).exists()]
        if found:
            say(f"replaces the earlier {', '.join(found)} in {workdir}")
        write_json(
            workdir / SUMMARY, {"stage": self._job, "finished": False, "run": self._run.digest}
        )
        for name in (*self._outputs, WRITTEN):
            path = workdir / name
            try:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            except OSError as error:
                raise WorkdirError(f"{path}: {error.strerror}; remove it") from error

    def finish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Writes summary.json, which marks the results as finished; returns what it holds."""
        self.record()
        whole = {"finished": True, "stage": self._job, "run": self._run.digest} | summary
        write_json(self._workdir / SUMMARY, whole)
        return whole

    def record(self) -> None:
        """Notes which files the job has written into folders of its outputs."""
        files = sorted(str(file.relative_to(self._workdir)) for file in self._in_folders())
        if files:
            write_text(self._workdir / WRITTEN, "".join(f"{json.dumps(name)}\n" for name in files))

    def _earlier(self) -> dict[str, Any]:
        """The summary that lies there; empty where there is none."""
        file = self._workdir / SUMMARY
        if not file.exists():
            return {}
        try:
            earlier: dict[str, Any] = json.loads(file.read_text())
            str(earlier["stage"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WorkdirError(f"{file} is damaged; choose another --workdir") from error
        return earlier

    def _in_folders(self) -> Iterator[Path]:
        for name in self._outputs:
            folder = self._workdir / name
            if folder.is_dir() and not folder.is_symlink():
                yield from (path for path in folder.rglob("*") if not path.is_dir())

    def _refuse_foreign(self) -> None:
        try:
            lines = (self._workdir / WRITTEN).read_text().splitlines()
            written = {json.loads(line) for line in lines}
        except (OSError, ValueError):
            written = set()
        for file in self._in_folders():
            if str(file.relative_to(self._workdir)) not in written:
                raise WorkdirError(
                    f"{file} is not from an earlier {self._job}, which would be replaced with its "
                    "folder; move it, or choose another --workdir"
                )
