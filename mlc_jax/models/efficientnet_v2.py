"""EfficientNetV2 B0 to B3 and S without the classifier (arXiv:2104.00298)."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
from flax import nnx

from mlc_jax.models.efficientnet import NAMES
from mlc_jax.models.inverted_residual import InvertedResidual, Squeeze
from mlc_jax.models.layers import BatchNorm, Conv, Network


class Stage(NamedTuple):
    """A row of table 4; `fused`: whether one convolution expands and filters (figure 2)."""

    fused: bool
    repeats: int
    features: int
    expansion: int
    stride: int


B_STAGES = (
    Stage(True, 1, 16, 1, 1),
    Stage(True, 2, 32, 4, 2),
    Stage(True, 2, 48, 4, 2),
    Stage(False, 3, 96, 4, 2),
    Stage(False, 5, 112, 6, 1),
    Stage(False, 8, 192, 6, 2),
)
S_STAGES = (
    Stage(True, 2, 24, 1, 1),
    Stage(True, 4, 48, 4, 2),
    Stage(True, 4, 64, 4, 2),
    Stage(False, 6, 128, 4, 2),
    Stage(False, 9, 160, 6, 1),
    Stage(False, 15, 256, 6, 2),
)
# Keras numbers the layer, as if the fused block's convolution were the first.
V2_NAMES = NAMES._replace(depthwise=("dwconv2", "bn"))


class FusedResidual(nnx.Module):
    """Expand by a 3x3 convolution, project; add the input where shapes agree (figure 2, right).

    Without expansion the 3x3 convolution projects, and its output is activated.
    """

    def __init__(self, features_in: int, features: int, expansion: int, stride: int) -> None:
        self.expands = expansion > 1
        self.adds = features_in == features and stride == 1
        width = expansion * features_in
        if self.expands:
            self.expand_conv = Conv(features_in, width, 3, stride=stride)
            self.expand_bn = BatchNorm(width, after="expand_conv")
            self.project_conv = Conv(width, features, 1)
        else:
            self.project_conv = Conv(features_in, features, 3, stride=stride)
        self.project_bn = BatchNorm(features, after="project_conv")

    @property
    def output(self) -> str:
        """Keras's name of the layer that ends the block, without the block's own."""
        if self.adds:
            return "add"
        return "project_bn" if self.expands else "project_activation"

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, features_in] to [B, ceil(H / stride), ceil(W / stride), features]."""
        if self.expands:
            y = nnx.silu(self.expand_bn(self.expand_conv(x)))
            y = self.project_bn(self.project_conv(y))
        else:
            y = nnx.silu(self.project_bn(self.project_conv(x)))
        return x + y if self.adds else y


class EfficientNetV2(Network):
    """A convolution, fused and plain inverted residuals, a 1x1 convolution: stride 32.

    Args:
      stages: `B_STAGES` or `S_STAGES`.
      stem: channels of the first convolution.
      width, depth: what channels and repeats are multiplied by.
      preprocess: "torch" for the B models, "tf128" for S.
    """

    top = ("predictions",)

    def __init__(
        self, stages: tuple[Stage, ...], stem: int, width: float, depth: float, preprocess: str
    ) -> None:
        self.preprocess = preprocess
        features_in = _rounded(stem * width)
        self.stem_conv = Conv(3, features_in, 3, stride=2)
        self.stem_bn = BatchNorm(features_in, after="stem_conv")
        names = []
        for number, stage in enumerate(stages, 1):
            features = _rounded(stage.features * width)
            for repeat in range(math.ceil(stage.repeats * depth)):
                stride = stage.stride if repeat == 0 else 1
                names.append(f"block{number}{chr(ord('a') + repeat)}")
                setattr(self, names[-1], _block(stage, features_in, features, stride))
                features_in = features
        self.names = tuple(names)
        self.channels = _rounded(1280 * width)
        self.last_block = (names[-1], "top_conv", "top_bn")
        self.top_conv = Conv(features_in, self.channels, 1)
        self.top_bn = BatchNorm(self.channels, after="top_conv")

    def blocks(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
        """Yields the first convolution's map, each residual's, and the final map."""
        x = nnx.silu(self.stem_bn(self.stem_conv(x)))
        yield "stem_activation", x
        for name in self.names:
            block = getattr(self, name)
            x = block(x)
            yield f"{name}_{block.output}", x
        x = nnx.silu(self.top_bn(self.top_conv(x)))
        yield "top_activation", x


def _block(
    stage: Stage, features_in: int, features: int, stride: int
) -> FusedResidual | InvertedResidual:
    if stage.fused:
        return FusedResidual(features_in, features, stage.expansion, stride)
    return InvertedResidual(
        V2_NAMES,
        features_in,
        stage.expansion * features_in,
        features,
        kernel=3,
        stride=stride,
        activation=nnx.silu,
        squeeze=Squeeze(features_in // 4, nnx.silu, nnx.sigmoid),
    )


def _rounded(channels: float) -> int:
    """The nearest multiple of 8; the first version took none below nine tenths of `channels`."""
    return int(channels + 4) // 8 * 8
