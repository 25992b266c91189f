"""Weight files of the Hugging Face Hub: fetched once at one commit, checked ever after.

`huggingface_hub` downloads into its own cache, which other programs share. What this cache adds is
a record per backbone: the commit, the size and the SHA-256 of the file that was first used. A file
that was put beside the records by hand is used as well, so a machine without a network can be
served by copying one file.
"""

import json
import re
from pathlib import Path
from typing import Any

from rich.console import Console

from mlc_jax.errors import WeightsError
from mlc_jax.files.atomic import write_json
from mlc_jax.files.digest import digest_file
from mlc_jax.models.hub_files import HUB_FILES, HubFile
from mlc_jax.settings import cache_folder

_SHA256 = re.compile(r"[0-9a-f]{64}")


def hand_placed(name: str) -> Path:
    """Where a file of backbone `name` is put by hand, with its own ending."""
    return cache_folder() / "weights" / "hub" / f"{name}.safetensors"


def hub_state(name: str) -> str:
    """What the caches hold of a backbone's file: "absent", "damaged", or "intact".

    A file is "present, unchecked" where neither a pinned nor a recorded digest tells.
    """
    wanted = _wanted(name)
    path = _at_hand(name, wanted)
    if path is None:
        return "absent"
    if wanted.digest is None:
        return "present, unchecked"
    try:
        return "intact" if digest_file(path) == wanted.digest else "damaged"
    except OSError:
        return "damaged"


def hub_weights(name: str) -> Path:
    """The intact file of a backbone's published weights, downloaded if need be.

    Args:
      name: a key of `HUB_FILES`.

    Raises:
      WeightsError: the file is not at hand and cannot be downloaded, or is not the one that is
        pinned or was recorded; the message says which file belongs where.
    """
    wanted = _wanted(name)
    path = _at_hand(name, wanted)
    revision = wanted.revision
    stated = None
    if path is None:
        path, revision, stated = _download(name, wanted)
    try:
        digest = digest_file(path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    for known, whose in ((wanted.digest, "pinned or recorded"), (stated, "named by the Hub")):
        if known is not None and digest != known:
            raise WeightsError(
                f"{path}: damaged or another file (sha256 {digest}, {whose} {known}); delete it, "
                f"or put {wanted.url} at {hand_placed(name)}. If the newer file is wanted, delete "
                f"{_record_file(name)} too"
            )
    if wanted.digest is None:
        record = {
            "repo": wanted.repo,
            "file": wanted.file,
            "revision": revision,
            "sha256": digest,
            "size": path.stat().st_size,
        }
        write_json(_record_file(name), record)
    return path


def _record_file(name: str) -> Path:
    return cache_folder() / "weights" / "hub" / f"{name}.json"


def _wanted(name: str) -> HubFile:
    """The file as it is pinned, and what is not pinned as it was recorded."""
    published = HUB_FILES[name]
    try:
        record: dict[str, Any] = json.loads(_record_file(name).read_text())
        if (record["repo"], record["file"]) != (published.repo, published.file):
            return published  # of a release that took another file
        return HubFile(
            published.repo,
            published.licence,
            published.revision or record["revision"],
            published.digest or record["sha256"],
            published.size or record["size"],
            published.gated,
            published.file,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return published


def _at_hand(name: str, wanted: HubFile) -> Path | None:
    """The file that is here already: one put by hand, or one in the cache of `huggingface_hub`."""
    if hand_placed(name).is_file():
        return hand_placed(name)
    if wanted.revision is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(wanted.repo, wanted.file, revision=wanted.revision)
    return Path(found) if isinstance(found, str) else None


def _download(name: str, wanted: HubFile) -> tuple[Path, str, str | None]:
    """Downloads a file; its path, its commit, and the SHA-256 that the Hub names for it."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HTTPError

    try:
        url = hf_hub_url(wanted.repo, wanted.file, revision=wanted.revision)
        stated = get_hf_file_metadata(url)
        revision = wanted.revision or stated.commit_hash
        if revision is None:
            raise OSError("the Hub names no commit")
        size = "of unknown size" if stated.size is None else f"{stated.size / 1e6:,.0f} MB"
        Console(stderr=True).print(
            f"fetching {wanted.repo}/{wanted.file} at {revision}: {size}, licence {wanted.licence}",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )
        path = Path(hf_hub_download(wanted.repo, wanted.file, revision=revision))
    except GatedRepoError as error:
        raise WeightsError(
            f"the weights of {name} are given to those who accept their licence: open "
            f"{wanted.page}, accept it, then run `hf auth login` (or set HF_TOKEN) and this again; "
            f"or put {wanted.file} from there at {hand_placed(name)}"
        ) from error
    except EntryNotFoundError as error:
        raise WeightsError(
            f"{wanted.repo} holds no {wanted.file} at {wanted.revision or 'its head'}; put a "
            f"safetensors file of {name} at {hand_placed(name)}, or give it as "
            "config.backbone.weights"
        ) from error
    except (OSError, HTTPError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"the weights of {name} cannot be downloaded ({reason}): fetch {wanted.url} elsewhere "
            f"and put it at {hand_placed(name)}"
        ) from error
    etag = stated.etag or ""
    return path, revision, etag if _SHA256.fullmatch(etag) else None
