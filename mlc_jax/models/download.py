"""The cache of published weights, and the way of a file into it.

Keras's files come by pooch, those of the Hugging Face Hub by `mlc_jax.models.hub`.
"""

import hashlib
import sys
import types
from pathlib import Path
from typing import Self

import pooch
import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from mlc_jax.errors import WeightsError
from mlc_jax.models.hub import hand_placed, hub_state, hub_weights
from mlc_jax.models.hub_files import HUB_FILES
from mlc_jax.models.published import PUBLISHED, Published
from mlc_jax.settings import cache_folder

TIMEOUT = (3.0, 30.0)  # seconds to connect, seconds between two packets


def cached_path(name: str) -> Path:
    """Where the published weights of backbone `name` lie, or belong, in the cache."""
    if name in HUB_FILES:
        return hand_placed(name)
    return cache_folder() / "weights" / PUBLISHED[name].file


def cache_state(name: str) -> str:
    """What the cache holds of the published file of a backbone.

    Returns:
      "absent", "damaged" (or unreadable), "intact", or "present, unchecked" where no digest is
      known.
    """
    if name in HUB_FILES:
        return hub_state(name)
    if not cached_path(name).exists():
        return "absent"
    try:
        check_digest(cached_path(name), PUBLISHED[name])
    except WeightsError:
        return "damaged"
    return "intact" if PUBLISHED[name].digest else "present, unchecked"


def at_hand() -> tuple[str, ...]:
    """The backbones whose published weights are here and can be used; reads the files."""
    return tuple(
        name for name in (*PUBLISHED, *HUB_FILES) if cache_state(name) not in ("absent", "damaged")
    )


def published_weights(name: str) -> Path:
    """The intact file of the published weights for a backbone, downloaded if need be.

    A file that is in the cache already, downloaded or put there by hand, is checked against the
    pinned digest. Where Keras pins none, only a file put there by hand is used.

    Args:
      name: a key of `PUBLISHED` or `HUB_FILES`.

    Raises:
      WeightsError: the file is not in the cache and cannot be downloaded, or a byte of it is wrong;
        the message says which URL to fetch and which path to put it at.
    """
    if name in HUB_FILES:
        return hub_weights(name)
    published, path = PUBLISHED[name], cached_path(name)
    if path.exists():
        check_digest(path, published)
        return path
    if published.digest is None:
        raise WeightsError(
            f"Keras pins no digest for the ImageNet weights of {name}, so they are not downloaded "
            f"unseen: fetch {published.url} and put it at {path}"
        )
    pooch.get_logger().setLevel("WARNING")
    try:
        with _Bar(published) as bar:
            pooch.retrieve(
                published.url,
                known_hash=published.digest,
                fname=path.name,
                path=path.parent,
                # Redirects could lead away from https.
                downloader=pooch.HTTPDownloader(
                    progressbar=bar, timeout=TIMEOUT, allow_redirects=False
                ),
            )
    except (requests.RequestException, OSError, ValueError) as error:
        raise WeightsError(
            f"the ImageNet weights of {name} cannot be downloaded ({_reason(error)}): fetch "
            f"{published.url} elsewhere and put it at {path}"
        ) from error
    return path


def check_digest(path: Path, published: Published) -> None:
    """Passes if `path` has the pinned digest, or none is pinned.

    Raises:
      WeightsError: a byte of it is wrong, or it cannot be read.
    """
    if published.digest is None:
        return
    algorithm, pinned = published.digest.split(":")
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    if found != pinned:
        raise WeightsError(
            f"{path}: damaged or another file ({algorithm} {found}, published {pinned}); delete it "
            f"or put {published.url} there"
        )


def licence_of_published(name: str) -> str:
    """The licence of a backbone's published weights, and who publishes them."""
    if name in HUB_FILES:
        return f"{HUB_FILES[name].licence} ({HUB_FILES[name].repo} on the Hugging Face Hub)"
    return f"{PUBLISHED[name].licence} (Keras's ImageNet weights)"


class _Bar:
    """A progress bar as pooch wants one, drawn by rich; stops a download that outgrows its size."""

    def __init__(self, published: Published) -> None:
        self.total = 0
        self._published = published
        self._received = 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task(published.file, total=published.size)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self._progress.stop()

    def update(self, amount: int) -> None:
        """Counts one chunk of at most `amount` bytes; the last may be shorter than it says."""
        self._received += amount
        if self._received > self._published.size + amount:
            raise ValueError(f"it is larger than the published {self._published.size} bytes")
        self._progress.update(self._task, completed=self._received)

    def reset(self) -> None:
        """Sets the count to zero; pooch then counts the whole once more."""
        self._received = 0

    def close(self) -> None:
        """Nothing is left to do: the bar closes with its context."""


def _reason(error: Exception) -> str:
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return (str(error).splitlines() or [type(error).__name__])[0]
