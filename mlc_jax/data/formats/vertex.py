"""Vertex AI's import files: CSV with addresses and labels, and JSON lines."""

from collections.abc import Iterator
from pathlib import Path

from mlc_jax.data.delimited import open_text
from mlc_jax.data.formats import json_text
from mlc_jax.data.formats.record import ANNOTATED, Extra, Record
from mlc_jax.label_settings import ReadOptions

_USES = ("training", "train", "validation", "test", "unassigned", "default")


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it is such a file."""
    if json_text.is_lines(path, first_bytes):
        return b'"imageGcsUri"' in first_bytes
    lines = [line for line in first_bytes.split(b"\n", 3)[:3] if line.strip()]
    return bool(lines) and all(map(_is_row, lines))


def read(path: Path, options: ReadOptions) -> Iterator[Record | Extra]:
    """The labels of every image."""
    del options
    with path.open("rb") as raw:
        by_lines = raw.read(1) == b"{"
    for row, use, filename, labels in _json(path) if by_lines else _csv(path):
        yield Record(filename, "", ANNOTATED, "", "", row)
        for label in labels:
            yield Record(filename, label, 1, label, "", row)
        if use:
            yield Extra(filename, "ml_use", use)


def _is_row(line: bytes) -> bool:
    first, _, rest = line.strip().partition(b",")
    return first.startswith(b"gs://") or (
        first.decode("latin-1").lower() in ("", *_USES) and rest.startswith(b"gs://")
    )


def _csv(path: Path) -> Iterator[tuple[int, str, str, list[str]]]:
    for row, fields in open_text(path).records(","):
        if fields:
            start = 0 if fields[0].startswith("gs://") else 1
            labels = [field.strip() for field in fields[start + 1 :] if field.strip()]
            yield row, fields[0].lower() if start else "", fields[start].strip(), labels


def _json(path: Path) -> Iterator[tuple[int, str, str, list[str]]]:
    for row, item in json_text.lines(path):
        found = item.get("classificationAnnotations", [item.get("classificationAnnotation")])
        labels = [str(one["displayName"]) for one in found if one]
        resources = item.get("dataItemResourceLabels", {})
        use = str(resources.get("aiplatform.googleapis.com/ml_use", ""))
        yield row, use, str(item["imageGcsUri"]), labels
