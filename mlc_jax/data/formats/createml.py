"""Create ML: a list of images with annotations, each a label or an object with a label."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlc_jax.data.formats import json_text
from mlc_jax.data.formats.record import ANNOTATED, Record
from mlc_jax.label_settings import ReadOptions


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it is such a file."""
    if not json_text.is_json(path, first_bytes):
        return False
    content = json_text.load(path)
    return isinstance(content, list) and bool(content) and all(map(_fits, content[:5]))


def read(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The labels of every image."""
    del options
    for row, item in enumerate(json_text.load(path), 1):
        filename = str(item.get("image", item.get("imagefilename")))
        yield Record(filename, "", ANNOTATED, "", "", row)
        for found in item.get("annotations", item.get("annotation")):
            name = str(found["label"] if isinstance(found, dict) else found)
            yield Record(filename, name, 1, name, "", row)


def _fits(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and isinstance(item.get("image", item.get("imagefilename")), str)
        and isinstance(item.get("annotations", item.get("annotation")), list)
        and "data" not in item
    )
