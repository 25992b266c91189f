"""CelebA's list_attr_celeba: 1 and -1 (no) for forty attributes, as text or as CSV."""

from collections.abc import Iterator
from pathlib import Path

from mlc_jax.data.delimited import open_text
from mlc_jax.data.formats.record import Row, Sheet
from mlc_jax.label_settings import ReadOptions

_KNOWN = b"5_o_Clock_Shadow"


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it has CelebA's attributes and values."""
    head = first_bytes.split(b"\n")
    return _KNOWN in b"".join(head[:2]) and b"-1" in b"".join(head[2:20]) and not path.is_dir()


def read(path: Path, options: ReadOptions) -> Sheet:
    """The table; -1 is CelebA's no."""
    text = open_text(path, encoding=options.encoding)

    def records() -> Iterator[Row]:
        header = False
        for row, line in enumerate(text.lines(), 1):
            fields = line.replace(",", " ").split()
            if len(fields) > 1 and not header:
                header = True
                yield row, fields if fields[0] == "image_id" else ["image_id", *fields]
            elif len(fields) > 1:
                yield row, fields

    return Sheet(path, records, ("CelebA: -1 means no",), false_values=("-1",))
