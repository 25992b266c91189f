"""What readers of label files yield: single statements about an image and a label, or rows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ANNOTATED = 0  # as value of a record without a label: somebody looked at the image
UNSEEN = -1  # nobody did: no label of it is known


class Record(NamedTuple):
    """One statement of a label file.

    Attributes:
      filename: the image as the file names it; empty where the record only says that there is
        such a label.
      label: its name; empty where the record only says that there is such an image.
      value: 1, 0 or MISSING; None where `raw` is to be interpreted as a cell of a table is; without
        a label ANNOTATED or UNSEEN.
      raw: the text that stands in the file.
      annotator: who said it, or empty.
      row: line or item in the file, from 1.
    """

    filename: str
    label: str
    value: int | None = 1
    raw: str = ""
    annotator: str = ""
    row: int = 0


class Extra(NamedTuple):
    """What a label file says of an image beside labels: its split, group, date."""

    filename: str
    column: str
    text: str


Row = tuple[int, list[str]]


@dataclass(frozen=True)
class Sheet:
    """A table of texts.

    Attributes:
      path: where it was read.
      records: gives line number and fields of every row, from the start, each time it is called.
      notes: what was found out about the file.
      by_spaces: whether spaces part the columns, so that names with spaces need quotes.
      false_values: texts that mean 0 by the format.
    """

    path: Path
    records: Callable[[], Iterator[Row]]
    notes: tuple[str, ...]
    by_spaces: bool = False
    false_values: tuple[str, ...] = ()
