"""How images become the input of a backbone.

The three modes of Keras's `preprocess_input`, two that it builds into its networks instead, and
CLIP's.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def caffe(images: jax.Array) -> jax.Array:
    """RGB 0..255, uint8 or float [B, H, W, 3], to BGR minus ImageNet's mean, float32."""
    return images[..., ::-1].astype(jnp.float32) - jnp.array([103.939, 116.779, 123.68])


def tf(images: jax.Array) -> jax.Array:
    """RGB 0..255, uint8 or float [B, H, W, 3], to RGB -1..1, float32."""
    return images.astype(jnp.float32) / 127.5 - 1.0


def torch(images: jax.Array) -> jax.Array:
    """RGB 0..255, uint8 or float [B, H, W, 3], to RGB 0..1 standardised by ImageNet's, float32."""
    unit = images.astype(jnp.float32) / 255.0
    return (unit - jnp.array([0.485, 0.456, 0.406])) / jnp.array([0.229, 0.224, 0.225])


def unit(images: jax.Array) -> jax.Array:
    """RGB 0..255, uint8 or float [B, H, W, 3], to RGB 0..1, float32."""
    return images.astype(jnp.float32) / 255.0


def tf128(images: jax.Array) -> jax.Array:
    """RGB 0..255, uint8 or float [B, H, W, 3], to RGB -1..0.992, float32."""
    return images.astype(jnp.float32) / 128.0 - 1.0


def clip(images: jax.Array) -> jax.Array:
    """RGB 0..255, uint8 or float [B, H, W, 3], to RGB 0..1 standardised by CLIP's data, float32."""
    unit = images.astype(jnp.float32) / 255.0
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    return (unit - jnp.array(mean)) / jnp.array(std)


PREPROCESS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "caffe": caffe,
    "tf": tf,
    "torch": torch,
    "unit": unit,
    "tf128": tf128,
    "clip": clip,
}
