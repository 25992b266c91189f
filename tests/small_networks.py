"""A backbone for tests in which its weights do not matter."""

from collections.abc import Iterator

import jax
from flax import nnx

from mlc_jax.models.layers import BatchNorm, Conv, Network


class Small(Network):
    """A network whose programs compile in no time."""

    top, last_block = (), ("second",)

    def __init__(self, preprocess: str, kernel: int, channels: int) -> None:
        self.preprocess, self.channels = preprocess, channels
        self.first = Conv(3, 4, kernel, stride=kernel)
        self.first_bn = BatchNorm(4, after="first")
        self.second = Conv(4, channels, 3, bias=True)

    def blocks(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
        x = nnx.relu(self.first_bn(self.first(x)))
        yield "first", x
        yield "second", nnx.relu(self.second(x))
