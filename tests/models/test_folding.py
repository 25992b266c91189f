"""Folding changes how a network is computed, and nothing else."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from mlc_jax.models.backbones import NETWORKS
from mlc_jax.models.folding import fold_batch_norms
from mlc_jax.models.layers import (
    BatchNorm,
    Conv,
    DepthwiseConv,
    Network,
    SeparableConv,
    layer_specs,
)
from mlc_jax.models.random_weights import random_weights

LAYERS = {
    "conv": lambda: Conv(5, 7, 3, stride=2),
    "conv with a bias": lambda: Conv(5, 7, 3, bias=True),
    "1x1": lambda: Conv(5, 7, 1),
    "depthwise": lambda: DepthwiseConv(5, 3, stride=2, padding=(0, 1)),
    "separable": lambda: SeparableConv(5, 7, 3),
}


class Normed(Network):
    """A convolution and its batch norm, in a block and with a free batch norm behind."""

    preprocess = "tf"

    def __init__(self, conv: nnx.Module, features: int) -> None:
        self.conv = conv
        self.conv_bn = BatchNorm(features, after="conv", epsilon=0.1)
        self.free_bn = BatchNorm(features, after=None)

    def blocks(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
        yield "free", self.free_bn(nnx.relu(self.conv_bn(self.conv(x))))


def drawn(network: Network) -> Any:
    """Parameters whose batch norms do something."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.uniform(0.2, 1.5, leaf.shape).astype(np.float32),
        random_weights("drawn", network, 0).params,
    )


@pytest.mark.parametrize("kind", LAYERS)
def test_the_folded_network_gives_the_same(kind: str) -> None:
    network = Normed(LAYERS[kind](), 5 if kind == "depthwise" else 7)
    params, images = drawn(network), np.random.default_rng(1).random((2, 9, 8, 5), np.float32)
    expected = nnx.merge(nnx.split(network)[0], params)(images)
    folded = fold_batch_norms(network, params)
    assert list(folded) == ["conv", "free_bn"]
    found = nnx.merge(nnx.split(network)[0], folded)(images)
    assert np.linalg.norm(found - expected) < 1e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("resnet50", 0),
        ("resnet50_v2", 17),  # the norms before its blocks and its end follow no convolution
        ("mobilenet", 0),
        ("mobilenet_v2", 0),
        ("mobilenet_v3_small", 0),
        ("efficientnet_b0", 1),  # the normalisation of images
        ("efficientnet_v2_b0", 0),
        ("xception", 0),
    ],
)
def test_every_norm_that_can_be_folded_is(name: str, left: int) -> None:
    network = NETWORKS[name]()
    fold_batch_norms(network, random_weights(name, network, 0).params)
    assert sum("moving_mean" in spec.shapes for spec in layer_specs(network)) == left
