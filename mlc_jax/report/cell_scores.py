"""What the impute stage alone writes, as its report reads it: cells.csv, and epochs by label."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlc_jax.data.cells import read_cells
from mlc_jax.data.table import MISSING
from mlc_jax.report.learning import COURSE
from mlc_jax.report.run import JudgedCells


@dataclass(frozen=True, eq=False)
class LabelScores(JudgedCells):
    """The probabilities of one label's cells; those of observed ones are out of fold.

    Attributes:
      filled: float64 [M], of the cells that the model filled.
      empty: how many cells are still blank.
    """

    filled: np.ndarray
    empty: int


def read_cell_scores(path: Path, labels: list[str]) -> dict[str, LabelScores]:
    """Reads cells.csv, label to its cells.

    Raises:
      LabelsError: see `read_cells`.
    """
    cells = read_cells(path)
    value = cells["value"].to_numpy()
    probability = cells["probability"].to_numpy()
    human = (cells["source"] != "imputed").to_numpy()
    taken = human | (value != MISSING)
    scored = ~np.isnan(probability)
    rows_of = cells.groupby("label", sort=False).indices

    def scores(label: str) -> LabelScores:
        rows = np.asarray(rows_of.get(label, []), np.intp)
        judged = rows[(human & scored)[rows]]
        filled = rows[~human[rows] & taken[rows]]
        return LabelScores(
            observed=value[judged] == 1,
            probabilities=probability[judged],
            filled=probability[filled],
            empty=int(np.count_nonzero(~taken[rows])),
        )

    return {label: scores(label) for label in labels}


def label_courses(
    epochs: list[dict[str, Any]], labels: list[str]
) -> dict[str, dict[str, np.ndarray]]:
    """Label to its figures per epoch, float64 [epochs] under each of `COURSE`, NaN where null."""
    return {
        label: {
            # None becomes NaN in the conversion.
            name: np.array([epoch["labels"][label].get(name) for epoch in epochs], np.float64)
            for name in COURSE
        }
        for label in labels
        if epochs and all(label in epoch["labels"] for epoch in epochs)
    }
