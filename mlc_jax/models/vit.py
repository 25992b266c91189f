"""Vision transformers without a classifier (arXiv:2010.11929), frozen: one family, many sources.

DINOv2 (arXiv:2304.07193) with and without registers (arXiv:2309.16588), DINOv3
(arXiv:2508.10104), SigLIP 2 (arXiv:2502.14786), CLIP (arXiv:2103.00020), DeiT III
(arXiv:2204.07118) and the ViTs of AugReg (arXiv:2106.10270).

The final map is made so that its mean over space is the feature that each network is used by: the
class token and the mean of the patches, the pooled head, or the projection. So a linear head on the
mean, a conv head on the map and a heat map all read the same array.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mlc_jax.models.layers import NO_PADDING, Conv, Dense, LayerNorm, Network, Scale, variable
from mlc_jax.models.stored import Stored
from mlc_jax.models.vit_names import vit_arrays
from mlc_jax.models.vit_spec import ViTSpec

ROTARY_BASE = 100.0  # of DINOv3, whose angles are of coordinates from -1 to 1


class Attention(nnx.Module):
    """Multi-head self-attention (arXiv:1706.03762, section 3.2)."""

    def __init__(self, width: int, heads: int) -> None:
        self.heads = heads
        self.qkv = Dense(width, 3 * width)
        self.out = Dense(width, width)

    def __call__(
        self, x: jax.Array, rotation: tuple[jax.Array, jax.Array] | None, causal: bool
    ) -> jax.Array:
        """[B, T, width] to the same shape; `rotation` turns the last tokens, see `rotated`."""
        qkv = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1)
        query, key, value = (qkv[:, :, part] for part in range(3))
        if rotation is not None:
            query, key = rotated(query, *rotation), rotated(key, *rotation)
        return self.out(attend(query, key, value, causal=causal).reshape(x.shape))


class MLP(nnx.Module):
    """Two products with an activation in between."""

    def __init__(self, width: int, hidden: int, activation: str) -> None:
        self.activation = activation
        self.fc1 = Dense(width, hidden)
        self.fc2 = Dense(hidden, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., width] to the same shape."""
        return self.fc2(activated(self.fc1(x), self.activation))


class GatedMLP(nnx.Module):
    """SwiGLU (arXiv:2002.05202, equation 6); gate and value in one product."""

    def __init__(self, width: int, hidden: int) -> None:
        self.gate_value = Dense(width, 2 * hidden)
        self.fc2 = Dense(hidden, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., width] to the same shape."""
        gate, value = jnp.split(self.gate_value(x), 2, axis=-1)
        return self.fc2(jax.nn.silu(gate) * value)


class Block(nnx.Module):
    """Attention and MLP, each after a norm and added to its input."""

    def __init__(self, spec: ViTSpec) -> None:
        width = spec.width
        self.norm1 = LayerNorm(width, epsilon=spec.epsilon)
        self.attention = Attention(width, spec.heads)
        self.scale1 = Scale(width) if spec.layer_scale else nnx.data(None)
        self.norm2 = LayerNorm(width, epsilon=spec.epsilon)
        self.mlp = (
            GatedMLP(width, spec.hidden) if spec.gated else MLP(width, spec.hidden, spec.activation)
        )
        self.scale2 = Scale(width) if spec.layer_scale else nnx.data(None)

    def __call__(
        self,
        x: jax.Array,
        rotation: tuple[jax.Array, jax.Array] | None = None,
        causal: bool = False,
    ) -> jax.Array:
        """[B, T, width] to the same shape."""
        y = self.attention(self.norm1(x), rotation, causal)
        x = x + (y if self.scale1 is None else self.scale1(y))
        y = self.mlp(self.norm2(x))
        return x + (y if self.scale2 is None else self.scale2(y))


class Tokens(nnx.Module):
    """The tokens that stand for no patch, and where patches are."""

    def __init__(self, spec: ViTSpec) -> None:
        self.class_table = variable(spec.width) if spec.has_class_token else nnx.data(None)
        self.register_table = (
            variable(spec.registers, spec.width) if spec.registers else nnx.data(None)
        )
        self.position_table = variable(spec.grid**2, spec.width) if spec.grid else nnx.data(None)


class AttentionPooling(nnx.Module):
    """SigLIP's head: a learned query over all tokens, then an MLP (arXiv:2106.04560)."""

    def __init__(self, spec: ViTSpec) -> None:
        self.heads = spec.heads
        self.probe_table = variable(spec.width)
        self.query = Dense(spec.width, spec.width)
        self.key_value = Dense(spec.width, 2 * spec.width)
        self.out = Dense(spec.width, spec.width)
        self.norm = LayerNorm(spec.width, epsilon=spec.epsilon)
        self.mlp = MLP(spec.width, spec.hidden, spec.activation)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What the query makes of tokens [B, T, width], [B, width], and of each of them alone.

        The latter, [B, T, width], is the head with all of its attention on one token (MaskCLIP,
        arXiv:2112.01071, does so to CLIP's).
        """
        batch, tokens, width = x.shape
        query = self.query(self.probe_table[...]).reshape(1, 1, self.heads, -1)
        query = jnp.broadcast_to(query, (batch, *query.shape[1:]))
        key, value = jnp.split(self.key_value(x), 2, axis=-1)
        parts = (batch, tokens, self.heads, -1)
        pooled = attend(query, key.reshape(parts), value.reshape(parts)).reshape(batch, 1, width)
        both = self.out(jnp.concatenate([pooled, value], axis=1))
        both = both + self.mlp(self.norm(both))
        return both[:, 0], both[:, 1:]


class Projection(nnx.Module):
    """A matrix product without a bias."""

    def __init__(self, features_in: int, features: int) -> None:
        self.kernel = variable(features_in, features)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., features_in] to [..., features]."""
        return x @ self.kernel[...]


class VisionTransformer(Network):
    """Patches, blocks, a norm, and the head by which the network is used.

    Args:
      spec: the architecture.
    """

    # What files hold beside the image tower: classifiers, poolers, text towers.
    top = ("classifier", "head", "pooler", "text_model", "text_projection", "logit_scale")

    def __init__(self, spec: ViTSpec) -> None:
        self.spec = spec
        self.preprocess = spec.preprocess
        self.channels = spec.channels
        # CLIP's norm of tokens takes the bias's place.
        self.patch = Conv(
            3, spec.width, spec.patch, stride=spec.patch, padding=NO_PADDING, bias=not spec.pre_norm
        )
        self.tokens = Tokens(spec)
        self.pre_norm = (
            LayerNorm(spec.width, epsilon=spec.epsilon) if spec.pre_norm else nnx.data(None)
        )
        self.names = tuple(f"block{number}" for number in range(spec.depth))
        for name in self.names:
            setattr(self, name, Block(spec))
        self.norm = LayerNorm(spec.width, epsilon=spec.epsilon)
        if spec.output == "attention":
            self.pool = AttentionPooling(spec)
        if spec.output == "projection":
            self.projection = Projection(spec.width, spec.projection)
        after = {"attention": ("pool",), "projection": ("projection",)}.get(spec.output, ())
        self.last_block = (self.names[-1], "norm", *after)

    def hub_arrays(self, found: dict[str, Stored]) -> dict[str, Stored]:
        """See `Network`."""
        return vit_arrays(found, self.spec)

    def token_blocks(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
        """Yields (name, tokens [B, T, width]): embeddings, each block, and the last norm's.

        The class token and the registers come before the patches.
        """
        x = self.patch(x)
        batch, height, width, channels = x.shape
        tokens, spec = self.tokens, self.spec
        x = x.reshape(batch, height * width, channels)
        rotation = None
        if tokens.position_table is not None:
            x = x + resized_positions(
                tokens.position_table[...], spec.grid, (height, width), spec.antialias
            )
        else:
            rotation = rotary_angles((height, width), channels // spec.heads, x.dtype)
        special = []
        if tokens.class_table is not None:
            special.append(tokens.class_table[...][None])
        if tokens.register_table is not None:
            special.append(tokens.register_table[...])
        if special:
            before = jnp.concatenate(special)
            before = jnp.broadcast_to(before, (batch, *before.shape))
            x = jnp.concatenate([before, x], axis=1)
        if self.pre_norm is not None:
            x = self.pre_norm(x)
        yield "embeddings", x
        for name in self.names:
            x = getattr(self, name)(x, rotation)
            yield name, x
        yield "norm", self.norm(x)

    def blocks(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
        """Yields the patches after the embeddings and each block, and the final map ("features").

        A side of the map is that of the image over that of a patch, rounded down.
        """
        grid = tuple(side // self.spec.patch for side in x.shape[1:3])
        first = self.spec.special_tokens
        for name, tokens in self.token_blocks(x):
            x = tokens
            if name != "norm":
                yield name, x[:, first:].reshape(x.shape[0], *grid, x.shape[-1])
        if self.spec.output == "tokens":
            patches = x[:, first:]
            token = jnp.broadcast_to(x[:, :1], patches.shape)
            features = jnp.concatenate([token, patches], axis=-1)
        elif self.spec.output == "attention":
            features = around(*self.pool(x))
        else:
            x = self.projection(x)
            features = around(x[:, 0], x[:, first:])
        yield "features", features.reshape(x.shape[0], *grid, features.shape[-1])


def around(feature: jax.Array, patches: jax.Array) -> jax.Array:
    """Patches [B, T, C] moved so that their mean is a feature [B, C]."""
    return patches + (feature - patches.mean(axis=1))[:, None]


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, *, causal: bool = False
) -> jax.Array:
    """Attention [B, T, heads, C]: cuDNN's flash attention on a GPU where the type allows it."""
    flash = query.dtype in (jnp.bfloat16, jnp.float16) and has_flash(query.shape[-1])
    return jax.nn.dot_product_attention(
        query, key, value, is_causal=causal, implementation="cudnn" if flash else "xla"
    )


def has_flash(channels: int) -> bool:
    """Whether cuDNN's flash attention runs here: CUDA, Ampere or later, and heads that fit it."""
    if jax.default_backend() != "gpu" or channels > 128 or channels % 8:
        return False
    capability = str(getattr(jax.local_devices()[0], "compute_capability", ""))
    major = capability.partition(".")[0]  # "8.0" of CUDA; ROCm names chips otherwise
    return major.isdigit() and int(major) >= 8


def activated(x: jax.Array, activation: str) -> jax.Array:
    """The activation of an MLP; quick_gelu is x · sigmoid(1.702 x), that of OpenAI's CLIP."""
    if activation == "quick_gelu":
        return x * jax.nn.sigmoid(1.702 * x)
    return jax.nn.gelu(x, approximate=activation == "gelu_tanh")


def rotary_angles(
    grid: tuple[int, int], channels: int, dtype: jnp.dtype
) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of the angles of each patch (DINOv3, arXiv:2508.10104, section 3.2).

    Args:
      grid: patches (rows, columns).
      channels: of one attention head.
      dtype: of the result; the angles are float32.

    Returns:
      [rows · columns, 1, channels] each. The first quarter of the channels turns with the row, the
      second with the column, and the second half is the first again.
    """
    frequencies = ROTARY_BASE ** -np.arange(0.0, 1.0, 4 / channels).astype(np.float32)
    centres = [(np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1 for side in grid]
    places = np.stack(np.meshgrid(*centres, indexing="ij"), axis=-1).reshape(-1, 2, 1)
    angles = (2 * np.float32(np.pi) * places * frequencies).reshape(len(places), 1, -1)
    angles = np.tile(angles, 2)
    return jnp.asarray(np.cos(angles), dtype), jnp.asarray(np.sin(angles), dtype)


def rotated(x: jax.Array, cosine: jax.Array, sine: jax.Array) -> jax.Array:
    """Turns the pairs of channels of the last tokens (arXiv:2104.09864); the first ones stay."""
    first, patches = x[:, : -len(cosine)], x[:, -len(cosine) :]
    low, high = jnp.split(patches, 2, axis=-1)
    turned = patches * cosine + jnp.concatenate([-high, low], axis=-1) * sine
    return jnp.concatenate([first, turned], axis=1)


def resized_positions(
    table: jax.Array, side: int, grid: tuple[int, int], antialias: bool
) -> jax.Array:
    """A square table of positions [side², C] for another grid of patches, [rows · columns, C]."""
    if grid == (side, side):
        return table
    rows, columns = (jnp.asarray(cubic_weights(side, new, antialias)) for new in grid)
    square = table.astype(jnp.float32).reshape(side, side, -1)
    resized = jnp.einsum("ih,jw,hwc->ijc", rows, columns, square)
    return resized.reshape(-1, table.shape[-1]).astype(table.dtype)


def cubic_weights(old: int, new: int, antialias: bool) -> np.ndarray:
    """Weights [new, old] of cubic convolution (Keys, 1981, equation 4), as PyTorch interpolates.

    Centres of the ends are half a step from the edge. Without antialiasing a = -0.75 and what lies
    outside counts as the edge; with it a = -0.5, the kernel is as wide as a step of the coarser
    grid, and what lies outside is left out.
    """
    steepness = -0.5 if antialias else -0.75
    stretch = max(1.0, old / new) if antialias else 1.0
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    reach = int(np.ceil(2 * stretch)) + 1
    taps = np.floor(centres)[:, None].astype(int) + np.arange(-reach, reach + 1)
    distance = np.abs(taps - centres[:, None]) / stretch
    near = ((steepness + 2) * distance - (steepness + 3)) * distance**2 + 1
    far = steepness * (((distance - 5) * distance + 8) * distance - 4)
    weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    if antialias:
        weights = np.where((taps >= 0) & (taps < old), weights, 0.0)
    table = np.zeros((new, old))
    np.add.at(table, (np.arange(new)[:, None], taps.clip(0, old - 1)), weights)
    return (table / table.sum(axis=1, keepdims=True)).astype(np.float32)
