"""The architectures of the vision transformers whose weights are published."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ViTSpec:
    """The architecture of a vision transformer.

    Attributes:
      patch: side of a patch, pixels.
      width: channels of a token.
      depth: number of blocks.
      heads: attention heads.
      grid: side of the stored table of positions, patches; 0 for rotary positions (DINOv3).
      hidden: channels inside the MLP.
      preprocess: a key of `PREPROCESS`.
      output: "tokens" (class token and mean of patches), "attention" (SigLIP's pooling head) or
        "projection" (CLIP: of the class token into the space of images and texts).
      projection: channels of that space.
      registers: tokens beside the class token that stand for no place.
      antialias: whether positions are resized with antialiasing (DINOv2 with registers).
      layer_scale: whether each branch has a factor per channel.
      gated: whether the MLP is a SwiGLU (arXiv:2002.05202).
      pre_norm: whether tokens are normalised before the first block (CLIP).
      activation: "gelu", "gelu_tanh" or "quick_gelu" of the MLP.
      epsilon: of the layer norms.
    """

    patch: int
    width: int
    depth: int
    heads: int
    grid: int
    hidden: int
    preprocess: str
    output: str = "tokens"
    projection: int = 0
    registers: int = 0
    antialias: bool = False
    layer_scale: bool = False
    gated: bool = False
    pre_norm: bool = False
    activation: str = "gelu"
    epsilon: float = 1e-6

    @property
    def has_class_token(self) -> bool:
        """SigLIP alone has none."""
        return self.output != "attention"

    @property
    def special_tokens(self) -> int:
        """Tokens before the patches."""
        return self.has_class_token + self.registers

    @property
    def channels(self) -> int:
        """Of the feature."""
        return {"tokens": 2 * self.width, "attention": self.width}.get(self.output, self.projection)


def dinov2(width: int, depth: int, heads: int, registers: int = 0) -> ViTSpec:
    """DINOv2 at 518 pixels; any size will do, 224 being usual."""
    return ViTSpec(
        14,
        width,
        depth,
        heads,
        37,
        4 * width,
        "torch",
        registers=registers,
        antialias=registers > 0,
        layer_scale=True,
    )


def dinov3(width: int, depth: int, heads: int, gated: bool = False) -> ViTSpec:
    """DINOv3, made at 224 pixels and larger."""
    return ViTSpec(
        16,
        width,
        depth,
        heads,
        0,
        4 * width,
        "torch",
        registers=4,
        layer_scale=True,
        gated=gated,
        epsilon=1e-5,
    )


def siglip(patch: int, width: int, depth: int, heads: int, hidden: int) -> ViTSpec:
    """SigLIP 2's image tower at 224 pixels."""
    return ViTSpec(
        patch,
        width,
        depth,
        heads,
        224 // patch,
        hidden,
        "tf",
        output="attention",
        activation="gelu_tanh",
    )


def clip(patch: int, width: int, depth: int, heads: int, activation: str) -> ViTSpec:
    """CLIP's image tower at 224 pixels; OpenAI's activation is quick_gelu, LAION's gelu."""
    return ViTSpec(
        patch,
        width,
        depth,
        heads,
        224 // patch,
        4 * width,
        "clip",
        output="projection",
        projection={768: 512, 1024: 768}[width],
        pre_norm=True,
        activation=activation,
        epsilon=1e-5,
    )


def supervised(width: int, depth: int, heads: int, layer_scale: bool, preprocess: str) -> ViTSpec:
    """The ViTs of DeiT III (with layer scale) and of AugReg, at 224 pixels."""
    return ViTSpec(16, width, depth, heads, 14, 4 * width, preprocess, layer_scale=layer_scale)
