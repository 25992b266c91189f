"""suspects.csv: observed cells that the model contradicts with high calibrated confidence."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlc_jax.data.delimited import open_text, shown
from mlc_jax.errors import LabelsError

COLUMNS = ("filename", "label", "value", "probability", "confidence")
MAX_LINES = 20_000_000


@dataclass(frozen=True)
class Suspect:
    """An observed cell; `confidence` is the probability that its value is wrong."""

    filename: str
    label: str
    value: int
    probability: float
    confidence: float


def read_suspects(path: str | os.PathLike[str]) -> tuple[Suspect, ...]:
    """Reads suspects.csv.

    Raises:
      LabelsError: no such file, another header, or a value that cannot be; names row and column.
    """
    text = open_text(Path(path), MAX_LINES)
    records = text.records(",")
    header = next(records, (1, []))[1]
    if tuple(header) != COLUMNS:
        raise LabelsError(
            f"{text.path}: columns {shown(','.join(header))} are not {','.join(COLUMNS)}; write "
            "the file anew with the impute job"
        )
    return tuple(_suspects(str(text.path), records))


def _suspects(path: str, records: Iterator[tuple[int, list[str]]]) -> Iterator[Suspect]:
    for row, fields in records:
        where = f"{path}, row {row}"
        if len(fields) != len(COLUMNS):
            raise LabelsError(f"{where}: {len(fields)} fields, expected {len(COLUMNS)}")
        filename, label, value, probability, confidence = fields
        if value not in ("0", "1"):
            raise LabelsError(f"{where}, value: {shown(value)} is not 0 or 1")
        yield Suspect(
            filename,
            label,
            int(value),
            _share(where, "probability", probability),
            _share(where, "confidence", confidence),
        )


def _share(where: str, column: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise LabelsError(f"{where}, {column}: {shown(text)} is not a number in [0, 1]")
    return number
