"""The strength of a linear head's prior, chosen by inner cross-validation on log loss.

Fold k of the outer cross-validation is judged by a head whose strength must not depend on fold k.
So pair heads are fitted with two neighbouring folds k and k + 1 left out, at every strength: they
measure fold k + 1 for the choice of outer fold k, and fold k for that of outer fold k + 1. Every
outer fold has two inner validation folds, at the price of one fit per fold.

Strengths are tried from the strongest downwards, each fit started from the one before it, until
every head has its smallest loss behind it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlc_jax.data.folds import Split

STRONGEST = 10_000.0
FACTOR = 10**0.5
MOST_STEPS = 9
"""Down to a strength of 1."""

BORROWED = 30.0
"""A label's own loss curve counts by its cells of the rarer class, the curve of all labels by this
many: a label with a handful of positives takes the strength that suits the others."""


def path_strength(step: int) -> float:
    """The strength of a step of the path, counted from 0."""
    return float(STRONGEST / FACTOR**step)


@dataclass(frozen=True)
class Inner:
    """What chooses the strengths of the splits of an outer cross-validation.

    Attributes:
      rows: bool [S, N], the training rows of each split's pair heads.
      measured: per split, (number of a pair, the rows int64 [n] that it is measured on for this
        split). No such row, nor a row of its group, is trained on by the pair or judged by the
        split.
    """

    rows: np.ndarray
    measured: tuple[tuple[tuple[int, np.ndarray], ...], ...]


def inner_folds(splits: Sequence[Split], count: int) -> Inner:
    """The inner validation folds of splits over `count` rows."""
    pairs = np.zeros((len(splits), count), np.bool_)
    fitted = np.zeros((len(splits), count), np.bool_)
    for number, split in enumerate(splits):
        pairs[number, split.train] = True
        fitted[number, split.train] = fitted[number, split.stop] = True
    measured = []
    for number, split in enumerate(splits):
        own = [(number, split.stop)]
        for other, pair in enumerate(splits):
            # Of another pair only one that has seen nothing this split may not see.
            if other != number and not (pairs[other] & ~fitted[number]).any():
                own.append((other, pair.predict[fitted[number, pair.predict]]))
        measured.append(tuple(own))
    return Inner(pairs, tuple(measured))


@dataclass(frozen=True)
class Strengths:
    """The chosen strengths.

    Attributes:
      of_split: float64 [S, L], for the heads of each outer split.
      final: float64 [L], for a head that is fitted on all rows.
      at_weakest: how many of `of_split` have the weakest strength of the path so far.
    """

    of_split: np.ndarray
    final: np.ndarray
    at_weakest: int


def validation_losses(
    values: np.ndarray, logits: np.ndarray, inner: Inner, usable: np.ndarray
) -> np.ndarray:
    """The log loss of each outer split's inner validation cells at one strength.

    Args:
      values: int8 [N, L], observed cells; -1 elsewhere.
      logits: float32 [N, S, L], of the pair heads.
      inner: the inner validation folds.
      usable: bool [S, L], whether a pair head saw both classes.

    Returns:
      float64 [S, L], sums over cells; 0 where no pair head is usable.
    """
    losses = np.zeros(usable.shape)
    for split, measured in enumerate(inner.measured):
        for pair, rows in measured:
            observed, z = values[rows], logits[rows, pair].astype(np.float64)
            cells = np.where(observed >= 0, np.logaddexp(0.0, z) - (observed == 1) * z, 0.0)
            losses[split] += np.where(usable[pair], cells.sum(axis=0), 0.0)
    return losses


def rarer_cells(values: np.ndarray, inner: Inner) -> np.ndarray:
    """Inner validation cells of the rarer class, float64 [S, L]."""
    counts = []
    for measured in inner.measured:
        own = values[np.concatenate([rows for _, rows in measured])]
        counts.append(np.minimum((own == 1).sum(axis=0), (own == 0).sum(axis=0)))
    return np.array(counts, np.float64)


def choose_strengths(losses: np.ndarray, rarer: np.ndarray) -> tuple[Strengths, bool]:
    """Chooses among the steps of a path so far.

    The curve of a label for an outer split is its validation loss plus `BORROWED` times the mean
    over labels of the validation loss per cell of the rarer class: a hierarchical shrinkage of the
    curves, which acts on labels with few such cells.

    Args:
      losses: float64 [steps, S, L], from `validation_losses`.
      rarer: float64 [S, L].

    Returns:
      (the choice, whether the path is long enough: no curve is smallest at its weakest step).
    """
    scores = _shrunk(losses, rarer)
    best = scores.argmin(axis=0)
    # The final head is judged on none of these rows, so every validation loss may choose for it.
    final = _shrunk(losses.sum(axis=1, keepdims=True), rarer.sum(axis=0, keepdims=True))
    last = len(losses) - 1
    chosen = np.array([path_strength(step) for step in range(last + 1)])
    made = Strengths(
        chosen[best],
        chosen[final.argmin(axis=0)[0]],
        int((best == last).sum()),
    )
    return made, made.at_weakest == 0 and not (final.argmin(axis=0) == last).any()


def _shrunk(losses: np.ndarray, rarer: np.ndarray) -> np.ndarray:
    per_cell = losses / np.maximum(rarer, 1.0)
    return losses + BORROWED * per_cell.mean(axis=-1, keepdims=True)
