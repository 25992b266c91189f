"""MobileNetV2 of width 1.0 without its classifier (arXiv:1801.04381, table 2)."""

from collections.abc import Iterator

import jax
from flax import nnx

from mlc_jax.models.inverted_residual import InvertedResidual, Names
from mlc_jax.models.layers import BatchNorm, Conv, Network

# Expansion t, output channels c, repeats n, stride s of the first: the rows of table 2.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
NAMES = Names(
    expand=("expand", "expand_BN"),
    depthwise=("depthwise", "depthwise_BN"),
    project=("project", "project_BN"),
)


class MobileNetV2(Network):
    """A convolution, seventeen inverted residuals and a 1x1 convolution, to out_relu: stride 32."""

    preprocess = "tf"
    channels = 1280
    top = ("predictions", "Logits")
    last_block = ("block_16", "Conv_1", "Conv_1_bn")

    def __init__(self) -> None:
        self.Conv1 = Conv(3, 32, 3, stride=2)
        self.bn_Conv1 = BatchNorm(32, after="Conv1")
        names: list[str] = []
        features_in = 32
        for expansion, features, repeats, stride in STAGES:
            for repeat in range(repeats):
                block = InvertedResidual(
                    NAMES,
                    features_in,
                    expansion * features_in,
                    features,
                    kernel=3,
                    stride=stride if repeat == 0 else 1,
                    activation=nnx.relu6,
                    expands=expansion > 1,
                )
                names.append(f"block_{len(names)}" if names else "expanded_conv")
                setattr(self, names[-1], block)
                features_in = features
        self.names = tuple(names)
        self.Conv_1 = Conv(features_in, self.channels, 1)
        self.Conv_1_bn = BatchNorm(self.channels, after="Conv_1")

    def blocks(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
        """Yields the first convolution's map, each inverted residual's, and the final map."""
        x = nnx.relu6(self.bn_Conv1(self.Conv1(x)))
        yield "Conv1_relu", x
        for name in self.names:
            block = getattr(self, name)
            x = block(x)
            yield f"{name}_{block.output}", x
        x = nnx.relu6(self.Conv_1_bn(self.Conv_1(x)))
        yield "out_relu", x
