"""Text towers against golden files of `transformers`, and what zero-shot logits are."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from hub_comparison import relative_error
from hub_small import LENGTH, TEXT, random_ids, small_text
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from mlc_jax.errors import ConfigError, WeightsError
from mlc_jax.models.layers import layer_specs
from mlc_jax.models.text import (
    TEXT_TOWERS,
    TextTower,
    load_text,
    token_ids,
    unit_rows,
    zero_shot_logits,
)

GOLDEN = Path(__file__).parent / "golden"
WORDS = ("a", "photo", "of", "cat", "dog", "red")


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A tokenizer file as snapshots have one: words, with a begin and an end."""
    vocabulary = {word: number for number, word in enumerate(WORDS)} | {
        "[unknown]": 47,
        "[begin]": 48,
        "[end]": 49,
    }
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[unknown]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[begin] $A [end]", special_tokens=[("[begin]", 48), ("[end]", 49)]
    )
    path = tmp_path / "tokenizer.json"
    path.write_text(made.to_str())
    return path


@pytest.mark.parametrize("name", TEXT)
def test_every_block_agrees_with_the_golden_file(name: str, tokenizer: Path) -> None:
    encoder = load_text(small_text(name), GOLDEN / f"{name}.safetensors", tokenizer)
    tower = nnx.merge(encoder.graphdef, encoder.params)
    ids = jax.numpy.asarray(random_ids())
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as golden:
        expected = {k[5:]: golden[k] for k in golden.files if k.startswith("text/")}
    assert set(expected) == {"block0", "block1", "feature"}
    errors = {
        key: relative_error(np.asarray(tower(ids, "" if key == "feature" else key)), value)
        for key, value in expected.items()
    }
    assert max(errors.values()) < 1e-4, errors


def test_texts_are_padded_cut_and_of_length_one(tokenizer: Path) -> None:
    encoder = load_text(small_text("clip_b32"), GOLDEN / "clip_b32.safetensors", tokenizer)
    ids = token_ids(encoder.tokenizer, ["a red cat", "dog " * 20], encoder.spec)
    assert ids[0].tolist() == [48, 0, 5, 3] + [49] * (LENGTH - 4)
    assert ids[1].tolist() == [48] + [4] * (LENGTH - 2) + [49]
    vectors = encoder.encode(["a red cat", "dog", "a red cat"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert not np.allclose(vectors[0], vectors[1])
    with pytest.raises(ConfigError, match="a prompt is empty"):
        encoder.encode([" "])


def test_a_tokenizer_of_another_snapshot_is_refused(tokenizer: Path) -> None:
    spec = replace(small_text("clip_b32"), vocabulary=5)
    with pytest.raises(WeightsError, match=r"does not hold the weights.*token_table"):
        load_text(spec, GOLDEN / "clip_b32.safetensors", tokenizer)
    tokenizer.write_text(json.dumps({"no": "tokenizer"}))
    with pytest.raises(WeightsError, match="is no tokenizer"):
        load_text(small_text("clip_b32"), GOLDEN / "clip_b32.safetensors", tokenizer)


def test_zero_shot_logits_are_scaled_cosines() -> None:
    """An image that points along the prompts of a label has its highest logit there."""
    rng = np.random.default_rng(0)
    labels = unit_rows(rng.standard_normal((3, 16)))
    prompts = [unit_rows(label + 0.1 * rng.standard_normal((4, 16))) for label in labels]
    truth = rng.integers(0, 3, 200)
    images = 7.0 * (labels[truth] + 0.3 * rng.standard_normal((200, 16)))
    logits = zero_shot_logits(images, prompts, 100.0, -10.0)
    assert (logits.argmax(axis=1) == truth).mean() > 0.9
    np.testing.assert_allclose(
        zero_shot_logits(5 * images, prompts, 100.0, -10.0), logits, rtol=1e-4
    )
    own = zero_shot_logits(labels, [label[None] for label in labels], 100.0, -10.0)
    np.testing.assert_allclose(np.diag(own), 90.0, rtol=1e-5)


@pytest.mark.parametrize("name", TEXT_TOWERS)
def test_published_towers_can_be_built(name: str) -> None:
    specs = layer_specs(TextTower(TEXT_TOWERS[name]))
    assert len({spec.name for spec in specs}) == len(specs)
