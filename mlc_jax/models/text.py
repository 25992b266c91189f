"""The text towers of CLIP (arXiv:2103.00020) and SigLIP 2 (arXiv:2502.14786): words beside images.

A text's vector and the feature of an image by the same model lie in one space; scaled, their cosine
is the zero-shot logit of the text.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mlc_jax.errors import ConfigError, WeightsError
from mlc_jax.models.layers import Dense, LayerNorm, Network, variable
from mlc_jax.models.stored import TRANSPOSED, Stored, transposed, zeros
from mlc_jax.models.vit import Block
from mlc_jax.models.vit_names import vit_arrays
from mlc_jax.models.vit_spec import ViTSpec
from mlc_jax.models.weights import Params, read_weights


@dataclass(frozen=True)
class TextSpec:
    """The architecture of a text tower.

    Attributes:
      vocabulary: number of tokens.
      length: tokens of a text, padding included.
      end: the token that ends a text and stands for it, in CLIP; None where the last token does,
        padding or not (SigLIP).
      blocks: width, depth, heads and the rest of its blocks.
      projection: channels of the space that it shares with images.
    """

    vocabulary: int
    length: int
    end: int | None
    blocks: ViTSpec
    projection: int


class TextTower(Network):
    """Tokens, blocks, a norm, and the projection of the token that stands for the text.

    Args:
      spec: the architecture.
    """

    preprocess = "none"
    top = ("vision_model", "visual_projection")
    last_block = ("norm", "head")

    def __init__(self, spec: TextSpec) -> None:
        self.spec = spec
        width = spec.blocks.width
        self.channels = spec.projection
        self.token_table = variable(spec.vocabulary, width)
        self.position_table = variable(spec.length, width)
        self.names = tuple(f"block{number}" for number in range(spec.blocks.depth))
        for name in self.names:
            setattr(self, name, Block(spec.blocks))
        self.norm = LayerNorm(width, epsilon=spec.blocks.epsilon)
        self.head = Dense(width, spec.projection)
        # Of the logits: exp(scale) · cosine + bias.
        self.logit_table = variable(2)

    def hub_arrays(self, found: dict[str, Stored]) -> dict[str, Stored]:
        """See `Network`; transformers' names, those of a whole model."""
        own = {
            key.removeprefix("text_model."): value
            for key, value in found.items()
            if key.startswith("text_model.") and not key.endswith("position_ids")
        }
        moved = {
            "embeddings.token_embedding.weight": "token_table",
            "embeddings.position_embedding.weight": "position_table",
        }
        tables = {ours: own.pop(name) for name, ours in moved.items() if name in own}
        for variable_name, ours in (("weight", "gamma"), ("bias", "beta")):
            if (norm := own.pop(f"final_layer_norm.{variable_name}", None)) is not None:
                tables[f"norm/{ours}"] = norm
        head = own.pop("head.weight", found.get("text_projection.weight"))
        if head is not None:
            tables["head/kernel"] = transposed(head, TRANSPOSED)
            tables["head/bias"] = own.pop("head.bias", zeros((self.spec.projection,)))
        if "logit_scale" in found:
            scale, bias = found["logit_scale"], found.get("logit_bias")
            tables["logit_table"] = Stored(
                (2,), scale.floating, functools.partial(_scale_and_bias, scale, bias)
            )
        return vit_arrays(own, self.spec.blocks) | tables

    def __call__(self, ids: jax.Array, layer: str = "") -> jax.Array:
        """Vectors of texts: int [B, length] to float [B, projection]."""
        x = self.token_table[...][ids] + self.position_table[...]
        for name in self.names:
            x = getattr(self, name)(x, causal=self.spec.end is not None)
            if name == layer:
                return x
        if self.spec.end is None:
            x = x[:, -1]
        else:
            x = x[jnp.arange(len(x)), jnp.argmax(ids == self.spec.end, axis=1)]
        return self.head(self.norm(x))


def _scale_and_bias(scale: Stored, bias: Stored | None) -> np.ndarray:
    values = [scale.read().reshape(()), 0.0 if bias is None else bias.read().reshape(())]
    return np.array(values, np.float32)


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A text tower with its weights and its tokenizer.

    Attributes:
      spec: its architecture.
      graphdef, params: the network.
      tokenizer: of the snapshot that the weights are of.
    """

    spec: TextSpec
    graphdef: Any
    params: Params
    tokenizer: Any

    @property
    def logit_scale(self) -> tuple[float, float]:
        """The factor of the cosine and what is added to it."""
        scale, bias = np.asarray(self.params["logit_table"]).tolist()
        return float(np.exp(scale)), float(bias)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of length 1, float32 [n, projection]."""
        ids = jnp.asarray(token_ids(self.tokenizer, texts, self.spec))

        @jax.jit
        def run(params: Params, ids: jax.Array) -> jax.Array:
            with jax.default_matmul_precision("highest"):
                return nnx.merge(self.graphdef, params)(ids)

        return unit_rows(np.asarray(run(self.params, ids)))


def load_text(spec: TextSpec, weights: Path, tokenizer: Path) -> TextEncoder:
    """Reads a text tower.

    Args:
      spec: the architecture.
      weights: safetensors of the whole model, in transformers' names.
      tokenizer: tokenizer.json of the same snapshot.

    Raises:
      WeightsError: a file is missing, damaged, or of another architecture.
    """
    from tokenizers import Tokenizer

    network = TextTower(spec)
    params = read_weights(weights, "text tower", network).params
    try:
        read = Tokenizer.from_file(str(tokenizer))
    except Exception as error:  # tokenizers raises plain Exceptions
        raise WeightsError(f"{tokenizer}: is no tokenizer ({error})") from error
    if read.get_vocab_size() > spec.vocabulary:
        raise WeightsError(
            f"{tokenizer}: has {read.get_vocab_size()} tokens, the weights {spec.vocabulary}; take "
            "both files from one snapshot"
        )
    return TextEncoder(spec, nnx.split(network)[0], params, read)


def token_ids(tokenizer: Any, texts: Sequence[str], spec: TextSpec) -> np.ndarray:
    """Tokens of texts, padded on the right and cut to the length: int32 [n, length].

    Raises:
      ConfigError: a text without a word.
    """
    for text in texts:
        if not text.strip():
            raise ConfigError("config.text.prompts: a prompt is empty; give words")
    pad = spec.end if spec.end is not None else 0
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=spec.length)
    rows = np.full((len(texts), spec.length), pad, np.int32)
    for row, encoding in enumerate(tokenizer.encode_batch(list(texts))):
        rows[row, : len(encoding.ids)] = encoding.ids
    return rows


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32."""
    vectors = vectors.astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def zero_shot_logits(
    images: np.ndarray, prompts: Sequence[np.ndarray], scale: float, bias: float
) -> np.ndarray:
    """The zero-shot logit of each label for each image.

    The vectors of a label's prompts are averaged and made of length 1 again (arXiv:2103.00020,
    section 3.1.4).

    Args:
      images: float [N, C], features by the image tower of the same model.
      prompts: per label float [n, C], vectors of its prompts, of length 1.
      scale, bias: see `TextEncoder.logit_scale`.

    Returns:
      float32 [N, L]: scale · cosine + bias. Of SigLIP it is the logit of a match; of CLIP, trained
      against other texts, only differences between images mean something.
    """
    means = unit_rows(np.stack([own.mean(axis=0) for own in prompts]))
    return scale * (unit_rows(images) @ means.T) + bias


def clip_text(width: int, heads: int, activation: str, projection: int) -> TextSpec:
    """CLIP's text tower: 77 tokens of its byte-pair vocabulary, each seeing those before it."""
    blocks = ViTSpec(
        0,
        width,
        12,
        heads,
        1,
        4 * width,
        "none",
        activation=activation,
        epsilon=1e-5,
    )
    return TextSpec(49_408, 77, 49_407, blocks, projection)


def siglip_text(width: int, depth: int, heads: int, hidden: int) -> TextSpec:
    """SigLIP 2's text tower: 64 tokens of Gemma's vocabulary."""
    blocks = ViTSpec(0, width, depth, heads, 1, hidden, "none", activation="gelu_tanh")
    return TextSpec(256_000, 64, None, blocks, width)


# By the backbone of the same model. The files of clip_b32 and clip_b16 hold no text tower.
TEXT_TOWERS = {
    "clip_l14": clip_text(768, 12, "quick_gelu", 768),
    "clip_b32_laion": clip_text(512, 8, "gelu", 512),
    "clip_b16_laion": clip_text(512, 8, "gelu", 512),
    "clip_l14_laion": clip_text(768, 12, "gelu", 768),
    "siglip2_b16": siglip_text(768, 12, 12, 3072),
    "siglip2_so400m14": siglip_text(1152, 27, 16, 4304),
}
