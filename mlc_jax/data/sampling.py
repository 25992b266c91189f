"""Index plans: which image, in which view, goes into which batch of which head.

Oversampling happens here and nowhere else, on the rows of one side of a split that was made before.
A plan is a pure function of (seed, epoch), so a stopped run finds its place again by the number of
the epoch alone.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Plan(NamedTuple):
    """The batches of one epoch, for all heads.

    Attributes:
      rows: int32 [steps, heads, batch], row of the image.
      views: int32 [steps, heads, batch], view of the image; 0 is the image as it is.
      mask: bool [steps, heads, batch], false where a place is padding.
    """

    rows: np.ndarray
    views: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class HeadRows:
    """What one head is fitted on: rows in strata, each stratum shown so many times per pass.

    Attributes:
      rows: int64 [n], rows of its training folds.
      strata: int64 [n], the stratum of each row, numbered from 0.
      shown: int64 [strata], how many places of a pass a stratum fills, at least its size. Its rows
        appear equally often but for one; which of them get the extra copy is drawn for each pass.
    """

    rows: np.ndarray
    strata: np.ndarray
    shown: np.ndarray

    def one_pass(self, rng: np.random.Generator) -> np.ndarray:
        """The rows of one pass over this head's data, oversampled and shuffled; int64 [length]."""
        parts = []
        for stratum, shown in enumerate(self.shown.tolist()):
            own = self.rows[self.strata == stratum]
            whole, extra = divmod(shown, own.size)
            parts += [np.tile(own, whole), rng.choice(own, extra, replace=False)]
        return rng.permutation(np.concatenate(parts))

    @property
    def pass_length(self) -> int:
        """How many rows `one_pass` gives."""
        return int(self.shown.sum())

    def log_odds_shift(self, labels: np.ndarray) -> np.ndarray:
        """Log of the sampled odds over the true odds of a positive, per label.

        A head fitted on this sample gives logits too large by this much; subtract it to speak of
        the data as they are (King and Zeng, 2001, eq. 7).

        Args:
          labels: int8 [n, L], of `rows`: 0, 1, or -1 where not known. Both classes are there.

        Returns:
          float64 [L].
        """
        copies = (self.shown / np.bincount(self.strata))[self.strata]
        positive, negative = labels == 1, labels == 0
        sampled = np.log(copies @ positive) - np.log(copies @ negative)
        return sampled - (np.log(positive.sum(axis=0)) - np.log(negative.sum(axis=0)))


def as_they_are(rows: np.ndarray) -> HeadRows:
    """Every row once per pass."""
    return HeadRows(rows, np.zeros(rows.size, np.int64), np.array([rows.size]))


def balanced_label(rows: np.ndarray, labels: np.ndarray, ratio: float) -> HeadRows:
    """One label's minority class repeated until it makes up `ratio` of a pass.

    The original recipe copies to 50:50, `ratio` 0.5. A share already larger is kept.

    Args:
      rows: int64 [n].
      labels: int8 [n], 0 or 1.
      ratio: in (0, 0.5].
    """
    sizes = np.bincount(labels, minlength=2)
    minority = int(sizes[1] < sizes[0])
    shown = sizes.copy()
    if np.min(sizes):
        wished = round(sizes[1 - minority] * ratio / (1 - ratio))
        shown[minority] = max(sizes[minority], wished)
    return _compact(rows, labels.astype(np.int64), shown)


def balanced_labelsets(rows: np.ndarray, labels: np.ndarray) -> HeadRows:
    """Every combination of labels repeated to the size of the commonest: the original's power set.

    Args:
      rows: int64 [n].
      labels: int8 [n, L], 0, 1 or -1; an unknown cell is a value of its own.
    """
    _, strata, sizes = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
    return HeadRows(rows, strata.ravel(), np.full(sizes.size, np.max(sizes)))


def balanced_rarest(rows: np.ndarray, labels: np.ndarray, ratio: float) -> HeadRows:
    """Rows of rare classes repeated for a head of many labels, which share each row.

    A row appears max(1, max over its known cells of sqrt(ratio / share of the cell's class)) times:
    the repeat factors of Gupta, Dollar and Girshick (2019, section 5.2), over both classes.

    Args:
      rows: int64 [n].
      labels: int8 [n, L], 0, 1 or -1 where not known.
      ratio: the share from which a class counts as common.
    """
    known = np.maximum((labels >= 0).sum(axis=0), 1)
    factors = np.ones(labels.shape)
    for value in (0, 1):
        own = labels == value
        share = np.maximum(own.sum(axis=0), 1) / known
        factors = np.where(own, np.maximum(factors, np.sqrt(ratio / share)), factors)
    values, strata = np.unique(factors.max(axis=1), return_inverse=True)
    sizes = np.bincount(strata)
    return HeadRows(rows, strata, np.round(values * sizes).astype(np.int64))


def _compact(rows: np.ndarray, strata: np.ndarray, shown: np.ndarray) -> HeadRows:
    """Leaves out strata without a row."""
    there, numbered = np.unique(strata, return_inverse=True)
    return HeadRows(rows, numbered, shown[there])


@dataclass(frozen=True)
class PlanSource:
    """A random-access source whose record e is the plan of epoch e. Grain reads it.

    Every head goes through its rows in passes, each newly oversampled and shuffled, without end; an
    epoch takes as many batches as the longest head needs for one pass. So all heads step together,
    and a head with fewer rows begins its next pass earlier, with new views.

    Attributes:
      heads: what each head is fitted on.
      batch_size: rows per head and step.
      views: number of augmented views beside the image itself; each place draws one of 1 + views.
      epochs: how many records there are.
      seed: seed of every shuffle and draw.
    """

    heads: tuple[HeadRows, ...]
    batch_size: int
    views: int
    epochs: int
    seed: int

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return max(-(-head.pass_length // self.batch_size) for head in self.heads)

    def __len__(self) -> int:
        return self.epochs

    def __getitem__(self, epoch: int) -> Plan:
        places = self.steps * self.batch_size
        streams = [self._stream(h, epoch * places, places) for h in range(len(self.heads))]
        shape = (self.steps, self.batch_size)
        rows = np.stack([stream[0].reshape(shape) for stream in streams], axis=1)
        views = np.stack([stream[1].reshape(shape) for stream in streams], axis=1)
        return Plan(rows.astype(np.int32), views.astype(np.int32), np.ones(rows.shape, np.bool_))

    def _stream(self, head: int, start: int, places: int) -> tuple[np.ndarray, np.ndarray]:
        length = self.heads[head].pass_length
        rows, views = [], []
        first, last = start // length, (start + places - 1) // length
        for number in range(first, last + 1):
            rng = np.random.default_rng([self.seed, head, number])
            rows.append(self.heads[head].one_pass(rng))
            views.append(rng.integers(0, self.views + 1, length))
        window = slice(start - first * length, start - first * length + places)
        return np.concatenate(rows)[window], np.concatenate(views)[window]


def plan_of_rows(rows: tuple[np.ndarray, ...], batch_size: int, view: int = 0) -> Plan:
    """A plan that shows every head its rows once, in order: for predictions.

    Args:
      rows: per head, int [n_h].
      batch_size: rows per head and step.
      view: the view of every image; 0 is the image as it is.

    Returns:
      A plan whose mask is false on the padding behind each head's last row.
    """
    steps = max(1, *(-(-head.size // batch_size) for head in rows))
    padded = np.zeros((len(rows), steps * batch_size), np.int32)
    mask = np.zeros(padded.shape, np.bool_)
    for number, head in enumerate(rows):
        padded[number, : head.size] = head
        mask[number, : head.size] = True
    shape = (len(rows), steps, batch_size)
    by_step = padded.reshape(shape).swapaxes(0, 1)
    return Plan(by_step, np.full_like(by_step, view), mask.reshape(shape).swapaxes(0, 1))
