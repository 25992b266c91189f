"""Parquet and Feather (Arrow) files, and Arrow's streams as Hugging Face's cache holds them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlc_jax.data.formats.cell_text import text_of
from mlc_jax.data.formats.record import Row, Sheet
from mlc_jax.errors import LabelsError
from mlc_jax.label_settings import ReadOptions

_BATCH = 65536
_STREAM = b"\xff\xff\xff\xff"  # before the length of a stream's first message


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it is such a file."""
    return not path.is_dir() and first_bytes.startswith((b"PAR1", b"ARROW1", b"FEA1", _STREAM))


def read(path: Path, options: ReadOptions) -> Sheet:
    """The columns as texts; lists as JSON.

    Raises:
      LabelsError: it cannot be read.
    """
    del options
    import pyarrow  # here, since few label files are columnar
    from pyarrow import feather, parquet

    with path.open("rb") as raw:
        start = raw.read(4)
    try:
        if start == b"PAR1":
            table = parquet.read_table(path)
        elif start == _STREAM:
            with pyarrow.ipc.open_stream(path.read_bytes()) as reader:
                table = reader.read_all()
        else:
            table = feather.read_table(path)
        table.validate(full=True)  # offsets that lead elsewhere would be followed
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise LabelsError(f"{path} is a columnar file that cannot be read ({error})") from None

    def records() -> Iterator[Row]:
        yield 1, [str(name) for name in table.column_names]
        number = 1
        for batch in table.to_batches(_BATCH):
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                number += 1
                yield number, [_text(cell) for cell in row]

    kind = "Parquet" if start == b"PAR1" else "Arrow"
    return Sheet(path, records, (f"a {kind} file",))


def _text(cell: Any) -> str:
    if isinstance(cell, dict) and isinstance(cell.get("path"), str):
        return cell["path"]  # an image as Hugging Face keeps it
    if isinstance(cell, list | dict):
        return json.dumps(cell, default=str)
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace")
    return text_of(cell)
