"""Batch norms folded into the convolutions before them: the same function in fewer passes.

By stored statistics a batch norm is a scale and a shift per channel, and so is what follows a
convolution: kernel · scale and bias · scale + shift give the same sums (arXiv:1712.05877, section
3.2).
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from mlc_jax.models.layers import BatchNorm, Folded, variable

Params = dict[str, Any]


def fold_batch_norms(network: nnx.Module, params: Params) -> Params:
    """Folds every batch norm that says which convolution it follows.

    Args:
      network: as it was built, without values; changed to match: those convolutions get a bias,
        and their batch norms are `Folded`.
      params: its parameters.

    Returns:
      The parameters of the changed network; in the order of the old ones.
    """
    folded = dict(params)
    for name, layer in list(vars(network).items()):
        if isinstance(layer, BatchNorm) and layer.after is not None:
            conv = getattr(network, layer.after)
            norm = folded.pop(name)
            folded[layer.after] = _folded(conv.scaled, params[layer.after], norm, layer.epsilon)
            conv.bias = variable(*norm["beta"].shape)
            setattr(network, name, Folded())
        elif isinstance(layer, nnx.Module) and name in folded:
            folded[name] = fold_batch_norms(layer, folded[name])
    return folded


def _folded(kernel: str, conv: Params, norm: Params, epsilon: float) -> Params:
    gamma, beta, mean, variance = (
        np.asarray(norm[name], np.float64)
        for name in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    scale = gamma / np.sqrt(variance + epsilon)
    # A depthwise kernel has its channels before a last axis of one.
    spread = scale[:, None] if kernel == "depthwise_kernel" else scale
    bias = np.asarray(conv.get("bias", 0.0), np.float64)
    return conv | {
        kernel: jnp.asarray(np.asarray(conv[kernel], np.float64) * spread, jnp.float32),
        "bias": jnp.asarray((bias - mean) * scale + beta, jnp.float32),
    }
