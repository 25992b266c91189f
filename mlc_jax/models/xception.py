"""Xception without its classifier (arXiv:1610.02357, figure 5)."""

from collections.abc import Iterator

import jax
from flax import nnx

from mlc_jax.models.layers import NO_PADDING, BatchNorm, Conv, Network, SeparableConv, max_pool

# Widths of the separable convolutions of each block, and whether it halves the map.
BLOCKS = {
    "block2": ((128, 128), True),
    "block3": ((256, 256), True),
    "block4": ((728, 728), True),
    **{f"block{n}": ((728, 728, 728), False) for n in range(5, 13)},
    "block13": ((728, 1024), True),
}
LAST = (1536, 2048)


class SeparableBlock(nnx.Module):
    """ReLU and separable convolutions, added to the input, or to its projection at stride 2."""

    def __init__(self, features_in: int, widths: tuple[int, ...], *, halves: bool) -> None:
        self.depth, self.halves = len(widths), halves
        first = features_in
        for n, width in enumerate(widths, 1):
            setattr(self, f"sepconv{n}", SeparableConv(features_in, width, 3))
            setattr(self, f"sepconv{n}_bn", BatchNorm(width, after=f"sepconv{n}"))
            features_in = width
        if halves:
            self.residual = Conv(first, features_in, 1, stride=2)  # unnamed in Keras
            self.residual_bn = BatchNorm(features_in, after="residual")

    def __call__(self, x: jax.Array, *, activated: bool) -> jax.Array:
        """[B, H, W, features_in] to [B, H, W, features], or halved; `activated`: x is, already."""
        y = x
        for n in range(1, self.depth + 1):
            y = y if activated and n == 1 else nnx.relu(y)
            y = getattr(self, f"sepconv{n}_bn")(getattr(self, f"sepconv{n}")(y))
        if not self.halves:
            return y + x
        return max_pool(y, 3, "SAME") + self.residual_bn(self.residual(x))


class FirstConvs(nnx.Module):
    """Two unpadded convolutions, the first at stride 2."""

    def __init__(self) -> None:
        self.conv1 = Conv(3, 32, 3, stride=2, padding=NO_PADDING)
        self.conv1_bn = BatchNorm(32, after="conv1")
        self.conv2 = Conv(32, 64, 3, padding=NO_PADDING)
        self.conv2_bn = BatchNorm(64, after="conv2")

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, 3] to [B, (H - 3) // 2 - 1, (W - 3) // 2 - 1, 64]."""
        x = nnx.relu(self.conv1_bn(self.conv1(x)))
        return nnx.relu(self.conv2_bn(self.conv2(x)))


class LastConvs(nnx.Module):
    """Two separable convolutions, each activated."""

    def __init__(self, features_in: int) -> None:
        self.sepconv1 = SeparableConv(features_in, LAST[0], 3)
        self.sepconv1_bn = BatchNorm(LAST[0], after="sepconv1")
        self.sepconv2 = SeparableConv(LAST[0], LAST[1], 3)
        self.sepconv2_bn = BatchNorm(LAST[1], after="sepconv2")

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, features_in] to [B, H, W, 2048]."""
        x = nnx.relu(self.sepconv1_bn(self.sepconv1(x)))
        return nnx.relu(self.sepconv2_bn(self.sepconv2(x)))


class Xception(Network):
    """Two convolutions, twelve residual blocks, two separable convolutions: stride 32."""

    preprocess = "tf"
    channels = LAST[1]
    top = ("predictions",)
    last_block = ("block14",)

    def __init__(self) -> None:
        self.block1 = FirstConvs()
        features_in = 64
        for name, (widths, halves) in BLOCKS.items():
            setattr(self, name, SeparableBlock(features_in, widths, halves=halves))
            features_in = widths[-1]
        self.block14 = LastConvs(features_in)

    def blocks(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
        """Yields each block's map; Keras names neither the sums nor what they are sums of."""
        x = self.block1(x)
        yield "block1_conv2_act", x
        for name in BLOCKS:
            x = getattr(self, name)(x, activated=name == "block2")
            yield name, x
        x = self.block14(x)
        yield "block14_sepconv2_act", x
