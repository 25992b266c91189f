"""The frozen backbones by name, with their weights: pure functions from images to feature maps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mlc_jax.errors import ConfigError
from mlc_jax.files.digest import digest_json
from mlc_jax.models.convnext import BASE, TINY, ConvNeXt, DINOv3ConvNeXt
from mlc_jax.models.convnext import LARGE as LARGE_STAGES
from mlc_jax.models.convnext import SMALL as SMALL_STAGES
from mlc_jax.models.download import published_weights
from mlc_jax.models.efficientnet import EfficientNet
from mlc_jax.models.efficientnet_v2 import B_STAGES, S_STAGES, EfficientNetV2
from mlc_jax.models.folding import fold_batch_norms
from mlc_jax.models.hub_files import HUB_FILES
from mlc_jax.models.joining import joined
from mlc_jax.models.layers import Network
from mlc_jax.models.mobilenet import MobileNet
from mlc_jax.models.mobilenet_v2 import MobileNetV2
from mlc_jax.models.mobilenet_v3 import LARGE, SMALL, MobileNetV3
from mlc_jax.models.preprocess import PREPROCESS
from mlc_jax.models.published import PUBLISHED
from mlc_jax.models.random_weights import random_weights
from mlc_jax.models.resnet import ResNet50, ResNet50V2
from mlc_jax.models.vgg import VGG, VGG16_BLOCKS, VGG19_BLOCKS
from mlc_jax.models.vit import VisionTransformer
from mlc_jax.models.vit_spec import clip, dinov2, dinov3, siglip, supervised
from mlc_jax.models.weights import Params, read_weights
from mlc_jax.models.xception import Xception

# Small, base and large: width, depth and attention heads (arXiv:2010.11929, table 1).
_S, _B, _L = (384, 12, 6), (768, 12, 12), (1024, 24, 16)

# How each network is built, by its name: Keras's class name in snake case; of transformers who made
# them, the size, and the side of a patch.
NETWORKS: dict[str, Callable[[], Network]] = {
    "vgg16": partial(VGG, VGG16_BLOCKS),
    "vgg19": partial(VGG, VGG19_BLOCKS),
    "resnet50": ResNet50,
    "resnet50_v2": ResNet50V2,
    "mobilenet": MobileNet,
    "mobilenet_v2": MobileNetV2,
    "mobilenet_v3_small": partial(MobileNetV3, SMALL),
    "mobilenet_v3_large": partial(MobileNetV3, LARGE),
    "efficientnet_b0": partial(EfficientNet, 1.0, 1.0),
    "efficientnet_b1": partial(EfficientNet, 1.0, 1.1),
    "efficientnet_b2": partial(EfficientNet, 1.1, 1.2),
    "efficientnet_b3": partial(EfficientNet, 1.2, 1.4),
    "efficientnet_b4": partial(EfficientNet, 1.4, 1.8),
    "efficientnet_b5": partial(EfficientNet, 1.6, 2.2),
    "efficientnet_b6": partial(EfficientNet, 1.8, 2.6),
    "efficientnet_b7": partial(EfficientNet, 2.0, 3.1),
    "efficientnet_v2_b0": partial(EfficientNetV2, B_STAGES, 32, 1.0, 1.0, "torch"),
    "efficientnet_v2_b1": partial(EfficientNetV2, B_STAGES, 32, 1.0, 1.1, "torch"),
    "efficientnet_v2_b2": partial(EfficientNetV2, B_STAGES, 32, 1.1, 1.2, "torch"),
    "efficientnet_v2_b3": partial(EfficientNetV2, B_STAGES, 32, 1.2, 1.4, "torch"),
    "efficientnet_v2_s": partial(EfficientNetV2, S_STAGES, 24, 1.0, 1.0, "tf128"),
    "xception": Xception,
    "convnext_tiny": partial(ConvNeXt, "convnext_tiny", TINY),
    "convnext_base": partial(ConvNeXt, "convnext_base", BASE),
    "dinov2_s14": partial(VisionTransformer, dinov2(*_S)),
    "dinov2_b14": partial(VisionTransformer, dinov2(*_B)),
    "dinov2_l14": partial(VisionTransformer, dinov2(*_L)),
    "dinov2_s14_registers": partial(VisionTransformer, dinov2(*_S, registers=4)),
    "dinov2_b14_registers": partial(VisionTransformer, dinov2(*_B, registers=4)),
    "dinov2_l14_registers": partial(VisionTransformer, dinov2(*_L, registers=4)),
    "dinov3_s16": partial(VisionTransformer, dinov3(*_S)),
    "dinov3_s16_plus": partial(VisionTransformer, dinov3(*_S, gated=True)),
    "dinov3_b16": partial(VisionTransformer, dinov3(*_B)),
    "dinov3_l16": partial(VisionTransformer, dinov3(*_L)),
    "dinov3_convnext_tiny": partial(DINOv3ConvNeXt, TINY),
    "dinov3_convnext_small": partial(DINOv3ConvNeXt, SMALL_STAGES),
    "dinov3_convnext_base": partial(DINOv3ConvNeXt, BASE),
    "dinov3_convnext_large": partial(DINOv3ConvNeXt, LARGE_STAGES),
    "siglip2_b16": partial(VisionTransformer, siglip(16, *_B, 3072)),
    "siglip2_so400m14": partial(VisionTransformer, siglip(14, 1152, 27, 16, 4304)),
    "clip_b32": partial(VisionTransformer, clip(32, *_B, "quick_gelu")),
    "clip_b16": partial(VisionTransformer, clip(16, *_B, "quick_gelu")),
    "clip_l14": partial(VisionTransformer, clip(14, *_L, "quick_gelu")),
    "clip_b32_laion": partial(VisionTransformer, clip(32, *_B, "gelu")),
    "clip_b16_laion": partial(VisionTransformer, clip(16, *_B, "gelu")),
    "clip_l14_laion": partial(VisionTransformer, clip(14, *_L, "gelu")),
    "deit3_s16": partial(VisionTransformer, supervised(*_S, True, "torch")),
    "deit3_b16": partial(VisionTransformer, supervised(*_B, True, "torch")),
    "deit3_l16": partial(VisionTransformer, supervised(*_L, True, "torch")),
    "vit_s16_augreg": partial(VisionTransformer, supervised(*_S, False, "tf")),
    "vit_b16_augreg": partial(VisionTransformer, supervised(*_B, False, "tf")),
    "vit_l16_augreg": partial(VisionTransformer, supervised(*_L, False, "tf")),
}


@dataclass(frozen=True, eq=False)
class Backbone:
    """A network, its weights, and where they came from; or several side by side.

    Attributes:
      name: a key of `NETWORKS`; of several, their names joined by commas.
      graphdef: `nnx.GraphDef` of the network, which has no values; None of several.
      params: nested dict of float32 arrays, block, layer, variable: `params["block5"]` is the last
        block of VGG19. Of several one such dict for each name. An argument of `apply`, so that a
        jitted program does not hold a copy.
      channels: channels of the features.
      preprocess: how images are prepared for these weights, a key of `PREPROCESS`.
      origin: where the weights came from, in words.
      digest: SHA-256 of the weight file, or of name and seed if the weights are random.
      random: whether nothing was ever learned by these weights.
      layer: the layer whose output the features are; empty for the last map.
      folded: whether batch norms were folded into their convolutions.
      parts: of several, each; their features stand side by side, in this order.
      given: whether there is no network: the features are a user's own.
    """

    name: str
    graphdef: Any
    params: Params
    channels: int
    preprocess: str
    origin: str
    digest: str
    random: bool
    layer: str = ""
    folded: bool = False
    parts: tuple["Backbone", ...] = ()
    given: bool = False

    @property
    def key(self) -> tuple[str, ...]:
        """What its features depend on, besides the images."""
        if self.parts:
            return tuple(word for part in self.parts for word in part.key)
        return self.name, self.digest, self.layer, "folded" if self.folded else "as stored"

    def apply(self, params: Params, images: jax.Array, compute: str = "float32") -> jax.Array:
        """Features of a batch; pure, to be jitted by the caller.

        Args:
          params: such as `self.params`.
          images: RGB 0..255, uint8 or float [B, H, W, 3].
          compute: type of the parameters and of what the layers give one another: float32 with all
            its digits, or bfloat16, whose products an accelerator still sums in float32.

        Returns:
          float32 [B, h, w, channels].
        """
        if self.given:
            raise ConfigError("config.features.file: own features come from no network")
        if self.parts:
            return joined([part.apply(params[part.name], images, compute) for part in self.parts])
        prepared = PREPROCESS[self.preprocess](images)
        if compute == "float32":
            # Else accelerators multiply numbers that are rounded to three digits (TF32, bfloat16).
            with jax.default_matmul_precision("highest"):
                return self._network(params)(prepared, self.layer)
        narrow = jax.tree.map(lambda leaf: leaf.astype(compute), params)
        maps = self._network(narrow)(prepared.astype(compute), self.layer)
        return maps.astype(jnp.float32)

    def _network(self, params: Params) -> Network:
        network: Network = nnx.merge(self.graphdef, params)
        return network

    def feature_shape(self, image_size: tuple[int, int]) -> tuple[int, int, int]:
        """(h, w, C) of the features of images of `image_size` (height, width); computes nothing.

        Raises:
          ConfigError: the images are so small that nothing of them is left.
        """
        if self.given:
            return 1, 1, self.channels
        images = jax.ShapeDtypeStruct((1, *image_size, 3), jnp.uint8)
        height, width, channels = jax.eval_shape(self.apply, self.params, images).shape[1:]
        if height == 0 or width == 0:
            raise ConfigError(
                f"config.data.image_size={image_size}: too small for {self.name}; use 32 or more"
            )
        return height, width, channels


def load_backbone(
    name: str, weights: str | Path, *, layer: str = "", fold: bool = True, seed: int = 0
) -> Backbone:
    """A backbone with its weights, or several side by side.

    Args:
      name: a key of `NETWORKS`, or several joined by commas.
      weights: "imagenet" (the published file, from the cache or the network), "random", or the
        path of a weight file. For several names either of the words, which all follow, or one of
        all of these for each, joined by commas.
      layer: the layer whose output the features are, a name that the network's `blocks` yields;
        empty for the last map. For several names likewise.
      fold: whether batch norms become part of the convolutions before them.
      seed: of random weights; not used otherwise.

    Raises:
      ConfigError: no backbone, or no layer of it, has that name; a list has another length.
      WeightsError: the weights are absent, unsafe, damaged, or of another architecture.
    """
    names = [part.strip() for part in name.split(",")]
    if len(names) == 1:
        return _load_one(names[0], weights, layer, fold, seed)
    if len(set(names)) < len(names):
        raise ConfigError(f"config.backbone.name={name!r}: give each backbone once")
    parts = tuple(
        _load_one(*chosen, fold, seed)
        for chosen in zip(
            names,
            _for_each(names, "weights", str(weights)),
            _for_each(names, "layer", layer),
            strict=True,
        )
    )
    return side_by_side(parts)


def side_by_side(parts: Sequence[Backbone]) -> Backbone:
    """Several backbones as one, with their features in the given order."""
    return Backbone(
        name=",".join(part.name for part in parts),
        graphdef=None,
        params={part.name: part.params for part in parts},
        channels=sum(part.channels for part in parts),
        preprocess=",".join(part.preprocess for part in parts),
        origin="; ".join(f"{part.name}: {part.origin}" for part in parts),
        digest=digest_json([part.digest for part in parts]),
        random=any(part.random for part in parts),
        layer=",".join(part.layer for part in parts),
        folded=all(part.folded for part in parts),
        parts=tuple(parts),
    )


def own_features(channels: int) -> Backbone:
    """What stands for the backbone where a user's own features of so many channels are read."""
    return Backbone(
        name="own features",
        graphdef=None,
        params={},
        channels=channels,
        preprocess="none",
        origin="config.features.file",
        digest=digest_json({"own features": channels}),
        random=False,
        given=True,
    )


def _for_each(names: list[str], key: str, value: str) -> list[str]:
    """A comma list with an entry for each name; one of the words that fit all goes to all."""
    if value in ("", "imagenet", "random"):
        return [value] * len(names)
    entries = [entry.strip() for entry in value.split(",")]
    if len(entries) != len(names):
        raise ConfigError(
            f"config.backbone.{key}={value!r}: has {len(entries)} entries for {len(names)} "
            f"backbones ({', '.join(names)}); give one for each, joined by commas"
        )
    return entries


def _load_one(name: str, weights: str | Path, layer: str, fold: bool, seed: int) -> Backbone:
    if name not in NETWORKS:
        raise ConfigError(f"config.backbone.name={name!r}: choose one of {', '.join(NETWORKS)}")
    network = NETWORKS[name]()
    if weights == "random":
        loaded = random_weights(name, network, seed)
        origin = f"random, seed {seed}"
    elif weights == "imagenet":
        path = published_weights(name)
        loaded = read_weights(path, name, network)
        origin = f"ImageNet, {path.name}" if name in PUBLISHED else HUB_FILES[name].repo
    else:
        loaded = read_weights(Path(weights), name, network)
        origin = f"file {weights}"
    params = fold_batch_norms(network, loaded.params) if fold else loaded.params
    graphdef = nnx.split(network)[0]
    return Backbone(
        name=name,
        graphdef=graphdef,
        params=params,
        channels=_channels_of(graphdef, params, name, layer) if layer else network.channels,
        preprocess=loaded.preprocess,
        origin=origin,
        digest=loaded.digest,
        random=weights == "random",
        layer=layer,
        folded=fold,
    )


def _channels_of(graphdef: nnx.GraphDef[Network], params: Params, name: str, layer: str) -> int:
    channels: dict[str, int] = {}

    def note(params: Params, images: jax.Array) -> None:
        for block, activation in nnx.merge(graphdef, params).blocks(images):
            channels[block] = activation.shape[-1]

    jax.eval_shape(note, params, jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32))
    if layer not in channels:
        raise ConfigError(
            f"config.backbone.layer={layer!r}: {name} has no such feature layer; choose one of "
            f"{', '.join(channels)}"
        )
    return channels[layer]
