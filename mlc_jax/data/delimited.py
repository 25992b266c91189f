"""Delimited text as people save it: the encoding found, records read under caps, records written.

A file is read in pieces, twice: once to check its encoding and length, once for its records.
"""

import codecs
import csv
import io
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlc_jax.errors import LabelsError

MAX_FILE_BYTES = 2**30
MAX_LINE = 2**20  # characters
_PIECE = 2**20

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True)
class TextFile:
    """A text file whose every byte has been decoded once.

    Attributes:
      path: where it is.
      encoding: utf-8, utf-16-le, utf-16-be, latin-1, or the one that was asked for.
      mark: bytes of its byte order mark.
    """

    path: Path
    encoding: str
    mark: int

    def lines(self) -> Iterator[str]:
        """Its lines with their ends.

        Raises:
          LabelsError: a line is longer than MAX_LINE.
        """
        with self.path.open("rb") as raw:
            raw.seek(self.mark)
            text = io.TextIOWrapper(raw, encoding=self.encoding, newline="")
            number = 0
            while line := text.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise LabelsError(
                        f"{self.path}, row {number}: longer than {MAX_LINE} characters; "
                        "is this a labels file?"
                    )
                yield line

    def records(self, separator: str) -> Iterator[tuple[int, list[str]]]:
        """Line number and fields of each record; blank lines are skipped.

        Fields in double quotes may hold separators, line ends and doubled quotes. Several spaces
        separate like one where the separator is a space.

        Raises:
          LabelsError: a quote is not closed, or followed by more than a separator.
        """
        lines = self.lines()
        if separator == " ":
            lines = (line.rstrip() + "\n" for line in lines)
        reader = csv.reader(
            lines, delimiter=separator, skipinitialspace=separator == " ", strict=True
        )
        while True:
            # A record starts one line after the end of the one before, however long it is.
            start = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise LabelsError(
                    f"{self.path}, row {start}: {error}; put fields that hold quotes into double "
                    "quotes, and double the quotes in them"
                ) from None
            if len(fields) > 1 or (fields and fields[0].strip()):
                yield start, fields


def open_text(path: Path, max_lines: int | None = None, encoding: str = "") -> TextFile:
    """Finds out the encoding of a text file and checks that all of it decodes.

    UTF-8 and UTF-16 with or without a byte order mark are recognised. What is neither is taken for
    latin-1 if it could be: no control bytes, and nothing that looks like a spoilt UTF-8 sequence.

    Args:
      path: a regular file of at most MAX_FILE_BYTES.
      max_lines: the most lines it may have.
      encoding: of the file; empty: found out.

    Raises:
      LabelsError: no such file, too large, too many lines, or a byte that cannot be decoded.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise LabelsError(f"{path} is not a regular file; give the path of a labels file")
        if found.st_size > MAX_FILE_BYTES:
            raise LabelsError(f"{path} has {found.st_size} bytes, more than {MAX_FILE_BYTES}")
        with path.open("rb") as raw:
            head = raw.read(4096)
    except (OSError, ValueError) as error:
        raise LabelsError(f"{path} cannot be read: {error}") from None
    if encoding:
        return _of_encoding(path, encoding, max_lines)
    encoding, mark = _guess(head)
    invalid = _first_invalid(path, encoding, mark, max_lines)
    if invalid is None:
        return TextFile(path, encoding, mark)
    if encoding == "utf-8" and not mark and _may_be_latin_1(path):
        return TextFile(path, "latin-1", 0)
    raise LabelsError(
        f"{path}: byte {invalid} is not {encoding}, and the file is not latin-1 either; save it as "
        f"UTF-8, or name its encoding: {_candidates(path)}"
    )


def _of_encoding(path: Path, encoding: str, max_lines: int | None) -> TextFile:
    try:
        name = codecs.lookup(encoding).name
        "".encode(name)  # base64 and its like are codecs and no encodings
    except (LookupError, ValueError):
        raise LabelsError(
            f"config.data.encoding={encoding!r} is no encoding; try utf-8, cp1252, cp1251, gb18030"
        ) from None
    marks = [len(mark) for mark, own in _MARKS if own == name and _head(path).startswith(mark)]
    invalid = _first_invalid(path, name, sum(marks), max_lines)
    if invalid is not None:
        raise LabelsError(f"{path}: byte {invalid} is not {encoding}; {_candidates(path)}")
    return TextFile(path, name, sum(marks))


def _head(path: Path) -> bytes:
    with path.open("rb") as raw:
        return raw.read(4096)


def _candidates(path: Path) -> str:
    """Encodings under which the first lines that are no ASCII read as text."""
    head = _head(path)
    lines = [line for line in head.splitlines()[:-1] or [head] if not line.isascii()]
    found = []
    for encoding in ("cp1252", "cp1251", "gb18030", "shift_jis", "cp1250"):
        try:
            text = (lines or [head])[0].decode(encoding)
        except UnicodeDecodeError:
            continue
        if text.isprintable():
            found.append(f"--config.data.encoding={encoding} reads {shown(text)}")
    return ", ".join(found[:4]) or "--config.data.encoding=…"


def _guess(head: bytes) -> tuple[str, int]:
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    # Latin letters in UTF-16 have a zero for every other byte, beginning with the first letter.
    even, odd = head[0::2], head[1::2]
    for encoding, zeros, others in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if zeros[:1] == b"\0" and 2 * zeros.count(0) > len(zeros) and others.count(0) == 0:
            return encoding, 0
    return "utf-8", 0


def _pieces(path: Path, start: int) -> Iterator[bytes]:
    with path.open("rb") as raw:
        raw.seek(start)
        while piece := raw.read(_PIECE):
            yield piece


def _first_invalid(path: Path, encoding: str, mark: int, max_lines: int | None) -> int | None:
    """Offset of the first byte that does not decode; None where all do."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    offset, lines = mark, 0
    try:
        for piece in _pieces(path, mark):
            waiting = len(decoder.getstate()[0])
            text = decoder.decode(piece)
            offset += len(piece)
            lines += max(text.count("\n"), text.count("\r"))
            if max_lines is not None and lines > max_lines:
                raise LabelsError(f"{path} has more than {max_lines} lines; split it")
        waiting = len(decoder.getstate()[0])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        return offset - waiting + error.start
    return None


def _may_be_latin_1(path: Path) -> bool:
    # Letters above 0xA0 only, and no two in a row that begin like UTF-8: such a file is rather
    # UTF-8 with a few spoilt bytes, and reading it as latin-1 would garble every other name. Three
    # such letters in a row are no Western word, but Cyrillic or Chinese.
    unlikely = re.compile(rb"[\0-\x08\x0e-\x1f\x7f-\x9f]|[\xc2-\xf4][\xa0-\xbf]|[\xa0-\xff]{3}")
    last = b""
    for piece in _pieces(path, 0):
        if unlikely.search(last + piece):
            return False
        last = piece[-2:]
    return True


def csv_line(fields: Iterable[str]) -> str:
    """One comma-separated line with its end; a field that could be mistaken is quoted."""
    return (
        ",".join(
            '"' + field.replace('"', '""') + '"'
            if re.search(r'[",;\t\r\n]|^\s|\s$', field)
            else field
            for field in fields
        )
        + "\n"
    )


def shown(text: str) -> str:
    """A field for an error message: on one line, in quotes, cut at 60 characters."""
    return repr(text if len(text) <= 60 else text[:60] + "…")
