"""MobileNet of width 1.0 without its classifier (arXiv:1704.04861, table 1)."""

from collections.abc import Iterator

import jax
from flax import nnx

from mlc_jax.models.layers import BatchNorm, Conv, DepthwiseConv, Network

# Output channels and stride of each pair of a depthwise and a 1x1 convolution.
PAIRS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)


class MobileNet(Network):
    """A convolution and thirteen separated ones, to conv_pw_13_relu: stride 32."""

    preprocess = "tf"
    channels = 1024
    top = ("conv_preds",)
    last_block = ("conv_dw_13", "conv_dw_13_bn", "conv_pw_13", "conv_pw_13_bn")

    def __init__(self) -> None:
        self._normed("conv1", Conv(3, 32, 3, stride=2), 32)
        features_in = 32
        for index, (features, stride) in enumerate(PAIRS, 1):
            # Unlike its successors it pads below and right only, at odd sizes too.
            padding = (0, 1) if stride == 2 else None
            depthwise = DepthwiseConv(features_in, 3, stride=stride, padding=padding)
            self._normed(f"conv_dw_{index}", depthwise, features_in)
            self._normed(f"conv_pw_{index}", Conv(features_in, features, 1), features)
            features_in = features

    def blocks(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
        """Yields the first convolution's map and each pair's."""
        x = self._run("conv1", x)
        yield "conv1_relu", x
        for index in range(1, len(PAIRS) + 1):
            x = self._run(f"conv_pw_{index}", self._run(f"conv_dw_{index}", x))
            yield f"conv_pw_{index}_relu", x

    def _normed(self, name: str, conv: nnx.Module, features: int) -> None:
        setattr(self, name, conv)
        setattr(self, f"{name}_bn", BatchNorm(features, after=name))

    def _run(self, name: str, x: jax.Array) -> jax.Array:
        return nnx.relu6(getattr(self, f"{name}_bn")(getattr(self, name)(x)))
