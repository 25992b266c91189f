"""JSON as a table: a list of objects, an object of columns, or one object per line.

Hugging Face's metadata.jsonl is one: file_name, and labels as a list or as columns.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlc_jax.data.formats import json_text
from mlc_jax.data.formats.cell_text import text_of
from mlc_jax.data.formats.record import Row, Sheet
from mlc_jax.data.layout import FILE_HEADERS
from mlc_jax.errors import LabelsError
from mlc_jax.label_settings import ReadOptions


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it may be a table; what other formats take is none."""
    if json_text.is_lines(path, first_bytes):
        return b'"imageGcsUri"' not in first_bytes and b'"source-ref"' not in first_bytes
    if not json_text.is_json(path, first_bytes):
        return False
    content = json_text.load(path)
    if isinstance(content, list):
        return bool(content) and all(isinstance(item, dict) and _flat(item) for item in content[:5])
    if not isinstance(content, dict) or {"columns", "data"} <= content.keys():
        return isinstance(content, dict)
    return any(key in FILE_HEADERS for key in content) and all(map(_is_column, content.values()))


def read(path: Path, options: ReadOptions) -> Sheet:
    """The objects as rows.

    Raises:
      LabelsError: it is no table.
    """
    del options
    with path.open("rb") as raw:
        by_lines = json_text.is_lines(path, raw.read(2**16))
    if by_lines:
        names = list(dict.fromkeys(key for _, item in json_text.lines(path) for key in item))

        def records() -> Iterator[Row]:
            yield 0, names
            for number, item in json_text.lines(path):
                yield number, [text_of(item.get(name)) for name in names]

        return Sheet(path, records, ("one JSON object per line",))
    names, rows = _table(path, json_text.load(path))

    def listed() -> Iterator[Row]:
        yield 0, names
        yield from ((number, list(map(text_of, row))) for number, row in enumerate(rows, 1))

    return Sheet(path, listed, ("a JSON table",))


def _flat(item: dict[str, Any]) -> bool:
    nested = any(isinstance(value, dict) for value in item.values())
    marks = {"annotations", "annotation", "annotator", "annotation_id"}
    return not nested and not marks & item.keys()


def _is_column(value: Any) -> bool:
    items = list(value.values()) if isinstance(value, dict) else value
    return isinstance(items, list) and not any(isinstance(item, dict) for item in items)


def _table(path: Path, content: Any) -> tuple[list[str], list[list[Any]]]:
    if isinstance(content, list):
        names = list(dict.fromkeys(key for item in content for key in item))
        return names, [[item.get(name) for name in names] for item in content]
    if "data" in content and "columns" in content:
        return [str(name) for name in content["columns"]], content["data"]
    names = list(content)
    columns = [list(c.values()) if isinstance(c, dict) else c for c in content.values()]
    if not all(isinstance(c, list) and len(c) == len(columns[0]) for c in columns):
        raise LabelsError(f"{path}: its columns have different lengths")
    return names, [list(row) for row in zip(*columns, strict=True)]
