"""What heads with context would answer about known cells if they had the context of blanks.

A head's logit is linear in its context, so no head has to run again: for every other label that
the drawn pattern leaves out, the observed value gives way to the probability by the first fit, as
it stands in the context of a row where that label is blank.
"""

import math
from collections.abc import Sequence

import numpy as np

from mlc_jax.assess.context_patterns import draw_patterns
from mlc_jax.data.folds import Split
from mlc_jax.training.crossfit import CrossFit
from mlc_jax.training.selftraining import context_of, training_shares


def logits_as_of_blanks(
    fit: CrossFit,
    values: np.ndarray,
    splits: Sequence[Split],
    without_context: np.ndarray,
    seed: int,
) -> np.ndarray:
    """Out-of-fold logits with, for each known cell, a pattern of context that blanks have.

    A cell's own value has no part in it: not in the pattern, which is drawn from what is known and
    not from what it is, and not in the probabilities that stand in, which come from heads that
    never saw the image.

    Args:
      fit: of heads that see context.
      values: int8 [N, L], observed cells; -1 elsewhere.
      splits: the folds of `fit`.
      without_context: float64 [splits, N, L], logits of the first fit, whose heads had no context.
      seed: of the patterns; equal seeds draw equal patterns in every round.

    Returns:
      float64 [N, L], `fit.logits` where the cell is blank.
    """
    known = values >= 0
    shares = training_shares(values, splits)
    observed = context_of(values, shares, without_context)
    blank = context_of(np.full_like(values, -1), shares, without_context)
    weights = context_weights(fit, len(splits), values.shape[1])
    moved, times = np.zeros(values.shape), np.zeros((len(values), 1))
    for split in splits:
        times[split.predict] += 1
    for label in range(values.shape[1]):
        rng = np.random.default_rng([seed, 0xC0, label])
        kept = draw_patterns(known, label, rng)
        left_out = known & ~kept & known[:, [label]]
        left_out[:, label] = False
        for number, split in enumerate(splits):
            rows = split.predict
            change = np.where(left_out[rows], (blank - observed)[number, rows], 0.0)
            moved[rows, label] += change @ weights[number, label]
    return fit.logits + moved / times


def context_weights(fit: CrossFit, splits: int, labels: int) -> np.ndarray:
    """What one unit of `Lesson.context` adds to logits, float64 [splits, label, column].

    Args:
      fit: of heads that see context, all splits of a label side by side.
      splits, labels: how many there are; a label that is not fitted has zeros.
    """
    kernel = np.asarray(fit.params.head["context"], np.float64)[:, :, 0]
    fitted = sorted({head.label for head in fit.heads})
    columns = fitted if kernel.shape[1] == len(fitted) else list(range(labels))
    scaled = kernel * math.sqrt(fit.stack.feature_shape[-1])
    weights = np.zeros((splits, labels, labels))
    for head, own in zip(fit.heads, scaled, strict=True):
        weights[head.number, head.label, columns] = own
    return weights
