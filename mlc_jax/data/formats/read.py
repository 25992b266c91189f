"""Label files of any format as a table: one file, an archive, an export, or several files."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mlc_jax.data.annotations import AbsentError, ask_absent, table_of
from mlc_jax.data.formats import archive, export_root, text_table
from mlc_jax.data.formats.find import ARCHIVE, EXPORT, FORMATS, TEXT, format_of
from mlc_jax.data.formats.record import Sheet
from mlc_jax.data.joined import join_tables
from mlc_jax.data.meanings import Meanings
from mlc_jax.data.raw_table import RawTable
from mlc_jax.data.sheets import read_sheet
from mlc_jax.data.table import MISSING
from mlc_jax.errors import LabelsError
from mlc_jax.label_settings import ReadOptions


def read_files(path: str, options: ReadOptions) -> RawTable:
    """The table of a label file, a folder, or several files with commas between them.

    Raises:
      LabelsError: no such file, no format fits or several do, or what the format's reader refuses.
    """
    paths = [path] if Path(path).exists() or "," not in path else path.split(",")
    if len(paths) == 1:
        return _read_one(Path(path).expanduser(), options)

    def read(options: ReadOptions) -> RawTable:
        return join_tables(
            [_read_one(Path(own.strip()).expanduser(), options) for own in paths], paths
        )

    return _together(path, read, options)


def _together(
    where: str, read: Callable[[ReadOptions], RawTable], options: ReadOptions
) -> RawTable:
    """Several files; where `absent` has to be stated, the counts are those of all of them."""
    try:
        return read(options)
    except AbsentError as error:
        false, missing = (read(replace(options, absent=word)) for word in ("false", "missing"))
        absent = (false.values == 0) & (missing.values == MISSING)
        raise ask_absent(where, missing.names, missing.values, absent, error.advice) from None


def _read_one(path: Path, options: ReadOptions) -> RawTable:
    name = format_of(path, options)
    if name == ARCHIVE:
        with archive.unpacked(path) as inner:
            own = replace(options, format="auto") if options.format == ARCHIVE else options
            try:
                if not inner.is_dir() and format_of(inner, own) == ARCHIVE:
                    raise LabelsError(f"{path} holds another archive; unpack it, and give that")
                return _read_one(inner, own)
            except LabelsError as error:
                error.args = (str(error).replace(str(inner), str(path)),)
                raise
    if name == EXPORT:
        return _read_export(path, options)
    if name == TEXT:
        return read_sheet(text_table.read(path, options), options)
    try:
        made = FORMATS[name].read(path, options)
        if isinstance(made, Sheet):
            return read_sheet(made, options)
        table = table_of(str(path), made, options, Meanings(options))
        table.notes.insert(0, f"format {name}")
        return table
    except OSError as error:
        raise LabelsError(f"{path} cannot be read as {name}: {error.strerror}") from None
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise LabelsError(
            f"{path} looks like {name}, but an entry of it has another form "
            f"({type(error).__name__}: {error}); export it again, or give another format in "
            "config.data.format"
        ) from error


def _read_export(root: Path, options: ReadOptions) -> RawTable:
    """The label files of an export, with their folders before the file names and as split."""
    found = export_root.parts(root)
    if not found:
        raise LabelsError(
            f"{root} is a folder in which no annotations were found, and no folders of images "
            "named for labels; give a label file"
        )
    names = [part.file.relative_to(root).as_posix() for part in found]

    def read(options: ReadOptions) -> RawTable:
        tables = [_read_one(part.file, options) for part in found]
        for part, table in zip(found, tables, strict=True):
            table.filenames = [f"{part.prefix}{name}" for name in table.filenames]
            if part.split:
                table.extra.setdefault("split", [part.split] * len(table.filenames))
        if len(tables) > 1:
            return join_tables(tables, names)
        tables[0].notes.insert(0, f"{names[0]} in the folder")
        return tables[0]

    own = replace(options, format="auto")
    return _together(str(root), read, own) if len(found) > 1 else read(own)
