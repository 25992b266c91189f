"""Opening a finished impute run: its table, and the heads that filled it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from ml_collections import ConfigDict

from mlc_jax.data.cells import read_cells, with_cells
from mlc_jax.data.collection import Collection, open_collection, without_filled
from mlc_jax.data.labels import read_labels
from mlc_jax.data.table import LabelTable
from mlc_jax.errors import CheckpointError
from mlc_jax.files.digest import digest_json
from mlc_jax.files.workdir import owned
from mlc_jax.journal import Journal
from mlc_jax.label_settings import OURS
from mlc_jax.models.backbones import Backbone
from mlc_jax.settings import cache_folder, training_config
from mlc_jax.training.completion import Completion
from mlc_jax.training.feeds import choose_backbone
from mlc_jax.training.imputation import impute_collection
from mlc_jax.training.provenance import run_inputs
from mlc_jax.training.restore import run_config


@dataclass(frozen=True, eq=False)
class ImputeRun:
    """A finished impute run, as its files tell of it.

    Attributes:
      workdir: where it lies.
      inputs, summary: its run.json and summary.json.
      table: its completed table, with sources.
      cells: its cells.csv.
      digest: of its inputs, which decide every cell.
    """

    workdir: Path
    inputs: dict[str, Any]
    summary: dict[str, Any]
    table: LabelTable
    cells: pd.DataFrame
    digest: str


@dataclass(frozen=True, eq=False)
class Restored:
    """What an impute run learned from: its configuration, its human cells, images and backbone."""

    config: ConfigDict
    collection: Collection
    backbone: Backbone


def open_impute(workdir: Path) -> ImputeRun:
    """Reads the files of a finished impute run; loads no image and no weight.

    Raises:
      CheckpointError: there is no such run.
      LabelsError: labels.csv or cells.csv is damaged, or they do not fit each other.
    """
    try:
        summary = json.loads((workdir / "summary.json").read_text())
        inputs = json.loads((workdir / "run.json").read_text())
        finished = summary["finished"] is True and summary["stage"] == "impute"
    except (OSError, ValueError, KeyError, TypeError):
        finished = False
    if not finished:
        raise CheckpointError(
            f"config.checkpoint={str(workdir)!r} holds no finished impute run; give the workdir of "
            "one"
        )
    cells = read_cells(workdir / "cells.csv")
    table = with_cells(read_labels(workdir / "labels.csv", OURS).table, cells)
    return ImputeRun(workdir, inputs, summary, table, cells, digest_json(inputs))


def restore(run: ImputeRun, journal: Journal) -> Restored:
    """Opens the images and the backbone of a run.

    The table is the run's own, not the labels file it was made from, which people go on editing.

    Raises:
      CheckpointError: images, weights or labels have changed since, or the run's configuration
        lacks a key that this version needs.
    """
    config = run_config(run.inputs, run.summary)
    lacking = lacking_key(training_config("impute"), config)
    if lacking:
        raise CheckpointError(
            f"config.checkpoint={str(run.workdir)!r} was made by another version, which had no "
            f"config.{lacking}; impute again"
        )
    config.data.labels = str(run.workdir / "labels.csv")
    config.data.images = run.summary["data"]["image_folder"]
    if run.summary["backbone"]["random"]:
        # The demo does without ImageNet's weights where they are not to be had, and stays with it.
        config.backbone.weights = "random"
    collection = without_filled(open_collection(config, cache_folder(), journal))
    backbone = choose_backbone(config, journal)
    now = run_inputs(config, collection, backbone)
    changed = [key for key in ("labels", "images", "weights") if now[key] != run.inputs[key]]
    if changed:
        raise CheckpointError(
            f"config.checkpoint={str(run.workdir)!r}: its {' and '.join(changed)} have changed "
            "since; put the former ones back, or impute again"
        )
    return Restored(config, collection, backbone)


def lacking_key(expected: ConfigDict, config: ConfigDict) -> str | None:
    """The first key of `expected` that a configuration does not have."""
    for key, value in expected.items():
        if key not in config:
            return str(key)
        if isinstance(value, ConfigDict):
            inner = lacking_key(value, config[key])
            if inner:
                return f"{key}.{inner}"
    return None


def restore_heads(run: ImputeRun, restored: Restored, journal: Journal) -> Completion:
    """The heads of a run, from its checkpoints, asked again about the folds they never saw."""
    with owned(run.workdir):
        return impute_collection(
            restored.config, run.workdir, restored.collection, restored.backbone, journal
        ).completion
