"""Opening a finished multilabel run: its classifier, ready to be asked about images."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mlc_jax.errors import CheckpointError, MlcError, WeightsError
from mlc_jax.files.digest import digest_arrays
from mlc_jax.journal import Journal
from mlc_jax.models.backbones import Backbone
from mlc_jax.models.features import FeatureSpec
from mlc_jax.models.heads import HeadStack
from mlc_jax.models.tuning import split_params, tuned_backbone
from mlc_jax.settings import cache_folder
from mlc_jax.training.classifier import (
    DECISION,
    Classifier,
    load_classifier,
    logits_of,
    trained_params,
)
from mlc_jax.training.features import extractor
from mlc_jax.training.feeds import (
    feature_shape_of,
    load_configured,
    make_spec,
    passes_per_call,
    stored_spec,
)
from mlc_jax.training.parallel import Devices
from mlc_jax.training.provenance import PATHS


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A finished multilabel run.

    Attributes:
      workdir: where it lies.
      config: its resolved configuration, paths included.
      backbone: with the weights it was trained on.
      spec: what its features are; `spec.image_size` is (height, width).
      stack: the head's architecture.
      classifier: the head's parameters, calibration and thresholds.
      names: the labels that were fitted, one per output.
      digest: SHA-256 of the classifier's arrays.
      summary: its summary.json.
    """

    workdir: Path
    config: ConfigDict
    backbone: Backbone
    spec: FeatureSpec
    stack: HeadStack
    classifier: Classifier
    names: tuple[str, ...]
    digest: str
    summary: dict[str, Any]


def open_run(workdir: Path, journal: Journal) -> TrainedRun:
    """Reads a finished multilabel run and loads its backbone and classifier.

    All that decides a probability comes from run.json, which the checkpoint's own record vouches
    for; of summary.json only paths are used.

    Args:
      workdir: of the run, `config.checkpoint`.
      journal: told of random weights.

    Raises:
      CheckpointError: there is no such run, it is damaged, or its weights are not to be had.
    """
    shown = f"config.checkpoint={str(workdir)!r}"
    inputs, summary, thresholds = (
        _read(workdir / name, shown) for name in ("run.json", "summary.json", "thresholds.json")
    )
    try:
        config = run_config(inputs, summary)
        stage, finished = summary["stage"], summary["finished"]
        given = [float(record["threshold"]) for record in thresholds.values()]
        random, weights = summary["backbone"]["random"], str(inputs["weights"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _not_finished(shown, f"is damaged ({type(error).__name__}: {error})") from error
    if stage != "multilabel":
        raise _not_finished(shown, f"holds a run of stage {stage!r}")
    if finished is not True:
        raise _not_finished(shown, "is not finished")
    backbone = _same_backbone(config, random, weights, shown)
    for part in backbone.parts or (backbone,):
        if part.random:
            journal.warn(f"{part.name} has RANDOM weights, as when {workdir} was trained")
    names = tuple(thresholds)
    stack = HeadStack(config.head.name, feature_shape_of(config, backbone), len(names))
    try:
        tuned, _ = split_params(backbone, config.backbone.trainable)
        classifier = load_classifier(workdir, inputs, stack, tuned, journal.warn)
    except CheckpointError as error:
        raise CheckpointError(f"{shown}: {error}; or give another run") from error
    # The checkpoint vouches for the thresholds, and so, unless two are equal, for the names' order.
    if classifier.threshold.tolist() != given:
        raise CheckpointError(
            f"{shown}: thresholds.json is not that of the classifier; put the former one back, or "
            "train again"
        )
    return TrainedRun(
        workdir=workdir,
        config=config,
        backbone=backbone,
        spec=make_spec(config, backbone),
        stack=stack,
        classifier=classifier,
        names=names,
        digest=_digest(classifier),
        summary=summary,
    )


def scorer(
    run: TrainedRun, which: str, devices: Devices, batch_size: int
) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """Compiles the way from images to calibrated probabilities.

    The features are rounded as the store rounds them, so an image gets the probability it got in
    training.

    Args:
      run: the trained run.
      which: best or last.
      devices: what runs the backbone.
      batch_size: images per call; 0 for what training would choose.

    Returns:
      (a function of uint8 [b, H, W, 3], b at most the number that follows, giving float64 [b, L],
      NaN in the row of an image whose features are not finite; that number).

    Raises:
      ConfigError: `which` is neither best nor last.
    """
    head = logits_of(run.classifier, run.stack, which)
    backbone = tuned_backbone(run.backbone, trained_params(run.classifier, which))
    spec = run.spec
    if backbone is run.backbone:
        # By the algorithm that the features of the run were made by, if they were made here.
        spec = stored_spec(run.config, backbone, cache_folder())
    extract = extractor(backbone, spec, devices)
    most = (
        batch_size
        or run.config.features.batch_size
        or spec.algorithm.batch_size
        or passes_per_call(run.spec.image_size, devices)
    )

    def probabilities(images: np.ndarray) -> np.ndarray:
        padding = np.zeros((most - len(images), *images.shape[1:]), np.uint8)
        features = np.asarray(extract(np.concatenate([images, padding])))
        logits = head(features[:most])[: len(images)]
        finite = np.isfinite(logits).all(axis=1, keepdims=True)
        return run.classifier.probabilities(np.where(finite, logits, np.nan))

    return probabilities, most


def _read(file: Path, shown: str) -> dict[str, Any]:
    if not file.is_file():
        raise _not_finished(shown, f"holds no {file.name}")
    try:
        value = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise _not_finished(shown, f"has a damaged {file.name}") from error
    if not isinstance(value, dict):
        raise _not_finished(shown, f"has a damaged {file.name}")
    return value


def _not_finished(shown: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{shown} {what}; give the workdir of a finished run of configs/multilabel.py"
    )


def run_config(inputs: dict[str, Any], summary: dict[str, Any]) -> ConfigDict:
    """The run's resolved configuration: run.json's, with the paths that only summary.json holds."""

    def as_given(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: as_given(item) for key, item in value.items()}
        return tuple(as_given(item) for item in value) if isinstance(value, list) else value

    config = ConfigDict(as_given(inputs["config"]))
    for group, key in PATHS:
        # A run of an earlier version lacks groups and split.
        config[group][key] = summary["config"][group].get(key, "")
    # Not among the inputs, since they decide no result.
    config.accept_changes, config.dry_run = False, False
    return config


def _same_backbone(config: ConfigDict, random: bool, digest: str, shown: str) -> Backbone:
    """The backbone with the weights of that digest."""
    # The demo falls back to random weights where ImageNet's are not to be had, and stays with them.
    given = config.backbone.weights
    # A list says for itself which of several are random.
    weights = "random" if random and "," not in given else given
    try:
        backbone = load_configured(config, weights)
    except WeightsError as error:
        raise CheckpointError(f"{shown} needs the weights it was trained on: {error}") from error
    except MlcError as error:
        raise CheckpointError(f"{shown} cannot be opened: {error}") from error
    if backbone.digest != digest:
        raise CheckpointError(
            f"{shown} was trained on other weights than {weights!r} ({digest[:12]}… then, "
            f"{backbone.digest[:12]}… now); put the former file back, or train again"
        )
    return backbone


def _digest(classifier: Classifier) -> str:
    leaves, _ = jax.tree.flatten_with_path(
        {name: getattr(classifier, name) for name in ("best", "last", "mean", "std", *DECISION)}
    )
    return digest_arrays({jax.tree_util.keystr(path): leaf for path, leaf in leaves})
