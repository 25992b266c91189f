"""Trainable heads over frozen feature maps, and stacks of them that train at once.

A stack holds one head per label and fold. Its parameters are those of one head with a leading axis
of heads, and `jax.vmap` of `apply` runs them all in one program.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mlc_jax.errors import ConfigError

Params = Any


class Convolution(nnx.Module):
    """A VALID convolution, written as one matrix product per kernel position.

    Under `vmap` with a kernel per head, `lax.conv` becomes a grouped convolution, which a CPU runs
    ten times slower than the batched matrix products that this form becomes. A kernel larger than
    the map shrinks to it, so that any image size works.
    """

    def __init__(
        self,
        map_size: tuple[int, int],
        features_in: int,
        features: int,
        kernel: tuple[int, int],
        *,
        stride: int = 1,
        rngs: nnx.Rngs,
    ) -> None:
        self.kernel_size = (min(kernel[0], map_size[0]), min(kernel[1], map_size[1]))
        self.stride = stride
        self.map_size = (
            (map_size[0] - self.kernel_size[0]) // stride + 1,
            (map_size[1] - self.kernel_size[1]) // stride + 1,
        )
        self.kernel = nnx.Param(
            nnx.initializers.he_normal()(rngs.params(), (*self.kernel_size, features_in, features))
        )
        self.bias = nnx.Param(jnp.zeros((features,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, features_in] to [B, h', w', features]."""
        (rows, columns), (height, width), stride = self.kernel_size, self.map_size, self.stride
        total = self.bias[...]
        # Windows are flattened to matrices: a CPU is a quarter faster at those.
        for i in range(rows):
            for j in range(columns):
                window = x[
                    :,
                    i : i + (height - 1) * stride + 1 : stride,
                    j : j + (width - 1) * stride + 1 : stride,
                ]
                total = total + window.reshape(-1, x.shape[-1]) @ self.kernel[i, j]
        return total.reshape(*x.shape[:-3], height, width, -1)


class ConvHead(nnx.Module):
    """The original recipe's head: four convolutions and two dense layers, ReLU between.

    3x3 of 256; 3x3 of 256 with stride 2; 128 over the whole map that is left; 1x1 of 128; dense 10;
    dense `outputs`. On VGG19's 14x10x512 map (450x350 images) it has 2,279,445 parameters for one
    output.
    """

    def __init__(
        self, feature_shape: tuple[int, int, int], outputs: int, *, rngs: nnx.Rngs
    ) -> None:
        height, width, channels = feature_shape
        self.first = Convolution((height, width), channels, 256, (3, 3), rngs=rngs)
        self.second = Convolution(self.first.map_size, 256, 256, (3, 3), stride=2, rngs=rngs)
        self.whole = Convolution(self.second.map_size, 256, 128, self.second.map_size, rngs=rngs)
        self.point = Convolution((1, 1), 128, 128, (1, 1), rngs=rngs)
        self.dense = nnx.Linear(128, 10, rngs=rngs)
        self.outputs = nnx.Linear(10, outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, C] to logits [B, outputs]."""
        for layer in (self.first, self.second, self.whole, self.point):
            x = nnx.relu(layer(x))
        return self.outputs(nnx.relu(self.dense(x.reshape(x.shape[0], -1))))


class LinearHead(nnx.Module):
    """Logistic regression on pooled features; starts at zero, so its first logits are 0."""

    def __init__(
        self, feature_shape: tuple[int, int, int], outputs: int, *, rngs: nnx.Rngs
    ) -> None:
        zeros = nnx.initializers.zeros_init()
        self.dense = nnx.Linear(feature_shape[-1], outputs, kernel_init=zeros, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, 1, 1, C] to logits [B, outputs]."""
        return self.dense(x.mean(axis=(1, 2)))


HEADS = {"conv": ConvHead, "linear": LinearHead}


_CONTEXT = "context"


class HeadStack:
    """The architecture of a stack of equal heads; holds no parameters.

    Attributes:
      feature_shape: (h, w, C) of the features.
      outputs: logits per head.
      context: how many numbers a head is told beside the image (other labels of it); each adds
        itself, times a weight and the square root of C, to every logit. 0 for none.
    """

    def __init__(
        self, name: str, feature_shape: tuple[int, int, int], outputs: int, context: int = 0
    ) -> None:
        if name not in HEADS:
            raise ConfigError(f"config.head.name={name!r}: choose one of {', '.join(HEADS)}")
        self._head = HEADS[name]
        self.feature_shape = feature_shape
        self.outputs = outputs
        self.context = context
        self._graphdef = nnx.split(self._build(jax.random.key(0)))[0]

    def _build(self, key: jax.Array) -> nnx.Module:
        return self._head(self.feature_shape, self.outputs, rngs=nnx.Rngs(params=key))

    def init(self, seed: int, heads: int) -> Params:
        """Parameters of `heads` heads: a nested dict of float32 arrays with a leading head axis.

        Head h is drawn from `fold_in(key(seed), h)`, whatever the number of heads.
        """

        def one(head: jax.Array) -> Params:
            key = jax.random.fold_in(jax.random.key(seed), head)
            params = nnx.to_pure_dict(nnx.split(self._build(key))[1])
            if self.context:
                params[_CONTEXT] = jnp.zeros((self.context, self.outputs))
            return params

        return jax.jit(jax.vmap(one))(jnp.arange(heads))

    def apply(
        self, params: Params, features: jax.Array, context: jax.Array | None = None
    ) -> jax.Array:
        """One head: features float [B, h, w, C] and context [B, context] to logits [B, outputs]."""
        own = {name: value for name, value in params.items() if name != _CONTEXT}
        logits = nnx.merge(self._graphdef, own)(features)
        if context is None or not self.context:
            return logits
        # Standardised features have the norm sqrt(C). With one less, a few numbers of context would
        # be learned long after the features have explained them away.
        return logits + context * math.sqrt(self.feature_shape[-1]) @ params[_CONTEXT]
