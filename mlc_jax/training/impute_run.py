"""Opening a finished impute run: its table, and the heads that filled it."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
from ml_collections import ConfigDict

from mlc_jax.data.cells import read_cells, with_cells
from mlc_jax.data.collection import Collection, open_collection, without_filled
from mlc_jax.data.labels import read_labels
from mlc_jax.data.table import LabelTable, Source
from mlc_jax.errors import CheckpointError
from mlc_jax.files.runs import Run
from mlc_jax.files.workdir import reading
from mlc_jax.journal import Journal
from mlc_jax.label_settings import OURS
from mlc_jax.models.backbones import Backbone
from mlc_jax.settings import cache_folder, training_config
from mlc_jax.training.completion import Completion
from mlc_jax.training.feeds import choose_backbone
from mlc_jax.training.imputation import impute_collection
from mlc_jax.training.provenance import run_inputs, without_paths
from mlc_jax.training.restore import check_inputs, image_folder_of, run_config


@dataclass(frozen=True, eq=False)
class ImputeRun:
    """A finished impute run, as its files tell of it.

    Attributes:
      run: its records.
      table: its completed table, with sources.
      cells: its cells.csv.
    """

    run: Run
    table: LabelTable
    cells: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Restored:
    """What an impute run learned from: its configuration, its human cells, images and backbone."""

    config: ConfigDict
    collection: Collection
    backbone: Backbone


def open_impute(run: Run) -> ImputeRun:
    """Reads the files of a finished impute run; loads no image and no weight.

    Raises:
      LabelsError: labels.csv or cells.csv is damaged, or they do not fit each other.
      CheckpointError: cells that people gave are others there than the run was made from.
    """
    cells = read_cells(run.workdir / "cells.csv")
    table = with_cells(read_labels(run.workdir / "labels.csv", OURS).table, cells)
    check_inputs(run, {"labels": table.hide(table.source == Source.IMPUTED).digest()})
    return ImputeRun(run, table, cells)


def restore(run: Run, journal: Journal, *, own_table: bool, weights: str = "") -> Restored:
    """Opens the images and the backbone of a run.

    Args:
      run: its records.
      journal: told of what is opened.
      own_table: whether the labels are read from the run's own table, whatever has become of the
        labels file that it was made from, which people go on editing.
      weights: `config.backbone.weights` of the job that restores; empty for the run's own.

    Raises:
      CheckpointError: images, weights or labels have changed since, or the run's configuration
        lacks a key that this version needs.
    """
    lacking = lacking_key(without_paths(training_config("impute")), run.inputs["config"])
    if lacking:
        raise CheckpointError(
            f"{run.named} was made by another version, which had no config.{lacking}; impute again"
        )
    config = run_config(run, weights)
    read = config.copy_and_resolve_references()
    if read.data.images:
        read.data.images = str(image_folder_of(run))
    if own_table:
        read.data.labels = str(run.workdir / "labels.csv")
        read.data.images = str(image_folder_of(run))
        read.data.update(groups="", split="")  # beside it, if there are any
    collection = without_filled(open_collection(read, cache_folder(), journal))
    backbone = choose_backbone(config, journal)
    check_inputs(run, run_inputs(config, collection, backbone))
    return Restored(config, collection, backbone)


def lacking_key(expected: dict[str, Any], config: dict[str, Any]) -> str | None:
    """The first key of `expected` that a configuration does not have."""
    for key, value in expected.items():
        if key not in config:
            return str(key)
        if isinstance(value, dict):
            inner = lacking_key(value, config[key])
            if inner:
                return f"{key}.{inner}"
    return None


def restore_heads(run: Run, restored: Restored, journal: Journal) -> Completion:
    """The heads of a run, from its checkpoints, evaluated on the folds they never saw.

    Raises:
      CheckpointError: it has lost its checkpoints.
    """
    if not any((run.workdir / "checkpoints").glob("round_*/*")):
        raise CheckpointError(f"{run.named} has lost its checkpoints; impute again")
    with reading(run.workdir):
        return impute_collection(
            restored.config, run.workdir, restored.collection, restored.backbone, journal
        ).completion
