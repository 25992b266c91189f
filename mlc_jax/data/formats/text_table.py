"""Tables as text: commas, semicolons, tabs, pipes or spaces between the columns."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from mlc_jax.data.delimited import open_text
from mlc_jax.data.formats.record import Row, Sheet
from mlc_jax.data.formats.separators import NAMES, find_separator
from mlc_jax.data.meanings import Meanings
from mlc_jax.label_settings import ReadOptions

_STATED = re.compile(r"sep=(.)", re.IGNORECASE)  # Excel's own first line


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it may be text."""
    return not path.is_dir() and not first_bytes.startswith((b"PK\x03\x04", b"PAR1", b"\x1f\x8b"))


def read(path: Path, options: ReadOptions) -> Sheet:
    """The table; what separates its columns is found out.

    Raises:
      LabelsError: the file cannot be read or decoded, or holds no separator.
    """
    text = open_text(path, encoding=options.encoding)
    notes = [f"encoding {text.encoding}" + (" with byte order mark" if text.mark else "")]
    stated = _STATED.fullmatch(next(text.lines(), "").strip().strip('"'))
    if options.ours:
        separator = ","
    else:
        separator = stated[1] if stated else find_separator(text, Meanings(options))
    notes.append(f"separated by {NAMES.get(separator, separator)}")
    skipped = int(bool(stated))

    def records() -> Iterator[Row]:
        return itertools.islice(text.records(separator), skipped, None)

    return Sheet(path, records, tuple(notes), by_spaces=separator == " ")
