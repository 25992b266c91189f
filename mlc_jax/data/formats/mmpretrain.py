"""MMPretrain's annotations: metainfo with classes, data_list with img_path and gt_label."""

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
    return isinstance(content, dict) and isinstance(content.get("data_list"), list)


def read(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The classes of every image; numbers count metainfo.classes, or config.data.names."""
    content = json_text.load(path)
    names = [str(name) for name in content.get("metainfo", {}).get("classes", options.names)]
    for name in names:
        yield Record("", name)
    for row, item in enumerate(content["data_list"], 1):
        filename = str(item["img_path"])
        yield Record(filename, "", ANNOTATED, "", "", row)
        found = item["gt_label"]
        for number in found if isinstance(found, list) else [found]:
            yield Record(filename, names[number] if names else str(number), 1, str(number), "", row)
