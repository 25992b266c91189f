"""The heads: the original's parameter counts, and its convolutions against Keras's."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from flax import nnx

from mlc_jax.errors import ConfigError
from mlc_jax.models.heads import Convolution, HeadStack


@pytest.mark.parametrize(("outputs", "parameters"), [(1, 2_279_445), (4, 2_279_478)])
def test_conv_head_has_the_original_number_of_parameters(outputs: int, parameters: int) -> None:
    stack = HeadStack("conv", (14, 10, 512), outputs)
    shapes = jax.eval_shape(lambda: stack.init(0, 1))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(6, 5), (7, 9)])
def test_convolution_is_that_of_keras(size: tuple[int, int], stride: int) -> None:
    layer = Convolution(size, 8, 4, (3, 3), stride=stride, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.arange(4.0)
    x = np.random.default_rng(0).normal(size=(2, *size, 8)).astype(np.float32)
    theirs = keras.ops.conv(x, layer.kernel[...], strides=stride, padding="valid") + np.arange(4.0)
    np.testing.assert_allclose(layer(jnp.asarray(x)), theirs, rtol=1e-5, atol=1e-5)


def test_whole_conv_head_is_the_original_network() -> None:
    stack = HeadStack("conv", (14, 10, 16), 1)
    params = jax.tree.map(lambda leaf: leaf[0], stack.init(0, 1))
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input((14, 10, 16)),
            layers.Conv2D(256, 3, activation="relu"),
            layers.Conv2D(256, 3, strides=2, activation="relu"),
            layers.Conv2D(128, (5, 3), activation="relu"),
            layers.Conv2D(128, 1, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="relu"),
            layers.Dense(1),
        ]
    )
    order = ("first", "second", "whole", "point", "dense", "outputs")
    network.set_weights([np.asarray(params[n][k]) for n in order for k in ("kernel", "bias")])
    x = np.random.default_rng(1).normal(size=(3, 14, 10, 16)).astype(np.float32)
    np.testing.assert_allclose(
        stack.apply(params, jnp.asarray(x)), network(x), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 8),
        pytest.param((2, 2, 8), marks=pytest.mark.slow),
        pytest.param((3, 1, 8), marks=pytest.mark.slow),
        (4, 7, 8),
        (31, 2, 8),
    ],
)
def test_conv_head_takes_any_map(shape: tuple[int, int, int]) -> None:
    stack = HeadStack("conv", shape, 2)
    logits = jax.vmap(stack.apply)(stack.init(0, 3), jnp.ones((3, 5, *shape)))
    assert logits.shape == (3, 5, 2)


@pytest.mark.parametrize("name", ["conv", "linear"])
def test_a_head_of_a_stack_is_the_head_alone(name: str) -> None:
    stack = HeadStack(name, (2, 2, 16), 1)
    params = stack.init(3, 4)
    few = stack.init(3, 2)
    for one, other in zip(jax.tree.leaves(params), jax.tree.leaves(few), strict=True):
        np.testing.assert_array_equal(one[:2], other)
    x = jax.random.normal(jax.random.key(0), (4, 6, 2, 2, 16))
    together = jax.vmap(stack.apply)(params, x)
    for head in range(4):
        alone = stack.apply(jax.tree.map(lambda leaf, h=head: leaf[h], params), x[head])
        np.testing.assert_allclose(together[head], alone, rtol=1e-5, atol=1e-5)


def test_unknown_head_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"config.head.name='bigger'"):
        HeadStack("bigger", (1, 1, 8), 1)
