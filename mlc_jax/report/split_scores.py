"""scores.csv as the report reads it: the cells that people gave, on both sides of the split."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mlc_jax.data.table import MISSING
from mlc_jax.errors import WorkdirError
from mlc_jax.report.run import REMEDY, JudgedCells

_COLUMNS = {
    "filename": "str",
    "label": "str",
    "value": "int8",
    "split": "str",
    "probability": "float64",
    "threshold": "float64",
}


@dataclass(frozen=True, eq=False)
class SplitScores:
    """N images with a cell that people gave, L labels with a model.

    Attributes:
      filenames: [N], relative to the image folder.
      names: [L], in the order of summary.json.
      test: bool [N], whether the image was held out.
      values: int8 [N, L], MISSING where nobody gave the cell.
      probabilities: float64 [N, L], NaN there; those of held-in images are out of fold.
      thresholds: float64 [L]; a label is predicted above it.
    """

    filenames: tuple[str, ...]
    names: tuple[str, ...]
    test: np.ndarray
    values: np.ndarray
    probabilities: np.ndarray
    thresholds: np.ndarray

    def cells(self, *, test: bool) -> dict[str, JudgedCells]:
        """Label to its cells on one side of the split."""
        rows = self.test == test
        values, probabilities = self.values[rows], self.probabilities[rows]
        known = values != MISSING
        return {
            name: JudgedCells(values[known[:, i], i] == 1, probabilities[known[:, i], i])
            for i, name in enumerate(self.names)
        }


def read_split_scores(path: Path, labels: list[str]) -> SplitScores:
    """Reads scores.csv.

    Args:
      path: of the file.
      labels: those with a model, at least one; no other may be in the file.

    Raises:
      WorkdirError: no such file, other columns, a value that does not belong there, or a cell that
        stands there twice.
    """
    try:
        frame = pd.read_csv(
            path,
            dtype=_COLUMNS,
            keep_default_na=False,
            na_values={"threshold": [""]},
            encoding="utf-8",
        )
        _check(frame, labels)
    except OSError as error:
        raise WorkdirError(f"{path}: {error.strerror}; {REMEDY}") from error
    except ValueError as error:
        said = (str(error).splitlines() or [""])[0]
        raise WorkdirError(f"{path} is damaged ({said}); {REMEDY}") from error
    rows, filenames = pd.factorize(frame["filename"])
    columns = pd.Index(labels).get_indexer(pd.Index(frame["label"]))
    values = np.full((len(filenames), len(labels)), MISSING, np.int8)
    probabilities = np.full(values.shape, np.nan)
    thresholds = np.full(len(labels), np.nan)
    test = np.zeros(len(filenames), bool)
    values[rows, columns] = frame["value"]
    probabilities[rows, columns] = frame["probability"]
    thresholds[columns] = frame["threshold"]
    test[rows] = frame["split"] == "test"
    return SplitScores(tuple(filenames), tuple(labels), test, values, probabilities, thresholds)


def _check(frame: pd.DataFrame, labels: list[str]) -> None:
    """Raises ValueError where the table is not what the stage writes."""
    if tuple(frame.columns) != tuple(_COLUMNS):
        raise ValueError(f"its columns are not {','.join(_COLUMNS)}")
    for column, good in (
        ("label", frame["label"].isin(labels)),
        ("value", frame["value"].isin([0, 1])),
        ("split", frame["split"].isin(["held_in", "test"])),
        ("probability", frame["probability"].between(0, 1)),
    ):
        if not good.all():
            row = int(np.argmin(good))
            raise ValueError(f"row {row + 2}, {column}: {str(frame[column].iloc[row])[:40]!r}")
    twice = frame.duplicated(["filename", "label"]).to_numpy()
    if twice.any():
        raise ValueError(f"row {int(np.argmax(twice)) + 2} gives a cell for the second time")
