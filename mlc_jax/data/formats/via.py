"""VGG Image Annotator: attributes of files and of regions in them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlc_jax.data.formats import json_text
from mlc_jax.data.formats.record import ANNOTATED, Record
from mlc_jax.label_settings import ReadOptions


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it is a project or an export of annotations."""
    if not json_text.is_json(path, first_bytes):
        return False
    content = json_text.load(path)
    if not isinstance(content, dict) or not content:
        return False
    return "_via_img_metadata" in content or all(
        isinstance(item, dict) and {"filename", "file_attributes"} <= item.keys()
        for item in list(content.values())[:5]
    )


def read(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The labels of every file: boxes that are ticked, choices, and 0 or 1 as text."""
    del options
    content = json_text.load(path)
    for row, item in enumerate(content.get("_via_img_metadata", content).values(), 1):
        filename = str(item["filename"])
        yield Record(filename, "", ANNOTATED, "", "", row)
        regions = item.get("regions", ())
        shapes = list(regions.values()) if isinstance(regions, dict) else regions
        for attributes in (item["file_attributes"], *(s["region_attributes"] for s in shapes)):
            for key, value in attributes.items():
                yield from labels_of(filename, str(key), value, row)


def labels_of(filename: str, key: str, value: Any, row: int) -> Iterator[Record]:
    """The labels of one attribute of a file, or of a region in it."""
    if isinstance(value, dict):  # a group of boxes, of which those that are ticked are there
        for name, ticked in value.items():
            yield Record(filename, str(name), 1 if ticked else 0, str(ticked), "", row)
    elif str(value).strip().lower() in ("0", "1", "yes", "no", "true", "false"):
        yield Record(filename, key, None, str(value), "", row)
    elif str(value).strip():
        yield Record(filename, str(value).strip(), 1, str(value), "", row)
