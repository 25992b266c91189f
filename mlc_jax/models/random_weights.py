"""Weights that have learned nothing, for where ImageNet's are not to be had."""

import math
import zlib

import numpy as np

from mlc_jax.files.digest import digest_json
from mlc_jax.models.layers import Network, layer_specs
from mlc_jax.models.weights import Weights, nested


def random_weights(name: str, network: Network, seed: int) -> Weights:
    """He-normal kernels (arXiv:1502.01852, equation 10), zero biases, identity norms and scales.

    Tables of tokens and positions are normal with a deviation of 0.02 (arXiv:2010.11929 draws them
    so), or every place would look alike to a transformer.

    Each layer draws from a counter-based generator of its own, keyed by seed and name, so that one
    layer's values do not depend on the others. NumPy draws in a fraction of the time that compiling
    `jax.random` for every shape takes.
    """
    values = {}
    for spec in layer_specs(network):
        key = np.random.SeedSequence([seed, zlib.crc32(spec.name.encode())])
        generator = np.random.Generator(np.random.Philox(key))
        for variable, shape in spec.shapes.items():
            kind = variable.rpartition("/")[2]
            if kind.endswith("kernel"):
                fan_in = math.prod(shape[:2] if kind == "depthwise_kernel" else shape[:-1])
                value = generator.standard_normal(shape, np.float32)
                value *= np.float32(math.sqrt(2 / fan_in))
            elif kind.endswith("table"):
                value = generator.standard_normal(shape, np.float32) * np.float32(0.02)
            else:
                value = np.full(shape, kind in ("gamma", "moving_variance"), np.float32)
            values["/".join((*spec.path, variable))] = value
    digest = digest_json({"backbone": name, "seed": seed})
    return Weights(nested(values), network.preprocess, digest)
