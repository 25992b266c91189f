"""The folder of an export that holds label files: one, or one of the same kind for every split.

Roboflow writes train/_annotations.coco.json, Hugging Face train/metadata.csv, COCO itself
annotations/instances_train2017.json.
"""

import re
from pathlib import Path
from typing import NamedTuple

from mlc_jax.data.delimited import shown
from mlc_jax.errors import LabelsError
from mlc_jax.label_settings import flag

_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".xlsx", ".ods")
_PART = re.compile(r"(?:.*[_-])?(train|training|val|valid|validation|dev|test)(?:20\d\d)?", re.I)


class Part(NamedTuple):
    """A label file of an export.

    Attributes:
      file: where it is.
      prefix: of its file names, with a slash; empty where they are relative to the export's root.
      split: train, valid, test …; empty where the file holds all.
    """

    file: Path
    prefix: str
    split: str


def parts(root: Path) -> list[Part]:
    """The label files of an export; none where there are no such files.

    Raises:
      LabelsError: there are several, and it is not plain that they are the splits of one export.
    """
    found = [file for file in sorted(root.glob("*")) if _is_labels(file)]
    if len(found) == 1:
        return [Part(found[0], "", "")]
    if found:
        raise _which(root, found)
    found = [file for file in sorted(root.glob("*/*")) if _is_labels(file)]
    instances = [file for file in found if file.name.startswith("instances_")]
    if instances and {file.parent.name for file in found} == {"annotations"}:
        found = instances
    made = []
    for file in found:
        own = _PART.fullmatch(file.stem if file.parent.name == "annotations" else file.parent.name)
        prefix = "" if file.parent.name == "annotations" else f"{file.parent.name}/"
        made.append(Part(file, prefix, own[1].lower() if own else ""))
    splits = [part.split for part in made]
    if len(made) > 1 and (len(set(splits)) < len(splits) or "" in splits):
        raise _which(root, found)
    return made


def has_metadata(root: Path) -> bool:
    """Whether a file describes the images of a folder as Hugging Face does."""
    return any((root / f"metadata{suffix}").is_file() for suffix in (".csv", ".jsonl", ".parquet"))


def _is_labels(file: Path) -> bool:
    return file.suffix.lower() in _SUFFIXES and not file.name.startswith(".") and file.is_file()


def _which(root: Path, found: list[Path]) -> LabelsError:
    names = ", ".join(shown(str(file.relative_to(root))) for file in found[:5])
    more = " …" if len(found) > 5 else ""
    return LabelsError(
        f"{root} holds {len(found)} files that may be label files ({names}{more}); give one: "
        f"{flag('labels', str(found[0]))}, or several with commas between them"
    )
