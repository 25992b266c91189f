"""iMaterialist: images with ids, and annotations with lists of label numbers."""

from collections.abc import Iterator
from pathlib import Path

from mlc_jax.data.formats import json_text
from mlc_jax.data.formats.record import ANNOTATED, UNSEEN, Record
from mlc_jax.label_settings import ReadOptions


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it is such a file."""
    if not json_text.is_json(path, first_bytes):
        return False
    content = json_text.load(path)
    found = content.get("annotations") if isinstance(content, dict) else None
    return (
        isinstance(found, list)
        and "categories" not in content
        and all(isinstance(item, dict) for item in found[:5])
        and any(_key(item) for item in found[:5])
    )


def read(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The labels of every image."""
    content = json_text.load(path)
    seen = set()
    for row, item in enumerate(content["annotations"], 1):
        filename = str(item.get("imageId", item.get("image_id")))
        seen.add(filename)
        yield Record(filename, "", ANNOTATED, "", "", row)
        ids = item[_key(item)]
        for number in ids if isinstance(ids, list) else [ids]:
            named = options.names and str(number).isdecimal() and int(number) < len(options.names)
            label = options.names[int(number)] if named else str(number)
            yield Record(filename, label, 1, str(number), "", row)
    for row, image in enumerate(content.get("images", ()), 1):
        filename = str(image.get("imageId", image.get("image_id", image.get("id"))))
        if filename not in seen:
            yield Record(filename, "", UNSEEN, "", "", row)


def _key(item: dict[str, object]) -> str:
    return next((key for key in ("labelId", "label_id", "labels") if key in item), "")
