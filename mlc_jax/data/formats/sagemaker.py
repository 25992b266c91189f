"""SageMaker Ground Truth: an output manifest with a class map in the metadata of every line."""

from collections.abc import Iterator
from pathlib import Path

from mlc_jax.data.formats import json_text
from mlc_jax.data.formats.record import ANNOTATED, UNSEEN, Record
from mlc_jax.errors import LabelsError
from mlc_jax.label_settings import ReadOptions

_METADATA = "-metadata"


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it is such a manifest."""
    return json_text.is_lines(path, first_bytes) and b'"source-ref"' in first_bytes


def read(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The labels of every image; of several labelling jobs, those of the last."""
    del options
    for row, item in json_text.lines(path):
        filename = str(item["source-ref"])
        jobs = [key.removesuffix(_METADATA) for key in item if key.endswith(_METADATA)]
        if not jobs or jobs[-1] not in item or "failure-reason" in item[jobs[-1] + _METADATA]:
            yield Record(filename, "", UNSEEN, "", "", row)
            continue
        metadata, found = item[jobs[-1] + _METADATA], item[jobs[-1]]
        names = metadata.get("class-map", {})
        yield Record(filename, "", ANNOTATED, "", "", row)
        for name in names.values():
            yield Record("", str(name))
        for number in found if isinstance(found, list) else [found]:
            name = names.get(str(number), metadata.get("class-name"))
            if name is None:
                raise LabelsError(f"{path}, line {row}: class {number} has no name in the manifest")
            yield Record(filename, str(name), 1, str(number), "", row)
