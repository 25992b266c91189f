"""What separates the columns of a table as text."""

import itertools

from mlc_jax.data.delimited import TextFile, shown
from mlc_jax.data.formats.foreign_text import EXAMPLE
from mlc_jax.data.layout import common_width, is_image_name
from mlc_jax.data.meanings import Meanings
from mlc_jax.errors import LabelsError

NAMES = {"\t": "tab", ";": "semicolon", ",": "comma", " ": "space", "|": "pipe"}
_SAMPLE = 200  # records looked at to find the separator


def find_separator(text: TextFile, meanings: Meanings) -> str:
    """The separator under which most records have the commonest width and are labels.

    Raises:
      LabelsError: there is none.
    """
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
