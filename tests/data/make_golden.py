"""Writes the label files that only other libraries write: OpenDocument, old Excel, MATLAB 7.3.

    pip install odfpy==1.4.1 xlwt==1.3.0 hdf5storage==0.2.2
    python tests/data/make_golden.py

made `golden/`, in an environment of its own: these libraries are no dependencies.
"""

from pathlib import Path
from typing import Any

import hdf5storage
import numpy as np
import xlwt
from odf.opendocument import OpenDocumentSpreadsheet
from odf.table import Table, TableCell, TableRow
from odf.text import P

FOLDER = Path(__file__).parent / "golden"
ROWS: list[list[Any]] = [
    ["filename", "sea", "sky"],
    ["a.jpg", 1, False],
    ["b.jpg", 1.0, True],
    ["c.jpg", 0, True],
]


def open_document() -> None:
    """As LibreOffice saves it: typed cells, and the rest of the sheet as repeated empty ones."""
    book, sheet = OpenDocumentSpreadsheet(), Table(name="labels")
    for cells in ROWS:
        row = TableRow()
        for value in cells:
            if isinstance(value, bool):
                cell = TableCell(valuetype="boolean", booleanvalue=str(value).lower())
            elif isinstance(value, str):
                cell = TableCell(valuetype="string")
            else:
                cell = TableCell(valuetype="float", value=str(value))
            cell.addElement(P(text=str(value).upper() if isinstance(value, bool) else str(value)))
            row.addElement(cell)
        row.addElement(TableCell(numbercolumnsrepeated="1021"))
        sheet.addElement(row)
    rest = TableRow(numberrowsrepeated="1048572")
    rest.addElement(TableCell(numbercolumnsrepeated="1024"))
    sheet.addElement(rest)
    book.spreadsheet.addElement(sheet)
    book.save(FOLDER / "labels.ods")


def old_excel() -> None:
    book = xlwt.Workbook()
    sheet = book.add_sheet("labels")
    for row, cells in enumerate(ROWS):
        for column, value in enumerate(cells):
            sheet.write(row, column, value)
    book.save(FOLDER / "labels.xls")


def matlab() -> None:
    """A matrix, two cells of texts, a text and a structure, as HDF5."""

    def cells(texts: list[str]) -> np.ndarray:
        return np.array([[np.str_(text)] for text in texts]).astype(object)

    content = {
        "attributes": cells(ROWS[0][1:]),
        "images_name": cells([row[0] for row in ROWS[1:]]),
        "label": np.array([row[1:] for row in ROWS[1:]], np.uint8),
        "note": np.str_("made by hdf5storage"),
        "options": {"a": 1.0},
    }
    hdf5storage.savemat(
        str(FOLDER / "labels.mat"),
        content,
        format="7.3",
        matlab_compatible=True,
        store_python_metadata=False,
        oned_as="column",
    )


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    open_document()
    old_excel()
    matlab()
