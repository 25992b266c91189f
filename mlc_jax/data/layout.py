"""Which column of a table holds what: file names, labels, tags, annotators, or no labels."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlc_jax.data.delimited import csv_line, shown
from mlc_jax.data.meanings import Meanings
from mlc_jax.errors import ConfigError, LabelsError
from mlc_jax.label_settings import ReadOptions, flag

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
SPACE_REMEDY = (
    "file names that hold spaces need double quotes, or separate the columns by commas or tabs"
)


def _normal(name: str) -> str:
    """A column's name in lower case, with spaces for underscores and hyphens."""
    return " ".join(re.sub(r"[_\-\s]+", " ", name).split()).casefold()


def _words(text: str) -> frozenset[str]:
    return frozenset(map(_normal, text.split("|")))


FILE_HEADERS = _words(
    "filename|file name|file|name|path|image|image name|imagename|image id|imageid|img|img name|id|"
    "fname|photo|picture|filepath|file path|image path|img path|image index|image file|source|"
    "image\\label|image/label|images|uuid|img id|key|dicom id|image uid|photo id|sopinstanceuid"
)
ANNOTATORS = _words(
    "annotator|annotators|annotator id|rater|rater id|rad id|reader|reader id|worker|worker id|"
    "user|username|annotated by|labeled by|labelled by|"
    "workerid|labeler|labeller|completed by|observer|expert|radiologist"
)
# Never labels.
NO_LABELS = ANNOTATORS | _words(
    "split|fold|is valid|subset|partition|usage|ml use|is train|is test|dataset split|study id|"
    "study uid|studyinstanceuid|series id|subject id|patient id|patientid|user id|frontal/lateral|"
    "ap/pa|created at|updated at|lead time|annotation id|task id|timestamp|md5|sha1|sha256|"
    "unnamed: 0|follow-up #|patient age|patient gender|patient sex|view position|"
    "originalimage[width|height]|originalimagepixelspacing[x|y]|width|height"
)
# Seldom labels: with 0 and 1 in them, a person has to say.
HARDLY_LABELS = _words(
    "age|sex|gender|date|time|index|idx|no|nr|number|row|id|train|test|val|valid|validation|group|"
    "patient|subject|scene|set|source|year|comment|comments|notes|note|url|license|author|size|"
    "phase|site|device|count|confidence|version"
)
TAG_HEADERS = _words(
    "label|labels|tag|tags|target|targets|class|classes|category|categories|finding labels|"
    "findings|attribute ids|attributes|keywords|choice|choices|annotation|annotations|class name|"
    "class id|genre|diagnosis"
)
LONG_LABELS = _words(
    "label|label name|labelname|class|class name|class id|classid|category|category id|attribute|"
    "attribute name|tag|finding|disease|variable|label id|question"
)
LONG_VALUES = _words(
    "value|present|presence|confidence|answer|response|truth|is present|positive|result|label|"
    "label value|score|target"
)
_FRACTION = re.compile(r"0?[.,]\d*[1-9]\d*")
_TOTALS = _words("total|totals|sum|count|mean|average|grand total|summe|gesamt|all|prevalence")


@dataclass
class Layout:
    """The columns of a table.

    Attributes:
      names: of all columns; made up where there is no header.
      header: whether the first row holds them.
      file: number of the column of file names.
      labels: those of labels with a cell per image.
      tags: that of lists of labels, if any.
      ragged: the labels that apply are all the fields after the file name.
      long: (column of label names, column of their values or None), one row per image and label.
      suffixed: of a long table, the label is the last part of the file name after an underscore.
      annotator: the column that says who labelled, if any.
      left_out: number to the reason why a column holds no labels.
      empty: numbers of nameless columns without a text.
    """

    names: tuple[str, ...]
    header: bool
    file: int
    labels: tuple[int, ...] = ()
    tags: int | None = None
    ragged: bool = False
    long: tuple[int, int | None] | None = None
    suffixed: bool = False
    annotator: int | None = None
    left_out: dict[int, str] = field(default_factory=dict)
    empty: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """The number of fields of a row."""
        return len(self.names)


def names_of(options: ReadOptions) -> tuple[str, ...]:
    """The names of labels that the options give, read from a file if they name one."""
    if len(options.names) == 1 and Path(options.names[0]).is_file():
        lines = Path(options.names[0]).read_text(encoding="utf-8-sig").splitlines()
        return tuple(line.strip() for line in lines if line.strip())
    return options.names


def common_width(records: Sequence[Sequence[str]]) -> int:
    """The commonest number of fields, 0 without records; of two equally common the earlier."""
    return Counter(map(len, records)).most_common(1)[0][0] if records else 0


def is_image_name(text: str) -> bool:
    """Whether a text looks like an image's file name or address."""
    return text.strip().lower().endswith(IMAGE_SUFFIXES)


def is_total(name: str) -> bool:
    """Whether a row of this name sums up the rows above it."""
    return name.strip().casefold().rstrip(":") in _TOTALS


def find_layout(
    where: str, sample: list[list[str]], options: ReadOptions, meanings: Meanings, by_spaces: bool
) -> Layout:
    """Finds out what the columns hold, from the first rows.

    Args:
      where: names the file, for messages.
      sample: the first rows, without empty ones, comments and titles.
      options: which may name columns.
      meanings: of texts.
      by_spaces: whether spaces separate the columns.

    Raises:
      LabelsError: rows and header do not fit; a label without a name; no labels; a column that may
        hold labels or not.
      ConfigError: the options name a column that is not there.
    """
    if options.ours:
        names = tuple(name.strip() for name in sample[0])
        layout = Layout(names, True, 0, tuple(range(1, len(names))))
        _check_names(where, layout)
        return layout
    header = _is_header(sample, options, meanings)
    body = sample[1:] if header else sample
    if _is_ragged(sample, header, meanings):
        return Layout(("filename", "tags"), header, 0, ragged=True)
    width = common_width(body) or len(sample[0])
    if header:
        first = [name.strip() for name in sample[0]]
        if len(first) != width:
            remedy = "name the file column and every label"
            if by_spaces and width > len(first):
                remedy += f"; {SPACE_REMEDY}"
            raise LabelsError(
                f"{where}: the header has {len(first)} fields, the rows have {width}; {remedy}"
            )
        names = tuple(first)
    else:
        names = ("",) * width
    columns = [
        [row[number].strip() for row in body if len(row) == width and not is_total(row[0])]
        for number in range(width)
    ]
    layout = Layout(names, header, _file_column(names, columns, options, where))
    if not header:
        layout.names = _made_up(width, layout.file, options)
    _assign(where, layout, columns, options, meanings)
    return layout


def _is_header(sample: list[list[str]], options: ReadOptions, meanings: Meanings) -> bool:
    first = [field.strip() for field in sample[0]]
    wanted = {options.file_column, options.tags_column, *options.label_columns} - {""}
    if wanted & set(first):
        return True
    names = [_normal(field) for field in first]
    if any(is_image_name(field) for field in first):
        return False
    if names[0] in FILE_HEADERS or (not names[0] and len(first) > 1 and all(first[1:])):
        return True
    below = [any(map(is_image_name, row)) for row in sample[1:]]
    if below and all(below):
        return True  # labels may be named 0, 1 or NA
    rest = first[1:]
    return not any(meanings.get(field) is not None for field in rest) and not any(
        field.isdigit() for field in rest
    )


def _is_ragged(sample: list[list[str]], header: bool, meanings: Meanings) -> bool:
    """Whether rows are a file name and then as many labels as apply."""
    body = sample[1:] if header else sample
    widths = {len(row) for row in body}
    if header and (len(sample[0]) != 2 or _normal(sample[0][1]) not in TAG_HEADERS):
        return False
    cells = [field for row in body for field in row[1:] if field.strip()]
    known = sum(meanings.is_label(field) for field in cells)
    named = sum(is_image_name(row[0]) for row in body)
    return len(widths) > 1 and named > 0.9 * len(body) and known < 0.9 * len(cells)


def _file_column(
    names: tuple[str, ...], columns: list[list[str]], options: ReadOptions, where: str
) -> int:
    if options.file_column:
        return _number("file_column", options.file_column, names, where)
    named = [
        number
        for number, column in enumerate(columns)
        if column and sum(map(is_image_name, column)) > 0.5 * len(column)
    ]
    titled = [number for number, name in enumerate(names) if _normal(name) in FILE_HEADERS]
    if named:
        return next((number for number in titled if number in named), named[0])
    if titled and (0 in titled or not _is_label_text(columns[titled[0]])):
        return titled[0]
    return 0


def _is_label_text(column: list[str]) -> bool:
    return set(column) <= {"", "0", "1"}


def _number(key: str, name: str, names: tuple[str, ...], where: str) -> int:
    if name not in names:
        have = csv_line(name for name in names if name).strip()
        raise ConfigError(
            f"config.data.{key} names {shown(name)}, which is no column of {where}; it has {have}"
        )
    return names.index(name)


def _made_up(width: int, file: int, options: ReadOptions) -> tuple[str, ...]:
    names = [f"label_{n}" for n in range(1, width)]
    if len(given := names_of(options)) == width - 1:
        names = list(given)
    return (*names[:file], "filename", *names[file:])


def _assign(
    where: str,
    layout: Layout,
    columns: list[list[str]],
    options: ReadOptions,
    meanings: Meanings,
) -> None:
    names = layout.names
    for key in ("label_columns", "ignore_columns"):
        for name in getattr(options, key):
            _number(key, name, names, where)
    if options.tags_column:
        layout.tags = _number("tags_column", options.tags_column, names, where)
    if options.annotator_column:
        layout.annotator = _number("annotator_column", options.annotator_column, names, where)
    labels: list[int] = []
    others: list[int] = []
    empty: list[int] = []
    for number, name in enumerate(names):
        column = [text for text in columns[number] if text]
        plain = _normal(name)
        if number in (layout.file, layout.tags, layout.annotator):
            continue
        if name and name in options.used_columns:
            layout.left_out[number] = "config.data.groups or config.data.split names it"
        elif name in options.ignore_columns:
            layout.left_out[number] = "config.data.ignore_columns names it"
        elif options.label_columns:
            if name in options.label_columns:
                labels.append(number)
            else:
                layout.left_out[number] = "config.data.label_columns does not name it"
        elif not name and not column:
            empty.append(number)
        elif not layout.header:
            labels.append(number)
        elif _is_index(plain, column, number):
            layout.left_out[number] = "it numbers the rows"
        elif plain in ANNOTATORS and layout.annotator is None:
            layout.annotator = number
        elif plain in NO_LABELS:
            layout.left_out[number] = "its name says that it is no label"
        elif plain in FILE_HEADERS and _are_names(column, meanings):
            layout.left_out[number] = "it holds names as another column does"
        elif plain == "confidence" and any(_normal(other) in LONG_LABELS for other in names):
            labels.append(number)
        elif plain in HARDLY_LABELS:
            if len(names) > 2:
                _ask_if_binary(where, name, column, names, layout.file, meanings)
            layout.left_out[number] = "its name says that it is no label"
        elif plain in TAG_HEADERS and _are_classes(column):
            others.append(number)
        elif 2 * sum(map(meanings.is_label, column)) >= len(column):
            labels.append(number)
        else:
            others.append(number)
    layout.empty = tuple(empty)
    if layout.header and not options.label_columns and not options.soft:
        hard = {n for n in labels if _is_hard(columns[n], meanings)}
        tagged = any(_normal(names[n]) in TAG_HEADERS for n in others)
        if hard or tagged:  # numbers between 0 and 1 beside those are no labels
            soft = [n for n in labels if n not in hard and any(columns[n])]
            labels = [n for n in labels if n not in soft]
            others = sorted(others + soft)
    if len(names) == 2 and layout.left_out and not options.ignore_columns:
        # The only column there is, whatever its name.
        labels = [n for n in layout.left_out if any(map(meanings.is_label, columns[n]))]
        others = [n for n in layout.left_out if n not in labels]
        layout.left_out = {}
    if layout.tags is not None:
        layout.left_out |= dict.fromkeys(others + labels, "config.data.tags_column names another")
        return
    _find_form(where, layout, columns, labels, others, options)
    _check_names(where, layout)


def _are_names(column: list[str], meanings: Meanings) -> bool:
    """Whether a column holds texts that name single rows, and no labels."""
    return len(set(column)) > 0.9 * len(column) and not any(map(meanings.is_label, column))


def _is_hard(column: list[str], meanings: Meanings) -> bool:
    """Whether a column holds labels, and no number that looks like a soft one."""
    return any(map(meanings.is_label, filter(None, column))) and not any(
        map(_FRACTION.fullmatch, column)
    )


def _are_classes(column: list[str]) -> bool:
    """Whether a column holds numbers of classes: whole, not only 0 and 1."""
    parts = [part for text in column for part in re.split(r"[\s,;|]+", text) if part]
    return bool(parts) and all(map(str.isdecimal, parts)) and any(int(part) > 1 for part in parts)


def _is_index(plain: str, column: list[str], number: int) -> bool:
    titled = plain in ("", "index", "idx", "id", "no", "nr", "number", "row", "#", "unnamed: 0")
    if not titled or len(column) < 2 or not all(text.isdecimal() for text in column):
        return False
    if len(column) == 2 and number > 0:
        return False
    start = int(column[0])
    return [int(text) for text in column] == list(range(start, start + len(column)))


def _ask_if_binary(
    where: str,
    name: str,
    column: list[str],
    names: tuple[str, ...],
    file: int,
    meanings: Meanings,
) -> None:
    if column and all(meanings.get(text) is not None for text in column):
        others = [other for number, other in enumerate(names) if number != file and other]
        raise LabelsError(
            f"{where}: column {shown(name)} holds 0 and 1, and may be a label or not; "
            f"{flag('ignore_columns', name)} leaves it out, "
            f"{flag('label_columns', *others)} names the labels"
        )


def _find_form(
    where: str,
    layout: Layout,
    columns: list[list[str]],
    labels: list[int],
    others: list[int],
    options: ReadOptions,
) -> None:
    """One column per label, one of tags, or one row per label."""
    if options.label_columns or not layout.header:
        layout.labels = tuple(labels)
        if not layout.header and len(labels) == 1 and not options.names:
            texts = {text for text in columns[labels[0]] if text}
            if len(texts) > 2 and not any(map(_is_number, texts)):
                layout.tags, layout.labels = labels[0], ()
        return
    plain = {number: _normal(layout.names[number]) for number in labels + others}
    repeated = len(set(columns[layout.file])) < len(columns[layout.file])
    subjects = [n for n in plain if plain[n] in LONG_LABELS]
    values = [n for n in plain if plain[n] in LONG_VALUES and n in labels and n not in subjects[:1]]
    text_and_value = len(others) == 1 and len(labels) == 1 and repeated
    if (subjects and values and len(labels) + len(others) <= 3) or text_and_value:
        layout.long = (subjects[0], values[0]) if subjects and values else (others[0], labels[0])
        rest = [n for n in labels + others if n not in layout.long]
        layout.left_out |= dict.fromkeys(rest, "the table has one row per image and label")
        return
    if not others and len(labels) == 1 and _label_suffixes(columns[layout.file]):
        layout.long, layout.suffixed = (layout.file, labels[0]), True
        return
    tagged = [n for n in others if plain[n] in TAG_HEADERS]
    most = 4 if len(others) > 1 else 2
    few = [n for n in others if len({text for text in columns[n] if text}) <= most]
    if not labels and tagged:
        layout.tags = tagged[0]
    elif not labels and len(others) == 1 and others != few:
        layout.tags = others[0]
    elif not labels and others and others == few:
        layout.labels = tuple(others)  # words whose meaning is still to be stated
        return
    elif others:
        names = [layout.names[n] for n in others]
        seen = "; ".join(
            f"{shown(layout.names[n])} holds {_examples(columns[n])}" for n in others[:5]
        )
        way = (
            f"{flag('ignore_columns', *names)} leaves out what is no label"
            if labels
            else f"{flag('tags_column', names[0])} reads lists of labels"
        )
        raise LabelsError(
            f"{where}: column {seen}, which are no labels; {way}; "
            "--config.data.label_columns names the columns of labels"
        )
    else:
        layout.labels = tuple(labels)
        return
    layout.left_out |= dict.fromkeys(
        (n for n in others if n != layout.tags), "another column holds the labels"
    )


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace(",", "", 1).lstrip("+-").isdecimal()


def _examples(column: list[str]) -> str:
    texts = list(dict.fromkeys(text for text in column if text))
    return ", ".join(map(shown, texts[:3])) + (" …" if len(texts) > 3 else "")


def _label_suffixes(names: list[str]) -> bool:
    """Whether names are ID_label, each ID with the same labels in turn (RSNA's challenge)."""
    parts = [name.rpartition("_") for name in names]
    labels = {label for _, _, label in parts}
    if len(names) < 4 or any(map(is_image_name, names)) or not all(p and n for p, _, n in parts):
        return False
    # The sample may end within an image.
    counts = Counter(prefix for prefix, _, _ in parts)
    whole = list(counts.values())[:-1]
    return len(labels) > 1 and bool(whole) and set(whole) == {len(labels)}


def _check_names(where: str, layout: Layout) -> None:
    seen: set[str] = set()
    for number in layout.labels if layout.header else ():
        name = layout.names[number]
        if not name or name in seen:
            raise LabelsError(
                f"{where}, header, column {number + 1}: label name {shown(name)} is "
                f"{'used twice' if name else 'empty'}; give every label its own name"
            )
        seen.add(name)
