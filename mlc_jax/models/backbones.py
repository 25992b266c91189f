"""The frozen backbones by name, with their weights: pure functions from images to feature maps."""

import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mlc_jax.errors import ConfigError
from mlc_jax.files.digest import digest_json
from mlc_jax.models.download import imagenet_weights
from mlc_jax.models.layers import Network, layer_specs
from mlc_jax.models.mobilenet_v2 import MobileNetV2
from mlc_jax.models.preprocess import PREPROCESS
from mlc_jax.models.vgg import VGG19
from mlc_jax.models.weights import Params, Weights, nested, read_weights

NETWORKS: dict[str, type[Network]] = {"vgg19": VGG19, "mobilenet_v2": MobileNetV2}


@dataclass(frozen=True, eq=False)
class Backbone:
    """A network, its weights, and where they came from.

    Attributes:
      name: a key of `NETWORKS`.
      graphdef: the network without its values.
      params: nested dict of float32 arrays, block, layer, variable: `params["block5"]` is the last
        block of VGG19. An argument of `apply`, so that a jitted program does not hold a copy.
      channels: channels of the feature map.
      preprocess: how images are prepared for these weights, a key of `PREPROCESS`.
      origin: where the weights came from, in words.
      digest: SHA-256 of the weight file, or of name and seed if the weights are random.
      random: whether nothing was ever learned by these weights.
    """

    name: str
    graphdef: nnx.GraphDef[Network]
    params: Params
    channels: int
    preprocess: str
    origin: str
    digest: str
    random: bool

    def apply(self, params: Params, images: jax.Array) -> jax.Array:
        """Features of a batch; pure, to be jitted by the caller.

        Args:
          params: such as `self.params`.
          images: RGB 0..255, uint8 or float [B, H, W, 3].

        Returns:
          float32 [B, h, w, channels].
        """
        return nnx.merge(self.graphdef, params)(PREPROCESS[self.preprocess](images))

    def feature_shape(self, image_size: tuple[int, int]) -> tuple[int, int, int]:
        """(h, w, C) of the features of images of `image_size` (height, width); computes nothing.

        Raises:
          ConfigError: the images are so small that nothing of them is left.
        """
        images = jax.ShapeDtypeStruct((1, *image_size, 3), jnp.uint8)
        height, width, channels = jax.eval_shape(self.apply, self.params, images).shape[1:]
        if height == 0 or width == 0:
            raise ConfigError(
                f"config.data.image_size={image_size}: too small for {self.name}; use 32 or more"
            )
        return height, width, channels


def load_backbone(name: str, weights: str | Path, *, seed: int = 0) -> Backbone:
    """A backbone with its weights.

    Args:
      name: a key of `NETWORKS`.
      weights: "imagenet" (Keras's published file, from the cache or the network), "random", or the
        path of a weight file.
      seed: of random weights; not used otherwise.

    Raises:
      ConfigError: no backbone has that name.
      WeightsError: the weights are absent, unsafe, damaged, or of another architecture.
    """
    if name not in NETWORKS:
        raise ConfigError(f"config.backbone.name={name!r}: choose one of {', '.join(NETWORKS)}")
    network = NETWORKS[name]()
    if weights == "random":
        loaded = random_weights(name, network, seed)
        origin = f"random, seed {seed}"
    elif weights == "imagenet":
        path = imagenet_weights(name)
        loaded = read_weights(path, name, network)
        origin = f"ImageNet, {path.name}"
    else:
        loaded = read_weights(Path(weights), name, network)
        origin = f"file {weights}"
    return Backbone(
        name=name,
        graphdef=nnx.split(network)[0],
        params=loaded.params,
        channels=network.channels,
        preprocess=loaded.preprocess,
        origin=origin,
        digest=loaded.digest,
        random=weights == "random",
    )


def random_weights(name: str, network: Network, seed: int) -> Weights:
    """He-normal kernels (arXiv:1502.01852, equation 10), zero biases, identity batch norms.

    Each layer draws from a counter-based generator of its own, keyed by seed and name, so that one
    layer's values do not depend on the others. NumPy draws in a fraction of the time that compiling
    `jax.random` for every shape takes.
    """
    values = {}
    for spec in layer_specs(network):
        key = np.random.SeedSequence([seed, zlib.crc32(spec.name.encode())])
        generator = np.random.Generator(np.random.Philox(key))
        for variable, shape in spec.shapes.items():
            if variable in ("kernel", "depthwise_kernel"):
                fan_in = math.prod(shape[:2] if variable == "depthwise_kernel" else shape[:3])
                value = generator.standard_normal(shape, np.float32)
                value *= np.float32(math.sqrt(2 / fan_in))
            else:
                value = np.full(shape, variable in ("gamma", "moving_variance"), np.float32)
            values["/".join((*spec.path, variable))] = value
    digest = digest_json({"backbone": name, "seed": seed})
    return Weights(nested(values), network.preprocess, digest)
