"""Datumaro's JSON: items with annotations whose label_id counts the categories."""

from collections.abc import Iterator
from pathlib import Path

from mlc_jax.data.formats import json_text
from mlc_jax.data.formats.record import ANNOTATED, Record
from mlc_jax.label_settings import ReadOptions


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it is such a file."""
    if not json_text.is_json(path, first_bytes):
        return False
    content = json_text.load(path)
    return (
        isinstance(content, dict)
        and isinstance(content.get("categories"), dict)
        and isinstance(content.get("items"), list)
    )


def read(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The labels of every item."""
    del options
    content = json_text.load(path)
    names = [str(item["name"]) for item in content["categories"]["label"]["labels"]]
    for name in names:
        yield Record("", name)
    for row, item in enumerate(content["items"], 1):
        image = item.get("image") or item.get("media") or {}
        filename = str(image.get("path") or item["id"])
        yield Record(filename, "", ANNOTATED, "", "", row)
        for found in item["annotations"]:
            if found.get("label_id") is not None:
                name = names[found["label_id"]]
                yield Record(filename, name, 1, name, "", row)
