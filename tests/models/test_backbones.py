"""Backbones by name: random weights, frozen statistics, and names and sizes that cannot be."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mlc_jax.errors import ConfigError
from mlc_jax.models.backbones import NETWORKS, load_backbone
from mlc_jax.models.layers import BatchNorm, layer_specs
from mlc_jax.models.preprocess import PREPROCESS


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


def test_features_are_taken_where_the_layer_says() -> None:
    last, early = (load_backbone("vgg16", "random", layer=layer) for layer in ("", "block3_pool"))
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 40, 3), np.uint8)
    network = nnx.merge(last.graphdef, last.params)
    expected = dict(network.blocks(PREPROCESS["caffe"](jnp.asarray(images))))
    np.testing.assert_allclose(
        early.apply(early.params, images), expected["block3_pool"], rtol=1e-5, atol=1e-5
    )
    assert early.channels == 256
    assert early.feature_shape((32, 40)) == (4, 5, 256)
    assert (last.channels, last.feature_shape((32, 40))) == (512, (1, 1, 512))


def test_an_unknown_layer_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'block6_pool': vgg16 has no such .* block5_pool"):
        load_backbone("vgg16", "random", layer="block6_pool")


@pytest.mark.parametrize("name", NETWORKS)
def test_what_a_network_says_of_itself_is_so(name: str) -> None:
    network = NETWORKS[name]()
    names = [spec.name for spec in layer_specs(network)]
    assert len(set(names)) == len(names)
    assert network.preprocess in PREPROCESS
    assert network.top
    assert not set(network.top) & set(names)


# Millions of parameters, by the papers' tables and the projects' READMEs: DINOv2 (table 1 of its
# README), DINOv3 (table of pretrained models in its README), DeiT III (table 1), ViT (table 1).
# Those of CLIP and SigLIP 2 are of the image towers in timm's table of results.
MILLIONS = {
    "dinov2_s14": 21,
    "dinov2_b14": 86,
    "dinov2_l14": 300,
    "dinov2_s14_registers": 21,
    "dinov2_b14_registers": 86,
    "dinov2_l14_registers": 300,
    "dinov3_s16": 21,
    "dinov3_s16_plus": 29,
    "dinov3_b16": 86,
    "dinov3_l16": 300,
    "dinov3_convnext_tiny": 29,
    "dinov3_convnext_small": 50,
    "dinov3_convnext_base": 89,
    "dinov3_convnext_large": 198,
    "siglip2_b16": 93,
    "siglip2_so400m14": 428,
    "clip_b32": 88,
    "clip_b16": 86,
    "clip_l14": 304,
    "clip_b32_laion": 88,
    "clip_b16_laion": 86,
    "clip_l14_laion": 304,
    "deit3_s16": 22,
    "deit3_b16": 87,
    "deit3_l16": 304,
    "vit_s16_augreg": 22,
    "vit_b16_augreg": 86,
    "vit_l16_augreg": 304,
}


@pytest.mark.parametrize("name", MILLIONS)
def test_transformers_have_the_published_number_of_parameters(name: str) -> None:
    """Classifiers, which are not read, are up to 1.1 million of what was published."""
    shapes = itertools.chain(*(spec.shapes.values() for spec in layer_specs(NETWORKS[name]())))
    millions = sum(math.prod(shape) for shape in shapes) / 1e6
    assert millions == pytest.approx(MILLIONS[name], rel=0.05, abs=1.2)


def test_vgg16_has_torchvision_s_numbers() -> None:
    """Those of its convolutions in `torchvision.models.vgg16().features`."""
    numbers = [
        name.removeprefix("features.") for name in NETWORKS["vgg16"]().torch_layers().values()
    ]
    assert numbers == ["0", "2", "5", "7", "10", "12", "14", "17", "19", "21", "24", "26", "28"]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_computes_in_bfloat16_throughout(name: str) -> None:
    """No layer turns to float32 on the way, where convolutions want one type; nothing is run."""
    network = NETWORKS[name]()
    graphdef, state = nnx.split(network)
    params = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), nnx.to_pure_dict(state)
    )
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.bfloat16)
    made = jax.eval_shape(lambda params, x: nnx.merge(graphdef, params)(x), params, x)
    assert made.dtype == jnp.bfloat16
