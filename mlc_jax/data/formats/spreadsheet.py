"""Workbooks of Excel and LibreOffice: the first sheet that holds something."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

from mlc_jax.data.formats.cell_text import text_of
from mlc_jax.data.formats.record import Row, Sheet
from mlc_jax.data.formats.zipped import names_in_zip
from mlc_jax.errors import LabelsError
from mlc_jax.label_settings import ReadOptions

MAX_BYTES = 2**30  # unpacked
_OLE = b"\xd0\xcf\x11\xe0"  # .xls


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it is a workbook."""
    if first_bytes.startswith(_OLE):
        return path.suffix.lower() in (".xls", ".xlt")
    names = names_in_zip(path, first_bytes)
    workbook = {"xl/workbook.xml", "xl/workbook.bin"} & set(names)
    return bool(workbook) or ("mimetype" in names and "content.xml" in names)


def read(path: Path, options: ReadOptions) -> Sheet:
    """The cells as texts; a formula counts by the value that was saved with it.

    Raises:
      LabelsError: it cannot be read, is too large unpacked, or holds nothing.
    """
    del options
    import python_calamine  # here, since few label files are workbooks

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(item.file_size for item in archive.infolist())
            if size > MAX_BYTES:
                raise LabelsError(f"{path} has {size} bytes unpacked, more than {MAX_BYTES}")
        book = python_calamine.load_workbook(str(path))
        sheets = {name: book.get_sheet_by_name(name).to_python() for name in book.sheet_names}
    except LabelsError:
        raise
    except BaseException as error:
        # A panic of the reader, which is in Rust, is no Exception, and its class in no module.
        known = (
            python_calamine.CalamineError,
            zipfile.BadZipFile,
            NotImplementedError,
            OSError,
            ValueError,
        )
        if not isinstance(error, known) and type(error).__name__ != "PanicException":
            raise
        raise LabelsError(
            f"{path} is a workbook that cannot be read ({error}); open it and save it as .xlsx or "
            "CSV"
        ) from None
    filled = {name: rows for name, rows in sheets.items() if any(map(any, rows))}
    if not filled:
        raise LabelsError(f"{path} is a workbook without a filled cell")
    name, rows = next(iter(filled.items()))
    notes = [f"a workbook: sheet {name!r}"]
    if len(filled) > 1:
        others = ", ".join(map(repr, list(filled)[1:]))
        notes.append(f"its other sheets are not read: {others}")

    def records() -> Iterator[Row]:
        for number, row in enumerate(rows, 1):
            fields = [text_of(cell) for cell in row]
            if any(fields):
                yield number, fields

    return Sheet(path, records, tuple(notes))
