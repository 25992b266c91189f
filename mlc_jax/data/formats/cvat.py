"""CVAT for images: annotations.xml with the tags and shapes of every image."""

from collections.abc import Iterator
from pathlib import Path

from mlc_jax.data.formats import xml_text
from mlc_jax.data.formats.record import ANNOTATED, Extra, Record
from mlc_jax.label_settings import ReadOptions

_SHAPES = ("tag", "box", "polygon", "polyline", "points", "mask", "ellipse", "cuboid", "skeleton")


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it is such a file."""
    head = first_bytes.removeprefix(b"\xef\xbb\xbf").lstrip()
    return not path.is_dir() and head.startswith(b"<") and b"<annotations" in head


def read(path: Path, options: ReadOptions) -> Iterator[Record | Extra]:
    """The labels of every image."""
    del options
    root = xml_text.load(path)
    for label in root.iterfind("./meta//labels/label/name"):
        if label.text and label.text.strip():
            yield Record("", label.text.strip())
    for row, image in enumerate(root.iter("image"), 1):
        filename = image.get("name", "")
        yield Record(filename, "", ANNOTATED, "", "", row)
        if subset := image.get("subset"):
            yield Extra(filename, "subset", subset)
        for item in image:
            if item.tag in _SHAPES and item.get("label"):
                name = item.get("label", "")
                yield Record(filename, name, 1, name, "", row)
