"""What the frozen backbones are built of: layers without values.

Every variable is a `jax.ShapeDtypeStruct`, so building a network costs nothing, `nnx.split` gives
its graph definition, and `nnx.merge` joins that with values from a file or a seed. Attributes
follow Keras: joined by "_", the path of a layer is its name there, and their order is its order.
"""

import itertools
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mlc_jax.models.stored import Stored

LAYOUT = ("NHWC", "HWIO", "NHWC")

Padding = tuple[int, int] | None
"""Zeros before and after a map, in height and in width alike; None for TensorFlow's SAME, which
puts what is odd below and right."""
NO_PADDING = (0, 0)


class LayerSpec(NamedTuple):
    """A layer of Keras with variables.

    Attributes:
      path: where it is in the network.
      shapes: of its variables, in Keras's order.
      unread: names of arrays that Keras stores after those, which no inference needs.
    """

    path: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]
    unread: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Keras's name of the layer."""
        return "_".join(self.path)


class Network(nnx.Module):
    """A backbone without its classifier.

    Attributes:
      preprocess: how Keras prepares images for its published weights, a key of `PREPROCESS`.
      channels: channels of the final map.
      top: names of classifier layers, which a weight file may hold and which are not read.
      last_block: names of the top-level parts that fine-tuning of the last block trains.
    """

    preprocess: str
    channels: int
    top: tuple[str, ...]
    last_block: tuple[str, ...]

    def blocks(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
        """Yields (Keras's layer name, activation [B, h, w, C]) of each block, last the final map.

        Where Keras leaves a layer unnamed, the name is the block's.

        Args:
          x: prepared images, float32 [B, H, W, 3].
        """
        raise NotImplementedError

    def torch_layers(self) -> dict[str, str]:
        """Keras's layer names to torchvision's ("block1_conv1": "features.0"); empty if unknown."""
        return {}

    def hub_arrays(self, found: dict[str, Stored]) -> dict[str, Stored] | None:
        """Our arrays of a file in the names of the Hugging Face Hub; None where none are known."""
        del found
        return None

    def __call__(self, x: jax.Array, layer: str = "") -> jax.Array:
        """Features of prepared images.

        Args:
          x: float32 [B, H, W, 3].
          layer: a name that `blocks` yields; nothing after it is computed. Empty: the last.

        Returns:
          float32 [B, h, w, C].
        """
        for name, activation in self.blocks(x):
            x = activation
            if name == layer:
                break
        return x


class Joined(nnx.Module):
    """Layers in a row that Keras's files store as one layer, as they do a `Sequential`'s."""

    def __init__(self, **layers: nnx.Module) -> None:
        self.names = tuple(layers)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def __call__(self, x: jax.Array) -> jax.Array:
        """One after the other."""
        for name in self.names:
            x = getattr(self, name)(x)
        return x


def layer_specs(module: nnx.Module, path: tuple[str, ...] = ()) -> list[LayerSpec]:
    """The layers of a network as it was built, in Keras's order.

    A merged network has its attributes sorted by name, so ask before `nnx.split`.
    """
    if isinstance(module, Joined):
        inner = [layer_specs(getattr(module, name), (name,)) for name in module.names]
        shapes = {
            "/".join((*spec.path, variable)): shape
            for spec in itertools.chain(*inner)
            for variable, shape in spec.shapes.items()
        }
        return [LayerSpec(path, shapes)]
    specs = []
    shapes = {
        name: value.shape for name, value in vars(module).items() if isinstance(value, nnx.Variable)
    }
    if shapes:
        specs.append(LayerSpec(path, shapes, getattr(module, "unread", ())))
    for name, child in vars(module).items():
        if isinstance(child, nnx.Module):
            specs.extend(layer_specs(child, (*path, name)))
    return specs


class Conv(nnx.Module):
    """A convolution.

    SAME at stride 2 is also what Keras's `correct_pad` before a VALID convolution comes to, for odd
    kernels at any size.
    """

    scaled: ClassVar[str] = "kernel"

    def __init__(
        self,
        features_in: int,
        features: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: Padding = None,
        bias: bool = False,
    ) -> None:
        self.stride, self.padding = stride, padding
        self.kernel = variable(kernel, kernel, features_in, features)
        self.bias = variable(features) if bias else nnx.data(None)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, features_in] to [B, h, w, features]; SAME: h = ceil(H / stride)."""
        if self.kernel.shape[:2] == (1, 1):
            # A matrix product; XLA's CPU convolution does not see that it is one.
            x = x[:, :: self.stride, :: self.stride] @ self.kernel[0, 0]
        else:
            strides = (self.stride, self.stride)
            padding = "SAME" if self.padding is None else [self.padding] * 2
            x = jax.lax.conv_general_dilated(
                x, self.kernel[...], strides, padding, dimension_numbers=LAYOUT
            )
        return x if self.bias is None else x + self.bias[...]


class DepthwiseConv(nnx.Module):
    """One filter per channel; its kernel is [k, k, features, 1], as in Keras."""

    scaled: ClassVar[str] = "depthwise_kernel"

    def __init__(
        self, features: int, kernel: int, *, stride: int = 1, padding: Padding = None
    ) -> None:
        self.stride, self.padding = stride, padding
        self.depthwise_kernel = variable(kernel, kernel, features, 1)
        self.bias = nnx.data(None)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, features] to [B, h, w, features]; SAME: h = ceil(H / stride)."""
        x = _filtered(x, self.depthwise_kernel[..., 0], self.stride, self.padding)
        return x if self.bias is None else x + self.bias[...]


class GroupedConv(nnx.Module):
    """As many groups as channels: a `DepthwiseConv` whose kernel Keras stores as [k, k, 1, C]."""

    def __init__(self, features: int, kernel: int) -> None:
        self.kernel = variable(kernel, kernel, 1, features)
        self.bias = variable(features)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, features] to the same shape."""
        return _filtered(x, self.kernel[:, :, 0], 1, None) + self.bias[...]


class SeparableConv(nnx.Module):
    """A filter per channel, then a 1x1 convolution, in one layer (arXiv:1610.02357, section 2)."""

    scaled: ClassVar[str] = "pointwise_kernel"

    def __init__(self, features_in: int, features: int, kernel: int) -> None:
        self.depthwise_kernel = variable(kernel, kernel, features_in, 1)
        self.pointwise_kernel = variable(1, 1, features_in, features)
        self.bias = nnx.data(None)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, features_in] to [B, H, W, features]."""
        x = _filtered(x, self.depthwise_kernel[..., 0], 1, None) @ self.pointwise_kernel[0, 0]
        return x if self.bias is None else x + self.bias[...]


class Dense(nnx.Module):
    """A matrix product over channels."""

    def __init__(self, features_in: int, features: int) -> None:
        self.kernel = variable(features_in, features)
        self.bias = variable(features)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., features_in] to [..., features]."""
        return x @ self.kernel[...] + self.bias[...]


class Scale(nnx.Module):
    """A factor per channel (arXiv:2103.17239, equation 9)."""

    def __init__(self, features: int) -> None:
        self.gamma = variable(features)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., features] to the same shape."""
        return x * self.gamma[...]


class BatchNorm(nnx.Module):
    """Normalisation by stored statistics, which no gradient reaches (arXiv:1502.03167, alg. 2).

    Args:
      features: channels.
      after: name of the convolution beside it whose output, unchanged, is its input, and which it
        can therefore be folded into; None where something else comes in between.
      epsilon: added to the variance.
    """

    def __init__(self, features: int, *, after: str | None, epsilon: float = 1e-3) -> None:
        self.after, self.epsilon = after, epsilon
        self.gamma = variable(features)
        self.beta = variable(features)
        self.moving_mean = variable(features)
        self.moving_variance = variable(features)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, features] to the same shape."""
        mean = jax.lax.stop_gradient(self.moving_mean[...])
        variance = jax.lax.stop_gradient(self.moving_variance[...])
        scale = self.gamma[...] * jax.lax.rsqrt(variance + self.epsilon)
        return (x - mean) * scale + self.beta[...]


class Folded(nnx.Module):
    """Stands where a batch norm was that is part of its convolution now."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """The same array."""
        return x


class LayerNorm(nnx.Module):
    """Normalisation over the channels of each place (arXiv:1607.06450, equation 3)."""

    def __init__(self, features: int, *, epsilon: float = 1e-6) -> None:
        self.epsilon = epsilon
        self.gamma = variable(features)
        self.beta = variable(features)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, features] to the same shape."""
        x = x - x.mean(axis=-1, keepdims=True)
        variance = jnp.square(x).mean(axis=-1, keepdims=True)
        return x * jax.lax.rsqrt(variance + self.epsilon) * self.gamma[...] + self.beta[...]


class Normalization(nnx.Module):
    """Normalisation of images by the statistics of a data set, which no gradient reaches."""

    unread: ClassVar[tuple[str, ...]] = ("count",)

    def __init__(self) -> None:
        self.moving_mean = variable(3)
        self.moving_variance = variable(3)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, 3] to the same shape."""
        mean = jax.lax.stop_gradient(self.moving_mean[...])
        variance = jax.lax.stop_gradient(self.moving_variance[...])
        return (x - mean) / jnp.sqrt(variance)


def _filtered(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """Each channel filtered by its own [k, k] of `kernel` [k, k, C].

    Written as one product per kernel position, which XLA fuses into a single pass over the map. Its
    grouped convolution takes four times as long on a CPU for the whole of MobileNetV2.
    """
    size, strides = kernel.shape[:2], (stride, stride)
    pads = jax.lax.padtype_to_pads(x.shape[1:3], size, strides, "SAME")
    x = jnp.pad(x, ((0, 0), *(pads if padding is None else [padding] * 2), (0, 0)))
    height, width = (
        (whole - part) // stride + 1 for whole, part in zip(x.shape[1:3], size, strict=True)
    )
    total = jnp.zeros((), x.dtype)
    for i in range(size[0]):
        for j in range(size[1]):
            rows = slice(i, i + (height - 1) * stride + 1, stride)
            columns = slice(j, j + (width - 1) * stride + 1, stride)
            total = total + x[:, rows, columns] * kernel[i, j]
    return total


def max_pool(x: jax.Array, window: int = 2, padding: str = "VALID") -> jax.Array:
    """The maximum of each window at stride 2; 2x2: [B, H, W, C] to [B, H // 2, W // 2, C]."""
    return nnx.max_pool(x, window_shape=(window, window), strides=(2, 2), padding=padding)


def variable(*shape: int) -> nnx.Param:
    """A float32 variable without a value."""
    return nnx.Param(jax.ShapeDtypeStruct(shape, jnp.float32))
