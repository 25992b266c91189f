"""The label table: which image has which labels, and where every value comes from."""

import enum
from dataclasses import dataclass, replace

import numpy as np

from mlc_jax.errors import LabelsError
from mlc_jax.files.digest import digest_arrays, digest_json

MISSING = -1


class Source(enum.IntEnum):
    """Where the value of a cell comes from; files hold `word`."""

    MISSING = 0
    OBSERVED = 1
    IMPUTED = 2
    REVIEWED = 3

    @property
    def word(self) -> str:
        """The name that files use: missing, observed, imputed, reviewed."""
        return self.name.lower()


@dataclass(frozen=True, eq=False)
class LabelTable:
    """Labels of N images for L labels.

    Attributes:
      filenames: one per image, distinct, relative to the image folder.
      names: of the labels, in input order.
      values: int8 [N, L] of 0, 1 and MISSING.
      source: uint8 [N, L] of `Source`; `Source.MISSING` exactly where the value is MISSING.
      rows: int64 [N], line numbers in the input file, the first line being 1.

    Raises:
      LabelsError: a label has no name, spaces around it, or the name of another; shapes, dtypes or
        values that do not fit each other.
    """

    filenames: tuple[str, ...]
    names: tuple[str, ...]
    values: np.ndarray
    source: np.ndarray
    rows: np.ndarray

    def __post_init__(self) -> None:
        for name in self.names:
            if not name or name != name.strip():
                raise LabelsError(
                    f"label name {name!r} is empty or has spaces around it; rename it"
                )
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise LabelsError(f"two labels are named {twice!r}; rename one of them")
        shape = (len(self.filenames), len(self.names))
        given = (self.values.shape, self.source.shape, self.rows.shape)
        if given != (shape, shape, shape[:1]):
            raise LabelsError(f"arrays of shapes {given} do not fit {shape} images and labels")
        dtypes = (self.values.dtype, self.source.dtype, self.rows.dtype)
        if dtypes != (np.int8, np.uint8, np.int64):
            raise LabelsError(f"a label table needs int8, uint8 and int64 arrays, not {dtypes}")
        if ((self.values < MISSING) | (self.values > 1)).any() or (
            (self.source == Source.MISSING) != (self.values == MISSING)
        ).any():
            raise LabelsError("a label table holds values that are not 0, 1 or missing as sourced")

    @property
    def known(self) -> np.ndarray:
        """bool [N, L]: the cell has a value, wherever from."""
        return self.values != MISSING

    @property
    def human(self) -> np.ndarray:
        """bool [N, L]: a person gave the value. No metric may look at any other cell."""
        return (self.source == Source.OBSERVED) | (self.source == Source.REVIEWED)

    def select(self, indices: np.ndarray) -> "LabelTable":
        """The given images, in the given order; int [n]."""
        return LabelTable(
            tuple(self.filenames[index] for index in indices.tolist()),
            self.names,
            self.values[indices],
            self.source[indices],
            self.rows[indices],
        )

    def hide(self, mask: np.ndarray) -> "LabelTable":
        """The table with the cells of `mask`, bool [N, L], made missing."""
        return replace(
            self,
            values=np.where(mask, np.int8(MISSING), self.values),
            source=np.where(mask, np.uint8(Source.MISSING), self.source),
        )

    def digest(self) -> str:
        """Digest of names, values and sources; line numbers, which carry no label, are left out."""
        arrays = digest_arrays({"values": self.values, "source": self.source})
        return digest_json([list(self.filenames), list(self.names), arrays])
