"""Orbax checkpoints: the state of a run, with a digest of its arrays that is checked on restore.

Orbax makes a save atomic, not its content intact: a flipped bit in an array file would be restored
as a wrong weight without a word. So the digest of all arrays lies beside them, in a record that has
a digest of its own. A checkpoint that does not match is never used; the one before it is, and the
bad one is named.
"""

import contextlib
import io
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from absl import logging
from orbax.checkpoint import checkpoint_manager
from orbax.checkpoint import v1 as ocp

from mlc_jax import processes
from mlc_jax.errors import CheckpointError, WorkdirError
from mlc_jax.files.digest import digest_arrays, digest_bytes, digest_json

Tree = TypeVar("Tree")

# Orbax's description of a step, as version 0.12 writes it.
_DESCRIPTION: dict[str, Any] = {
    "item_handlers": dict,
    "metrics": dict,
    "performance_metrics": dict,
    "init_timestamp_nsecs": int,
    "commit_timestamp_nsecs": int,
    "custom_metadata": dict,
}


REMOVALS, REMOVAL_SECONDS = 20, 0.05

META = {"record": "", "digest": ""}
"""What a checkpoint says of itself; Orbax takes nothing else from a disk for it."""


def _arrays(tree: Any) -> dict[str, np.ndarray]:
    leaves, _ = jax.tree.flatten_with_path(jax.device_get(tree))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def _structure(tree: Any) -> str:
    leaves, _ = jax.tree.flatten_with_path(tree)
    return digest_json(
        [[jax.tree_util.keystr(path), list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves]
    )


class Checkpoints:
    """The checkpoints of one run, in one folder; the last two are kept.

    Of several processes the leader alone reads and writes them, so how many there are shows in no
    file.

    Args:
      folder: made when missing.
      inputs: JSON that decides the run's result; a checkpoint of other inputs is refused.
    """

    def __init__(self, folder: Path, inputs: Any) -> None:
        self._inputs = digest_json(inputs)
        self._folder = folder.resolve()
        self._failed = False
        if not processes.leads():
            return
        self._strange = _set_strange_aside(self._folder)
        try:
            with _alone(), _folder_made(self._folder):
                self._orbax = ocp.training.Checkpointer(
                    self._folder,
                    preservation_policy=ocp.training.preservation_policies.LatestN(2),
                    cleanup_tmp_directories=True,
                )
        except Exception as error:  # it reads every step, and raises whatever that led it to
            raise CheckpointError(
                f"{self._folder} cannot be used ({_reason(error)}); choose another --workdir"
            ) from error

    def save(self, epoch: int, state: Any, progress: dict[str, Any]) -> None:
        """Saves the state as it is after `epoch` epochs.

        Args:
          epoch: epochs done; names the checkpoint.
          state: tree of arrays.
          progress: JSON that belongs to the state (early stopping, position in the plans).

        Raises:
          WorkdirError: it cannot be written; the checkpoints before it stay.
        """
        if not processes.leads():
            return
        record = json.dumps(
            {
                "inputs": self._inputs,
                "epoch": epoch,
                "structure": _structure(state),
                "arrays": digest_arrays(_arrays(state)),
                "progress": progress,
            }
        )
        meta = {"record": record, "digest": digest_bytes(record.encode())}
        tree = {"state": jax.device_get(state), "meta": meta}
        try:
            with _quiet(), _alone():
                self._orbax.save_checkpointables(epoch, tree, overwrite=True)
        except Exception as error:  # of its own threads and of what writes the arrays, many kinds
            self._failed = True
            self._remove_half_a_step()
            raise WorkdirError(
                f"{self._folder}/{epoch} cannot be written ({_reason(error)}); free space or "
                "choose another --workdir; the checkpoint before is whole"
            ) from error

    def restore_latest(
        self, like: Tree, warn: Callable[[str], None]
    ) -> tuple[Tree, dict[str, Any], int] | None:
        """The newest intact checkpoint: (state, progress, epoch), or None where there is none.

        Of several processes the leader has the arrays, and the others get `like` in their place:
        `Devices.replicate` brings the leader's to all.

        Args:
          like: a tree of arrays or ShapeDtypeStructs; only a state of this structure is restored.
          warn: told of each damaged checkpoint that is passed over; it is removed once an intact
            one before it is found.

        Raises:
          CheckpointError: a checkpoint of other inputs or of another structure, or none intact.
        """
        with _alone():
            found = self._newest(like, warn) if processes.leads() else None
        told = processes.agreed(None if found is None else [found[1], found[2]])
        if told is None:
            return None
        progress, epoch = told
        return (like if found is None else found[0]), progress, epoch

    def _newest(
        self, like: Tree, warn: Callable[[str], None]
    ) -> tuple[Tree, dict[str, Any], int] | None:
        for name in self._strange:
            warn(f"{self._folder}/{name} was no whole checkpoint of this version; it is set aside")
        steps = sorted((c.step for c in self._orbax.checkpoints), reverse=True)
        damaged = []
        for step in steps:
            try:
                state, progress = self._restore(step, like)
            except _DamagedError as damage:
                warn(f"{self._folder}/{step} is damaged ({damage}); falling back to the one before")
                damaged.append(step)
                continue
            for later in damaged:
                # Orbax saves nothing at or before the latest step there is, damaged or not.
                self._orbax.delete(later)
            return state, progress, step
        if steps:
            raise CheckpointError(
                f"{self._folder}: none of the checkpoints {steps} is intact; remove the folder to "
                "train anew"
            )
        return None

    def _restore(self, step: int, like: Tree) -> tuple[Tree, dict[str, Any]]:
        try:
            meta = self._orbax.load_checkpointables(step, {"meta": META})["meta"]
            text = meta["record"]
            intact = digest_bytes(text.encode()) == meta["digest"]
        except Exception as error:
            raise _DamagedError(f"unreadable: {type(error).__name__}") from error
        if not intact:
            raise _DamagedError("its record does not match its digest")
        record = json.loads(text)
        if record["epoch"] != step:
            raise _DamagedError(f"it is a copy of that of epoch {record['epoch']}")
        if record["inputs"] != self._inputs:
            raise CheckpointError(
                f"{self._folder}/{step} was made from other inputs; choose another --workdir"
            )
        if record["structure"] != _structure(like):
            raise CheckpointError(
                f"{self._folder}/{step} holds a state of another structure; choose another "
                "--workdir"
            )
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), like
        )
        try:
            state = self._orbax.load_checkpointables(step, {"state": abstract})["state"]
        except Exception as error:
            raise _DamagedError(f"unreadable: {type(error).__name__}") from error
        if digest_arrays(_arrays(state)) != record["arrays"]:
            raise _DamagedError("its arrays do not match their digest")
        return state, record["progress"]

    def _remove_half_a_step(self) -> None:
        """Removes what a failed save has left, again while late writers add to it."""
        for _ in range(REMOVALS):
            left = list(self._folder.glob("*.orbax-checkpoint-tmp*"))
            if not left:
                return
            for folder in left:
                shutil.rmtree(folder, ignore_errors=True)
            time.sleep(REMOVAL_SECONDS)

    def close(self) -> None:
        """Waits for what is under way and lets go of the folder."""
        if not processes.leads():
            return
        try:
            with _quiet(), _alone():
                self._orbax.close()
        except Exception:
            # A save that failed is told of once more here, in place of our own word on it.
            if not self._failed:
                raise
        if self._failed:
            self._remove_half_a_step()


def _alone() -> contextlib.AbstractContextManager[Any]:
    """Keeps Orbax from waiting for the other processes, which do not call it."""
    if processes.count() == 1:
        return contextlib.nullcontext()
    only = ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix="leader"
    )
    return ocp.Context(multiprocessing_options=only)


@contextlib.contextmanager
def _folder_made(folder: Path) -> Iterator[None]:
    """Makes the folder where Orbax 0.12 refuses to: it has no way to say so, and always tries."""
    if processes.count() == 1:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    make = checkpoint_manager._create_root_directory
    checkpoint_manager._create_root_directory = lambda *_, **__: None
    try:
        yield
    finally:
        checkpoint_manager._create_root_directory = make


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what Orbax's threads say of a failed save off the screen: what it raises says it too.

    With --verbosity=1 they are heard.
    """
    verbosity = logging.get_verbosity()
    if verbosity >= 0:
        yield
        return
    logging.set_verbosity(logging.FATAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    except Exception:
        sys.unraisablehook = _but_late_ones(sys.unraisablehook)
        raise
    finally:
        logging.set_verbosity(verbosity)


def _but_late_ones(hook: Callable[[Any], Any]) -> Callable[[Any], None]:
    """`hook`, but for what tensorstore's threads say after Orbax has given up a save.

    Each array that is still being written when another one fails reports to an event loop that is
    closed by then, and prints a traceback of that, at any time until the process ends.
    """

    def told(dropped: Any) -> None:
        late = dropped.exc_type is RuntimeError and str(dropped.exc_value) == "Event loop is closed"
        if not late:
            hook(dropped)

    return told


def _set_strange_aside(folder: Path) -> list[str]:
    """Renames steps whose description Orbax would fail at, one and all; gives their former names.

    Half a step, damage, or a newer version's: it reads the descriptions of all steps when it
    begins, and one that it cannot read would keep it from the others.
    """
    strange = []
    for step in sorted(folder.glob("[0-9]*")) if folder.is_dir() else []:
        if not (step.name.isdecimal() and step.is_dir()):
            continue
        try:
            described = json.loads((step / "_CHECKPOINT_METADATA").read_text())
            known = described.keys() <= _DESCRIPTION.keys() and all(
                isinstance(described[key], _DESCRIPTION[key]) for key in described
            )
        except (OSError, ValueError, AttributeError):
            known = False
        if not known:
            number = sum(1 for _ in folder.glob(f"strange-{step.name}*"))
            step.rename(folder / f"strange-{step.name}-{number}")
            strange.append(step.name)
    return strange


def _reason(error: BaseException) -> str:
    """What the system said where it did, else the first line of the error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


class _DamagedError(Exception):
    """Why a checkpoint cannot be trusted."""
