"""MobileNetV3, small and large, of width 1.0 without the classifier (arXiv:1905.02244)."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
from flax import nnx

from mlc_jax.models.inverted_residual import InvertedResidual, Names, Squeeze
from mlc_jax.models.layers import BatchNorm, Conv, Network

NAMES = Names(
    expand=("expand", "expand_bn"),
    depthwise=("depthwise", "depthwise_bn"),
    project=("project", "project_bn"),
    squeeze=("squeeze_excite_conv", "squeeze_excite_conv_1"),
)


class Row(NamedTuple):
    """A row of table 1 or 2: one inverted residual."""

    kernel: int
    width: int
    features: int
    squeezes: bool
    hard_swish: bool
    stride: int


LARGE = (
    Row(3, 16, 16, False, False, 1),
    Row(3, 64, 24, False, False, 2),
    Row(3, 72, 24, False, False, 1),
    Row(5, 72, 40, True, False, 2),
    Row(5, 120, 40, True, False, 1),
    Row(5, 120, 40, True, False, 1),
    Row(3, 240, 80, False, True, 2),
    Row(3, 200, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 480, 112, True, True, 1),
    Row(3, 672, 112, True, True, 1),
    Row(5, 672, 160, True, True, 2),
    Row(5, 960, 160, True, True, 1),
    Row(5, 960, 160, True, True, 1),
)
SMALL = (
    Row(3, 16, 16, True, False, 2),
    Row(3, 72, 24, False, False, 2),
    Row(3, 88, 24, False, False, 1),
    Row(5, 96, 40, True, True, 2),
    Row(5, 240, 40, True, True, 1),
    Row(5, 240, 40, True, True, 1),
    Row(5, 120, 48, True, True, 1),
    Row(5, 144, 48, True, True, 1),
    Row(5, 288, 96, True, True, 2),
    Row(5, 576, 96, True, True, 1),
    Row(5, 576, 96, True, True, 1),
)


class MobileNetV3(Network):
    """A convolution, inverted residuals and a 1x1 convolution: stride 32.

    Args:
      rows: `SMALL` or `LARGE`.
    """

    preprocess = "tf"
    top = ("conv_2", "logits", "Conv_2", "Logits")

    def __init__(self, rows: tuple[Row, ...]) -> None:
        self.conv = Conv(3, 16, 3, stride=2)
        self.conv_bn = BatchNorm(16, after="conv")
        features_in = 16
        names: list[str] = []
        for row in rows:
            squeeze = Squeeze(_quarter(row.width), nnx.relu, nnx.hard_sigmoid)
            block = InvertedResidual(
                NAMES,
                features_in,
                row.width,
                row.features,
                kernel=row.kernel,
                stride=row.stride,
                activation=nnx.hard_swish if row.hard_swish else nnx.relu,
                squeeze=squeeze if row.squeezes else None,
                expands=bool(names),
            )
            names.append(f"expanded_conv_{len(names)}" if names else "expanded_conv")
            setattr(self, names[-1], block)
            features_in = row.features
        self.names = tuple(names)
        self.channels = 6 * features_in
        self.last_block = (names[-1], "conv_1", "conv_1_bn")
        self.conv_1 = Conv(features_in, self.channels, 1)
        self.conv_1_bn = BatchNorm(self.channels, after="conv_1")

    def blocks(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
        """Yields each inverted residual's map and the final map, hard swish of conv_1_bn."""
        x = nnx.hard_swish(self.conv_bn(self.conv(x)))
        for name in self.names:
            block = getattr(self, name)
            x = block(x)
            yield f"{name}_{block.output}", x
        x = nnx.hard_swish(self.conv_1_bn(self.conv_1(x)))
        yield "conv_1", x


def _quarter(width: int) -> int:
    """A quarter, rounded to a multiple of 8 that is at least nine tenths of it."""
    quarter = max(8, int(width / 4 + 4) // 8 * 8)
    return quarter + 8 if quarter < 0.9 * width / 4 else quarter
