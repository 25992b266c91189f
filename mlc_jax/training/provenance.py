"""Where a result comes from: the inputs that decide it, and how the run that made it went."""

import importlib.metadata
import platform
import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import ml_collections
from ml_collections import ConfigDict

from mlc_jax import __version__
from mlc_jax.data.collection import Collection
from mlc_jax.files.digest import digest_json
from mlc_jax.files.runs import run_paths
from mlc_jax.files.workdir import Row
from mlc_jax.journal import Journal
from mlc_jax.models.backbones import Backbone
from mlc_jax.settings import is_demo

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets")

PATHS = (
    ("data", "labels"),
    ("data", "images"),
    ("data", "groups"),
    ("data", "split"),
    ("backbone", "weights"),
    ("features", "file"),
)
"""Keys that say where something lies; what lies there is among the inputs by its digest."""


def run_inputs(config: ConfigDict, collection: Collection, backbone: Backbone) -> dict[str, Any]:
    """What decides the result of a run: contents, not the paths they lie under."""
    return {
        "config": without_paths(config),
        "labels": collection.table.digest(),
        "images": collection.images.digest(),
        "weights": backbone.digest,
    } | {
        key: given.digest()
        for key, given in (("groups", collection.groups), ("split", collection.split))
        if given is not None
    }


def row_inputs(collection: Collection) -> list[Row]:
    """What decides each row, so that a change between two runs can be named."""
    table = collection.table
    return [
        (name, digest[:16], ",".join("" if value < 0 else str(value) for value in values))
        for name, digest, values in zip(
            table.filenames, collection.images.digests, table.values.tolist(), strict=True
        )
    ]


def without_paths(config: ConfigDict) -> dict[str, Any]:
    """A configuration as JSON, without the paths of what it was run on."""
    keys = plain(config)
    for group, key in PATHS:
        del keys[group][key]
    for key in ("accept_changes", "dry_run"):
        keys.pop(key, None)
    keys["data"].pop("follow_links", None)  # contents count, wherever they lie
    return keys


def plain(config: ConfigDict) -> dict[str, Any]:
    """A configuration as JSON."""

    def as_json(value: Any) -> Any:
        if isinstance(value, ml_collections.ConfigDict):
            return {key: as_json(item) for key, item in value.items()}
        return [as_json(item) for item in value] if isinstance(value, tuple | list) else value

    result: dict[str, Any] = as_json(config)
    return result


def describe_run(
    config: ConfigDict,
    workdir: Path,
    collection: Collection,
    backbone: Backbone,
    journal: Journal,
) -> dict[str, Any]:
    """The part of summary.json that all stages share which learn from labels."""
    table = collection.table
    inputs = run_inputs(config, collection, backbone)
    height, width = collection.images.image_size
    return {
        "finished": True,
        "stage": config.stage,
        "data": {
            "demo": is_demo(config),
            "labels_file": str(collection.labels_file.absolute()),
            "image_folder": str(collection.image_folder.absolute()),
            "rows": len(table.filenames) + len(collection.quarantine),
            "usable": len(table.filenames),
            "left_out": len(collection.quarantine),
            "observed": int(table.human.sum()),
            "blank": int((~table.known).sum()),
            "image_size": [height, width],
            "conflicts": [asdict(conflict) for conflict in collection.conflicts],
        },
        "receipt": collection.receipt.as_json(),
        "digests": {
            "data": digest_json([inputs["labels"], inputs["images"]]),
            "weights": inputs["weights"],
            "config": digest_json(inputs["config"]),
            "image_files": collection.images.files_digest,
        },
        "paths": run_paths(workdir, {key: config[group][key] for group, key in PATHS}),
    } | describe_circumstances(config, backbone, (height, width), journal)


def describe_circumstances(
    config: ConfigDict, backbone: Backbone, image_size: tuple[int, int], journal: Journal
) -> dict[str, Any]:
    """How a run went: its backbone, what it said, its seconds, its machine, its command."""
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # None on a CPU, whose arrays lie in the machine's memory.
    device_peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {
        "backbone": {
            "name": backbone.name,
            "origin": backbone.origin,
            "random": backbone.random,
            "digest": backbone.digest,
            "feature_shape": list(backbone.feature_shape(image_size)),
        },
        "warnings": journal.warnings,
        "notes": journal.notes,
        "seconds": journal.seconds,
        "rates": journal.rates,
        "seconds_to_first": journal.first,
        "seconds_waited": journal.waits,
        "peak_memory_mb": round(peak_kib / 1024),
        "peak_device_memory_mb": device_peak and round(device_peak / 2**20),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}, {platform.machine()}",
        "versions": {"mlc_jax": __version__, "python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        "config": plain(config),
        "command": _command(config.stage),
    }


def _command(stage: str) -> str:
    """The command that began this process, or the function of ours that a program called."""
    called = {"impute": "impute", "multilabel": "fit"}.get(stage)
    if Path(sys.argv[0]).name == "main.py" or called is None:
        return f"python -m mlc_jax.main {' '.join(sys.argv[1:])}"
    return f"mlc_jax.{called}(images, labels, workdir, …)  # the keys are in run.json"
