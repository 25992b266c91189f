"""Tables as text: commas, semicolons, tabs, pipes or spaces between the columns."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from mlc_jax.data.delimited import TextFile, open_text, shown
from mlc_jax.data.formats.foreign import EXAMPLE
from mlc_jax.data.formats.record import Row, Sheet
from mlc_jax.data.layout import common_width, is_image_name
from mlc_jax.data.meanings import Meanings
from mlc_jax.errors import LabelsError
from mlc_jax.label_settings import ReadOptions

NAMES = {"\t": "tab", ";": "semicolon", ",": "comma", " ": "space", "|": "pipe"}
_SAMPLE = 200  # records looked at to find the separator
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
        separator = stated[1] if stated else _separator(text, Meanings(options))
    notes.append(f"separated by {NAMES.get(separator, separator)}")
    skipped = int(bool(stated))

    def records() -> Iterator[Row]:
        return itertools.islice(text.records(separator), skipped, None)

    return Sheet(path, records, tuple(notes), by_spaces=separator == " ")


def _separator(text: TextFile, meanings: Meanings) -> str:
    """The separator under which most records have the commonest width and are labels."""
    samples = {separator: _sample(text, separator) for separator in NAMES}

    def score(separator: str) -> tuple[bool, bool, float, float, bool]:
        body = samples[separator][1:] or samples[separator]
        width = common_width(body)
        if width < 2:
            return False, False, 0.0, 0.0, False
        even = [fields for fields in body if len(fields) == width]
        labels = sum(meanings.is_label(field) for fields in even for field in fields[1:])
        # Under the right separator few file names hold another one.
        others = [other for other in ",;\t|" if other != separator]
        torn = sum(any(other in fields[0] for other in others) for fields in even)
        regular = len(even) / len(body)
        fits = len(samples[separator][0]) == width
        share = regular * labels / (len(even) * (width - 1))
        return True, 2 * torn <= len(even), share, regular, fits

    separator = max(NAMES, key=score)
    if not score(separator)[0]:
        row, fields = next(text.records("\t"), (1, [""]))  # raises what kept the samples empty
        held = "an image and no labels" if is_image_name(fields[0]) else "no file name and labels"
        raise LabelsError(
            f"{text.path}, row {row}: {shown(fields[0])} is one column, {held}; write a column per "
            "label, separated by commas, semicolons, tabs or spaces, with 1, 0 or nothing where it "
            f"is not known: {EXAMPLE}"
        )
    return separator


def _sample(text: TextFile, separator: str) -> list[list[str]]:
    sample: list[list[str]] = []
    try:
        for _, fields in itertools.islice(text.records(separator), _SAMPLE):
            sample.append(fields)
    except LabelsError:
        # Quotes need not make sense under the wrong separator; under the right one the error comes
        # again when the whole file is read.
        pass
    return sample
