"""Features once: the frozen backbone's output for every (image, view), kept on disk.

The backbone never changes, so an (image, view) gives the same features for ever. The store is keyed
by what the features depend on (backbone, weights, size, views, type) and, inside, by each image's
content; never by labels or folds. So both stages, every audit and every corrected labels file share
it, and a stopped extraction goes on where it stopped.
"""

import contextlib
import io
import json
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from mlc_jax import processes
from mlc_jax.data.dataset import ImageSet
from mlc_jax.data.pipeline import Views, timed, whole_images
from mlc_jax.data.watch import watched
from mlc_jax.errors import ConfigError, NumericsError, WorkdirError
from mlc_jax.files.atomic import remove_partial, write_bytes, write_text
from mlc_jax.files.digest import digest_file, digest_json
from mlc_jax.files.lock import exclusive
from mlc_jax.interrupt import check, deferred, requested
from mlc_jax.models.algorithms import DIRECT, Algorithm
from mlc_jax.models.backbones import Backbone
from mlc_jax.models.joining import joined
from mlc_jax.models.weights import Params

VERSION = 2
BLOCK_BYTES = 32 * 2**20
DTYPES = ("float16", "bfloat16", "float32")

Extract = Callable[[jax.Array | np.ndarray], jax.Array]


@dataclass(frozen=True)
class FeatureSpec:
    """What features depend on, besides the image.

    Attributes:
      backbone: what the features of the backbone depend on, `Backbone.key`.
      image_size: (height, width).
      pooled: whether the map is averaged over space (all that a linear head needs).
      dtype: type in which features are kept.
      compute: how the network computes, see `Backbone.apply`.
      views: how views are drawn.
      algorithm: how the network is run, which shows in the last digits.
    """

    backbone: tuple[str, ...]
    image_size: tuple[int, int]
    pooled: bool
    dtype: str
    views: Views
    algorithm: Algorithm = DIRECT
    compute: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"config.features.dtype={self.dtype!r}: choose of {DTYPES}")

    def digest(self) -> str:
        """The key of the store."""
        views = {**self.views._asdict(), "augmentation": asdict(self.views.augmentation)}
        return digest_json({"version": VERSION, **asdict(self), "views": views})


def feature_shape(backbone: Backbone, spec: FeatureSpec) -> tuple[int, int, int]:
    """(h, w, C) of one view's features; h = w = 1 where they are pooled."""
    height, width, channels = backbone.feature_shape(spec.image_size)
    return (1, 1, channels) if spec.pooled else (height, width, channels)


def features_of(
    backbone: Backbone, spec: FeatureSpec, params: Params, images: jax.Array
) -> jax.Array:
    """The features of images as the store keeps them: uint8 [B, H, W, 3] to dtype [B, h, w, C].

    The one definition of a feature: extraction and the step without a cache both call it, and both
    see its rounding. Each backbone's features are kept on their own, so they are rounded before
    they are joined.
    """
    if backbone.parts:
        return joined(
            [features_of(part, spec, params[part.name], images) for part in backbone.parts]
        )
    maps = backbone.apply(params, images, spec.compute)
    if spec.pooled:
        maps = maps.mean(axis=(1, 2), keepdims=True)
    return maps.astype(spec.dtype)


class FeatureStore:
    """The features of one `FeatureSpec` on disk, in blocks of a few images.

    A block is an array file [images, 1 + views, h, w, C] and a JSON file that says which images it
    holds, the digest of the array file, a checksum of each pass, and its own digest. The JSON is
    written last, so a block without one does not exist. The images of a block that does not match
    its digest are extracted anew; a pass that does not match its checksum when it is read ends the
    run.
    """

    def __init__(
        self,
        cache: Path,
        spec: FeatureSpec,
        shape: tuple[int, int, int],
        warn: Callable[[str], None],
    ) -> None:
        self._folder = cache / "features" / spec.digest()[:32]
        self._spec, self._shape = spec, (spec.views.augmented + 1, *shape)
        self._warn = warn
        self._images_per_block = max(1, BLOCK_BYTES // self.bytes_per_image)
        self._place_of: dict[str, tuple[Path, int]] = {}
        self._sums: dict[Path, list[list[int]]] = {}
        self._read_blocks()

    def missing(self, images: ImageSet) -> np.ndarray:
        """Rows whose image is not in the store, one row per content; int64 [m]."""
        first = {digest: row for row, digest in reversed(list(enumerate(images.digests)))}
        return np.array(sorted(r for d, r in first.items() if d not in self._place_of), np.int64)

    def extract(
        self,
        images: ImageSet,
        extract: Extract,
        batch_size: int,
        advance: Callable[[int], None],
        waited: Callable[[float], None],
    ) -> None:
        """Runs the backbone over the images that are missing and adds them, block by block.

        A signal is heard behind the call in progress, and the images that are whole are added. Of
        several processes each adds a share of the images, whichever of them are missing.

        Args:
          images: the prepared data set.
          extract: uint8 [batch_size, H, W, 3] to features [batch_size, h, w, C].
          batch_size: passes per call of the backbone.
          advance, waited: as for `extract_passes`.

        Raises:
          NumericsError: a feature that is not finite.
          Interrupted: a signal; what was extracted is added.
        """
        with self._locked(), deferred():
            self._read_blocks(remove=True)  # another run may have added some while this one waited
            rows = self.missing(images)
            share = [int(images.digests[row][:8], 16) % processes.count() for row in rows]
            rows = rows[np.array(share, np.int64) == processes.index()]
            passes = extract_passes(
                images, rows, self._spec.views, extract, batch_size, advance, waited
            )
            blocks = by_image(_until_asked(passes), self._shape[0], self._images_per_block)
            done = 0
            # A block is written while the next one is computed.
            with ThreadPoolExecutor(1) as writer:
                written = writer.submit(lambda: None)
                for block in blocks:
                    written.result()
                    block_rows = rows[done : done + len(block)]
                    written = writer.submit(self._add_checked, images, block_rows, block)
                    done += len(block)
                written.result()
            check()
            processes.barrier("extracted")
        deadline = time.monotonic() + processes.SHARED_SECONDS
        self._read_blocks()  # what the others added, once this host sees it
        while len(self.missing(images)) and time.monotonic() < deadline:
            time.sleep(0.2)
            self._read_blocks()
        if len(self.missing(images)):
            raise WorkdirError(
                f"{self._folder}: what other processes extracted cannot be seen here after "
                f"{processes.SHARED_SECONDS:.0f} s; is MLC_JAX_CACHE on storage that all share?"
            )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keeps other runs out while this one adds; the leader does it for all its processes."""
        if not processes.leads():
            processes.barrier("locked")
            yield
            return
        with exclusive(self._folder / "lock", wait=True):
            remove_partial(self._folder)
            processes.barrier("locked")
            yield

    def load(self, images: ImageSet) -> np.ndarray:
        """The features of all images in order: dtype [N, 1 + views, h, w, C], in memory."""
        out = np.empty((len(images), *self._shape), jnp.dtype(self._spec.dtype))
        for path, rows, places in self._places(images):
            out[rows] = self._take(path, places, self._shape[0])
        return out

    def pooled(self, images: ImageSet) -> np.ndarray:
        """Features of the images themselves, averaged over space: float32 [N, C]."""
        out = np.empty((len(images), self._shape[-1]), np.float32)
        for path, rows, places in self._places(images):
            out[rows] = self._take(path, places, 1)[:, 0].mean(axis=(1, 2), dtype=np.float32)
        return out

    def whole(self, images: ImageSet, rows: np.ndarray) -> np.ndarray:
        """Features of the images of the given rows themselves: dtype [n, h, w, C]."""
        out = np.empty((rows.size, *self._shape[1:]), jnp.dtype(self._spec.dtype))
        for at, row in enumerate(rows.tolist()):
            path, place = self._place_of[images.digests[row]]
            out[at] = self._take(path, np.array([place]), 1)[0, 0]
        return out

    def _take(self, path: Path, places: np.ndarray, passes: int) -> np.ndarray:
        """The first passes of the images at some places of a block: dtype [n, passes, h, w, C]."""
        block = np.load(path, mmap_mode="r", allow_pickle=False)
        taken = block[places, :passes].view(jnp.dtype(self._spec.dtype))
        for place, image in zip(places.tolist(), taken, strict=True):
            for one, wanted in zip(image, self._sums[path][place], strict=False):
                check_sum(path, one, wanted)
        return taken

    def _places(self, images: ImageSet) -> Iterator[tuple[Path, np.ndarray, np.ndarray]]:
        """Per block the rows of `images` that it holds, and their places in it."""
        by_block: dict[Path, list[tuple[int, int]]] = {}
        for row, digest in enumerate(images.digests):
            path, place = self._place_of[digest]
            by_block.setdefault(path, []).append((row, place))
        for path, pairs in by_block.items():
            rows, places = np.array(pairs).T
            yield path, rows, places

    @property
    def bytes_per_image(self) -> int:
        """What the features of all views of one image take."""
        return int(np.prod(self._shape)) * jnp.dtype(self._spec.dtype).itemsize

    def reader(self, images: ImageSet) -> "FeatureReader":
        """The features of all images in order, to be read from disk piece by piece."""
        places = [self._place_of[digest] for digest in images.digests]
        return FeatureReader(places, self._sums, self._shape, self._spec.dtype)

    def _read_blocks(self, remove: bool = False) -> None:
        """Looks at the blocks that are not known yet.

        Args:
          remove: whether damaged ones go, which is for the one who holds the lock to say: others
            may see a block before all of it.
        """
        known = set(self._sums)
        files = [path.with_suffix(".npy") for path in sorted(self._folder.glob("block-*.json"))]
        files = [path for path in files if path not in known]
        for array_file, meta in watched(map(self._read_block, files), str(self._folder)):
            if meta is not None:
                self._note(array_file, meta["images"], meta["crc32"])
                continue
            self._warn(f"{array_file} is damaged; its images are extracted anew")
            if remove and processes.leads():
                array_file.with_suffix(".json").unlink(missing_ok=True)
                array_file.unlink(missing_ok=True)

    def _read_block(self, array_file: Path) -> tuple[Path, dict[str, Any] | None]:
        """What is known of a block, or None where it is damaged."""
        try:
            meta = json.loads(array_file.with_suffix(".json").read_text())
            intact = meta.pop("digest") == digest_json(meta)
            if intact and digest_file(array_file) == meta["sha256"]:
                return array_file, meta
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        return array_file, None

    def _note(self, array_file: Path, digests: Sequence[str], sums: list[list[int]]) -> None:
        self._place_of.update({digest: (array_file, place) for place, digest in enumerate(digests)})
        self._sums[array_file] = sums

    def _add_checked(self, images: ImageSet, rows: np.ndarray, features: np.ndarray) -> None:
        check_finite(features, images, rows)
        self._add([images.digests[row] for row in rows], features)

    def _add(self, digests: Sequence[str], features: np.ndarray) -> None:
        name = digest_json(list(digests))[:32]
        array_file = self._folder / f"block-{name}.npy"
        # Through memory, since NumPy hides why a disk refuses what it writes to a file.
        buffer = io.BytesIO()
        # bfloat16 is no NumPy type; its bits are kept as integers.
        np.save(buffer, features.view(np.uint16) if features.itemsize == 2 else features)
        write_bytes(array_file, buffer.getbuffer())
        sums = [[sum_of(one) for one in image] for image in features]
        meta = {"images": list(digests), "sha256": digest_file(array_file), "crc32": sums}
        meta["digest"] = digest_json(meta)
        write_text(array_file.with_suffix(".json"), json.dumps(meta))
        self._note(array_file, digests, sums)


class FeatureReader:
    """Reads features of single (image, view)s from the blocks of a store.

    Files are read, not mapped: mapped pages would count as memory of the process until another
    needs it.

    Args:
      places: the block and the place in it of each of N images.
      sums: of each block, the checksum of each view of each image.
      shape: (1 + views, h, w, C).
      dtype: of the features.

    Attributes:
      shape: (N, 1 + views, h, w, C).
    """

    def __init__(
        self,
        places: Sequence[tuple[Path, int]],
        sums: Mapping[Path, Sequence[Sequence[int]]],
        shape: tuple[int, ...],
        dtype: str,
    ) -> None:
        self.shape = (len(places), *shape)
        self._places, self._sums, self._dtype = places, sums, jnp.dtype(dtype)
        self._offsets: dict[Path, int] = {}

    def take(self, rows: np.ndarray, views: np.ndarray) -> np.ndarray:
        """Features dtype [..., h, w, C] of int [...] rows and views."""
        out = np.empty((rows.size, *self.shape[2:]), self._dtype)
        pieces = out.view(np.uint8).reshape(rows.size, -1)
        numbers = views.reshape(-1).tolist()
        for place, (row, view) in enumerate(zip(rows.reshape(-1).tolist(), numbers, strict=True)):
            path, image = self._places[row]
            with path.open("rb", buffering=0) as file:
                start = self._offsets.get(path)
                if start is None:
                    np.lib.format.read_magic(file)
                    np.lib.format.read_array_header_1_0(file)
                    start = self._offsets[path] = file.tell()
                file.seek(start + (image * self.shape[1] + view) * pieces.shape[1])
                if file.readinto(pieces[place].data) != pieces.shape[1]:
                    raise WorkdirError(f"{path} was cut while it was in use; run again")
                check_sum(path, pieces[place], self._sums[path][image][view])
        return out.reshape(*rows.shape, *self.shape[2:])


def sum_of(features: np.ndarray) -> int:
    """The CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(features).view(np.uint8).data)


def check_sum(path: Path, features: np.ndarray, wanted: int) -> None:
    """Raises WorkdirError where features of a block are not what was written."""
    if sum_of(features) != wanted:
        raise WorkdirError(f"{path} was changed while it was in use; run again")


def check_finite(features: np.ndarray, images: ImageSet, rows: np.ndarray) -> None:
    """Raises NumericsError, naming the image, where features [n, …] of `rows` are not finite."""
    finite = np.isfinite(features.astype(np.float32)).reshape(len(rows), -1).all(axis=1)
    if not finite.all():
        name = images.filenames[int(rows[int(np.argmin(finite))])]
        raise NumericsError(
            f"{name}: its features are not finite; use config.features.dtype=float32 or other "
            "weights"
        )


def extract_passes(
    images: ImageSet,
    rows: np.ndarray,
    views: Views,
    extract: Extract,
    batch_size: int,
    advance: Callable[[int], None],
    waited: Callable[[float], None],
) -> Iterator[np.ndarray]:
    """Features of every view of the given rows, in order.

    A call is handed over before the features of the one before it are taken, so that an accelerator
    has something to do while they are.

    Args:
      images, rows, views: as for `whole_images`.
      extract: uint8 [batch_size, H, W, 3] to features [batch_size, h, w, C].
      batch_size: images per call; the last call is padded, so one program serves them all.
      advance: called with the number of passes done.
      waited: called with the seconds for which there was nothing to do for want of images, but for
        the first.

    Yields:
      Features [b, h, w, C], host arrays; one pass per (row, view), views fastest.
    """
    waiting: list[np.ndarray] = []
    begun: list[tuple[jax.Array, int]] = []

    def begin(passes: list[np.ndarray]) -> None:
        padding = [passes[-1]] * (batch_size - len(passes))
        begun.append((extract(np.stack(passes + padding)), len(passes)))

    def end() -> np.ndarray:
        features, count = begun.pop(0)
        taken = np.asarray(features)[:count]
        advance(count)
        return taken

    def stood_still(seconds: float) -> None:
        if begun:  # there was something to do before
            busy = not cast(Any, begun[-1][0]).is_ready()  # not in jax's stubs
            waited(0.0 if busy else seconds)

    batches = whole_images(images, rows, views, -(-batch_size // (views.augmented + 1)))
    for batch in timed(batches, stood_still):
        waiting.extend(batch.reshape(-1, *batch.shape[2:]))
        while len(waiting) >= batch_size:
            begin(waiting[:batch_size])
            del waiting[:batch_size]
            if len(begun) > 1:
                yield end()
    if waiting:
        begin(waiting)
    while begun:
        yield end()


def by_image(passes: Iterable[np.ndarray], per_image: int, count: int) -> Iterator[np.ndarray]:
    """Passes [b, h, w, C] put together again, [n, per_image, h, w, C].

    Yields:
      `count` images at a time, and at the end those that are left and whole.
    """
    waiting: list[np.ndarray] = []
    for some in passes:
        waiting.extend(some)
        while len(waiting) >= count * per_image:
            yield _stacked(waiting[: count * per_image], per_image)
            del waiting[: count * per_image]
    whole = len(waiting) // per_image * per_image
    if whole:
        yield _stacked(waiting[:whole], per_image)


def _stacked(passes: list[np.ndarray], per_image: int) -> np.ndarray:
    return np.stack(passes).reshape(-1, per_image, *passes[0].shape)


def _until_asked(passes: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """What comes until a signal asks the run to stop."""
    for some in passes:
        yield some
        if requested():
            return
