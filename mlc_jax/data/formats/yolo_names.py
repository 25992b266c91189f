"""The names of YOLO's classes, which lie in a file of their own."""

import re
from pathlib import Path

from mlc_jax.data.delimited import open_text

_NAME_FILES = ("classes.txt", "obj.names", "data.yaml", "dataset.yaml", "_darknet.labels")


def class_names(path: Path) -> list[str]:
    """The names of the classes, from a file beside the labels or above them."""
    for folder in (path, path.parent):
        for name in _NAME_FILES:
            if (folder / name).is_file():
                text = "".join(open_text(folder / name).lines())
                return (
                    _yaml_names(text) if name.endswith(".yaml") else text.split("\n")[: -1 or None]
                )
    return []


def _yaml_names(text: str) -> list[str]:
    """The value of `names` in a data.yaml: a list on one line, or an entry per line."""
    if found := re.search(r"^names:\s*\[(.*?)\]", text, re.MULTILINE | re.DOTALL):
        return [part.strip().strip("'\"") for part in found[1].split(",") if part.strip()]
    if found := re.search(r"^names:\s*\n((?:\s+.*\n?|-.*\n?)+)", text, re.MULTILINE):
        entries = [line.strip() for line in found[1].splitlines() if line.strip()]
        return [re.sub(r"^(-|\d+:)\s*", "", entry).strip("'\"") for entry in entries]
    return []
