"""A label table as other programs read it; what is not known is left out, and never a 0.

Yes, no and not known differ: in COCO by LVIS's neg_category_ids, in Label Studio and
FiftyOne by classes NAME and "not NAME", in Hugging Face's metadata by null.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlc_jax.data.table import MISSING, LabelTable
from mlc_jax.files.atomic import write_json, write_text


def coco(path: Path, table: LabelTable) -> None:
    """COCO-like JSON: a 1 is an annotation without a box, a 0 stands in neg_category_ids."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (filename, values) in enumerate(_rows(table), 1):
        of = {kind: [n for n, v in enumerate(values, 1) if v == kind] for kind in (0, 1, MISSING)}
        lists = {"neg_category_ids": of[0], "not_exhaustive_category_ids": of[MISSING]}
        images.append({"id": number, "file_name": filename} | lists)
        annotations += [
            {"id": len(annotations) + place, "image_id": number, "category_id": n, "iscrowd": 0}
            for place, n in enumerate(of[1], 1)
        ]
    categories = [{"id": n, "name": name} for n, name in enumerate(table.names, 1)]
    write_json(path, {"images": images, "annotations": annotations, "categories": categories})


def label_studio(path: Path, table: LabelTable) -> None:
    """Label Studio's tasks, each with an annotation that holds one choice per known label."""
    tasks = []
    for filename, values in _rows(table):
        result = [
            {"from_name": f"label_{place}", "to_name": "image", "type": "choices"}
            | {"value": {"choices": [name if value else f"not {name}"]}}
            for place, (name, value) in enumerate(zip(table.names, values, strict=True), 1)
            if value != MISSING
        ]
        tasks.append({"data": {"image": filename}, "annotations": [{"result": result}]})
    write_json(path, tasks)


def fiftyone(path: Path, table: LabelTable) -> None:
    """FiftyOne's labels.json of a multilabel classification: classes NAME and "not NAME"."""
    classes = [text for name in table.names for text in (name, f"not {name}")]
    labels = {
        str(Path(filename).with_suffix("")): [
            2 * place + 1 - value for place, value in enumerate(values) if value != MISSING
        ]
        for filename, values in _rows(table)
    }
    write_json(path, {"classes": classes, "labels": labels})


def hugging_face(path: Path, table: LabelTable) -> None:
    """Hugging Face's metadata.jsonl: file_name and a column per label, null where not known."""
    lines = []
    for filename, values in _rows(table):
        known = [None if value == MISSING else value for value in values]
        row = {"file_name": filename} | dict(zip(table.names, known, strict=True))
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))


def _rows(table: LabelTable) -> Iterator[tuple[str, list[int]]]:
    return zip(table.filenames, table.values.tolist(), strict=True)


FORMS: dict[str, tuple[str, Callable[[Path, LabelTable], None]]] = {
    "coco": ("coco.json", coco),
    "label_studio": ("label_studio.json", label_studio),
    "fiftyone": ("labels.json", fiftyone),
    "hugging_face": ("metadata.jsonl", hugging_face),
}
