"""What the frozen backbones are built of: layers without values.

Every variable is a `jax.ShapeDtypeStruct`, so building a network costs nothing, `nnx.split` gives
its graph definition, and `nnx.merge` joins that with values from a file or a seed. Attributes
follow Keras: joined by "_", the path of a layer is its name there, and their order is its order.
"""

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

LAYOUT = ("NHWC", "HWIO", "NHWC")


class LayerSpec(NamedTuple):
    """A layer with variables: its path in the network, and their shapes in Keras's order."""

    path: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]

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

    preprocess: ClassVar[str]
    channels: ClassVar[int]
    top: ClassVar[tuple[str, ...]]
    last_block: ClassVar[tuple[str, ...]]

    def blocks(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
        """Yields (Keras's layer name, activation [B, h, w, C]) of each block, last the final map.

        Args:
          x: prepared images, float32 [B, H, W, 3].
        """
        raise NotImplementedError

    def torch_layers(self) -> dict[str, str]:
        """Keras's layer names to torchvision's ("block1_conv1": "features.0"); empty if unknown."""
        return {}

    def __call__(self, x: jax.Array) -> jax.Array:
        """Prepared images, float32 [B, H, W, 3], to the final map, float32 [B, h, w, channels]."""
        for _, activation in self.blocks(x):
            x = activation
        return x


def layer_specs(module: nnx.Module, path: tuple[str, ...] = ()) -> list[LayerSpec]:
    """The layers of a network as it was built, in Keras's order.

    A merged network has its attributes sorted by name, so ask before `nnx.split`.
    """
    specs = []
    shapes = {
        name: value.shape for name, value in vars(module).items() if isinstance(value, nnx.Variable)
    }
    if shapes:
        specs.append(LayerSpec(path, shapes))
    for name, child in vars(module).items():
        if isinstance(child, nnx.Module):
            specs.extend(layer_specs(child, (*path, name)))
    return specs


class Conv(nnx.Module):
    """A convolution, padded as TensorFlow's SAME: what is odd in the padding goes below and right.

    At stride 2 this is also what Keras's `correct_pad` before a VALID convolution comes to, for odd
    kernels at any size.
    """

    def __init__(
        self, features_in: int, features: int, kernel: int, *, stride: int = 1, bias: bool = False
    ) -> None:
        self.stride = stride
        self.kernel = _variable(kernel, kernel, features_in, features)
        self.bias = _variable(features) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, features_in] to [B, ceil(H / stride), ceil(W / stride), features]."""
        if self.kernel.shape[:2] == (1, 1):
            # A matrix product; XLA's CPU convolution does not see that it is one.
            x = x[:, :: self.stride, :: self.stride] @ self.kernel[0, 0]
        else:
            strides = (self.stride, self.stride)
            x = jax.lax.conv_general_dilated(
                x, self.kernel[...], strides, "SAME", dimension_numbers=LAYOUT
            )
        return x if self.bias is None else x + self.bias[...]


class DepthwiseConv(nnx.Module):
    """One filter per channel, padded as `Conv`; its kernel is [k, k, features, 1], as in Keras.

    Written as one product per kernel position, which XLA fuses into a single pass over the map. Its
    grouped convolution takes four times as long on a CPU for the whole of MobileNetV2.
    """

    def __init__(self, features: int, kernel: int, *, stride: int = 1) -> None:
        self.stride = stride
        self.depthwise_kernel = _variable(kernel, kernel, features, 1)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, features] to [B, ceil(H / stride), ceil(W / stride), features]."""
        kernel, stride = self.depthwise_kernel[..., 0], self.stride
        height, width = (-(-size // stride) for size in x.shape[1:3])
        padding = [
            divmod(max((out - 1) * stride + kernel.shape[0] - size, 0), 2)
            for out, size in zip((height, width), x.shape[1:3], strict=True)
        ]
        x = jnp.pad(x, [(0, 0), *((half, half + odd) for half, odd in padding), (0, 0)])
        total = jnp.zeros(())
        for i in range(kernel.shape[0]):
            for j in range(kernel.shape[1]):
                rows = slice(i, i + (height - 1) * stride + 1, stride)
                columns = slice(j, j + (width - 1) * stride + 1, stride)
                total = total + x[:, rows, columns] * kernel[i, j]
        return total


class BatchNorm(nnx.Module):
    """Normalisation by stored statistics, which no gradient reaches (arXiv:1502.03167, alg. 2)."""

    def __init__(self, features: int, *, epsilon: float = 1e-3) -> None:
        self.epsilon = epsilon
        self.gamma = _variable(features)
        self.beta = _variable(features)
        self.moving_mean = _variable(features)
        self.moving_variance = _variable(features)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, features] to the same shape."""
        mean = jax.lax.stop_gradient(self.moving_mean[...])
        variance = jax.lax.stop_gradient(self.moving_variance[...])
        scale = self.gamma[...] * jax.lax.rsqrt(variance + self.epsilon)
        return (x - mean) * scale + self.beta[...]


def max_pool(x: jax.Array) -> jax.Array:
    """The maximum of each 2x2 window, [B, H, W, C] to [B, H // 2, W // 2, C]."""
    return nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2))


def _variable(*shape: int) -> nnx.Param:
    return nnx.Param(jax.ShapeDtypeStruct(shape, jnp.float32))
