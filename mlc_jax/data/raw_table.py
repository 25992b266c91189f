"""A label file as it was read: one row per image and annotator, before names are looked up."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Quarantined:
    """A row or image that was left out: the name in the file, its line number, a reason code."""

    filename: str
    row: int
    reason: str


@dataclass
class RawTable:
    """What a label file says.

    Attributes:
      filenames: N, as the file writes them; several rows may be about one image.
      names: L, of the labels.
      values: int8 [N, L] of 0, 1 and MISSING.
      rows: int64 [N], line numbers, from 1.
      notes: what was found out about the file.
      quarantine: rows that were left out.
      texts: (text, what it was read as) to the number of cells.
      columns: what each column that is no label was used for or why it was left out.
      unnamed: int8 [N], what a label that is not among `names` is in a row; None: missing.
      alpha: float64 [L], agreement of several values of one cell where nobody is named who gave
        them, which are merged already; None where no cell has several.
      extra: column to its N texts, for the columns that hold no labels.
    """

    filenames: list[str]
    names: tuple[str, ...]
    values: np.ndarray
    rows: np.ndarray
    notes: list[str] = field(default_factory=list)
    quarantine: list[Quarantined] = field(default_factory=list)
    texts: Counter[tuple[str, int]] = field(default_factory=Counter)
    columns: dict[str, str] = field(default_factory=dict)
    extra: dict[str, list[str]] = field(default_factory=dict)
    unnamed: np.ndarray | None = None
    alpha: np.ndarray | None = None
