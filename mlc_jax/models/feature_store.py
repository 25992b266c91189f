"""Features once: the frozen backbone's output for every (image, view), kept on disk.

The store is keyed by what the features depend on (backbone, weights, size, views, type) and,
inside, by each image's content; never by labels or folds. So both stages, every audit and every
corrected labels file share it, and a stopped extraction goes on where it stopped.
"""

import contextlib
import io
import json
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from mlc_jax import processes
from mlc_jax.data.dataset import ImageSet
from mlc_jax.data.watch import watched
from mlc_jax.errors import WorkdirError
from mlc_jax.files.atomic import remove_partial, write_bytes, write_text
from mlc_jax.files.digest import digest_file, digest_json
from mlc_jax.files.lock import exclusive
from mlc_jax.interrupt import check, deferred, requested
from mlc_jax.models.extraction import by_image, check_finite, extract_passes
from mlc_jax.models.features import Extract, FeatureSpec

BLOCK_BYTES = 32 * 2**20


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


def _until_asked(passes: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """What comes until a signal asks the run to stop."""
    for some in passes:
        yield some
        if requested():
            return
