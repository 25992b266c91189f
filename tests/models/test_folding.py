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


@pytest.mark.parametrize("name", NETWORKS)
def test_every_norm_that_can_be_folded_is(name: str) -> None:
    """What is left are the norms before convolutions of ResNet50V2."""
    network = NETWORKS[name]()
    before = [spec for spec in layer_specs(network) if "gamma" in spec.shapes]
    fold_batch_norms(network, random_weights(name, network, 0).params)
    left = [spec.name for spec in layer_specs(network) if "moving_mean" in spec.shapes]
    if name == "resnet50_v2":
        assert len(left) == 17
        assert all("preact" in norm or norm == "post_bn" for norm in left)
    else:
        assert left == (["normalization"] if name.startswith("efficientnet_b") else [])
    assert name.startswith("vgg") or len(before) > len(left)
