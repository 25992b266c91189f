"""Finished runs: the one way to open one, which checks its records before a job relies on them."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mlc_jax.errors import CheckpointError
from mlc_jax.files.digest import digest_json

PATHS = ("labels", "images", "groups", "split", "weights", "file")
SHOWN = 5
SCANNED = 1000  # entries of one folder that are looked at for other runs

_NAMES = ("", "imagenet", "random")  # what stands for no file

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class Run:
    """The records of a finished run.

    Attributes:
      workdir: where it lies now.
      job: that made it.
      key: how the user named it, for messages.
      inputs: run.json, which the checkpoints vouch for: configuration and digests.
      labels, images, weights: digests of what it was made from, of `inputs`.
      summary: summary.json.
      demo: whether its data are the embedded demo's.
      labels_source, image_folder: of its data, as absolute paths (of label files perhaps several,
        with commas between them); where the run was moved and they are no longer there, the place
        that lies to the run as they did.
      groups, split: config.data.groups and config.data.split, with paths likewise.
      features_file: config.features.file, with paths likewise; empty where images were read.
      weights_source: config.backbone.weights, with paths likewise.
      random: whether weights of its backbone were random.
    """

    workdir: Path
    job: str
    key: str
    inputs: dict[str, Any]
    labels: str
    images: str
    weights: str
    summary: dict[str, Any]
    demo: bool
    labels_source: str
    image_folder: Path
    groups: str
    split: str
    features_file: str
    weights_source: str
    random: bool

    @property
    def digest(self) -> str:
        """Of the inputs, which decide every figure and every cell."""
        return digest_json(self.inputs)

    @property
    def named(self) -> str:
        """The run as messages name it."""
        return f"{self.key}={str(self.workdir)!r}"


def run_paths(workdir: Path, paths: Mapping[str, str]) -> dict[str, str]:
    """The record of a run's paths in summary.json: absolute, with where the run lay.

    Args:
      workdir: of the run.
      paths: the values of `PATHS`. Labels and images are empty for the embedded demo; groups and
        split may be columns; of labels and weights there may be several, joined by commas, and
        weights may be names.
    """

    def absolute(name: str, part: str) -> str:
        is_name = name in ("groups", "split") and not Path(part).is_file()
        return part if is_name or part in _NAMES else str(Path(part).absolute())

    return {"workdir": str(workdir.absolute())} | {
        name: ",".join(absolute(name, part.strip()) for part in _parts(name, value))
        for name, value in paths.items()
    }


def _parts(name: str, value: str) -> list[str]:
    several = name == "weights" or (name == "labels" and not Path(value).exists())
    return value.split(",") if several else [value]


def read_record(file: Path, named: str, jobs: Sequence[str]) -> dict[str, Any]:
    """A JSON object of a finished run.

    Raises:
      CheckpointError: it is missing or damaged; the message lists the finished runs nearby.
    """
    if not file.is_file():
        raise _no_run(f"{named} holds no {file.name}", file.parent, jobs)
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _no_run(f"{named} has a damaged {file.name}", file.parent, jobs) from error
    if not isinstance(value, dict):
        raise _no_run(f"{named} has a damaged {file.name}", file.parent, jobs)
    return value


def open_run(
    workdir: Path, jobs: Sequence[str] = ("multilabel",), key: str = "config.checkpoint"
) -> Run:
    """Reads the records of a finished run.

    Args:
      workdir: of the run.
      jobs: that may have made it.
      key: of the configuration that names it, for messages.

    Raises:
      CheckpointError: there is no finished run of one of the jobs, or its records are damaged. The
        message lists the finished runs nearby.
    """
    named = f"{key}={str(workdir)!r}"
    summary = read_record(workdir / "summary.json", named, jobs)
    job = _item(summary, named, "summary.json", "stage", str)
    if job not in jobs:
        raise _no_run(f"{named} holds a run of stage {job!r}", workdir, jobs)
    if summary.get("finished") is not True:
        raise _no_run(f"{named} is not finished", workdir, jobs)
    inputs = read_record(workdir / "run.json", named, jobs)

    def of_summary(path: str, kind: type[Value]) -> Value:
        return _item(summary, named, "summary.json", path, kind)

    of_summary("labels", dict)
    for group in ("config", "config.data", "config.backbone"):
        _item(inputs, named, "run.json", group, dict)
    demo = of_summary("data.demo", bool)
    stored = dict.fromkeys(PATHS, "")
    then = workdir
    if "paths" in summary:
        then = Path(of_summary("paths.workdir", str))
        # A run of an earlier version lacks the file of own features.
        there = summary["paths"]
        stored |= {name: of_summary(f"paths.{name}", str) for name in PATHS if name in there}
    else:  # of an earlier version, which kept them as they were typed
        for name in ("labels", "images"):
            stored[name] = of_summary(f"config.data.{name}", str)
        stored["weights"] = of_summary("config.backbone.weights", str)
    # The embedded demo's own files lie in the cache.
    labels = stored["labels"] or of_summary("data.labels_file", str)
    images = stored["images"] or of_summary("data.image_folder", str)
    return Run(
        workdir=workdir,
        job=job,
        key=key,
        inputs=inputs,
        labels=_item(inputs, named, "run.json", "labels", str),
        images=_item(inputs, named, "run.json", "images", str),
        weights=_item(inputs, named, "run.json", "weights", str),
        summary=summary,
        demo=demo,
        labels_source=_found_names(labels, then, workdir),
        image_folder=_found(images, then, workdir),
        groups=_found_names(stored["groups"], then, workdir),
        split=_found_names(stored["split"], then, workdir),
        features_file=_found_names(stored["file"], then, workdir),
        weights_source=_found_names(stored["weights"], then, workdir),
        random=of_summary("backbone.random", bool),
    )


def finished_runs(near: Path, jobs: Sequence[str]) -> Iterator[Path]:
    """Finished runs of some jobs in a folder and beside it."""
    around = near.absolute()
    while not around.is_dir() and around != around.parent:
        around = around.parent
    folders = [around, *_folders(around), *_folders(around.parent)]
    once = {folder.resolve(): folder for folder in reversed(folders)}
    return (folder for folder in reversed(once.values()) if _is_finished(folder, jobs))


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            some = [entry for entry, _ in zip(entries, range(SCANNED), strict=False)]
            return sorted(folder / entry.name for entry in some if entry.is_dir())
    except OSError:
        return []


def _is_finished(folder: Path, jobs: Sequence[str]) -> bool:
    try:
        summary = json.loads((folder / "summary.json").read_text())
        return summary["finished"] is True and summary["stage"] in jobs
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _no_run(what: str, workdir: Path, jobs: Sequence[str]) -> CheckpointError:
    made_by = " or ".join(f"configs/{job}.py" for job in jobs)
    here = Path.cwd()
    found = [
        str(path.relative_to(here) if path.is_relative_to(here) else path)
        for path in finished_runs(workdir, jobs)
    ]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    nearby = f"; nearby: {', '.join(found[:SHOWN])}{more}" if found else ""
    return CheckpointError(f"{what}; give the workdir of a finished run of {made_by}{nearby}")


def _item(record: dict[str, Any], named: str, file: str, path: str, kind: type[Value]) -> Value:
    value: Any = record
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if not isinstance(value, kind):
        raise CheckpointError(
            f"{named}: {file} is damaged, as it holds no {path} that is a {kind.__name__}; put the "
            "former one back, or run again into another --workdir"
        )
    return value


def _found_names(value: str, then: Path, now: Path) -> str:
    """Names, of weights or columns, as they are; absolute paths among them as `_found` finds them.

    A single path may hold a comma, so it is looked for as a whole first.
    """
    if Path(value).is_absolute() and (whole := _found(value, then, now)).exists():
        return str(whole)
    parts = (part.strip() for part in value.split(","))
    return ",".join(
        str(_found(part, then, now)) if Path(part).is_absolute() else part for part in parts
    )


def _found(path: str, then: Path, now: Path) -> Path:
    """A path of a run that lay in `then` and lies in `now`."""
    stored = Path(path)
    if stored.exists() or not stored.is_absolute():
        return stored.absolute()
    moved = Path(os.path.normpath(now.absolute() / os.path.relpath(stored, then)))
    return moved if moved.exists() else stored
