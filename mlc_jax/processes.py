"""Several processes, one run: each executes the same program over its own devices.

Process 0 leads: it owns the workdir, the screen and every decision. The others compute with it,
write their files into a temporary folder that nobody reads, and stay silent. So a job reads as if
there were one process, but for three things, which all processes must come to in the same order:
what one of them alone knows is agreed on, what all of them need is made by the leader first, and
what needs no devices any more is left to the leader.

Words go through jax's coordination service, which the leader hosts; arrays go over the devices, see
`training/parallel.py`. A process that fails tells the others why. One that is killed cannot: jax
ends the others within its own code, where Python has no last word; a shell beside each has it.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlc_jax import interrupt
from mlc_jax.errors import ConfigError

HEARTBEAT_SECONDS = 25
START_SECONDS = 300
LOOK_SECONDS = 1.0
LAST_WORDS_SECONDS = 5.0
FAREWELL_SECONDS = 2.0
SHARED_SECONDS = 20.0
"""How long a file of one host may take to be seen on another: attribute caches of NFS."""


class LeftToLeaderError(Exception):
    """What is left of the job needs no devices: the leader does it, and this process waits."""


class _State:
    """Where this process stands; set once, by `join`."""

    index: int = 0
    count: int = 1
    client: Any = None
    folder: Path | None = None
    agreed: int = 0
    over: bool = False
    listener: threading.Thread | None = None
    mourner: subprocess.Popen[bytes] | None = None


def index() -> int:
    """The number of this process; 0 leads."""
    return _State.index


def count() -> int:
    """How many processes make the run."""
    return _State.count


def leads() -> bool:
    """Whether this process owns the workdir and decides."""
    return _State.index == 0


def join(cache: Path) -> None:
    """Makes this process one of the run's; before anything asks jax for a device.

    Where the process stands comes from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID where they are set, else jax finds it out (Slurm, Open MPI, Kubernetes, TPU
    pods).

    Args:
      cache: must be seen by all processes, which is tried.

    Raises:
      ConfigError: the variables are not numbers, nothing tells where the process stands, the others
        do not come, or the cache is not shared.
    """
    import jax
    from jax._src import distributed  # the only way to the key-value store; Orbax takes it too

    number, own = _number("JAX_NUM_PROCESSES"), _number("JAX_PROCESS_ID")
    try:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        # It would take SIGTERM away from `interrupt`.
        jax.config.update("jax_enable_preemption_service", False)
        jax.distributed.initialize(
            num_processes=number,
            process_id=own,
            initialization_timeout=START_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(
            f"--distributed: {str(error).splitlines()[0]}; set JAX_COORDINATOR_ADDRESS=HOST:PORT "
            "(of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID, or start under Slurm, Open MPI "
            "or on a TPU pod"
        ) from error
    state = distributed.global_state
    _State.index, _State.count, _State.client = state.process_id, state.num_processes, state.client
    _State.mourner = _mourner()
    _State.listener = threading.Thread(target=_listen, daemon=True)
    _State.listener.start()
    jax.devices()  # finding them needs all processes, so none may be busy with other things
    if not leads():
        _State.folder = Path(tempfile.mkdtemp(prefix="mlc_jax-process-"))
        if sys.stdout.fileno() == 1:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _check_shared(cache)


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"{name}={text!r} is no number") from error


def _mourner() -> subprocess.Popen[bytes]:
    """A shell that says what to do should this process end without a word: killed, or by jax.

    It waits for the end of a pipe that this process holds open; `_clear_up` sends it home.
    """
    line = (
        f"error: process {_State.index} of {_State.count} was killed, or jax ended it since "
        "another one was; start all of them again with the same command, and the run goes on"
    )
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read -r word || echo "$1" >&2', "sh", line],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C is for the run, which may still end well
    )


def own_workdir(workdir: Path) -> Path:
    """The workdir on the leader; elsewhere a folder that goes when the process ends."""
    return workdir if _State.folder is None else _State.folder / "workdir"


def _check_shared(cache: Path) -> None:
    """Raises ConfigError where the leader's cache is not this process's."""
    token = secrets.token_hex(8)
    name, written = agreed([f".shared-{token}", token])
    if leads():
        cache.mkdir(parents=True, exist_ok=True)
        (cache / name).write_text(written)
    barrier("written")
    deadline = time.monotonic() + SHARED_SECONDS
    while not (cache / name).exists():
        if time.monotonic() > deadline:
            raise ConfigError(
                f"process {index()} on {socket.gethostname()} does not see what process 0 writes "
                f"to {cache}; point MLC_JAX_CACHE at storage that all processes share"
            )
        time.sleep(0.2)
    barrier("seen")
    if leads():
        (cache / name).unlink()


def agreed(value: Any) -> Any:
    """The leader's value, on every process.

    Args:
      value: small JSON; looked at on the leader only.
    """
    if _State.count == 1:
        return value
    _State.agreed += 1
    key = f"mlc_jax/agreed/{_State.agreed}"
    if leads():
        _State.client.key_value_set(key, json.dumps(value))
        return json.loads(json.dumps(value))
    return json.loads(_wait_for(key))


def check_alike(inputs: dict[str, Any]) -> None:
    """Raises ConfigError where this process was started with other inputs than the leader."""
    text = json.dumps(inputs, sort_keys=True)
    theirs = agreed(text)
    if theirs != text:
        other = json.loads(theirs)
        names = [name for name in inputs if inputs[name] != other.get(name)]
        raise ConfigError(
            f"process {index()} on {socket.gethostname()} has another {' and '.join(names)} than "
            "process 0; start all with the same command, on the same files"
        )


def barrier(name: str) -> None:
    """Waits until every process has come here, however long that takes."""
    if _State.count == 1:
        return
    _State.agreed += 1
    key = f"mlc_jax/barrier/{_State.agreed}-{name}"
    if _State.client.key_value_increment(f"{key}-come", 1) == _State.count:
        _State.client.key_value_set(key, "all")
    _wait_for(key, interrupt.check)


@contextlib.contextmanager
def leader_first() -> Iterator[None]:
    """A block that the leader goes through before the others: what it makes, they find made.

    Where it fails the others try too, since some failures can be done without.
    """
    if not leads():
        barrier("leader first")
    try:
        yield
    finally:
        if leads():
            barrier("leader first")


def requested() -> bool:
    """Whether a signal has asked one of the processes to stop: the same answer on all of them."""
    if _State.count == 1:
        return interrupt.requested()
    key = "mlc_jax/signal"
    if (own := interrupt.number()) is not None:
        _State.client.key_value_set(key, str(own), allow_overwrite=True)
    number = agreed(int(_look_at(key) or 0) if leads() else None)
    if number:
        interrupt.ask(number)
    return bool(number)


def leave_to_leader() -> None:
    """Raises LeftToLeaderError but on the leader, which goes on alone."""
    if not leads():
        raise LeftToLeaderError


def _look_at(key: str) -> str | None:
    from jax.errors import JaxRuntimeError

    try:
        value: str = _State.client.key_value_try_get(key)
    except JaxRuntimeError as error:
        if "NOT_FOUND" in str(error):
            return None
        raise
    return value


def _wait_for(key: str, meanwhile: Callable[[], None] = lambda: None) -> str:
    """The value of a key, once it is there; signals are heard meanwhile."""
    from jax.errors import JaxRuntimeError

    while True:
        try:
            value: str = _State.client.blocking_key_value_get(key, round(1000 * LOOK_SECONDS))
        except JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
            meanwhile()
        else:
            return value


STOP = "mlc_jax/stop"


def _end_listening() -> None:
    if _State.over:
        raise EOFError


def _listen() -> None:
    """Ends this process when another one says that it failed, or was asked to stop."""
    try:
        told = json.loads(_wait_for(STOP, _end_listening))
        if told["process"] == _State.index or _State.over:
            return
        _State.client.key_value_increment(f"{STOP}-heard", 1)
    except Exception:
        return  # the run is over, or the leader is gone: then jax ends this process
    if told["signal"]:
        # As if it had come here: what is being done is brought to the disk, if there is time.
        os.kill(os.getpid(), told["signal"])
        return
    sys.stderr.write(f"stopped, since process {told['process']} failed: {told['text']}\n")
    sys.stderr.flush()
    _clear_up()
    os._exit(told["status"])


def fail(text: str, status: int, number: int | None = None) -> None:
    """Tells the others that this process ends, so that they end with the same status.

    Args:
      text: why, in one line.
      status: what it exits with.
      number: of the signal that ended it, if one did.
    """
    if _State.count == 1:
        return
    _State.over = True
    told = {"process": _State.index, "text": text, "status": status, "signal": number}
    with contextlib.suppress(Exception):  # someone else was first, or the leader is gone
        _State.client.key_value_set(STOP, json.dumps(told))
        if leads():
            # The service ends with this process: the others have to hear of it before.
            deadline = time.monotonic() + LAST_WORDS_SECONDS
            while time.monotonic() < deadline:
                if int(_look_at(f"{STOP}-heard") or 0) == _State.count - 1:
                    break
                time.sleep(0.1)
    _clear_up()


def of_a_peer(error: Exception) -> str | None:
    """What to say where an error only shows that another process is gone; else None."""
    signs = ("Gloo", "NCCL", "CoordinationService", "coordination service", "UNAVAILABLE")
    text = str(error)
    if _State.count == 1 or type(error).__name__ != "JaxRuntimeError":
        return None
    if not any(sign in text for sign in signs):
        return None
    return (
        f"process {_State.index} of {_State.count} lost another process "
        f"({(text.splitlines() or [''])[0][:200]}); start all of them again, and the run goes on"
    )


def finish() -> None:
    """The end of a run that went well: all wait for the leader's last file."""
    if _State.count == 1:
        return
    from jax._src import distributed

    barrier("end")
    _State.over = True
    if _State.listener is not None:
        _State.listener.join()  # a thread in jax's client would break the end of the interpreter
    _clear_up()
    _State.client.shutdown()  # which all do together
    distributed.global_state.client = None
    if leads():
        # The service ends with this process, and jax kills those that see it go before they have
        # heard that all are done.
        time.sleep(FAREWELL_SECONDS)


def _clear_up() -> None:
    mourner, _State.mourner = _State.mourner, None
    if mourner is not None:
        mourner.communicate(b"all is said\n")
    if _State.folder is not None:
        shutil.rmtree(_State.folder, ignore_errors=True)
