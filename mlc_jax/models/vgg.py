"""VGG19 without its classifier (arXiv:1409.1556, configuration E)."""

from collections.abc import Iterator

import jax
from flax import nnx

from mlc_jax.models.layers import Conv, Network, max_pool

VGG19_BLOCKS = {
    "block1": (2, 64),
    "block2": (2, 128),
    "block3": (4, 256),
    "block4": (4, 512),
    "block5": (4, 512),
}


class ConvBlock(nnx.Module):
    """3x3 convolutions with ReLU, then 2x2 max pooling."""

    def __init__(self, features_in: int, features: int, convolutions: int) -> None:
        self.names = tuple(f"conv{n}" for n in range(1, convolutions + 1))
        for name in self.names:
            setattr(self, name, Conv(features_in, features, 3, bias=True))
            features_in = features

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, features_in] to [B, H // 2, W // 2, features]."""
        for name in self.names:
            x = nnx.relu(getattr(self, name)(x))
        return max_pool(x)


class VGG19(Network):
    """Sixteen convolutions in five blocks, to block5_pool: 450x350 images give [B, 14, 10, 512]."""

    preprocess = "caffe"
    channels = 512
    top = ("fc1", "fc2", "predictions", "classifier")
    last_block = ("block5",)

    def __init__(self) -> None:
        features_in = 3
        for name, (convolutions, features) in VGG19_BLOCKS.items():
            setattr(self, name, ConvBlock(features_in, features, convolutions))
            features_in = features

    def blocks(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
        """Yields the pooled map of each of the five blocks."""
        for name in VGG19_BLOCKS:
            x = getattr(self, name)(x)
            yield f"{name}_pool", x

    def torch_layers(self) -> dict[str, str]:
        """torchvision numbers convolutions, ReLUs and poolings in one sequence, `features`."""
        layers, index = {}, 0
        for name, (convolutions, _) in VGG19_BLOCKS.items():
            for n in range(1, convolutions + 1):
                layers[f"{name}_conv{n}"] = f"features.{index}"
                index += 2
            index += 1
        return layers
