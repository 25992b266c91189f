"""Several label files as one table."""

from collections import Counter

import numpy as np

from mlc_jax.data.raw_table import RawTable
from mlc_jax.data.table import MISSING


def join_tables(tables: list[RawTable], paths: list[str]) -> RawTable:
    """Tables one below the other; a label that one of them lacks is what `unnamed` says there.

    Args:
      tables: of label files about images of one folder.
      paths: the files, for people.
    """
    names = tuple(dict.fromkeys(name for table in tables for name in table.names))
    values = []
    for table in tables:
        own = np.repeat(_unnamed(table)[:, None], len(names), axis=1)
        own[:, [names.index(name) for name in table.names]] = table.values
        values.append(own)
    whole = RawTable(
        [name for table in tables for name in table.filenames],
        names,
        np.concatenate(values),
        np.concatenate([table.rows for table in tables]),
        notes=[f"{len(paths)} files, one below the other"],
    )
    for path, table in zip(paths, tables, strict=True):
        whole.notes += [f"{path}: {', '.join(table.notes)}"] if table.notes else []
        whole.quarantine += table.quarantine
        whole.texts.update(table.texts)
        for value, rows in Counter(_unnamed(table).tolist()).items():
            if lacking := rows * (len(names) - len(table.names)):
                whole.texts["(not named)", value] += lacking
        whole.columns |= table.columns
    for column in dict.fromkeys(name for table in tables for name in table.extra):
        whole.extra[column] = [
            text
            for table in tables
            for text in table.extra.get(column, [""] * len(table.filenames))
        ]
    return whole


def _unnamed(table: RawTable) -> np.ndarray:
    """What a label that a table does not have is in its rows, int8 [N]."""
    if table.unnamed is None:
        return np.full(len(table.filenames), MISSING, np.int8)
    return table.unnamed
