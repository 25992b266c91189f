"""Images from files nobody vouches for: paths kept inside their root, guarded decoding, resizing.

Every refusal is an `ImageError` whose reason is one of: unsafe_path, outside_root, absent,
not_a_file, unreadable, empty, too_large, not_an_image, too_many_pixels, truncated, damaged,
unsupported_mode.
"""

import contextlib
import errno
import io
import os
import stat
import threading
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from mlc_jax.data.delimited import shown
from mlc_jax.data.pixels import FORMATS, orientation, to_rgb
from mlc_jax.errors import ImageError

MAX_PIXELS = 50_000_000
MAX_FILE_BYTES = 2**28

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
# The brand behind `ftyp` of what is read only where another package is there.
_LACKING = dict.fromkeys(
    (b"heic", b"heix", b"hevc", b"mif1", b"msf1"), "it is HEIC; install pillow-heif"
)
_PNG_END = b"IEND\xae\x42\x60\x82"  # the last chunk with its checksum
_quiet_lock = threading.Lock()


def resolve_image(root: Path, filename: str, *, follow_links: bool = False) -> Path:
    """The real path of an image named in a labels file, which lies inside `root`.

    Args:
      root: the image folder.
      filename: as the labels file gives it, relative to `root`, with "/" between folders.
      follow_links: whether links in `root` may lead out of it.

    Returns:
      An absolute path without links to a readable regular file, at most MAX_FILE_BYTES long.

    Raises:
      ImageError: the name is absolute, has a drive, "..", or control characters; it leads out of
        the root; nothing or no regular file is there; the file cannot be read or is too large.
    """
    _refuse_unsafe(filename)
    name = shown(filename)
    try:
        base = root.resolve(strict=True)
        path = (base / filename).resolve(strict=True)
    except PermissionError:
        raise ImageError("unreadable", f"{name}: no permission to look it up") from None
    except (OSError, RuntimeError) as error:
        # RuntimeError is how Python up to 3.12 reports a loop of links.
        if error.args[:1] != (errno.ENAMETOOLONG,) and (root / filename).is_symlink():
            raise ImageError(
                "not_a_file", f"{name} in {root} is a link to nothing; replace it by the image"
            ) from None
        hint = _suggestion(root, filename)
        remedy = f"did you mean {hint!r}?" if hint else "add the image or remove the row"
        raise ImageError("absent", f"{name} is not in {root}; {remedy}") from None
    if not follow_links and not path.is_relative_to(base):
        raise ImageError(
            "outside_root",
            f"{name} is a link that leads out of {root}; if the links are yours, give "
            "config.data.follow_links=true, else copy the image into the folder",
        )
    try:
        found = path.stat()
    except OSError as error:
        raise ImageError("unreadable", f"{name} in {root}: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise ImageError("not_a_file", f"{name} in {root} is not a regular file")
    if found.st_size > MAX_FILE_BYTES:
        raise ImageError(
            "too_large",
            f"{name} in {root} has {found.st_size} bytes, more than {MAX_FILE_BYTES}",
        )
    if not os.access(path, os.R_OK):
        raise ImageError("unreadable", f"{name} in {root}: no permission to read it")
    return path


def _refuse_unsafe(filename: str) -> None:
    def refuse(why: str) -> ImageError:
        return ImageError(
            "unsafe_path",
            f"file name {shown(filename)} {why}; give a path inside the image folder",
        )

    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in filename):
        raise refuse("holds a control character or half a surrogate pair")
    # Windows reads "/" and "\" alike, so its rules see every separator and drive there may be.
    windows = PureWindowsPath(filename)
    if windows.drive or windows.root or PurePosixPath(filename).is_absolute():
        raise refuse("is absolute")
    if ".." in windows.parts:
        raise refuse('holds ".."')
    if not windows.parts:
        raise refuse("is empty")


def is_unsafe(filename: str) -> bool:
    """Whether a name may lead out of a folder: absolute, with a drive, "..", control characters."""
    try:
        _refuse_unsafe(filename)
    except ImageError:
        return True
    return False


def _suggestion(root: Path, filename: str) -> str | None:
    """A name that differs only in spaces, Unicode form or case of its suffix, and is there.

    A handful of look-ups, not a listing of the folder, which may hold millions of files.
    """
    for name in (filename, filename.strip()):
        for form in (name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)):
            stem, dot, suffix = form.rpartition(".")
            variants = [form, form.lower(), form.upper()]
            if dot:
                other = {"jpg": "jpeg", "jpeg": "jpg"}.get(suffix.lower(), suffix.lower())
                endings = (suffix.lower(), suffix.upper(), other, other.upper())
                variants += [f"{stem}.{ending}" for ending in endings]
            for variant in variants:
                with contextlib.suppress(OSError, RuntimeError):
                    path = (root / variant).resolve(strict=True)
                    if path.is_file() and path.is_relative_to(root.resolve()):
                        return variant
    return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ignores Pillow's warnings, so that an odd header decodes alike under every warning filter.

    Filters belong to the whole process: the lock keeps two threads from restoring each other's.
    Decoding itself stays outside, where it lets go of the GIL.
    """
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode_image(source: bytes | str | os.PathLike[str]) -> np.ndarray:
    """Decodes one image, upright, in RGB; of several frames or pages the first.

    How modes, wide values and transparency become RGB, `to_rgb` says. An EXIF orientation is
    applied; one that cannot be read counts as none.

    Args:
      source: the content of a file, or its path. A path is opened as it is: use `resolve_image`.

    Returns:
      uint8 [H, W, 3].

    Raises:
      ImageError: not one of FORMATS, more than MAX_PIXELS pixels, cut short, or damaged.
    """
    return decode_first(source)[0]


def decode_first(source: bytes | str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """As `decode_image`, and how many frames or pages the file holds, of which it is the first."""
    name, data = _content(source)
    with _translated(name), _opened(name, data) as image:
        with _quiet():
            frames = int(getattr(image, "n_frames", 1))
        if image.format == "PNG":
            # Loading stops at the last row and looks at no checksum: without these two, a file cut
            # behind that row passes, and so do some flipped bits, with wrong pixels.
            if _PNG_END not in data:
                raise ImageError("truncated", f"{name} is truncated: no end mark; save it again")
            with _opened(name, data) as second:
                second.verify()
        if image.format == "TIFF":
            with _quiet():  # loading a TIFF parses its EXIF, and turns it upright
                image.load()
        else:
            image.load()
        with _quiet():
            turned = orientation(image)
        try:
            return to_rgb(image, turned), frames
        except TypeError as error:
            raise ImageError("unsupported_mode", f"{name}: {error}") from None


def _content(source: bytes | str | os.PathLike[str]) -> tuple[str, bytes]:
    if isinstance(source, bytes):
        name, data = "image", source
    else:
        path = Path(source)
        name = str(path)
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise ImageError("not_a_file", f"{name} is not a regular file")
            with path.open("rb") as file:
                # Reading allocates what it is asked for, so it is asked for what is there.
                data = file.read(min(found.st_size, MAX_FILE_BYTES) + 1)
        except FileNotFoundError:
            raise ImageError("absent", f"{name} does not exist") from None
        except (OSError, ValueError) as error:
            raise ImageError("unreadable", f"{name}: {error}") from None
    if not data:
        raise ImageError("empty", f"{name} has 0 bytes")
    if len(data) > MAX_FILE_BYTES:
        raise ImageError("too_large", f"{name} has more than {MAX_FILE_BYTES} bytes")
    return name, data


@contextlib.contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        # Pillow's parsers raise whatever the bytes led them to: struct.error, KeyError, ….
        cut = "truncated" in str(error).lower() or "reached eof" in str(error).lower()
        reason = "truncated" if cut else "damaged"
        first_line = (str(error).splitlines() or [""])[0]
        raise ImageError(
            reason, f"{name} is {reason}: {type(error).__name__}: {first_line}; save it again"
        ) from error


@contextlib.contextmanager
def _opened(name: str, data: bytes) -> Iterator[Image.Image]:
    """Opens an image by its header and refuses it before any pixel is decoded."""
    try:
        with _quiet():
            # A bomb is only warned of between Pillow's limit and twice that; our own limit, which
            # is lower than both, is checked next in any case.
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", f"{name}: {error}; scale it down") from None
    except UnidentifiedImageError:
        if data.startswith(_SIGNATURES):
            raise ImageError("damaged", f"{name} has a damaged header; save it again") from None
        remedy = _LACKING.get(data[8:12], "convert it") if data[4:8] == b"ftyp" else "convert it"
        raise ImageError(
            "not_an_image", f"{name} is none of {', '.join(FORMATS)}; {remedy}"
        ) from None
    with image:
        pixels = image.width * image.height
        if pixels > MAX_PIXELS:
            raise ImageError(
                "too_many_pixels",
                f"{name} has {pixels} pixels, more than {MAX_PIXELS}; scale it down",
            )
        yield image
