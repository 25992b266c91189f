"""VGG Image Annotator's CSV: a row per region, attributes of files and regions as JSON."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlc_jax.data.delimited import open_text, shown
from mlc_jax.data.formats.record import ANNOTATED, Record
from mlc_jax.data.formats.via import labels_of
from mlc_jax.errors import LabelsError
from mlc_jax.label_settings import ReadOptions

_COLUMNS = {"filename", "file_attributes", "region_attributes"}


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether its first line has the columns of such an export."""
    del path
    header = first_bytes.split(b"\n", 1)[0].decode("latin-1")
    return {name.strip().strip('#"') for name in header.split(",")} >= _COLUMNS


def read(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The labels of every file.

    Raises:
      LabelsError: a column is not there, attributes are no JSON, or a row has too few columns.
    """
    rows = open_text(path, encoding=options.encoding).records(",")
    _, header = next(rows, (1, []))
    places = {name.strip().lstrip("#"): place for place, name in enumerate(header)}
    if absent := sorted(_COLUMNS - places.keys()):
        raise LabelsError(f"{path}, row 1: VIA's columns {', '.join(absent)} are not there")
    for row, fields in rows:
        if len(fields) < len(header):
            raise LabelsError(f"{path}, row {row}: {len(fields)} of {len(header)} columns")
        filename = fields[places["filename"]]
        yield Record(filename, "", ANNOTATED, "", "", row)
        for column in ("file_attributes", "region_attributes"):
            for key, value in _attributes(path, row, fields[places[column]]).items():
                yield from labels_of(filename, key, value, row)


def _attributes(path: Path, row: int, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise LabelsError(
            f"{path}, row {row}: {shown(text)} are no attributes of VIA; export the project again"
        )
    return found
