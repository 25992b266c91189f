"""From a configuration to the features of a data set: what they are, and whence they come.

Both sources give the same features for the same (row, view), so a run may use either: the store, or
the backbone at every step.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
from ml_collections import ConfigDict

from mlc_jax.data.augment import Augmentation
from mlc_jax.data.dataset import ImageSet
from mlc_jax.data.pipeline import Views
from mlc_jax.errors import WeightsError
from mlc_jax.journal import Journal
from mlc_jax.models.algorithms import choose_algorithm
from mlc_jax.models.backbones import Backbone, load_backbone
from mlc_jax.models.features import (
    FeatureSpec,
    FeatureStore,
    feature_shape,
)
from mlc_jax.models.tuning import split_params
from mlc_jax.settings import is_demo
from mlc_jax.training.cached import CachedFeatures
from mlc_jax.training.features import Features, extractor
from mlc_jax.training.online import OnlineFeatures
from mlc_jax.training.parallel import Devices
from mlc_jax.training.streamed import StreamedFeatures


def make_spec(config: ConfigDict, backbone: Backbone) -> FeatureSpec:
    """What the features of a run depend on, from its configuration."""
    augment = config.augment
    augmentation = Augmentation(
        rotation=augment.rotation,
        shear=augment.shear,
        zoom=augment.zoom,
        shift=augment.shift,
        horizontal_flip=augment.horizontal_flip,
        vertical_flip=augment.vertical_flip,
        brightness=tuple(augment.brightness),
    )
    return FeatureSpec(
        backbone=(backbone.name, backbone.digest),
        image_size=tuple(config.data.image_size),
        pooled=config.head.name == "linear",
        dtype=config.features.dtype,
        views=Views(augmentation, config.seed, config.features.views),
    )


def open_features(
    config: ConfigDict,
    images: ImageSet,
    backbone: Backbone,
    devices: Devices,
    cache: Path,
    journal: Journal,
) -> Features:
    """Prepares the features that the configuration asks for; extracts those that are missing."""
    spec = make_spec(config, backbone)
    batch_size = config.features.batch_size or passes_per_call(spec.image_size, devices)
    trainable = config.backbone.trainable
    if not config.features.cache:
        journal.note("features.cache=false: the backbone runs inside every step")
        if trainable != "none":
            tuned = sum(leaf.size for leaf in jax.tree.leaves(split_params(backbone, trainable)[0]))
            journal.note(
                f"backbone.trainable={trainable}: {tuned:,} parameters of {backbone.name} are "
                "trained, a copy for every head"
            )
        return OnlineFeatures(images, backbone, spec, batch_size, trainable, devices)
    if devices.platform == "cpu" and config.features.measure:
        algorithm = choose_algorithm(backbone, spec.image_size, cache, journal)
        spec = replace(spec, algorithm=algorithm)
        batch_size = config.features.batch_size or algorithm.batch_size or batch_size
    store = FeatureStore(cache, spec, feature_shape(backbone, spec), journal.warn)
    missing = len(store.missing(images))
    held = len(set(images.digests)) - missing
    if held:
        journal.note(f"feature cache: {held} images are there already, {missing} to extract")
    if missing:
        extract = extractor(backbone, spec, devices)
        with journal.phase(
            "extract features", missing * (spec.views.augmented + 1), "views"
        ) as advance:
            store.extract(images, extract, batch_size, advance)
    room = round(config.features.memory * devices.memory())
    if len(images) * store.bytes_per_image > room:
        journal.note(
            f"features take {len(images) * store.bytes_per_image / 1e9:.1f} GB, more than "
            f"features.memory={config.features.memory} of what there is: read from disk step by "
            "step"
        )
        return StreamedFeatures(
            store.reader(images), devices, images.filenames, partial(journal.wait, "features")
        )
    with journal.phase("load features", len(images), "images") as advance:
        features = store.load(images)
        advance(len(images))
    return CachedFeatures(features, devices, images.filenames)


def passes_per_call(image_size: tuple[int, int], devices: Devices) -> int:
    """How many passes one call of the backbone takes where the configuration leaves it open."""
    # A CPU is fastest while the widest maps stay in its caches, an accelerator when it is full.
    if devices.platform == "cpu":
        return max(2, min(8, round(200_000 / (image_size[0] * image_size[1]))))
    return 64 * devices.count


def feature_shape_of(config: ConfigDict, backbone: Backbone) -> tuple[int, int, int]:
    """(h, w, C) of the features that `open_features` gives."""
    return feature_shape(backbone, make_spec(config, backbone))


def choose_backbone(config: ConfigDict, journal: Journal) -> Backbone:
    """Loads the backbone; only the embedded demo may do without its ImageNet weights.

    Raises:
      WeightsError: the weights cannot be had; the message says where to put them.
    """
    name, weights = config.backbone.name, config.backbone.weights
    try:
        backbone = load_backbone(name, weights, seed=config.seed)
    except WeightsError as error:
        if weights != "imagenet" or not is_demo(config):
            raise
        journal.note(str(error))
        backbone = load_backbone(name, "random", seed=config.seed)
    if backbone.random:
        journal.warn(
            f"{name} has RANDOM weights: nothing in it was ever learned, and results on real "
            "photographs would be worse than ImageNet weights give"
        )
    return backbone
