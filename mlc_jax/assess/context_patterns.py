"""Which other labels a known cell may be judged with: as many as a blank of its label has.

A head that sees an image's other labels is better where there are more of them. Where whole rows
are blank, known cells have other labels beside them that blanks lack, and metrics on known cells
are too good. So each known cell takes the pattern of known labels of a row whose cell is blank.
"""

import numpy as np


def draw_patterns(known: np.ndarray, label: int, rng: np.random.Generator) -> np.ndarray:
    """Which labels of each row may stand in the context of its known cell of one label.

    Every row with a known cell is paired with a row whose cell is blank, each of these equally
    often, by the number of other known labels, so that as few rows as possible are paired with one
    that has more than they have. A row keeps the labels that its partner has too. For those that
    the partner has and it lacks, others stand in, drawn by how often they are known beside a blank;
    those that never are do not. Where labels are missing independently of each other and of
    everything else, pairs are alike and next to nothing changes.

    Args:
      known: bool [N, L].
      label: the column.
      rng: draws partners of equal number, and what stands in.

    Returns:
      bool [N, L], true only where `known` is; the row as it is where its cell is blank, where no
      cell of the label is blank, or none known. The column of the label itself is false.
    """
    kept = known.copy()
    kept[:, label] = False
    rows, blanks = np.flatnonzero(known[:, label]), np.flatnonzero(~known[:, label])
    if not rows.size or not blanks.size:
        return kept
    own, patterns = kept[rows], kept[blanks]
    rates = patterns.mean(axis=0)
    # Equal patterns get equal codes, so that among rows of one number they come to lie together.
    codes = rng.random(known.shape[1:])
    own_order, order = _by_number(own, codes, rng), _by_number(patterns, codes, rng)
    places = (np.arange(rows.size) + rng.random()) / rows.size * blanks.size  # each equally often
    partner = np.empty_like(own)
    partner[own_order] = patterns[order[np.minimum(places.astype(np.int64), blanks.size - 1)]]

    # The largest of u^(1/w) is a draw without replacement by w (Efraimidis and Spirakis, 2006).
    chance = rng.random(own.shape) ** (1 / np.maximum(rates, 1e-12))
    priority = np.where(own & (rates > 0), chance + partner, -1.0)
    rank = np.argsort(np.argsort(-priority, axis=1), axis=1)
    kept[rows] = (rank < partner.sum(axis=1, keepdims=True)) & (priority >= 0)
    return kept


def _by_number(patterns: np.ndarray, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Orders rows, bool [K, L], by how many are true, equal ones together, ties at random."""
    return np.lexsort((rng.random(len(patterns)), patterns @ codes, patterns.sum(axis=1)))
