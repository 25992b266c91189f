"""Names of images in Label Studio's tasks."""

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

_UPLOADED = re.compile(r"[0-9a-f]{8}-")  # what Label Studio puts before an uploaded file's name


def image_of(data: dict[str, Any]) -> str:
    """The name of a task's image, without the address and the mark of an upload."""
    texts = [value for value in data.values() if isinstance(value, str)]
    address = str(data.get("image") or data.get("img") or next(iter(texts), ""))
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")
    if local:
        return local[0]
    folder, _, name = parts.path.rpartition("/")
    uploaded = "/upload" in folder
    return _UPLOADED.sub("", name, count=1) if uploaded else address
