"""Sizes of the small models that stand for the published ones where outputs are compared."""

from dataclasses import replace

import numpy as np

from mlc_jax.models.backbones import NETWORKS
from mlc_jax.models.text import TextSpec
from mlc_jax.models.vit import VisionTransformer
from mlc_jax.models.vit_spec import ViTSpec

NATIVE, ODD = (32, 32), (75, 43)
PATCH, GRID, WIDTH, HIDDEN, PROJECTION = 8, 4, 32, 48, 24
STAGES = ((1, 8), (2, 12), (1, 16), (1, 24))

# One backbone for each architecture; the others differ in sizes alone.
ARCHITECTURES = (
    "dinov2_s14",
    "dinov2_s14_registers",
    "dinov3_s16",
    "dinov3_s16_plus",
    "dinov3_convnext_tiny",
    "siglip2_b16",
    "clip_b32",
    "clip_b32_laion",
    "vit_s16_augreg",
)
TIMM = (*ARCHITECTURES, "deit3_s16")
GOLDEN_TIMM = ("dinov3_s16", "dinov3_convnext_tiny", "siglip2_b16", "clip_b32", "deit3_s16")
TEXT = ("clip_b32", "clip_b32_laion", "siglip2_b16")
VOCABULARY, LENGTH, END = 50, 9, 49


_PUBLISHED = dict(NETWORKS)  # tests put small networks in their place


def small(name: str) -> ViTSpec:
    """The architecture of a published backbone in all but its sizes."""
    network = _PUBLISHED[name]()
    assert isinstance(network, VisionTransformer)
    spec = network.spec
    return replace(
        spec,
        patch=PATCH,
        width=WIDTH,
        depth=2,
        heads=2,
        grid=GRID if spec.grid else 0,
        # DINOv2's configuration in transformers has no hidden size of its own.
        hidden=4 * WIDTH if name.startswith("dinov2") else HIDDEN,
        projection=PROJECTION if spec.projection else 0,
    )


def random_images(size: tuple[int, int], count: int = 2) -> np.ndarray:
    """The same images in every process and on every machine, uint8 [count, H, W, 3]."""
    return np.random.Generator(np.random.Philox(7)).integers(0, 256, (count, *size, 3), np.uint8)


def small_text(name: str) -> TextSpec:
    """The text tower of a small model."""
    siglip = name.startswith("siglip")
    gelu = "gelu_tanh" if siglip else ("gelu" if name.endswith("laion") else "quick_gelu")
    epsilon = 1e-6 if siglip else 1e-5
    blocks = ViTSpec(0, WIDTH, 2, 2, 1, HIDDEN, "none", activation=gelu, epsilon=epsilon)
    projection = WIDTH if siglip else PROJECTION
    return TextSpec(VOCABULARY, LENGTH, None if siglip else END, blocks, projection)


def random_ids() -> np.ndarray:
    """Tokens of texts that end at different places, int64 [3, LENGTH]."""
    ids = np.random.Generator(np.random.Philox(9)).integers(0, END, (3, LENGTH))
    for row, length in enumerate((3, 6, LENGTH)):
        ids[row, length - 1 :] = END
    return ids
