"""ConvNeXt without the classifier (arXiv:2201.03545): Keras's, and DINOv3's distilled ones."""

import re
from collections.abc import Iterator

import jax
from flax import nnx

from mlc_jax.models.layers import (
    NO_PADDING,
    Conv,
    Dense,
    GroupedConv,
    Joined,
    LayerNorm,
    Network,
    Scale,
)
from mlc_jax.models.stored import OIHW_TO_HWIO, TRANSPOSED, Stored, transposed

# Blocks of each stage, and its channels (section 3.1).
TINY = ((3, 96), (3, 192), (9, 384), (3, 768))
SMALL = ((3, 96), (3, 192), (27, 384), (3, 768))
BASE = ((3, 128), (3, 256), (27, 512), (3, 1024))
LARGE = ((3, 192), (3, 384), (27, 768), (3, 1536))


class ConvNeXtBlock(nnx.Module):
    """A filter per channel, then two products with GELU in between, added to the input (fig. 4)."""

    def __init__(self, features: int) -> None:
        self.depthwise_conv = GroupedConv(features, 7)
        self.layernorm = LayerNorm(features)
        self.pointwise_conv_1 = Dense(features, 4 * features)
        self.pointwise_conv_2 = Dense(4 * features, features)
        self.layer_scale = Scale(features)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, features] to the same shape."""
        y = self.pointwise_conv_1(self.layernorm(self.depthwise_conv(x)))
        y = self.pointwise_conv_2(jax.nn.gelu(y, approximate=False))
        return x + self.layer_scale(y)


class ConvNeXt(Network):
    """Four stages, each after a convolution that shrinks the map, and a layer norm: stride 32.

    Args:
      name: what Keras's names begin with.
      stages: `TINY` or `BASE`.
    """

    preprocess = "torch"

    def __init__(self, name: str, stages: tuple[tuple[int, int], ...]) -> None:
        self.stages: tuple[tuple[str, ...], ...] = ()
        self.top = (f"{name}_head_dense",)
        features_in = 3
        for stage, (blocks, features) in enumerate(stages):
            names = [f"{name}_downsampling_block_{stage - 1}" if stage else f"{name}_stem"]
            if stage:
                conv = Conv(features_in, features, 2, stride=2, padding=NO_PADDING, bias=True)
                setattr(self, names[0], Joined(layernorm=LayerNorm(features_in), conv=conv))
            else:
                conv = Conv(features_in, features, 4, stride=4, padding=NO_PADDING, bias=True)
                setattr(self, names[0], Joined(conv=conv, layernorm=LayerNorm(features)))
            for block in range(blocks):
                names.append(f"{name}_stage_{stage}_block_{block}")
                setattr(self, names[-1], ConvNeXtBlock(features))
            self.stages = (*self.stages, tuple(names))
            features_in = features
        self.channels = features_in
        self.last_block = (*self.stages[-1], "layer_normalization")
        self.layer_normalization = LayerNorm(features_in)

    def blocks(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
        """Yields the maps after each shrinking and each block, and the final map.

        Keras leaves the sums that end the blocks unnamed.
        """
        for stage in self.stages:
            for name in stage:
                x = getattr(self, name)(x)
                yield name, x
        x = self.layer_normalization(x)
        yield "layer_normalization", x


class DINOv3ConvNeXt(ConvNeXt):
    """ConvNeXt as DINOv3 distilled it (arXiv:2508.10104): the norm comes after the mean over space.

    Each place of the final map is the norm of that place, moved by the same amount everywhere so
    that the mean over space is the norm of the mean, the feature it is used by.

    Args:
      stages: `TINY`, `SMALL`, `BASE` or `LARGE`.
    """

    def __init__(self, stages: tuple[tuple[int, int], ...]) -> None:
        super().__init__("dinov3_convnext", stages)
        self.top = ("head",)

    def blocks(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
        """As `ConvNeXt`, but for the final map."""
        for stage in self.stages:
            for name in stage:
                x = getattr(self, name)(x)
                yield name, x
        feature = self.layer_normalization(x.mean(axis=(1, 2), keepdims=True))
        x = self.layer_normalization(x)
        yield "layer_normalization", x + (feature - x.mean(axis=(1, 2), keepdims=True))

    def hub_arrays(self, found: dict[str, Stored]) -> dict[str, Stored]:
        """See `Network`; transformers' names and timm's."""
        arrays = {}
        for key, stored in found.items():
            name = _our_name(key)
            if name.endswith("/kernel"):
                axes = OIHW_TO_HWIO if len(stored.shape) == 4 else TRANSPOSED
                stored = transposed(stored, axes)
            arrays[name] = stored
        return arrays


_HUB_BLOCK = re.compile(
    r"(?:model\.)?stages\.(\d+)\.(?:layers|blocks)\.(\d+)\.(.+?)(?:\.(weight|bias))?"
)
_HUB_SHRINK = re.compile(
    r"(?:model\.)?stages\.(\d+)\.downsample(?:_layers)?\.([01])\.(weight|bias)"
)
_HUB_LAYERS = {
    "depthwise_conv": "depthwise_conv",
    "conv_dw": "depthwise_conv",
    "layer_norm": "layernorm",
    "norm": "layernorm",
    "pointwise_conv1": "pointwise_conv_1",
    "mlp.fc1": "pointwise_conv_1",
    "pointwise_conv2": "pointwise_conv_2",
    "mlp.fc2": "pointwise_conv_2",
}
_LAST_NORM = ("layer_norm", "head.norm", "norm")
_KERNEL, _NORM = {"weight": "kernel", "bias": "bias"}, {"weight": "gamma", "bias": "beta"}


def _our_name(key: str) -> str:
    """Our name of an array of a DINOv3 ConvNeXt; the same where it is not known."""
    layer, _, variable = key.rpartition(".")
    if match := _HUB_BLOCK.fullmatch(key):
        stage, block, layer, variable = match.groups()
        path = f"dinov3_convnext_stage_{stage}_block_{block}"
        if layer == "gamma":
            return f"{path}/layer_scale/gamma"
        name = _HUB_LAYERS.get(layer)
        kinds = _NORM if name == "layernorm" else _KERNEL
        return key if name is None else f"{path}/{name}/{kinds[variable]}"
    if match := _HUB_SHRINK.fullmatch(key):
        stage, place, variable = int(match[1]), int(match[2]), match[3]
        if stage == 0:  # transformers counts the stem's layers as these
            return _our_name(f"stem.{place}.{variable}")
        path = f"dinov3_convnext_downsampling_block_{stage - 1}"
        name = f"conv/{_KERNEL[variable]}" if place else f"layernorm/{_NORM[variable]}"
        return f"{path}/{name}"
    if layer in ("stem.0", "stem.1"):
        name = f"layernorm/{_NORM[variable]}" if layer[-1] == "1" else f"conv/{_KERNEL[variable]}"
        return f"dinov3_convnext_stem/{name}"
    if layer in _LAST_NORM:
        return f"layer_normalization/{_NORM[variable]}"
    return key
