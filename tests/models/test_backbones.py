"""Backbones by name: random weights, frozen statistics, and names and sizes that cannot be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mlc_jax.errors import ConfigError
from mlc_jax.models.backbones import load_backbone
from mlc_jax.models.layers import BatchNorm


def test_random_weights_depend_on_the_seed_alone() -> None:
    first, again, other = (load_backbone("vgg19", "random", seed=seed) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
    assert first.digest == again.digest != other.digest
    assert first.random
    kernel = np.asarray(first.params["block5"]["conv4"]["kernel"])
    assert not np.array_equal(kernel, other.params["block5"]["conv4"]["kernel"])
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 512)), rel=0.01)


def test_no_gradient_reaches_stored_statistics() -> None:
    graphdef, shapes = nnx.split(BatchNorm(4, after=None))
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.5), nnx.to_pure_dict(shapes))
    images = np.random.default_rng(0).random((2, 3, 3, 4), np.float32)
    gradient = jax.grad(lambda params: nnx.merge(graphdef, params)(images).sum())(params)
    assert not gradient["moving_mean"].any()
    assert not gradient["moving_variance"].any()
    assert gradient["gamma"].all()
    assert gradient["beta"].all()


def test_an_unknown_backbone_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"'vgg99': choose one of vgg16, vgg19"):
        load_backbone("vgg99", "random")


def test_images_too_small_are_refused() -> None:
    with pytest.raises(ConfigError, match="too small for vgg19"):
        load_backbone("vgg19", "random").feature_shape((31, 64))
