"""Which format a label file has."""

from pathlib import Path
from typing import Any

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
    vertex,
    via,
    via_csv,
    voc,
    voc_image_sets,
    wider_attributes,
    yolo,
)
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


def format_of(path: Path, options: ReadOptions) -> str:
    """The format that the options name, or the only one that fits.

    Raises:
      LabelsError: no such file, several formats fit, or it is known to be no label file.
      ConfigError: the options name none of the formats.
    """
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
