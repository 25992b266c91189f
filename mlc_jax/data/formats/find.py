"""Which format a label file has, and its table."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mlc_jax.data.annotations import table_of
from mlc_jax.data.formats import (
    archive,
    arrays,
    celeba,
    class_folders,
    coco,
    columnar,
    createml,
    cvat,
    datumaro,
    export_root,
    fiftyone,
    foreign,
    imaterialist,
    json_table,
    label_studio,
    mmpretrain,
    name_map,
    nus_wide,
    sagemaker,
    spreadsheet,
    text_table,
    vertex,
    via,
    via_csv,
    voc,
    voc_image_sets,
    wider_attributes,
    yolo,
)
from mlc_jax.data.formats.record import Sheet
from mlc_jax.data.joined import join_tables
from mlc_jax.data.meanings import Meanings
from mlc_jax.data.raw_table import RawTable
from mlc_jax.data.sheets import read_sheet
from mlc_jax.errors import ConfigError, LabelsError
from mlc_jax.label_settings import ReadOptions

# Each has `detect(path, first_bytes)` and `read(path, options)`, which gives a Sheet or yields
# Records. Text is what nothing else takes.
FORMATS: dict[str, Any] = {
    "spreadsheet": spreadsheet,
    "columnar": columnar,
    "arrays": arrays,
    "json_table": json_table,
    "name_map": name_map,
    "coco": coco,
    "voc": voc,
    "voc_image_sets": voc_image_sets,
    "yolo": yolo,
    "label_studio": label_studio,
    "cvat": cvat,
    "via": via,
    "via_csv": via_csv,
    "fiftyone": fiftyone,
    "datumaro": datumaro,
    "createml": createml,
    "mmpretrain": mmpretrain,
    "imaterialist": imaterialist,
    "wider_attributes": wider_attributes,
    "vertex": vertex,
    "sagemaker": sagemaker,
    "celeba": celeba,
    "nus_wide": nus_wide,
    "class_folders": class_folders,
}
TEXT, ARCHIVE, EXPORT = "text", "archive", "export_root"
_FIRST_BYTES = 2**16


def read_files(path: str, options: ReadOptions) -> RawTable:
    """The table of a label file, a folder, or several files with commas between them.

    Raises:
      LabelsError: no such file, no format fits or several do, or what the format's reader refuses.
    """
    paths = [path] if Path(path).exists() or "," not in path else path.split(",")
    tables = [_read_one(Path(own.strip()).expanduser(), options) for own in paths]
    return tables[0] if len(tables) == 1 else join_tables(tables, paths)


def _read_one(path: Path, options: ReadOptions) -> RawTable:
    name = _format_of(path, options)
    if name == ARCHIVE:
        with archive.unpacked(path) as inner:
            own = replace(options, format="auto") if options.format == ARCHIVE else options
            try:
                if not inner.is_dir() and _format_of(inner, own) == ARCHIVE:
                    raise LabelsError(f"{path} holds another archive; unpack it, and give that")
                return _read_one(inner, own)
            except LabelsError as error:
                raise LabelsError(str(error).replace(str(inner), str(path))) from None
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
    own = replace(options, format="auto")
    tables = [_read_one(part.file, own) for part in found]
    names = [part.file.relative_to(root).as_posix() for part in found]
    for part, table in zip(found, tables, strict=True):
        table.filenames = [f"{part.prefix}{name}" for name in table.filenames]
        if part.split:
            table.extra.setdefault("split", [part.split] * len(table.filenames))
    if len(tables) > 1:
        return join_tables(tables, names)
    tables[0].notes.insert(0, f"{names[0]} in the folder")
    return tables[0]


def _format_of(path: Path, options: ReadOptions) -> str:
    names = (TEXT, ARCHIVE, EXPORT, *FORMATS)
    if options.format != "auto":
        if options.format not in names:
            raise ConfigError(
                f"config.data.format={options.format!r} cannot be used; expected auto or one of "
                f"{', '.join(names)}"
            )
        return options.format
    try:
        if path.is_dir():
            first_bytes = b""
        elif path.is_file():
            with path.open("rb") as raw:
                first_bytes = raw.read(_FIRST_BYTES)
        elif path.exists():
            raise LabelsError(f"{path} is not a regular file; give the path of a label file")
        else:
            raise LabelsError(f"{path} does not exist; give the path of a label file")
    except (OSError, ValueError) as error:
        raise LabelsError(f"{path} cannot be read: {error}") from None
    fitting = [name for name, module in FORMATS.items() if module.detect(path, first_bytes)]
    if fitting == ["class_folders"] and export_root.has_metadata(path):
        fitting.append(EXPORT)
    if len(fitting) > 1:
        raise LabelsError(
            f"{path} may be {' or '.join(fitting)}; say which: --config.data.format={fitting[0]}"
        )
    if fitting:
        return fitting[0]
    if not path.is_dir() and (what := foreign.named(path, first_bytes)):
        raise LabelsError(f"{path} is {what}")
    if archive.detect(path, first_bytes):
        return ARCHIVE
    return EXPORT if path.is_dir() else TEXT
