"""A user's own features instead of images: one vector, or one for each view, per image.

Any encoder's output will do: FILE.npy with names in FILE.txt, an .npz of `features` and `names`, a
.parquet table, or .safetensors. The vectors stay on disk: a file that is not in the order of the
labels, or cannot be mapped, is copied once, piece by piece, into the cache, and mapped from there.
"""

import ast
import importlib
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from mlc_jax.data.dataset import Rejected
from mlc_jax.data.raw_table import Quarantined
from mlc_jax.data.stream import ImageBatch
from mlc_jax.errors import CheckpointError, ConfigError
from mlc_jax.files.atomic import replacing
from mlc_jax.files.digest import digest_bytes, digest_file, digest_json

SUFFIXES = (".npy", ".npz", ".parquet", ".safetensors")
NAME_COLUMNS = ("filename", "file", "name", "image", "path", "id")
VECTOR_COLUMNS = ("features", "embedding", "embeddings", "vector")
FLOATS = ("f2", "f4", "f8")
PIECE = 4096  # rows that are read at a time
KEY = "config.features.file"

Pieces = Callable[[], Iterator[np.ndarray]]


@dataclass(frozen=True)
class FileContents:
    """What a file of features holds, before its rows are matched with labels.

    Attributes:
      path: the file.
      names: of the images, one per row; a name that comes again is another view of its image.
      shape: (rows, views, channels).
      dtype: of the stored numbers.
      pieces: reads the rows in order, float [n, views, channels], some at a time.
      mapped: the same as a memory map, where the file can be mapped.
    """

    path: Path
    names: tuple[str, ...]
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    pieces: Pieces
    mapped: np.ndarray | None = None


class EmbeddingSet:
    """The usable rows of a labels file with their own features, in its order.

    It stands where `ImageSet` stands. An "image" of it is its first view.

    Attributes:
      places: int64 [N], the place of each in the list of file names that was given.
      filenames: their names.
      digests: SHA-256 of each one's vectors: equal vectors are copies of one image.
      rejected: what was left out and why.
      several: nothing; features have no frames.
      image_size: (1, 1), the size of what stands for an image.
      files_digest: the same as `digest`.
      array: float [N, views, C], mapped from disk.
    """

    def __init__(
        self,
        array: np.ndarray,
        places: np.ndarray,
        filenames: tuple[str, ...],
        digests: tuple[str, ...],
        rejected: Sequence[Rejected],
    ) -> None:
        self.array, self.places = array, places
        self.filenames, self.digests = filenames, digests
        self.rejected = tuple(rejected)
        self.several: tuple[str, ...] = ()
        self.image_size = (1, 1)
        self.files_digest = self.digest()  # there are no other files

    def __len__(self) -> int:
        return len(self.filenames)

    def __getitem__(self, row: int) -> np.ndarray:
        """The first view of one row, float32 [1, 1, C]."""
        return np.asarray(self.array[row, 0], np.float32)[None, None]

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(N, views, 1, 1, C), that of features."""
        count, views, channels = self.array.shape
        return count, views, 1, 1, channels

    def take(self, rows: np.ndarray, views: np.ndarray) -> np.ndarray:
        """Features float32 [..., 1, 1, C] of int [...] rows and views."""
        return np.asarray(self.array[rows, views], np.float32)[..., None, None, :]

    def digest(self) -> str:
        """The digest of all vectors, in order, with their names."""
        return digest_json([list(self.filenames), list(self.digests)])


def open_embeddings(
    path: Path, filenames: Sequence[str], cache: Path, advance: Callable[[int], None]
) -> EmbeddingSet:
    """Matches the vectors of a file with the names of a labels file.

    Args:
      path: the file.
      filenames: names as the labels file gives them.
      cache: where a copy is kept, if one is needed.
      advance: called with the number of rows done.

    Raises:
      ConfigError: the file cannot be read, or images have different numbers of views.
    """
    contents = read_contents(path)
    rows_of: dict[str, list[int]] = {}
    for row, name in enumerate(contents.names):
        rows_of.setdefault(name, []).append(row)
    counts = {len(rows_of[name]) for name in filenames if name in rows_of}
    if len(counts) > 1:
        most = max(counts)
        odd = next(name for name in filenames if 0 < len(rows_of.get(name, [])) < most)
        raise ConfigError(
            f"{path}: {odd} has {len(rows_of[odd])} rows and others have {most}; give every image "
            "the same number of views"
        )
    rejected = [
        Rejected(place, "no_features", f"{name} has no row in {path.name}")
        for place, name in enumerate(filenames)
        if name not in rows_of
    ]
    kept = [place for place, name in enumerate(filenames) if name in rows_of]
    rows = np.array([rows_of[filenames[place]] for place in kept], np.int64)
    if not kept:
        array = np.empty((0, *contents.shape[1:]), np.float32)
        return EmbeddingSet(array, np.zeros(0, np.int64), (), (), rejected)
    array = _in_order(contents, rows, cache)
    digests, bad = _row_digests(array, advance)
    rejected += [
        Rejected(kept[row], "not_finite", f"{filenames[kept[row]]}: a feature is not finite")
        for row in bad
    ]
    if bad:
        good = np.setdiff1d(np.arange(len(kept)), bad)
        kept = [kept[row] for row in good]
        digests = [digests[row] for row in good]
        array = _in_order(contents, rows[good], cache)
    rejected.sort(key=lambda item: item.place)
    places = np.array(kept, np.int64)
    names = tuple(filenames[place] for place in kept)
    return EmbeddingSet(array, places, names, tuple(digests), rejected)


def stream_embeddings(path: Path, cache: Path, batch_size: int) -> Iterator[ImageBatch]:
    """Every image of a file of features in its order, its first view, batch by batch.

    Raises:
      ConfigError: the file cannot be read.
    """
    names = tuple(dict.fromkeys(read_contents(path).names))
    found = open_embeddings(path, names, cache, lambda _: None)
    refused = [Quarantined(names[item.place], item.place, item.reason) for item in found.rejected]
    yield ImageBatch((), (), np.zeros((0, 1, 1, found.shape[-1]), np.float32), tuple(refused))
    for start in range(0, len(found), batch_size):
        rows = np.arange(start, min(start + batch_size, len(found)))
        features = found.take(rows, np.zeros_like(rows))
        numbers = tuple(found.places[rows].tolist())
        yield ImageBatch(numbers, tuple(found.filenames[row] for row in rows), features, ())


def read_contents(path: Path) -> FileContents:
    """Opens a file of features; of the vectors nothing is read yet.

    Raises:
      ConfigError: no such file, another format, or no names.
    """
    readers = {
        ".npy": _npy,
        ".npz": _npz,
        ".parquet": _parquet,
        ".safetensors": _safetensors,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"{KEY}={str(path)!r}: features are read from {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ConfigError(f"{KEY}={str(path)!r}: no such file")
    try:
        contents = reader(path)
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: cannot be read as features ({error})") from error
    if len(contents.names) != contents.shape[0]:
        raise ConfigError(
            f"{path}: {contents.shape[0]} rows of features, but {len(contents.names)} names"
        )
    return contents


def channels_of(path: Path) -> tuple[int, int]:
    """(views, channels) of a file of features; rows with one name are views of one image."""
    contents = read_contents(path)
    repeats = len(contents.names) // max(1, len(set(contents.names)))
    return contents.shape[1] * max(1, repeats), contents.shape[2]


def _npy(path: Path) -> FileContents:
    array = _checked(np.load(path, mmap_mode="r", allow_pickle=False), path)
    names = _names_beside(path)
    return FileContents(path, names, array.shape, array.dtype, lambda: _pieces_of(array), array)


def _npz(path: Path) -> FileContents:
    # NumPy leaves a file open that it cannot read.
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
        missing = {"features", "names"} - set(arrays.files)
        if missing:
            raise ConfigError(
                f"{path}: holds no array {' and '.join(sorted(missing))}; an .npz needs `features` "
                "[N, C] or [N, views, C] and `names` [N]"
            )
        names = tuple(map(str, arrays["names"].tolist()))
    with zipfile.ZipFile(path) as archive, archive.open("features.npy") as file:
        shape, dtype = _npy_header(file, path)
    views = _with_views(shape, path)

    def pieces() -> Iterator[np.ndarray]:
        width = int(np.prod(views[1:]))
        with zipfile.ZipFile(path) as archive, archive.open("features.npy") as file:
            _npy_header(file, path)
            for start in range(0, views[0], PIECE):
                count = min(PIECE, views[0] - start)
                data = file.read(count * width * dtype.itemsize)
                yield np.frombuffer(data, dtype).reshape(count, *views[1:])

    return FileContents(path, names, views, dtype, pieces)


def _npy_header(file: Any, path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array in the format of NumPy, whose rows follow."""
    version = np.lib.format.read_magic(file)
    size = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
    header = ast.literal_eval(file.read(size).decode())
    dtype = np.dtype(header["descr"])
    if header["fortran_order"] or dtype.str[1:] not in FLOATS:
        raise ConfigError(f"{path}: `features` must be floats in C order, not {dtype}")
    return tuple(header["shape"]), dtype


def _parquet(path: Path) -> FileContents:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError(f"{path}: reading it needs pyarrow (pip install pyarrow)") from error
    file = parquet.ParquetFile(path)
    columns = file.schema_arrow
    text = [f.name for f in columns if str(f.type) in ("string", "large_string")]
    name = next((wanted for wanted in NAME_COLUMNS if wanted in text), text[0] if text else None)
    if name is None:
        raise ConfigError(f"{path}: has no column of file names (text)")
    lists = [f.name for f in columns if "list" in str(f.type)]
    numbers = [f.name for f in columns if str(f.type) in ("halffloat", "float", "double")]
    vector = next((w for w in VECTOR_COLUMNS if w in lists), lists[0] if lists else None)
    if vector is None and not numbers:
        raise ConfigError(
            f"{path}: has neither a column of lists of numbers nor columns of numbers"
        )

    def vectors(batch: Any) -> np.ndarray:
        if vector is None:
            made = [batch.column(n).to_numpy(zero_copy_only=False) for n in numbers]
            return np.stack(made, axis=1).astype(np.float32)
        column = batch.column(vector)
        flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        if len(column) and (len(flat) % len(column) or column.null_count):
            raise ConfigError(f"{path}: lists in {vector} have different lengths")
        return flat.reshape(len(column), -1)

    names: list[str] = []
    for batch in file.iter_batches(PIECE, columns=[name]):
        names += map(str, batch.column(0).to_pylist())
    first = next(iter(file.iter_batches(1)), None)
    channels = 0 if first is None else vectors(first).shape[1]

    def pieces() -> Iterator[np.ndarray]:
        for batch in file.iter_batches(PIECE, columns=[vector] if vector else numbers):
            made = vectors(batch)
            if made.shape[1] != channels:
                raise ConfigError(f"{path}: lists in {vector} have different lengths")
            yield made[:, None]

    return FileContents(path, tuple(names), (len(names), 1, channels), np.dtype("f4"), pieces)


def _safetensors(path: Path) -> FileContents:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            keys = list(file.keys())
            key = next((k for k in (*VECTOR_COLUMNS, *keys) if k in keys), None)
            if key is None:
                raise ConfigError(f"{path}: holds no tensor")
            shape = _with_views(tuple(file.get_slice(key).get_shape()), path)
            kind = file.get_slice(key).get_dtype()
            told = (file.metadata() or {}).get("names")
    except safetensors.SafetensorError as error:
        raise ConfigError(f"{path}: not a readable safetensors file ({error})") from error
    types = {"F16": "f2", "F32": "f4", "F64": "f8"}
    if kind not in types:
        raise ConfigError(f"{path}: {key} is {kind}; give F16, F32 or F64")
    names = tuple(map(str, json.loads(told))) if told else _names_beside(path)

    def pieces() -> Iterator[np.ndarray]:
        with safetensors.safe_open(path, framework="numpy") as file:
            rows = file.get_slice(key)
            for start in range(0, shape[0], PIECE):
                yield rows[start : min(start + PIECE, shape[0])].reshape(-1, *shape[1:])

    return FileContents(path, names, shape, np.dtype(types[kind]), pieces)


def _names_beside(path: Path) -> tuple[str, ...]:
    beside = path.with_suffix(".txt")
    if not beside.is_file():
        raise ConfigError(
            f"{path}: its rows have no names; write one file name per line to {beside.name} beside "
            "it"
        )
    try:
        return tuple(beside.read_text(encoding="utf-8-sig").splitlines())
    except UnicodeDecodeError as error:
        raise ConfigError(f"{beside}: is not UTF-8 ({error})") from error


def _with_views(shape: tuple[int, ...], path: Path) -> tuple[int, int, int]:
    if len(shape) not in (2, 3) or 0 in shape[1:]:
        raise ConfigError(f"{path}: features of shape {shape}; give [N, C] or [N, views, C]")
    return (shape[0], 1, shape[1]) if len(shape) == 2 else (shape[0], shape[1], shape[2])


def _checked(array: np.ndarray, path: Path) -> np.ndarray:
    if array.dtype.str[1:] not in FLOATS:
        raise ConfigError(f"{path}: holds {array.dtype}; give float16, float32 or float64")
    return array.reshape(_with_views(array.shape, path))


def _pieces_of(array: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(array), PIECE):
        yield array[start : start + PIECE]


def _in_order(contents: FileContents, rows: np.ndarray, cache: Path) -> np.ndarray:
    """The vectors of int [N, repeats] rows as one mapped array [N, views, C].

    The file itself where it is that already, else a copy in the cache.
    """
    count, repeats = rows.shape
    views, channels = contents.shape[1] * repeats, contents.shape[2]
    flat = rows.reshape(-1)
    if contents.mapped is not None and np.array_equal(flat, np.arange(contents.shape[0])):
        return contents.mapped.reshape(count, views, channels)
    key = digest_json([digest_file(contents.path), digest_bytes(rows.tobytes())])[:32]
    copy = cache / "embeddings" / f"{key}.npy"
    if not copy.is_file():
        copy.parent.mkdir(parents=True, exist_ok=True)
        target = np.full(contents.shape[0], -1, np.int64)
        target[flat] = np.arange(flat.size)
        with replacing(copy) as temporary:
            out = np.lib.format.open_memmap(
                temporary, "w+", contents.dtype, (flat.size, contents.shape[1], channels)
            )
            done = 0
            for piece in contents.pieces():
                wanted = target[done : done + len(piece)]
                out[wanted[wanted >= 0]] = piece[wanted >= 0]
                done += len(piece)
            out.flush()
            del out
    array = np.load(copy, mmap_mode="r", allow_pickle=False)
    if array.size != count * views * channels:
        raise CheckpointError(f"{copy} is damaged; delete it and it is made anew")
    return array.reshape(count, views, channels)


def _row_digests(array: np.ndarray, advance: Callable[[int], None]) -> tuple[list[str], list[int]]:
    """SHA-256 of each row's bytes, and the rows with a number that is not finite."""
    digests: list[str] = []
    bad: list[int] = []
    for start in range(0, len(array), PIECE):
        piece = np.ascontiguousarray(array[start : start + PIECE])
        finite = np.isfinite(piece).reshape(len(piece), -1).all(axis=1)
        bad += (start + np.flatnonzero(~finite)).tolist()
        digests += [digest_bytes(row.tobytes()) for row in piece]
        advance(len(piece))
    return digests, bad
