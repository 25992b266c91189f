"""The losses of one cell as published, p = sigmoid(z): what a positive costs and what a negative.

All are written with log-sigmoids, so that value and gradient stay finite at any finite logit.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, sigmoid


class CellLoss(NamedTuple):
    """A loss by its two halves, each from logits of any shape to losses of that shape."""

    positive: Callable[[jax.Array], jax.Array]
    negative: Callable[[jax.Array], jax.Array]

    def of(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """y · positive + (1 − y) · negative: a soft label costs the mixture of the hard ones."""
        return labels * self.positive(logits) + (1.0 - labels) * self.negative(logits)


BCE = CellLoss(lambda z: -log_sigmoid(z), lambda z: -log_sigmoid(-z))


def focal(gamma: float, alpha: float) -> CellLoss:
    """−α_t (1 − p_t)^γ log p_t (arXiv 1708.02002, eq. 5); α below 0 leaves α_t out."""
    for_positive, for_negative = (alpha, 1.0 - alpha) if alpha >= 0 else (1.0, 1.0)

    def missed(z: jax.Array) -> jax.Array:
        # (1 − p)^γ by its logarithm: a power's derivative is infinite at 0 where γ is below 1.
        return -jnp.exp(gamma * log_sigmoid(-z)) * log_sigmoid(z)

    return CellLoss(lambda z: for_positive * missed(z), lambda z: for_negative * missed(-z))


def asymmetric(gamma_positive: float, gamma_negative: float, margin: float) -> CellLoss:
    """ASL: −(1 − p)^γ₊ log p and −p_m^γ₋ log(1 − p_m), p_m = max(p − m, 0) (2009.14119).

    As in the authors' training code, no gradient flows through the focusing weights. Their floor of
    1e-8 under the logarithms is left out: it would end the gradient of a cell that is badly wrong.
    """

    def positive(z: jax.Array) -> jax.Array:
        weight = jnp.exp(gamma_positive * log_sigmoid(-z))
        return -jax.lax.stop_gradient(weight) * log_sigmoid(z)

    def negative(z: jax.Array) -> jax.Array:
        log_absent = log_sigmoid(-z)
        if margin > 0:
            log_absent = jnp.minimum(jnp.logaddexp(log_absent, math.log(margin)), 0.0)
        weight = jnp.maximum(sigmoid(z) - margin, 0.0) ** gamma_negative
        return -jax.lax.stop_gradient(weight) * log_absent

    return CellLoss(positive, negative)


FOCAL_2 = focal(2.0, -1.0)

# −(1 − p')² log p' with p' = sigmoid(z − 1), and −p² log(1 − p) (arXiv 2112.07368).
FOCAL_MARGIN = CellLoss(lambda z: FOCAL_2.positive(z - 1.0), FOCAL_2.negative)

# The positives of the focal margin loss, and (1.5 − p) p² (arXiv 2112.07368). Its gradient dies
# out for negatives of high probability, which may be positives that nobody labelled.
HILL = CellLoss(FOCAL_MARGIN.positive, lambda z: (1.5 - sigmoid(z)) * jnp.square(sigmoid(z)))
