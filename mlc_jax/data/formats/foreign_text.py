"""Text that is no label file: an empty file, a web page, XML, JSON, YAML."""

from pathlib import Path

from mlc_jax.data.formats import json_text, yolo

EXAMPLE = "filename,sea,sky / a.jpg,1,0 / b.jpg,,1"  # rows, as a message shows them on one line
AS_CSV = "; save the table as CSV or Parquet"


def named(path: Path, first_bytes: bytes) -> str:
    """What a text is that holds no labels, and what to do; empty where it may be a table."""
    start = first_bytes.removeprefix(b"\xef\xbb\xbf").strip()[:64].lower()
    if not start:
        return f"empty; expected a table such as {EXAMPLE}"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page, perhaps of an error or a login; download the label file itself"
    if start.startswith((b"<?xml", b"<")):
        return "XML of none of the formats cvat and voc; export it in one of them, or as CSV"
    if start[:1] in (b"{", b"["):
        if json_text.is_json(path, first_bytes) or json_text.is_lines(path, first_bytes):
            return (
                "JSON of no form that is known; expected e.g. "
                '[{"filename": "a.jpg", "sea": 1, "sky": 0}] or {"a.jpg": ["sea"]}, or an export '
                "of the tools that the README lists"
            )
    elif path.suffix.lower() in (".yaml", ".yml"):
        if yolo.detect(path.parent, b""):
            return (
                "the YAML file of a YOLO data set; give its folder: "
                f"--config.data.labels={path.parent}"
            )
        return f"a YAML file{AS_CSV}"
    return ""
