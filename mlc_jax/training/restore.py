"""Opening a finished multilabel run: its classifier, ready to be asked about images."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mlc_jax.data.demo import draw_demo
from mlc_jax.errors import CheckpointError, ConfigError, MlcError, WeightsError
from mlc_jax.files.digest import digest_arrays
from mlc_jax.files.runs import Run, read_record
from mlc_jax.journal import Journal
from mlc_jax.models.backbones import Backbone
from mlc_jax.models.features import FeatureSpec
from mlc_jax.models.heads import HeadStack
from mlc_jax.models.tuning import split_params, tuned_backbone
from mlc_jax.settings import DEMO, cache_folder, training_config
from mlc_jax.training.classifier import (
    DECISION,
    Classifier,
    load_classifier,
    logits_of,
    trained_params,
)
from mlc_jax.training.features import extractor, row_moments
from mlc_jax.training.feeds import (
    feature_shape_of,
    load_configured,
    make_spec,
    passes_per_call,
    stored_spec,
)
from mlc_jax.training.parallel import Devices
from mlc_jax.training.provenance import plain

CHECKED = ("labels", "images", "weights", "groups", "split")
"""Digests of what a run was made from, in run.json."""


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A finished multilabel run.

    Attributes:
      run: its records.
      config: its resolved configuration, paths included.
      backbone: with the weights it was trained on.
      spec: what its features are; `spec.image_size` is (height, width).
      stack: the head's architecture.
      classifier: the head's parameters, calibration and thresholds.
      names: the labels that were fitted, one per output.
      digest: SHA-256 of the classifier's arrays.
    """

    run: Run
    config: ConfigDict
    backbone: Backbone
    spec: FeatureSpec
    stack: HeadStack
    classifier: Classifier
    names: tuple[str, ...]
    digest: str


def open_classifier(
    run: Run, journal: Journal, weights: str = "", features_file: str = ""
) -> TrainedRun:
    """Loads the backbone and the classifier of a finished multilabel run.

    All that decides a probability comes from run.json, which the checkpoint's own record vouches
    for; of summary.json only paths are used.

    Args:
      run: its records.
      journal: told of random weights.
      weights: `config.backbone.weights` of the job that restores, where the run's files have moved;
        empty for the run's own.
      features_file: own features that take the place of those that the run was trained on.

    Raises:
      ConfigError: own features are given to a run that was trained on images.
      CheckpointError: it is damaged, or its weights are not to be had.
    """
    workdir = run.workdir
    thresholds = read_record(workdir / "thresholds.json", run.named, (run.job,))
    try:
        given = [float(record["threshold"]) for record in thresholds.values()]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{run.named}: thresholds.json is damaged ({type(error).__name__}: {error}); put the "
            "former one back, or train again"
        ) from error
    config = run_config(run, weights)
    if features_file and not config.features.file:
        raise ConfigError(f"config.features.file: {run.named} was trained on images; leave it out")
    config.features.file = features_file or config.features.file
    backbone = _same_backbone(config, run)
    for part in backbone.parts or (backbone,):
        if part.random:
            journal.warn(f"{part.name} has RANDOM weights, as when {workdir} was trained")
    if run.demo:
        journal.warn(f"{DEMO}: {workdir} was trained on it, and is of no use for photographs")
    names = tuple(thresholds)
    stack = HeadStack(config.head.name, feature_shape_of(config, backbone), len(names))
    try:
        tuned, _ = split_params(backbone, config.backbone.trainable)
        classifier = load_classifier(workdir, run.inputs, stack, tuned, journal.warn)
    except CheckpointError as error:
        raise CheckpointError(f"{run.named}: {error}; or give another run") from error
    # The checkpoint vouches for the thresholds, and so, unless two are equal, for the names' order.
    if classifier.threshold.tolist() != given:
        raise CheckpointError(
            f"{run.named}: thresholds.json is not that of the classifier; put the former one back, "
            "or train again"
        )
    return TrainedRun(
        run=run,
        config=config,
        backbone=backbone,
        spec=make_spec(config, backbone),
        stack=stack,
        classifier=classifier,
        names=names,
        digest=_digest(classifier),
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
    score, most = scorer_with_features(run, which, devices, batch_size, untuned=False)
    return lambda images: score(images)[0], most


def scorer_with_features(
    run: TrainedRun, which: str, devices: Devices, batch_size: int, *, untuned: bool = True
) -> tuple[Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], int]:
    """As `scorer`; its function gives the features too, float64 [b, C], means over space.

    Args:
      run, which, devices, batch_size: see `scorer`.
      untuned: whether features are those of the backbone before anything of it was tuned, by which
        images are known again; that runs it a second time where it was.
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

    twice = untuned and backbone is not run.backbone
    extract_untuned = extractor(run.backbone, spec, devices) if twice else extract

    def score(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        padding = np.zeros((most - len(images), *images.shape[1:]), images.dtype)
        padded = np.concatenate([images, padding])
        features = np.asarray(extract(padded))
        logits = head(features[:most])[: len(images)]
        finite = np.isfinite(logits).all(axis=1, keepdims=True)
        if twice:
            features = np.asarray(extract_untuned(padded))
        pooled = row_moments(features[: len(images)])[0]
        return run.classifier.probabilities(np.where(finite, logits, np.nan)), pooled

    return score, most


def run_config(run: Run, weights: str = "") -> ConfigDict:
    """The run's resolved configuration: run.json's, with the paths that only summary.json holds.

    Args:
      run: its records.
      weights: in place of the run's own, where they are given.

    A key that the run's version did not have yet gets its default.
    """

    def as_given(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: as_given(item) for key, item in value.items()}
        return tuple(as_given(item) for item in value) if isinstance(value, list) else value

    config = ConfigDict(as_given(_merged(plain(training_config(run.job)), run.inputs["config"])))
    config.data.groups, config.data.split = run.groups, run.split
    config.features.file = run.features_file
    drawn = run.demo and not run.summary["config"]["data"]["labels"]
    config.data.labels = "" if drawn else run.labels_source
    config.data.images = "" if drawn else str(run.image_folder)
    # The demo does without ImageNet's weights where they are not to be had, and stays with random
    # ones. A list says for itself which of several are random.
    random = run.random and "," not in run.weights_source
    config.backbone.weights = weights or ("random" if random else run.weights_source)
    # Not among the inputs, since they decide no result.
    config.accept_changes, config.dry_run = False, False
    config.data.follow_links = bool(run.summary["config"]["data"].get("follow_links"))
    return config


def image_folder_of(run: Run) -> Path:
    """The folder of a run's images; the demo's are drawn again where they are gone.

    Raises:
      CheckpointError: it is not there.
    """
    if run.image_folder.is_dir():
        return run.image_folder
    if run.demo:
        return draw_demo(cache_folder() / "demo").images
    raise CheckpointError(
        f"{run.named}: its image folder {run.image_folder} is not there any more; put it back, or "
        "keep its place relative to the run"
    )


def check_inputs(run: Run, now: Mapping[str, Any]) -> None:
    """Compares the data and the weights that a run was made from with those that are there now.

    Raises:
      CheckpointError: they are others.
    """
    then = {name: run.inputs.get(name) for name in CHECKED}
    changed = [name for name in CHECKED if name in now and now[name] != then[name]]
    if changed:
        raise CheckpointError(
            f"{run.named}: its {' and '.join(changed)} have changed since; put the former ones "
            f"back, or {run.job} again"
        )


def _merged(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    return defaults | {
        key: _merged(defaults[key], value)
        if isinstance(value, dict) and isinstance(defaults.get(key), dict)
        else value
        for key, value in given.items()
    }


def _same_backbone(config: ConfigDict, run: Run) -> Backbone:
    """The backbone with the weights of the run's digest."""
    weights = config.backbone.weights
    try:
        backbone = load_configured(config, weights)
    except WeightsError as error:
        raise CheckpointError(
            f"{run.named} needs the weights it was trained on: {error}; or name the file with "
            "config.backbone.weights"
        ) from error
    except MlcError as error:
        raise CheckpointError(f"{run.named} cannot be opened: {error}") from error
    if backbone.given and backbone.digest != run.weights:
        raise CheckpointError(
            f"{run.named} was trained on own features of another width than the "
            f"{backbone.channels} of {config.features.file}; give those of the same encoder"
        )
    if backbone.digest != run.weights:
        raise CheckpointError(
            f"{run.named} was trained on other weights than {weights!r} ({run.weights[:12]}… then, "
            f"{backbone.digest[:12]}… now); put the former file back or name it with "
            "config.backbone.weights, or train again"
        )
    return backbone


def _digest(classifier: Classifier) -> str:
    leaves, _ = jax.tree.flatten_with_path(
        {name: getattr(classifier, name) for name in ("best", "last", "mean", "std", *DECISION)}
    )
    return digest_arrays({jax.tree_util.keystr(path): leaf for path, leaf in leaves})
