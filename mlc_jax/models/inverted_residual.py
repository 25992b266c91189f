"""The block that MobileNetV2, MobileNetV3 and EfficientNet share, under the names of each."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from flax import nnx

from mlc_jax.models.layers import BatchNorm, Conv, DepthwiseConv

Activation = Callable[[jax.Array], jax.Array]


class Names(NamedTuple):
    """What a family calls the layers of the block: a convolution and its batch norm each."""

    expand: tuple[str, str]
    depthwise: tuple[str, str]
    project: tuple[str, str]
    squeeze: tuple[str, str] = ("", "")


class Squeeze(NamedTuple):
    """How channels are weighed by their means (arXiv:1709.01507, section 3).

    Attributes:
      features: width between the two products.
      activation: after the first.
      gate: after the second, giving the weights.
    """

    features: int
    activation: Activation
    gate: Activation


class InvertedResidual(nnx.Module):
    """Expand, filter each channel, weigh the channels, project; add the input where shapes agree.

    arXiv:1801.04381, figure 4d; with the weighing arXiv:1905.02244, figure 4.

    Args:
      names: of its layers.
      features_in, width, features: channels that come in, in between, and that go out.
      kernel, stride: of the filters.
      activation: after expanding and filtering.
      squeeze: how channels are weighed; None if they are not.
      expands: whether the first convolution is there; without it, width = features_in.
    """

    def __init__(
        self,
        names: Names,
        features_in: int,
        width: int,
        features: int,
        *,
        kernel: int,
        stride: int,
        activation: Activation,
        squeeze: Squeeze | None = None,
        expands: bool = True,
    ) -> None:
        self.names, self.activation, self.expands = names, activation, expands
        self.squeeze = squeeze
        self.adds = features_in == features and stride == 1
        if expands:
            self._normed(names.expand, Conv(features_in, width, 1), width)
        self._normed(names.depthwise, DepthwiseConv(width, kernel, stride=stride), width)
        if squeeze:
            reduce, expand = names.squeeze
            setattr(self, reduce, Conv(width, squeeze.features, 1, bias=True))
            setattr(self, expand, Conv(squeeze.features, width, 1, bias=True))
        self._normed(names.project, Conv(width, features, 1), features)

    @property
    def output(self) -> str:
        """Keras's name of the layer that ends the block, without the block's own."""
        return "add" if self.adds else self.names.project[1]

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, features_in] to [B, ceil(H / stride), ceil(W / stride), features]."""
        y = self.activation(self._run(self.names.expand, x)) if self.expands else x
        y = self.activation(self._run(self.names.depthwise, y))
        if self.squeeze:
            reduce, expand = (getattr(self, name) for name in self.names.squeeze)
            means = y.mean(axis=(1, 2), keepdims=True)
            y = y * self.squeeze.gate(expand(self.squeeze.activation(reduce(means))))
        y = self._run(self.names.project, y)
        return x + y if self.adds else y

    def _normed(self, names: tuple[str, str], conv: nnx.Module, features: int) -> None:
        setattr(self, names[0], conv)
        setattr(self, names[1], BatchNorm(features, after=names[0]))

    def _run(self, names: tuple[str, str], x: jax.Array) -> jax.Array:
        conv, norm = (getattr(self, name) for name in names)
        return norm(conv(x))
