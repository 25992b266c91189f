"""Typed cells of workbooks, columns and JSON as the texts that a label file would hold."""

import datetime
import json
from typing import Any


def text_of(cell: Any) -> str:
    """Whole numbers without a point, truth as TRUE and FALSE, lists and objects as JSON."""
    if isinstance(cell, list | dict):
        return json.dumps(cell)
    if cell is None or cell != cell:  # NaN
        return ""
    if isinstance(cell, bool):
        return str(cell).upper()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime.date | datetime.time):
        return cell.isoformat()
    return str(cell)
