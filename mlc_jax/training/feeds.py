"""From a configuration to the features of a data set: what they are, and whence they come.

Both sources give the same features for the same (row, view), so a run may use either: the store, or
the backbone at every step.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from ml_collections import ConfigDict

from mlc_jax.data.augment import Augmentation
from mlc_jax.data.dataset import ImageSet
from mlc_jax.data.embeddings import EmbeddingSet, channels_of
from mlc_jax.data.pipeline import Views
from mlc_jax.errors import ConfigError, WeightsError
from mlc_jax.journal import Journal
from mlc_jax.models.algorithms import choose_algorithm, stored_algorithm
from mlc_jax.models.backbones import Backbone, load_backbone, own_features
from mlc_jax.models.feature_store import FeatureStore
from mlc_jax.models.features import FeatureSpec, feature_shape
from mlc_jax.models.joining import joined_on_host
from mlc_jax.models.tuning import split_params
from mlc_jax.processes import agreed, count, leader_first
from mlc_jax.settings import is_demo, prepared_size, scaled_sizes
from mlc_jax.training.cached import CachedFeatures
from mlc_jax.training.features import Features, extractor
from mlc_jax.training.file_features import FileFeatures
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
        backbone=backbone.key,
        image_size=prepared_size(config),
        pooled=config.head.name == "linear",
        dtype=config.features.dtype,
        views=Views(augmentation, config.seed, config.features.views),
        compute=compute_type(config),
        mirror=bool(config.features.mirror),
        sizes=scaled_sizes(config) if len(config.features.scales) > 1 else (),
    )


def compute_type(config: ConfigDict) -> str:
    """How the backbone computes: as asked for, or in bfloat16 where it is frozen and off a CPU."""
    if config.features.compute != "auto":
        return str(config.features.compute)
    frozen = config.backbone.trainable == "none"
    return "bfloat16" if frozen and jax.default_backend() != "cpu" else "float32"


def stored_spec(config: ConfigDict, backbone: Backbone, cache: Path) -> FeatureSpec:
    """What the features of a run are that this machine has in its store, or would make by default.

    Args:
      config: the run's configuration.
      backbone: one network; several have a store each.
      cache: the folder of caches.
    """
    spec = make_spec(config, backbone)
    if _measured(config, spec) and not (backbone.parts or backbone.given):
        spec = replace(spec, algorithm=stored_algorithm(backbone, spec.image_size, cache))
    return spec


def open_features(
    config: ConfigDict,
    images: ImageSet | EmbeddingSet,
    backbone: Backbone,
    devices: Devices,
    cache: Path,
    journal: Journal,
) -> Features:
    """Prepares the features that the configuration asks for; extracts those that are missing."""
    if isinstance(images, EmbeddingSet):
        return _own_features(config, images, devices, journal)
    spec = make_spec(config, backbone)
    trainable = config.backbone.trainable
    if not config.features.cache:
        journal.note("features.cache=false: the backbone runs inside every step")
        if trainable != "none":
            tuned = sum(leaf.size for leaf in jax.tree.leaves(split_params(backbone, trainable)[0]))
            journal.note(
                f"backbone.trainable={trainable}: {tuned:,} parameters of {backbone.name} are "
                "trained, a copy for every head"
            )
        batch_size = config.features.batch_size or passes_per_call(spec.image_size, devices)
        waited = partial(journal.wait, "images")
        return OnlineFeatures(images, backbone, spec, batch_size, trainable, devices, waited)
    stores = []
    for part in backbone.parts or (backbone,):
        own = replace(spec, backbone=part.key)
        stores.append(_filled_store(config, images, part, own, devices, cache, journal))
    room = round(config.features.memory * devices.memory())
    needed = len(images) * sum(store.bytes_per_image for store in stores)
    if agreed(needed > room):
        told = (
            f"features take {needed / 1e9:.1f} GB, more than features.memory="
            f"{config.features.memory} of what there is"
        )
        if len(stores) > 1:
            raise ConfigError(
                f"{told}; give one backbone, whose features can be read from disk, fewer "
                "features.views, or a larger config.features.memory"
            )
        journal.note(f"{told}: read from disk step by step")
        return StreamedFeatures(
            stores[0].reader(images), devices, images.filenames, partial(journal.wait, "features")
        )
    with journal.phase("load features", len(images), "images") as advance:
        loaded = [store.load(images) for store in stores]
        features = loaded[0] if len(loaded) == 1 else joined_on_host(loaded)
        advance(len(images))
    return CachedFeatures(features, devices, images.filenames)


def _own_features(
    config: ConfigDict, images: EmbeddingSet, devices: Devices, journal: Journal
) -> Features:
    """A user's own features: held where they fit, else read from their map."""
    count, held = images.array.shape[:2]
    views = config.features.views + 1
    if views > held:
        raise ConfigError(
            f"config.features.views={config.features.views}: {config.features.file} holds {held} "
            f"view(s) of each image; give at most {held - 1}"
        )
    if views < held:
        journal.note(
            f"{config.features.file} holds {held} views of each image and {views} are used; "
            f"config.features.views={held - 1} uses all"
        )
    needed = 4 * count * views * images.array.shape[2]
    waited = partial(journal.wait, "features")
    if agreed(needed > round(config.features.memory * devices.memory())):
        journal.note(f"features take {needed / 1e9:.1f} GB: mapped from disk")
        if views == 1:
            return FileFeatures(images, devices, waited)
        return StreamedFeatures(cast(Any, images), devices, images.filenames, waited)
    features = np.asarray(images.array[:, :views], np.float32)[:, :, None, None]
    return CachedFeatures(features, devices, images.filenames)


def _filled_store(
    config: ConfigDict,
    images: ImageSet,
    backbone: Backbone,
    spec: FeatureSpec,
    devices: Devices,
    cache: Path,
    journal: Journal,
) -> FeatureStore:
    """The store of one backbone's features, in which none of the images is missing."""
    devices = devices.own()
    batch_size = config.features.batch_size or passes_per_call(spec.image_size, devices)
    if _measured(config, spec):
        with leader_first():
            algorithm = choose_algorithm(backbone, spec.image_size, cache, journal)
        spec = replace(spec, algorithm=algorithm)
        batch_size = config.features.batch_size or algorithm.batch_size or batch_size
    store = FeatureStore(cache, spec, feature_shape(backbone, spec), journal.warn)
    missing = agreed(len(store.missing(images)))
    held = len(set(images.digests)) - missing
    if held:
        journal.note(
            f"feature cache: {held} images of {backbone.name} are there already, "
            f"{missing} to extract"
        )
    if missing:
        extract = extractor(backbone, spec, devices)
        with journal.phase(
            "extract features", -(-missing // count()) * (spec.views.augmented + 1), "views"
        ) as advance:
            store.extract(images, extract, batch_size, advance, partial(journal.wait, "images"))
    return store


def _measured(config: ConfigDict, spec: FeatureSpec) -> bool:
    """Whether convolutions run by what a measurement says: on CPUs, in float32."""
    on_cpu = jax.default_backend() == "cpu"
    return on_cpu and bool(config.features.measure) and spec.compute == "float32"


def passes_per_call(image_size: tuple[int, int], devices: Devices) -> int:
    """How many passes one call of the backbone takes where the configuration leaves it open."""
    # A CPU is fastest while the widest maps stay in its caches, an accelerator when it is full.
    if devices.platform == "cpu":
        return max(2, min(8, round(200_000 / (image_size[0] * image_size[1]))))
    return 64 * devices.count


def feature_shape_of(config: ConfigDict, backbone: Backbone) -> tuple[int, int, int]:
    """(h, w, C) of the features that `open_features` gives."""
    return feature_shape(backbone, make_spec(config, backbone))


def load_configured(config: ConfigDict, weights: str) -> Backbone:
    """The backbone that a configuration describes, with the given weights.

    Raises:
      ConfigError, WeightsError: as `load_backbone`.
    """
    if config.features.get("file", ""):  # older runs lack the key
        return own_features(channels_of(Path(config.features.file))[1])
    own = config.backbone
    # What is trained are the parameters as they are published, not what folding makes of them.
    fold = own.fold_batch_norm and own.trainable == "none"
    return load_backbone(own.name, weights, layer=own.layer, fold=fold, seed=config.seed)


def choose_backbone(config: ConfigDict, journal: Journal) -> Backbone:
    """Loads the backbone; only the embedded demo may do without its ImageNet weights.

    Raises:
      WeightsError: the weights cannot be had; the message says where to put them.
    """
    weights = config.backbone.weights
    if config.features.file:
        return load_configured(config, weights)
    try:
        with leader_first():  # it may have to download them
            backbone = load_configured(config, weights)
    except WeightsError as error:
        if weights != "imagenet" or not is_demo(config):
            raise
        journal.note(str(error))
        backbone = load_configured(config, "random")
    for part in backbone.parts or (backbone,):
        if part.random:
            journal.warn(
                f"{part.name} has RANDOM weights: nothing in it was ever learned, and results on "
                "real photographs would be worse than ImageNet weights give"
            )
    return backbone
