"""What a feature is: what it depends on, its shape, and the one definition of it.

The backbone never changes, so an (image, view) gives the same features for ever.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import jax
import jax.numpy as jnp
import numpy as np

from mlc_jax.data.pipeline import Views
from mlc_jax.errors import ConfigError
from mlc_jax.files.digest import digest_json
from mlc_jax.models.algorithms import DIRECT, Algorithm
from mlc_jax.models.backbones import Backbone
from mlc_jax.models.joining import joined
from mlc_jax.models.weights import Params

VERSION = 2
DTYPES = ("float16", "bfloat16", "float32")

Extract = Callable[[jax.Array | np.ndarray], jax.Array]
"""Images uint8 [B, H, W, 3] to features [B, h, w, C]."""


@dataclass(frozen=True)
class FeatureSpec:
    """What features depend on, besides the image.

    Attributes:
      backbone: what the features of the backbone depend on, `Backbone.key`.
      image_size: (height, width) of the images that are given.
      pooled: whether the map is averaged over space (all that a linear head needs).
      dtype: type in which features are kept.
      compute: how the network computes, see `Backbone.apply`.
      views: how views are drawn.
      sizes: (height, width) of each scale whose features stand side by side; empty for `image_size`
        alone.
      mirror: whether features are the mean over the image and its mirror image, turned back.
      algorithm: how the network is run, which shows in the last digits.
    """

    backbone: tuple[str, ...]
    image_size: tuple[int, int]
    pooled: bool
    dtype: str
    views: Views
    algorithm: Algorithm = DIRECT
    compute: str = "float32"
    mirror: bool = False
    sizes: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"config.features.dtype={self.dtype!r}: choose of {DTYPES}")

    def digest(self) -> str:
        """The key of the store."""
        views = {**self.views._asdict(), "augmentation": asdict(self.views.augmentation)}
        return digest_json({"version": VERSION, **asdict(self), "views": views})


def feature_shape(backbone: Backbone, spec: FeatureSpec) -> tuple[int, int, int]:
    """(h, w, C) of one view's features; h = w = 1 where they are pooled."""
    sizes = spec.sizes or (spec.image_size,)
    shapes = [backbone.feature_shape(size) for size in sizes]
    channels = sum(shape[2] for shape in shapes)
    if spec.pooled:
        return 1, 1, channels
    return min(shape[0] for shape in shapes), min(shape[1] for shape in shapes), channels


def features_of(
    backbone: Backbone, spec: FeatureSpec, params: Params, images: jax.Array
) -> jax.Array:
    """The features of images as the store keeps them: uint8 [B, H, W, 3] to dtype [B, h, w, C].

    The one definition of a feature: extraction and the step without a cache both call it, and both
    see its rounding. Each backbone's features are kept on their own, so they are rounded before
    they are joined.
    """
    if backbone.parts:
        return joined(
            [features_of(part, spec, params[part.name], images) for part in backbone.parts]
        )
    sizes = spec.sizes or (spec.image_size,)
    return joined([_features_at(backbone, spec, params, images, size) for size in sizes])


def _features_at(
    backbone: Backbone,
    spec: FeatureSpec,
    params: Params,
    images: jax.Array,
    size: tuple[int, int],
) -> jax.Array:
    """The features of images at one size, (height, width)."""
    if size != tuple(images.shape[1:3]):
        shape = (images.shape[0], *size, 3)
        resized = jax.image.resize(images.astype(jnp.float32), shape, "linear")
        images = jnp.clip(jnp.round(resized), 0, 255).astype(jnp.uint8)
    maps = backbone.apply(params, images, spec.compute)
    if spec.mirror:
        mirrored = backbone.apply(params, images[:, :, ::-1], spec.compute)
        maps = (maps + mirrored[:, :, ::-1]) / 2
    if spec.pooled:
        maps = maps.mean(axis=(1, 2), keepdims=True)
    return maps.astype(spec.dtype)
