"""EfficientNet B0 to B7 without the classifier (arXiv:1905.11946)."""

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import nnx

from mlc_jax.models.inverted_residual import InvertedResidual, Names, Squeeze
from mlc_jax.models.layers import BatchNorm, Conv, Network, Normalization

# Kernel, repeats n, output channels, expansion, stride of the first: table 1, stages 2 to 8.
STAGES = (
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
)
NAMES = Names(
    expand=("expand_conv", "expand_bn"),
    depthwise=("dwconv", "bn"),
    project=("project_conv", "project_bn"),
    squeeze=("se_reduce", "se_expand"),
)
# The published files keep deviations where the layer `normalization` looks for variances; Keras
# divides once more by their root (github.com/tensorflow/tensorflow/issues/49930).
IMAGENET_STD = (0.229, 0.224, 0.225)


class EfficientNet(Network):
    """A convolution, inverted residuals and a 1x1 convolution, to top_activation: stride 32.

    Args:
      width, depth: what the channels and the repeats of B0 are multiplied by (section 3.3).
    """

    preprocess = "unit"
    top = ("predictions",)

    def __init__(self, width: float, depth: float) -> None:
        features_in = rounded(32 * width)
        self.normalization = Normalization()
        self.stem_conv = Conv(3, features_in, 3, stride=2)
        self.stem_bn = BatchNorm(features_in, after="stem_conv")
        names = []
        for stage, (kernel, repeats, channels, expansion, stride) in enumerate(STAGES, 1):
            features = rounded(channels * width)
            for repeat in range(math.ceil(repeats * depth)):
                block = InvertedResidual(
                    NAMES,
                    features_in,
                    expansion * features_in,
                    features,
                    kernel=kernel,
                    stride=stride if repeat == 0 else 1,
                    activation=nnx.silu,
                    squeeze=Squeeze(features_in // 4, nnx.silu, nnx.sigmoid),
                    expands=expansion > 1,
                )
                names.append(f"block{stage}{chr(ord('a') + repeat)}")
                setattr(self, names[-1], block)
                features_in = features
        self.names = tuple(names)
        self.channels = rounded(1280 * width)
        self.last_block = (names[-1], "top_conv", "top_bn")
        self.top_conv = Conv(features_in, self.channels, 1)
        self.top_bn = BatchNorm(self.channels, after="top_conv")

    def blocks(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
        """Yields the first convolution's map, each inverted residual's, and the final map."""
        x = self.normalization(x) / jnp.sqrt(jnp.array(IMAGENET_STD)).astype(x.dtype)
        x = nnx.silu(self.stem_bn(self.stem_conv(x)))
        yield "stem_activation", x
        for name in self.names:
            block = getattr(self, name)
            x = block(x)
            yield f"{name}_{block.output}", x
        x = nnx.silu(self.top_bn(self.top_conv(x)))
        yield "top_activation", x


def rounded(channels: float) -> int:
    """The nearest multiple of 8 that is at least nine tenths of `channels`."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
