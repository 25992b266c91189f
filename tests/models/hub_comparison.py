"""Ours beside what `transformers` or `timm` gave, for both sources of what they gave."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from hub_small import STAGES, small

from mlc_jax.models import backbones
from mlc_jax.models.backbones import Backbone, load_backbone
from mlc_jax.models.convnext import DINOv3ConvNeXt
from mlc_jax.models.layers import Network
from mlc_jax.models.preprocess import PREPROCESS
from mlc_jax.models.vit import VisionTransformer

Outputs = dict[str, np.ndarray]


def small_network(name: str) -> Network:
    """A published backbone in all but its sizes."""
    if "convnext" in name:
        return DINOv3ConvNeXt(STAGES)
    return VisionTransformer(small(name))


def load_small(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """Loads a file of a small model, as a user's file is loaded."""
    monkeypatch.setitem(backbones.NETWORKS, name, partial(small_network, name))
    return load_backbone(name, path)


def prepare(name: str, images: np.ndarray) -> np.ndarray:
    """Images as the network gets them, float32."""
    return np.asarray(PREPROCESS[small_network(name).preprocess](jax.numpy.asarray(images)))


def our_outputs(backbone: Backbone, images: np.ndarray) -> Outputs:
    """What each of our blocks gives, by the names of `hub_outputs`; "map" is the final one."""

    def run(params: Any, images: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
        network = nnx.merge(backbone.graphdef, params)
        prepared = PREPROCESS[backbone.preprocess](images)
        if isinstance(network, VisionTransformer):
            return dict(network.token_blocks(prepared)), network(prepared)
        blocks = dict(network.blocks(prepared))
        ends = {f"stage{n}": blocks[names[-1]] for n, names in enumerate(network.stages)}
        return ends, network(prepared)

    # Compiling takes the time here, and the sums are small.
    quick = {"xla_backend_optimization_level": 0}
    taken, final = jax.jit(run, compiler_options=quick)(backbone.params, images)
    return {name: np.asarray(value) for name, value in taken.items()} | {"map": np.asarray(final)}


def compare(ours: Outputs, theirs: Outputs) -> None:
    """Asserts that every block agrees to 1e-4, and the feature, and what patches add to it."""
    ours, theirs = dict(ours), dict(theirs)
    final, feature = ours.pop("map"), theirs.pop("feature")
    patches = theirs.pop("patches", None)
    assert set(theirs) <= set(ours)
    assert final.shape[-1] == feature.shape[-1]
    errors = {name: relative_error(ours[name], value) for name, value in theirs.items()}
    errors["feature"] = relative_error(final.mean(axis=(1, 2)), feature)
    if patches is not None and patches.shape[1] > 1:
        flat = final.reshape(len(final), -1, final.shape[-1])[..., -patches.shape[-1] :]
        spread = flat - flat.mean(axis=1, keepdims=True)
        errors["patches"] = relative_error(spread, patches - patches.mean(axis=1, keepdims=True))
    assert max(errors.values()) < 1e-4, errors


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    assert ours.shape == theirs.shape
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
