"""Grad-CAM's laws: it adds up to a linear head's logit, and its weights are slopes of the logit."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from mlc_jax.models.backbones import load_backbone
from mlc_jax.models.explanations import grad_cam, heat_maps
from mlc_jax.models.heads import HeadStack, Params

CHANNELS = 6


def head_of(stack: HeadStack, seed: int) -> tuple[Params, jax.Array, jax.Array]:
    """Parameters without a zero among them, mean and std."""
    rng = np.random.default_rng(seed)

    def drawn(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        fan_in = np.prod(leaf.shape[1:-1]) or 1
        return jnp.asarray(rng.normal(0, (2 / fan_in) ** 0.5, leaf.shape[1:]), jnp.float32)

    params = jax.tree.map(drawn, jax.eval_shape(lambda: stack.init(seed, 1)))
    channels = stack.feature_shape[-1]
    mean, std = rng.normal(size=channels), rng.uniform(0.5, 2, channels)
    return params, jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)


def cam(stack: HeadStack) -> Callable[..., jax.Array]:
    return jax.jit(partial(grad_cam, stack))


def logits(stack: HeadStack, head: tuple[Params, jax.Array, jax.Array], maps: jax.Array):
    """What the head says in training: of features that are pooled first if it is linear."""
    params, mean, std = head
    pooled = stack.feature_shape[:2] == (1, 1)
    features = maps.mean(axis=(1, 2), keepdims=True) if pooled else maps
    return stack.apply(params, (features - mean) / std)


def test_a_linear_heads_map_adds_up_to_its_logit() -> None:
    stack = HeadStack("linear", (1, 1, CHANNELS), 3)
    head = head_of(stack, 0)
    maps = jax.random.uniform(jax.random.key(0), (4, 5, 3, CHANNELS))
    for output in range(3):
        made = cam(stack)(*head, maps, output)
        assert made.shape == (4, 5, 3)
        without_bias = logits(stack, head, maps)[:, output] - head[0]["dense"]["bias"][output]
        np.testing.assert_allclose(made.sum(axis=(1, 2)), without_bias, rtol=1e-4, atol=1e-5)


def test_a_conv_heads_weights_are_slopes_of_its_logit() -> None:
    """Adding t to all of one channel adds t · h · w · weight: finite differences say the same."""
    stack = HeadStack("conv", (6, 5, CHANNELS), 2)
    head = head_of(stack, 1)
    maps = jax.random.normal(jax.random.key(1), (1, 6, 5, CHANNELS))
    made = cam(stack)(*head, maps, 1)[0]
    with jax.enable_x64(True):  # so that a step may be too short to meet the kink of a ReLU
        head = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), head)
        _, mean, std = head
        each_channel = 1e-7 * std * jnp.eye(CHANNELS)[:, None, None]
        wide = maps.astype(jnp.float64)
        ask = jax.jit(partial(logits, stack))
        up, down = (ask(head, wide + sign * each_channel)[:, 1] for sign in (1, -1))
        weights = (up - down) / (2 * 1e-7) / 30
        expected = ((wide[0] - mean) / std) @ weights
    np.testing.assert_allclose(made, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert np.abs(expected).min() > 0


def test_from_images_on_each_image_has_its_own_map() -> None:
    backbone = load_backbone("mobilenet_v2", "random", seed=0)
    height, width, channels = backbone.feature_shape((64, 96))
    stack = HeadStack("linear", (1, 1, channels), 2)
    head = head_of(stack, 2)
    images = np.random.default_rng(2).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    made = heat_maps(backbone, stack)
    together = made(images, *head, 1)
    assert together.shape == (2, height, width)
    assert together.dtype == jnp.float32
    maps = jax.jit(backbone.apply)(backbone.params, images)
    scale = float(jnp.abs(together).max())
    np.testing.assert_allclose(together, cam(stack)(*head, maps, 1), atol=1e-4 * scale, rtol=1e-3)
    turned = made(images[::-1], *head, 1)
    np.testing.assert_allclose(turned[::-1], together, atol=1e-4 * scale, rtol=1e-3)
    assert float(jnp.abs(together - made(images, *head, 0)).max()) > 0.01 * scale
