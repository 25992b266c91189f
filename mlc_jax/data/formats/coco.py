"""COCO: objects with categories in images; a category seen only as a crowd is missing.

LVIS's neg_category_ids are zeros, its not_exhaustive_category_ids say nothing about an image.
"""

from collections.abc import Iterator
from pathlib import Path

from mlc_jax.data.formats import json_text
from mlc_jax.data.formats.record import ANNOTATED, Record
from mlc_jax.data.table import MISSING
from mlc_jax.label_settings import ReadOptions


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it is a COCO file."""
    if not json_text.is_json(path, first_bytes):
        return False
    content = json_text.load(path)
    return isinstance(content, dict) and all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    )


def read(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The categories of every image."""
    del options
    content = json_text.load(path)
    names = {item["id"]: str(item["name"]) for item in content["categories"]}
    # Roboflow writes the project as a category 0, which is above all others.
    parents = {item.get("supercategory") for item in content["categories"]}
    top = [
        item["id"]
        for item in content["categories"]
        if item.get("supercategory") == "none" and item["name"] in parents
    ]
    for number in top:
        if not any(item.get("category_id") == number for item in content["annotations"]):
            del names[number]
    for name in names.values():
        yield Record("", name)
    files = {}
    for row, image in enumerate(content["images"], 1):
        files[image["id"]] = filename = str(image["file_name"])
        yield Record(filename, "", ANNOTATED, "", "", row)
        for number in image.get("neg_category_ids") or ():
            yield Record(filename, names[number], 0, "neg_category_ids", "", row)
        for number in image.get("not_exhaustive_category_ids") or ():
            yield Record(filename, names[number], MISSING, "not_exhaustive", "", row)
    for row, item in enumerate(content["annotations"], 1):
        if item["image_id"] in files:
            crowd = bool(item.get("iscrowd"))
            name = names[item["category_id"]]
            raw = "crowd" if crowd else name
            yield Record(files[item["image_id"]], name, MISSING if crowd else 1, raw, "", row)
