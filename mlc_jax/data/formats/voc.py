"""Pascal VOC: one XML per image with the objects in it; difficult ones are missing."""

from collections.abc import Iterator
from pathlib import Path

from mlc_jax.data.formats import xml_text
from mlc_jax.data.formats.record import ANNOTATED, Record
from mlc_jax.data.table import MISSING
from mlc_jax.errors import LabelsError
from mlc_jax.label_settings import ReadOptions, flag


def detect(path: Path, first_bytes: bytes) -> bool:
    """Whether it is such a file, or a folder of them."""
    if not path.is_dir():
        return _starts(first_bytes)
    some = next(iter(_files(path)), None)
    if some is None:
        return False
    with some.open("rb") as raw:
        return _starts(raw.read(4096))


def read(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The objects of every image.

    Raises:
      LabelsError: one file of a folder was given, or one is damaged.
    """
    del options
    if not path.is_dir():
        beside = sum(1 for file in path.parent.glob("*.xml") if file != path)
        raise LabelsError(
            f"{path} annotates one image, as Pascal VOC writes it, from which nothing can be "
            "learned; "
            + (
                f"{beside} more lie beside it: {flag('labels', str(path.parent))}"
                if beside
                else f"{path.parent} holds no other: put the annotations of all images into it, "
                f"and give {flag('labels', str(path.parent))}"
            )
        )
    for row, file in enumerate(_files(path), 1):
        root = xml_text.load(file)
        filename = (root.findtext("filename") or "").strip() or file.stem
        yield Record(filename, "", ANNOTATED, "", "", row)
        found: dict[str, int] = {}
        for item in root.iter("object"):
            name = (item.findtext("name") or "").strip()
            difficult = (item.findtext("difficult") or "0").strip() == "1"
            if name and found.get(name) != 1:
                found[name] = MISSING if difficult else 1
        for name, value in found.items():
            yield Record(filename, name, value, "difficult" if value < 0 else name, "", row)


def _starts(first_bytes: bytes) -> bool:
    head = first_bytes.removeprefix(b"\xef\xbb\xbf").lstrip()
    return head.startswith(b"<") and b"<annotation>" in head


def _files(path: Path) -> list[Path]:
    """The XML files of a folder; of an export, those of `Annotations` or of its splits."""
    for pattern in ("*.xml", "Annotations/*.xml", "*/*.xml"):
        if files := sorted(path.glob(pattern)):
            return files
    return []
