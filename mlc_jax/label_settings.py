"""How a label file is to be read: the keys of `config.data` about it, and their checks."""

import csv
import io
import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ml_collections import ConfigDict

from mlc_jax.errors import ConfigError

CHOICES = {
    "blank": ("", "missing", "false"),
    "absent": ("", "missing", "false"),
    "uncertain": ("", "missing", "true", "false"),
    "annotators": ("majority", "agree", "first"),
    "match": ("", "path", "name", "stem"),
}


@dataclass(frozen=True)
class ReadOptions:
    """Everything that decides what a label file means; the fields are keys of `config.data`.

    Attributes:
      format: of the file, or auto.
      encoding: of a text file; empty: UTF-8, UTF-16 or latin-1, found out.
      file_column, label_columns, ignore_columns, tags_column, annotator_column: names of columns.
      tags_separator: between the tags of one cell; empty: found out.
      names: of the labels, where the file has none, in order; or one file with a name per line.
      true_values, false_values, missing_values: texts that mean 1, 0 and missing, in any case.
      blank: what an empty cell means; empty: missing.
      absent: what it means that a list or an export does not name a label; empty: not stated.
      uncertain: what -1 and words of doubt mean; empty: not stated.
      soft: (low, high): numbers up to low are 0, from high on 1, missing between; where high is
        above 1, of numbers up to 100 (percentages, counts).
      annotators: majority, agree (all must) or first, where rows of one image differ.
      suffix, prefix: put around every file name.
      match: path, name (its last part) or stem (that without suffix); empty: found out.
      used_columns: what `groups` and `split` name: columns that are no labels, if there are such.
      ours: the file is a labels.csv of ours: a header, file names first, then labels alone.

    Raises:
      ConfigError: a value that cannot be used.
    """

    format: str = "auto"
    encoding: str = ""
    file_column: str = ""
    label_columns: tuple[str, ...] = ()
    ignore_columns: tuple[str, ...] = ()
    tags_column: str = ""
    tags_separator: str = ""
    annotator_column: str = ""
    names: tuple[str, ...] = ()
    true_values: tuple[str, ...] = ()
    false_values: tuple[str, ...] = ()
    missing_values: tuple[str, ...] = ()
    blank: str = ""
    absent: str = ""
    uncertain: str = ""
    soft: tuple[float, ...] = ()
    annotators: str = "majority"
    suffix: str = ""
    prefix: str = ""
    match: str = ""
    used_columns: tuple[str, ...] = ()
    ours: bool = False

    def __post_init__(self) -> None:
        for key, choices in CHOICES.items():
            value = getattr(self, key)
            if value not in choices:
                raise ConfigError(
                    f"config.data.{key}={value!r} cannot be used; expected "
                    f"{', '.join(choice or 'nothing' for choice in choices)}"
                )
        if self.soft and not (
            len(self.soft) == 2
            and all(isinstance(number, int | float) for number in self.soft)
            and 0 <= self.soft[0] <= self.soft[1] <= 100
            and math.isfinite(self.soft[1])
        ):
            raise ConfigError(
                f"config.data.soft={self.soft!r} cannot be used; expected LOW,HIGH with "
                "0 <= LOW <= HIGH <= 1, or up to 100 where the numbers of the file are"
            )

    @staticmethod
    def of(keys: Mapping[str, Any]) -> "ReadOptions":
        """The options among the keys of `config.data`; a run of an older version lacks some."""
        given: dict[str, Any] = {}
        for field in fields(ReadOptions)[:-2]:
            value = keys.get(field.name, field.default)
            if isinstance(field.default, tuple):
                value = (value,) if isinstance(value, str) else tuple(_flat(value))
            given[field.name] = value
        given["soft"] = tuple(map(_number, given["soft"]))
        used = (keys.get("groups", ""), keys.get("split", ""))
        given["used_columns"] = tuple(name for name in used if name)
        return ReadOptions(**given)


OURS = ReadOptions(ours=True)


def label_config() -> ConfigDict:
    """The keys about label files, with their defaults."""
    config = ConfigDict()
    config.labels = ""  # labels file; empty for the embedded demo
    config.images = ""  # image folder
    config.format = "auto"  # of the label file; found out, and stated
    config.encoding = ""  # of a label file in text; empty: UTF-8, UTF-16 or latin-1, found out
    config.file_column = ""  # of the file names; empty: found out
    config.label_columns = ()  # the columns of labels; empty: those that hold labels
    config.ignore_columns = ()  # columns that hold no labels
    config.tags_column = ""  # a column that lists the labels of an image
    config.tags_separator = ""  # between them: space, comma, … or a text; empty: found out
    config.annotator_column = ""  # who labelled; empty: found by its name
    config.names = ()  # of labels, where the file has none; or a file with one per line
    # In any case, with commas between several; 0, 1 and the empty cell may be among them:
    config.true_values = ()  # texts that mean 1, beside 1 and 1.0
    config.false_values = ()  # texts that mean 0, beside 0 and 0.0
    config.missing_values = ()  # texts that mean missing, beside ?, NA, NaN, N/A, null, None
    config.blank = ""  # missing | false: an empty cell; empty: missing
    config.absent = ""  # missing | false: a label that a list or an export does not name
    config.uncertain = ""  # missing | true | false: -1 and words of doubt; empty: an error
    config.soft = ()  # low,high: numbers up to low are 0, from high on 1, between them missing
    config.annotators = "majority"  # majority | agree | first, where rows of an image differ
    config.suffix = ""  # put behind every file name: .jpg
    config.prefix = ""  # put before every file name
    config.match = ""  # path | name | stem: how images are found by their names; empty: auto
    return config


def _number(value: Any) -> Any:
    """A number, or what cannot be one, for the check to refuse."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def _flat(value: Any) -> Iterable[Any]:
    return value if isinstance(value, Iterable) else (value,)


def flag(key: str, *texts: str) -> str:
    """`--config.data.KEY=…` as a shell takes it, with one or several texts."""
    value = texts[0]
    known = ReadOptions.__dataclass_fields__.get(key)
    if known is not None and isinstance(known.default, tuple):
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(texts)
        value = line.getvalue()
    return shlex.quote(f"--config.data.{key}={value}")
