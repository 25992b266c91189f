"""Several rows of one image: votes merged into one value per label, and how far people agree."""

from dataclasses import dataclass

import numpy as np

from mlc_jax.data.table import MISSING


@dataclass(frozen=True)
class Votes:
    """Rows of one image merged into the first of them.

    Attributes:
      keep: int64 [N'], positions of the first row of every image, in order.
      values: int8 [N', L].
      disputed: (image, label, positions of its rows) of cells that became missing.
      decided: how many cells had different values and a majority.
      alpha: float64 [L], Krippendorff's; NaN where no two rows of an image have a value, or all
        values are equal.
    """

    keep: np.ndarray
    values: np.ndarray
    disputed: list[tuple[int, int, tuple[int, ...]]]
    decided: int
    alpha: np.ndarray


def merge_rows(filenames: list[str], values: np.ndarray, rule: str) -> Votes:
    """Merges rows of one image.

    Args:
      filenames: N, one per row.
      values: int8 [N, L] of 0, 1 and MISSING.
      rule: majority (ties are missing), agree (one other vote makes a cell missing), first (of the
        rows with a value).
    """
    # A dictionary of all names would outweigh the file; hashes show the few that need one.
    hashes = np.fromiter(map(hash, filenames), np.int64, len(filenames))
    in_order = np.sort(hashes)
    repeated = np.unique(in_order[1:][in_order[1:] == in_order[:-1]])
    del in_order
    groups: dict[str, list[int]] = {}
    for position in np.flatnonzero(np.isin(hashes, repeated)).tolist() if repeated.size else []:
        groups.setdefault(filenames[position], []).append(position)
    keep = np.ones(len(filenames), np.bool_)
    disputed: list[tuple[int, int, tuple[int, ...]]] = []
    decided = 0
    # Of Krippendorff's coincidence matrix: values that can be paired, and unequal pairs.
    paired, unequal = np.zeros((2, values.shape[1])), np.zeros(values.shape[1])
    for positions in (group for group in groups.values() if len(group) > 1):
        own = values[positions]
        ones, zeros = (own == 1).sum(axis=0), (own == 0).sum(axis=0)
        count = ones + zeros
        several = count > 1
        paired += np.where(several, (zeros, ones), 0)
        unequal += np.where(several, ones * zeros / np.maximum(count - 1, 1), 0)
        split = (ones > 0) & (zeros > 0)
        if rule == "first":
            first = own[np.argmax(own != MISSING, axis=0), np.arange(own.shape[1])]
            merged = np.where(count > 0, first, MISSING)
        elif rule == "agree":
            merged = np.where(split, MISSING, own.max(axis=0))
        else:
            merged = np.where(
                split & (ones == zeros), MISSING, np.where(ones > zeros, 1, own.max(axis=0))
            )
            merged = np.where(split & (zeros > ones), 0, merged)
        lost = split & (merged == MISSING)
        disputed += [
            (positions[0], label, tuple(positions)) for label in np.flatnonzero(lost).tolist()
        ]
        decided += int((split & ~lost).sum())
        values[positions[0]] = merged
        keep[positions[1:]] = False
    kept = np.flatnonzero(keep)
    alpha = krippendorff_alpha(paired, unequal)
    return Votes(kept, values[kept] if groups else values, disputed, decided, alpha)


def krippendorff_alpha(paired: np.ndarray, unequal: np.ndarray) -> np.ndarray:
    """Krippendorff's alpha of values 0 and 1: 1 is agreement, 0 that of chance.

    With n0 and n1 values of each kind that can be paired, n = n0 + n1, and o01 unequal pairs,
    `alpha = 1 - (n - 1) o01 / (n0 n1)`.

    Args:
      paired: float64 [2, L], how many zeros and ones lie in units with at least two values.
      unequal: float64 [L], the sum over units of m values of `zeros * ones / (m - 1)`.

    Returns:
      float64 [L]; NaN where a value never occurs.

    References:
      Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section A.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        alpha = 1.0 - (paired.sum(axis=0) - 1.0) * unequal / (paired[0] * paired[1])
    return np.where((paired == 0).any(axis=0), np.nan, alpha)
