"""VGG16 and VGG19 without the classifier (arXiv:1409.1556, configurations D and E)."""

from collections.abc import Iterator

import jax
from flax import nnx

from mlc_jax.models.layers import Conv, Network, max_pool

# Convolutions of each block and their width.
VGG16_BLOCKS = {
    "block1": (2, 64),
    "block2": (2, 128),
    "block3": (3, 256),
    "block4": (3, 512),
    "block5": (3, 512),
}
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


class VGG(Network):
    """Five blocks of convolutions, to block5_pool: 450x350 images give [B, 14, 10, 512].

    Args:
      layout: `VGG16_BLOCKS` or `VGG19_BLOCKS`.
    """

    preprocess = "caffe"
    channels = 512
    top = ("fc1", "fc2", "predictions", "classifier")
    last_block = ("block5",)

    def __init__(self, layout: dict[str, tuple[int, int]]) -> None:
        self.layout = tuple(layout.items())
        features_in = 3
        for name, (convolutions, features) in self.layout:
            setattr(self, name, ConvBlock(features_in, features, convolutions))
            features_in = features

    def blocks(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
        """Yields the pooled map of each of the five blocks."""
        for name, _ in self.layout:
            x = getattr(self, name)(x)
            yield f"{name}_pool", x

    def torch_layers(self) -> dict[str, str]:
        """torchvision numbers convolutions, ReLUs and poolings in one sequence, `features`."""
        layers, index = {}, 0
        for name, (convolutions, _) in self.layout:
            for n in range(1, convolutions + 1):
                layers[f"{name}_conv{n}"] = f"features.{index}"
                index += 2
            index += 1
        return layers
