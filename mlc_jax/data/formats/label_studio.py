"""Label Studio's exports: JSON and JSON-MIN. Its CSV is a table with a column of choices.

A task without an annotation is an image that nobody labelled; cancelled annotations do not count;
several annotations of a task are several annotators.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlc_jax.data.formats import json_text
from mlc_jax.data.formats.label_studio_images import image_of
from mlc_jax.data.formats.record import ANNOTATED, UNSEEN, Record
from mlc_jax.label_settings import ReadOptions

_NO_CHOICES = frozenset(
    ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time")
)


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it is such an export."""
    if not json_text.is_json(path, first_bytes):
        return False
    content = json_text.load(path)
    some = content[:5] if isinstance(content, list) else []
    return bool(some) and all(isinstance(item, dict) and _fits(item) for item in some)


def read(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The choices of every annotator."""
    del options
    for row, task in enumerate(json_text.load(path), 1):
        if "data" not in task:
            yield from _flat(row, task)
            continue
        filename = image_of(task["data"])
        given = [
            item
            for item in task.get("annotations", task.get("completions", ()))
            if not item.get("was_cancelled")
        ]
        if not given:
            yield Record(filename, "", UNSEEN, "", "", row)
        for annotation in given:
            who = annotation.get("completed_by")
            who = str(who.get("id") if isinstance(who, dict) else who) if len(given) > 1 else ""
            yield Record(filename, "", ANNOTATED, "", who, row)
            for result in annotation.get("result", ()):
                for name in _names(result.get("value", {})):
                    yield Record(filename, name, 1, name, who, row)


def _fits(item: dict[str, Any]) -> bool:
    if "annotations" in item or "completions" in item:
        return isinstance(item.get("data"), dict)
    return "annotator" in item or "annotation_id" in item


def _flat(row: int, task: dict[str, Any]) -> Iterator[Record]:
    """JSON-MIN: the answers beside the image's address."""
    filename = image_of(task)
    yield Record(filename, "", ANNOTATED, "", "", row)
    for key, value in task.items():
        is_image = isinstance(value, str) and image_of({"image": value}) == filename
        if key not in _NO_CHOICES and not is_image:
            for name in _names(value if isinstance(value, dict) else {"choices": value}):
                yield Record(filename, name, 1, name, "", row)


def _names(value: dict[str, Any]) -> Iterator[str]:
    for key in ("choices", "labels", "rectanglelabels", "polygonlabels", "brushlabels", "taxonomy"):
        found = value.get(key, ())
        for item in [found] if isinstance(found, str) else found:
            if isinstance(item, dict):
                yield from _names(item)
            else:
                yield str(item[-1] if isinstance(item, list) else item)
