"""FiftyOne's image classification data set: labels.json with classes and one entry per image."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlc_jax.data.formats import json_text
from mlc_jax.data.formats.record import ANNOTATED, UNSEEN, Record
from mlc_jax.label_settings import ReadOptions


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it is such a file."""
    if not json_text.is_json(path, first_bytes):
        return False
    content = json_text.load(path)
    return (
        isinstance(content, dict)
        and isinstance(content.get("classes"), list)
        and isinstance(content.get("labels"), dict)
    )


def read(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The classes of every image; null is an image that nobody labelled."""
    del options
    content = json_text.load(path)
    names = [str(name) for name in content["classes"]]
    for name in names:
        yield Record("", name)
    for row, (filename, found) in enumerate(content["labels"].items(), 1):
        yield Record(filename, "", UNSEEN if found is None else ANNOTATED, "", "", row)
        for item in [] if found is None else found if isinstance(found, list) else [found]:
            yield Record(filename, _name(item, names), 1, str(item), "", row)


def _name(item: Any, names: list[str]) -> str:
    if isinstance(item, dict):
        item = item["label"]
    return names[item] if isinstance(item, int) else str(item)
