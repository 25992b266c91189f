"""The receipt of a label file: what was read as what, for terminal, report and summary.json."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlc_jax.data.delimited import shown
from mlc_jax.data.matching import Matched
from mlc_jax.data.meanings import READ_AS
from mlc_jax.data.raw_table import RawTable
from mlc_jax.data.table import MISSING, LabelTable

_MOST = 40  # labels and texts that are listed on a terminal


@dataclass(frozen=True)
class Receipt:
    """What a label file was read as.

    Attributes:
      labels: name to (ones, zeros, missing), of the table.
      texts: (text of a cell, what it was read as) to the number of cells, of all rows.
      columns: what each column that is no label was used for, or why it was left out.
      rows: how many rows were read.
      left_out: how many more were left out, without a file name or of another width.
      images: how many images they are about.
      matched: how many different names lie in the image folder, and of how many; None without one.
      way: how names were found that are not the files' own.
      notes: what else was found out.
      agreement: label to Krippendorff's alpha between rows of one image; NaN where undefined.
    """

    labels: dict[str, tuple[int, int, int]]
    texts: Counter[tuple[str, int]]
    columns: dict[str, str]
    rows: int
    left_out: int
    images: int
    matched: tuple[int, int] | None
    way: str
    notes: tuple[str, ...]
    agreement: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """What summary.json holds."""
        return {
            "labels": {
                name: {"ones": ones, "zeros": zeros, "missing": missing}
                for name, (ones, zeros, missing) in self.labels.items()
            },
            "texts": [
                {"text": text, "read_as": READ_AS[value], "cells": count}
                for (text, value), count in self.texts.most_common(1000)
            ],
            "columns": self.columns,
            "rows": self.rows,
            "left_out": self.left_out,
            "images": self.images,
            "matched": None if self.matched is None else list(self.matched),
            "match": self.way,
            "notes": list(self.notes),
            "agreement": {
                name: None if np.isnan(alpha) else alpha for name, alpha in self.agreement.items()
            },
        }

    def lines(self) -> Iterator[str]:
        """What the terminal shows, line by line."""
        lost = f", {self.left_out} rows left out" if self.left_out else ""
        yield f"{self.rows} rows about {self.images} images, {len(self.labels)} labels{lost}"
        if self.columns:
            yield "columns: " + ", ".join(
                f"{shown(name)} {use}" for name, use in self.columns.items()
            )
        texts = [
            f"{shown(text)} as {READ_AS[value]} ({count})"
            for (text, value), count in self.texts.most_common(_MOST)
        ]
        yield "read: " + ", ".join(texts) + (" …" if len(self.texts) > _MOST else "")
        for name, (ones, zeros, missing) in list(self.labels.items())[:_MOST]:
            alpha = self.agreement.get(name, np.nan)
            agreed = "" if np.isnan(alpha) else f", annotators agree by alpha {alpha:.2f}"
            yield f"{shown(name)}: {ones} ones, {zeros} zeros, {missing} missing{agreed}"
        if len(self.labels) > _MOST:
            yield f"… and {len(self.labels) - _MOST} labels more"
        if self.matched is not None:
            yield f"{self.matched[0]} of {self.matched[1]} names lie in the image folder"


def make_receipt(
    raw: RawTable,
    table: LabelTable,
    matched: Matched,
    notes: tuple[str, ...],
    alpha: np.ndarray,
) -> Receipt:
    """The receipt of a table.

    Args:
      raw: as it was read.
      table: what was made of it.
      matched: its names and the images; `total` is 0 where there was no folder.
      notes: what was found out.
      alpha: float64 [L], agreement of rows of one image.
    """
    counts = [(table.values == value).sum(axis=0).tolist() for value in (1, 0, MISSING)]
    return Receipt(
        {name: own for name, own in zip(table.names, zip(*counts, strict=True), strict=True)},
        raw.texts,
        raw.columns,
        len(raw.filenames),
        len(raw.quarantine),
        len(table.filenames),
        (matched.found, matched.total) if matched.total else None,
        matched.way,
        notes,
        dict(zip(table.names, alpha.tolist(), strict=True)),
    )
