"""WIDER Attribute: people in images with 1 yes, -1 no, 0 not specified per attribute.

An image has an attribute if a person has; it has not, if all have not.
"""

from collections.abc import Iterator
from pathlib import Path

from mlc_jax.data.formats import json_text
from mlc_jax.data.formats.record import UNSEEN, Record
from mlc_jax.data.table import MISSING
from mlc_jax.label_settings import ReadOptions


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it is such a file."""
    if not json_text.is_json(path, first_bytes):
        return False
    content = json_text.load(path)
    return isinstance(content, dict) and {"attribute_id_map", "images"} <= content.keys()


def read(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The attributes of every image."""
    del options
    content = json_text.load(path)
    names = [name for _, name in sorted(content["attribute_id_map"].items(), key=_number)]
    for row, image in enumerate(content["images"], 1):
        filename = str(image["file_name"])
        people = [person["attribute"] for person in image["targets"]]
        if not people:
            yield Record(filename, "", UNSEEN, "", "", row)
        for place, name in enumerate(names if people else ()):
            own = [attributes[place] for attributes in people]
            value = 1 if 1 in own else MISSING if 0 in own else 0
            yield Record(filename, str(name), value, str({1: 1, 0: -1}.get(value, 0)), "", row)


def _number(item: tuple[str, str]) -> int:
    return int(item[0])
