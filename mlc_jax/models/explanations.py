"""Where in an image a label comes from, by the gradient: Grad-CAM on the backbone's final maps.

Any head over any backbone will do: a classifier's with an output per label, or one of the stack of
single-label heads that imputation fits.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mlc_jax.models.backbones import Backbone
from mlc_jax.models.heads import HeadStack, Params

HeatMaps = Callable[[jax.Array, Params, jax.Array, jax.Array, int | jax.Array], jax.Array]


def grad_cam(
    stack: HeadStack,
    params: Params,
    mean: jax.Array,
    std: jax.Array,
    maps: jax.Array,
    output: int | jax.Array,
) -> jax.Array:
    """How much each place of the maps speaks for an output, or against it; pure.

    Grad-CAM (arXiv:1610.02391, equations 1 and 2) on the maps as the head reads them, standardised:
    sum_k a_k · map_k, where a_k is the mean over space of d logit / d map_k. Its final ReLU is left
    to the reader, so what speaks against the label can be seen too.

    A linear head reads the mean over space, so a_k is its weight over h·w, and the result is the
    class activation map (arXiv:1512.04150) over h·w, exactly: it adds up to the logit without its
    bias.

    Args:
      stack: the head's architecture.
      params: of one head, without a leading axis.
      mean, std: float32 [C], of the features that head was fitted on.
      maps: float [B, h, w, C], before any pooling and standardisation.
      output: which of the head's logits.

    Returns:
      float32 [B, h, w].
    """
    # A stack whose features are 1 x 1 was fitted on pooled ones. Standardising comes first here and
    # pooling there, which is the same, since both are linear.
    pooled = stack.feature_shape[:2] == (1, 1)
    read = (maps.astype(jnp.float32) - mean) / std

    def logit_sum(read: jax.Array) -> jax.Array:
        features = read.mean(axis=(1, 2), keepdims=True) if pooled else read
        return jnp.take(stack.apply(params, features), output, axis=1).sum()

    weights = jax.grad(logit_sum)(read).mean(axis=(1, 2), keepdims=True)
    return jnp.sum(weights * read, axis=-1)


def heat_maps(backbone: Backbone, stack: HeadStack) -> HeatMaps:
    """Compiles Grad-CAM from images on; one program for every head of the stack and every output.

    The features are not rounded as the store rounds them.

    Args:
      backbone: that the heads were fitted over.
      stack: the heads' architecture.

    Returns:
      A function of (images uint8 [B, H, W, 3], params of one head, mean float32 [C], std float32
      [C], output) giving float32 [B, h, w], see `grad_cam`. It compiles once per shape of images,
      so pad the last batch.
    """

    @jax.jit
    def run(
        backbone_params: Params,
        images: jax.Array,
        params: Params,
        mean: jax.Array,
        std: jax.Array,
        output: jax.Array,
    ) -> jax.Array:
        maps = backbone.apply(backbone_params, images)
        return grad_cam(stack, params, mean, std, maps, output)

    return lambda images, params, mean, std, output: run(
        backbone.params, images, params, mean, std, jnp.asarray(output)
    )


def enlarge(maps: jax.Array, size: tuple[int, int]) -> np.ndarray:
    """Maps [B, h, w] at the size (height, width) of the images, bilinear; float32, on the host."""
    return np.asarray(jax.image.resize(maps, (len(maps), *size), "linear"))
