"""A JSON object of images: each with a list of labels, one label, or values by label."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlc_jax.data.formats import json_text
from mlc_jax.data.formats.record import ANNOTATED, UNSEEN, Record
from mlc_jax.data.layout import is_image_name
from mlc_jax.label_settings import ReadOptions


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether every key is an image's name and every value may hold labels."""
    if not json_text.is_json(path, first_bytes):
        return False
    content = json_text.load(path)
    return (
        isinstance(content, dict)
        and bool(content)
        and all(map(is_image_name, content))
        and all(
            value is None or isinstance(value, list | str | int) or _is_values(value)
            for value in content.values()
        )
    )


def read(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The labels of every image; null is an image that nobody labelled."""
    del options
    for row, (filename, found) in enumerate(json_text.load(path).items(), 1):
        yield Record(filename, "", UNSEEN if found is None else ANNOTATED, "", "", row)
        if isinstance(found, dict):
            for name, value in found.items():
                raw = "" if value is None else str(value)
                yield Record(filename, str(name), None, raw, "", row)
        elif found is not None:
            for name in found if isinstance(found, list) else [found]:
                yield Record(filename, str(name), 1, str(name), "", row)


def _is_values(value: Any) -> bool:
    return isinstance(value, dict) and all(
        item is None or isinstance(item, str | int | float) for item in value.values()
    )
