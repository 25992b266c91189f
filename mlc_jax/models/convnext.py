"""ConvNeXt tiny and base without the classifier (arXiv:2201.03545)."""

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

# Blocks of each stage, and its channels (section 3.1).
TINY = ((3, 96), (3, 192), (9, 384), (3, 768))
BASE = ((3, 128), (3, 256), (27, 512), (3, 1024))


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
