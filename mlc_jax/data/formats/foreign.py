"""Files that are no label files: each named for what it is, with the way to one that is."""

from pathlib import Path

from mlc_jax.data.formats import foreign_text, zipped
from mlc_jax.data.formats.foreign_text import AS_CSV

_IMAGE = (
    "an image; config.data.labels is for the label file or an export's folder, config.data.images "
    "for the folder of images"
)
_UNPACK = "; unpack it, and give the label file in it"
_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", _IMAGE),
    (b"\x89PNG\r\n", _IMAGE),
    (b"GIF8", _IMAGE),
    (b"II*\0", _IMAGE),
    (b"MM\0*", _IMAGE),
    (b"%PDF-", f"a PDF document{AS_CSV}"),
    (b"SQLite format 3\0", f"an SQLite database{AS_CSV}"),
    (b"\x89HDF\r\n\x1a\n", f"an HDF5 file{AS_CSV}, or the arrays with numpy.savez"),
    (
        b"\x93NUMPY",
        "one array without names; save it with them: numpy.savez('labels.npz', names=names, y=y, "
        "classes=classes)",
    ),
    (b"ORC", f"an ORC file{AS_CSV}"),
    (b"Obj\x01", f"an Avro file{AS_CSV}"),
    (b"BZh", f"packed with bzip2{_UNPACK}"),
    (b"\xfd7zXZ\0", f"packed with xz{_UNPACK}"),
    (b"\x28\xb5\x2f\xfd", f"packed with zstd{_UNPACK}"),
    (b"7z\xbc\xaf\x27\x1c", f"a 7z archive{_UNPACK}"),
    (b"Rar!\x1a\x07", f"a RAR archive{_UNPACK}"),
    (
        b"\xd0\xcf\x11\xe0",
        "an Office document of the old kind, or one with a password; save it as .xlsx without one",
    ),
    (
        b"version https://git-lfs.github.com/",
        "a pointer of Git LFS and not the file; fetch it with: git lfs pull",
    ),
    (b"PK\x05\x06", "an empty zip archive; give the label file"),
)


def named(path: Path, first_bytes: bytes) -> str:
    """What a file is that holds no labels, and what to do; empty where it may be text.

    Args:
      path: of the file, which no format has taken.
      first_bytes: its beginning, at least 512 bytes where it has as many.
    """
    for beginning, what in _BEGINNINGS:
        if first_bytes.startswith(beginning):
            return what
    if first_bytes[:1] == b"\x80" and first_bytes[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return f"a pickle, which would execute code{AS_CSV}: frame.to_csv('labels.csv')"
    if first_bytes[:4] == b"RIFF" and first_bytes[8:12] == b"WEBP":
        return _IMAGE
    if first_bytes[257:262] == b"ustar":
        return f"a tar archive{_UNPACK}"
    if first_bytes.startswith(b"PK\x03\x04"):
        return _office(path, first_bytes)
    if path.suffix.lower() in (".tfrecord", ".tfrecords"):
        return f"a file of TensorFlow's records{AS_CSV}"
    return foreign_text.named(path, first_bytes)


def _office(path: Path, first_bytes: bytes) -> str:
    """Of a zip archive: whether it is a document, or damaged."""
    if not (names := zipped.names_in_zip(path, first_bytes)):
        return "a zip archive that is damaged or cut off; download or copy it again"
    folders = {name.partition("/")[0] for name in names}
    is_document = "[Content_Types].xml" in folders and {"word", "ppt"} & folders
    return "a document of Word or PowerPoint; save its table as .xlsx or CSV" if is_document else ""
