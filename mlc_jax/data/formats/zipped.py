"""What lies in a zip archive, for the formats that are one."""

import zipfile
from pathlib import Path

MAGIC = b"PK\x03\x04"


def names_in_zip(path: Path, first_bytes: bytes) -> list[str]:
    """The names of its files; none where it is no zip archive, or a damaged one."""
    if not first_bytes.startswith(MAGIC):
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        return []
