"""ResNet50 in both versions without the classifier (arXiv:1512.03385, arXiv:1603.05027)."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import nnx

from mlc_jax.models.layers import BatchNorm, Conv, Network, max_pool

# Blocks of each stage and their inner width; what goes out is four times as wide.
STAGES = {"conv2": (3, 64), "conv3": (4, 128), "conv4": (6, 256), "conv5": (3, 512)}
EPSILON = 1.001e-5
LAST_BLOCK = tuple(f"conv5_block{n}" for n in (1, 2, 3))


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolutions added to their input, then ReLU; the first has the stride."""

    def __init__(self, features_in: int, width: int, *, stride: int) -> None:
        features = 4 * width
        self.projects = features_in != features
        _add(self, "1", Conv(features_in, width, 1, stride=stride, bias=True), width)
        _add(self, "2", Conv(width, width, 3, bias=True), width)
        # In the order of Keras's files, which go by the distance from the end of the network.
        if self.projects:
            setattr(self, "0_conv", Conv(features_in, features, 1, stride=stride, bias=True))
        setattr(self, "3_conv", Conv(width, features, 1, bias=True))
        if self.projects:
            setattr(self, "0_bn", BatchNorm(features, after="0_conv", epsilon=EPSILON))
        setattr(self, "3_bn", BatchNorm(features, after="3_conv", epsilon=EPSILON))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, features_in] to [B, ceil(H / stride), ceil(W / stride), 4 * width]."""
        y = nnx.relu(_run(self, "1", x))
        y = nnx.relu(_run(self, "2", y))
        y = _run(self, "3", y)
        return nnx.relu((_run(self, "0", x) if self.projects else x) + y)


class PreactivatedBottleneck(nnx.Module):
    """The same with batch norm and ReLU first; the stride is in the 3x3 convolution."""

    def __init__(self, features_in: int, width: int, *, stride: int) -> None:
        features = 4 * width
        self.projects, self.stride = features_in != features, stride
        self.preact_bn = BatchNorm(features_in, after=None, epsilon=EPSILON)
        _add(self, "1", Conv(features_in, width, 1), width)
        _add(self, "2", Conv(width, width, 3, stride=stride, padding=(1, 1)), width)
        if self.projects:
            setattr(self, "0_conv", Conv(features_in, features, 1, bias=True))
        setattr(self, "3_conv", Conv(width, features, 1, bias=True))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, features_in] to [B, ceil(H / stride), ceil(W / stride), 4 * width]."""
        y = nnx.relu(self.preact_bn(x))
        # A block that projects has no stride: stages shrink the map at their end.
        kept = getattr(self, "0_conv")(y) if self.projects else x[:, :: self.stride, :: self.stride]
        y = nnx.relu(_run(self, "1", y))
        y = nnx.relu(_run(self, "2", y))
        return kept + getattr(self, "3_conv")(y)


class ResNet50(Network):
    """A 7x7 convolution, pooling and sixteen bottlenecks, to conv5_block3_out: stride 32."""

    preprocess = "caffe"
    channels = 2048
    top = ("predictions", "probs", "fc1000")
    last_block = LAST_BLOCK

    def __init__(self) -> None:
        _add(self, "conv1", Conv(3, 64, 7, stride=2, padding=(3, 3), bias=True), 64)
        features_in = 64
        for stage, (blocks, width) in STAGES.items():
            for n in range(1, blocks + 1):
                stride = 2 if n == 1 and stage != "conv2" else 1
                setattr(self, f"{stage}_block{n}", Bottleneck(features_in, width, stride=stride))
                features_in = 4 * width

    def blocks(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
        """Yields the first convolution's map and each bottleneck's."""
        x = nnx.relu(_run(self, "conv1", x))
        yield "conv1_relu", x
        x = _pool(x)
        for name in _names():
            x = getattr(self, name)(x)
            yield f"{name}_out", x


class ResNet50V2(Network):
    """The same with preactivation, to post_relu: stride 32."""

    preprocess = "tf"
    channels = 2048
    top = ("predictions", "probs")
    last_block = (*LAST_BLOCK, "post_bn")

    def __init__(self) -> None:
        self.conv1_conv = Conv(3, 64, 7, stride=2, padding=(3, 3), bias=True)
        features_in = 64
        for stage, (blocks, width) in STAGES.items():
            for n in range(1, blocks + 1):
                stride = 2 if n == blocks and stage != "conv5" else 1
                block = PreactivatedBottleneck(features_in, width, stride=stride)
                setattr(self, f"{stage}_block{n}", block)
                features_in = 4 * width
        self.post_bn = BatchNorm(features_in, after=None, epsilon=EPSILON)

    def blocks(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
        """Yields the first convolution's map, each bottleneck's, and the final map."""
        x = self.conv1_conv(x)
        yield "conv1_conv", x
        x = _pool(x)
        for name in _names():
            x = getattr(self, name)(x)
            yield f"{name}_out", x
        x = nnx.relu(self.post_bn(x))
        yield "post_relu", x


def _names() -> Iterator[str]:
    for stage, (blocks, _) in STAGES.items():
        yield from (f"{stage}_block{n}" for n in range(1, blocks + 1))


def _pool(x: jax.Array) -> jax.Array:
    """3x3 maxima at stride 2 of the map with a border of zeros, which can be the maximum."""
    return max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 3)


def _add(module: nnx.Module, name: str, conv: Conv, features: int) -> None:
    setattr(module, f"{name}_conv", conv)
    setattr(module, f"{name}_bn", BatchNorm(features, after=f"{name}_conv", epsilon=EPSILON))


def _run(module: nnx.Module, name: str, x: jax.Array) -> jax.Array:
    conv, norm = getattr(module, f"{name}_conv"), getattr(module, f"{name}_bn")
    return norm(conv(x))
