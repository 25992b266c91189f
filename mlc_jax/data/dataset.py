"""The prepared data set: every image decoded, checked and resized once, as a TFDS data set.

The records hold images only, and the set is keyed by what they are made from (file names, file
contents, size). Labels stay in their table and are joined by row, so a corrected label or a hidden
cell prepares nothing anew. TFDS without TensorFlow takes an image as encoded bytes.
"""

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mlc_jax.data.delimited import shown
from mlc_jax.data.images import decode_first, resolve_image
from mlc_jax.data.pixels import resize_image
from mlc_jax.data.watch import result_of
from mlc_jax.errors import CheckpointError, ImageError
from mlc_jax.files.atomic import write_text
from mlc_jax.files.digest import digest_bytes, digest_file, digest_json
from mlc_jax.files.lock import exclusive
from mlc_jax.settings import cache_folder

VERSION = "1.3.0"
INDEX = "index.json"


@dataclass(frozen=True)
class Rejected:
    """An image that was left out: its place in the list of files, the reason code, the message."""

    place: int
    reason: str
    message: str


class PreparedConfig(tfds.core.BuilderConfig):
    """Names a prepared data set by the digest of what it was made from."""


class PreparedImages(tfds.core.GeneratorBasedBuilder):
    """TFDS builder over any folder of images: records of `image`, `filename`, `digest`.

    Args:
      root: the image folder.
      follow_links: whether links in it may lead out of it.
      files: the file names, one per record, and the place of each in the labels file.
      image_size: (height, width) to resize to.
      advance: called with the number of images done.
      rejected: takes the images that cannot be used.
      several: takes the names of files of several frames or pages.
      kwargs: TFDS's own: config, data_dir.
    """

    VERSION = tfds.core.Version(VERSION)

    def __init__(
        self,
        *,
        root: Path,
        follow_links: bool,
        files: Sequence[tuple[int, str]],
        image_size: tuple[int, int],
        advance: Callable[[int], None],
        rejected: list[Rejected],
        several: list[str],
        **kwargs: Any,
    ) -> None:
        self._root, self._follow_links = root, follow_links
        self._files, self._image_size = files, image_size
        self._advance, self._rejected, self._several = advance, rejected, several
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        # As bytes: to pack each as PNG and unpack it took a third of the time that images took.
        image = tfds.features.Tensor(
            shape=(*self._image_size, 3), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
        )
        text = tfds.features.Text()
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"image": image, "filename": text, "digest": text}),
        )

    def _split_generators(self, manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del manager
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for made in _in_threads(self._prepare, self._files, str(self._root)):
            self._advance(1)
            if isinstance(made, Rejected):
                self._rejected.append(made)
            else:
                yield made["filename"], made

    def _prepare(self, file: tuple[int, str]) -> dict[str, Any] | Rejected:
        place, filename = file
        try:
            path = resolve_image(self._root, filename, follow_links=self._follow_links)
            image, frames = decode_first(path)
        except ImageError as error:
            return Rejected(place, error.reason, str(error))
        if frames > 1:
            self._several.append(filename)
        resized = resize_image(image, self._image_size)
        return {
            "image": resized,
            "filename": filename,
            "digest": digest_bytes(resized.tobytes()),
        }


def _digest_of(root: Path, follow_links: bool, file: tuple[int, str]) -> str | Rejected:
    place, filename = file
    try:
        return digest_file(resolve_image(root, filename, follow_links=follow_links))
    except ImageError as error:
        return Rejected(place, error.reason, str(error))


def _in_threads(
    function: Callable[[tuple[int, str]], Any], items: Sequence[tuple[int, str]], root: str
) -> Iterator[Any]:
    """Maps in order over threads (decoding lets go of the GIL), holding a few results at a time."""
    workers = os.cpu_count() or 1
    pool = ThreadPoolExecutor(workers)
    try:
        for start in range(0, len(items), 8 * workers):
            some = items[start : start + 8 * workers]
            futures = [pool.submit(function, item) for item in some]
            for (_, filename), future in zip(some, futures, strict=True):
                yield result_of(future, f"{root}/{filename}")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class ImageSet:
    """The usable images of a labels file, in its order.

    Attributes:
      places: int64 [N], the place of each image in the list of file names that was given.
      filenames: their names.
      digests: hexadecimal SHA-256 of each image's pixels after resizing.
      rejected: what was left out and why.
      several: names of files of several frames or pages, of which the first was taken.
      image_size: (height, width).
      files_digest: of their files' names and contents, whatever size they are resized to.
    """

    def __init__(
        self,
        source: Any,
        index: dict[str, Any],
        place_of: dict[str, int],
        rejected: Sequence[Rejected],
        image_size: tuple[int, int],
        files_digest: str,
    ) -> None:
        found = sorted(
            (place_of[filename], filename, digest, record)
            for record, (filename, digest) in enumerate(index["records"])
        )
        self._source = source
        self._records = [record for *_, record in found]
        self.places = np.array([place for place, *_ in found], np.int64)
        self.filenames = tuple(filename for _, filename, _, _ in found)
        self.digests = tuple(digest for _, _, digest, _ in found)
        self.rejected = tuple(rejected)
        self.several = tuple(index["several"])
        self.image_size = image_size
        self.files_digest = files_digest

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, row: int) -> np.ndarray:
        """The image of one row, uint8 [H, W, 3], RGB.

        Raises:
          CheckpointError: it is not what was prepared.
        """
        try:
            image: np.ndarray = self._source[self._records[row]]["image"]
            if digest_bytes(image.tobytes()) == self.digests[row]:
                return image
        except Exception as error:  # the format's reader raises whatever the bytes led it to
            raise self._damaged(row) from error
        raise self._damaged(row)

    def _damaged(self, row: int) -> CheckpointError:
        return CheckpointError(
            f"the prepared image of {shown(self.filenames[row])} is damaged; delete "
            f"{cache_folder() / 'datasets'} and it is made anew"
        )

    def digest(self) -> str:
        """The digest of all images, in order, with their names."""
        return digest_json([list(self.filenames), list(self.digests)])


def prepare_images(
    root: Path,
    filenames: Sequence[str],
    image_size: tuple[int, int],
    cache: Path,
    advance: Callable[[int], None],
    *,
    follow_links: bool = False,
) -> ImageSet:
    """Prepares a folder of images, or finds it prepared.

    Args:
      root: the image folder; no file outside it is opened.
      filenames: names as the labels file gives them.
      image_size: (height, width) in pixels.
      cache: folder under which prepared sets lie.
      advance: called with the number of images done; not at all where the set is reused.
      follow_links: whether links in the folder may lead out of it.

    Returns:
      The usable images, in the order of `filenames`.
    """
    files: list[tuple[int, str]] = []
    missing: list[Rejected] = []
    contents = []
    numbered = list(enumerate(filenames))
    digest_of = partial(_digest_of, root, follow_links)
    for file, found in zip(numbered, _in_threads(digest_of, numbered, str(root)), strict=True):
        if isinstance(found, Rejected):
            missing.append(found)
        else:
            contents.append([file[1], found])
            files.append(file)
    key = digest_json([VERSION, list(image_size), contents])[:32]
    place_of = {filename: place for place, filename in files}
    folder = cache / "datasets" / PreparedImages.name / key / VERSION
    rejected: list[Rejected] = []
    several: list[str] = []

    def make_builder() -> PreparedImages:
        tfds.disable_progress_bar()
        builder = PreparedImages(
            root=root,
            follow_links=follow_links,
            files=files,
            image_size=image_size,
            advance=advance,
            rejected=rejected,
            several=several,
            config=PreparedConfig(name=key),
            data_dir=str(cache / "datasets"),
        )
        assert Path(builder.data_dir) == folder
        return builder

    # A finished set is read without a lock, so that its cache may be read-only.
    index = _read_index(folder)
    if index is None:
        with exclusive(cache / "datasets" / f"{key}.lock", wait=True):
            index = _read_index(folder)  # another run may have made it while this one waited
            if index is None:
                # Not finished, or damaged; TFDS would take the folder for a whole one, or fail.
                shutil.rmtree(folder, ignore_errors=True)
                index = _write_set(make_builder(), files, rejected, several)
    source = _records_of(make_builder()) if index["records"] else ()
    refused = [
        Rejected(place_of[filename], reason, message)
        for filename, reason, message in index["rejected"]
    ]
    left_out = sorted(missing + refused, key=lambda item: item.place)
    usable = {filename for filename, _ in index["records"]}
    files_digest = digest_json([content for content in contents if content[0] in usable])
    return ImageSet(source, index, place_of, left_out, image_size, files_digest)


def _write_set(
    builder: PreparedImages,
    files: Sequence[tuple[int, str]],
    rejected: Sequence[Rejected],
    several: Sequence[str],
) -> dict[str, Any]:
    """Writes the set, then its index, and gives the index; a set without images is not kept."""
    folder = Path(builder.data_dir)
    for unfinished in folder.parent.glob("incomplete.*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS speaks of a download; there is none
            builder.download_and_prepare()
    except AssertionError:
        if len(rejected) < len(files):
            raise
        records = []  # TFDS refuses to write a set without records
    else:
        # TFDS stores records in the order of their keys' hashes; the index says which is which.
        records = [
            [record["filename"].decode(), record["digest"].decode()]
            for record in _records_of(builder)
        ]
    name_of = dict(files)
    index: dict[str, Any] = {
        "records": records,
        "rejected": [[name_of[item.place], item.reason, item.message] for item in rejected],
        "several": sorted(several),
    }
    if records:
        # Of what describes the set; each image is checked when it is read.
        index["files"] = {path.name: digest_file(path) for path in sorted(folder.glob("*.json"))}
        write_text(folder / INDEX, json.dumps(index | {"digest": digest_json(index)}))
    return index


def _read_index(folder: Path) -> dict[str, Any] | None:
    """The index of a set; None where the set is not as it was written, and has to be made."""
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text())
        whole = index.pop("digest") == digest_json(index) and all(
            digest_file(folder / name) == digest for name, digest in index["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return index if whole else None


def _records_of(builder: PreparedImages) -> Any:
    return builder.as_data_source("train")
