"""The command line: `python -m mlc_jax.main --config=configs/JOB.py [--config.KEY=VALUE …]`.

Exit status 0 on success, 2 with one line on bad input, 143 after SIGTERM and 130 after SIGINT, when
what was done is saved and the same command goes on. A traceback is for defects of ours only (or
with --verbosity=1), and exits with 1.
"""

import contextlib
import csv
import difflib
import errno
import importlib
import os
import runpy
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from mlc_jax import processes
from mlc_jax.errors import ConfigError, MlcError
from mlc_jax.interrupt import Interrupted, handled
from mlc_jax.runtime import check_devices, flush_streams, open_streams, prepare, say
from mlc_jax.settings import cache_folder, local_path, with_local_paths

JOBS = (
    "impute",
    "multilabel",
    "evaluate",
    "predict",
    "explain",
    "review",
    "compare",
    "export",
    "convert",
)
DRY_RUN_JOBS = ("impute", "multilabel")
DISTRIBUTED_JOBS = ("impute", "multilabel")

_MEANINGS = ("data.true_values", "data.false_values", "data.missing_values")

FLAGS = flags.FLAGS
CONFIG = config_flags.DEFINE_config_file(
    "config", None, f"Configuration of a job: configs/JOB.py, JOB one of {', '.join(JOBS)}."
)
WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Where the job keeps its files. Default: checkpoints/JOB; of a job that reads a run, RUN/JOB.",
)
DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Scan the data, try each phase once, and estimate time, disk and memory."
)
DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "This is one of several processes that make one run; see --help."
)


USAGE = """python -m mlc_jax.main --config=configs/JOB.py [--workdir=DIR] [--config.KEY=VALUE …]

JOB       one of {jobs}
--workdir where the job keeps its files; default checkpoints/JOB, and of a job that reads a finished
          run (config.checkpoint) the folder JOB in that run's
--config.KEY=VALUE
          any key of the job's configuration; `--config=configs/JOB.py --help` lists them
--dry_run scans the data, tries one step of each phase, a save and a restore, and estimates time,
          disk and memory ({dry_run_jobs})
--distributed
          one of several processes that were started with this command and make one run, by
          JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or as Slurm, Open MPI or a
          TPU pod say ({distributed_jobs})
--verbosity=1
          shows the traceback of an error, and the libraries' own messages

Exit status: 0 done, 2 bad input (one line says what to do), 143 stopped by SIGTERM, 130 by SIGINT
(Ctrl-C; once more stops at once). The same command goes on.
"""

# What the machine refuses, whichever file it is about: remedies for people.
_REFUSALS = {
    errno.ENOSPC: "free space, or choose a --workdir or MLC_JAX_CACHE with more",
    errno.EDQUOT: "free space, or choose a --workdir or MLC_JAX_CACHE with more",
    errno.EFBIG: "raise the limit on the size of files, or choose another --workdir",
    errno.EROFS: "choose a --workdir or MLC_JAX_CACHE that can be written",
    errno.EACCES: "choose a --workdir or MLC_JAX_CACHE that can be written, or change its owner",
    errno.EPERM: "choose a --workdir or MLC_JAX_CACHE that can be written, or change its owner",
    errno.EIO: "the disk is failing; choose another",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENAMETOOLONG: "choose a shorter --workdir",
}


def main(argv: Sequence[str]) -> int:
    """Runs the job that the flags describe; returns the exit status."""
    open_streams()
    try:
        with handled():
            _run(argv)
            processes.finish()
    except Interrupted as stop:
        say(f"{stop}: the same command goes on from what is saved")
        processes.fail(str(stop), stop.status, stop.status - 128)
        return stop.status
    except Exception as error:
        line = _told(error)
        if line is None or (FLAGS.is_parsed() and FLAGS.verbosity > 0):
            processes.fail(f"{type(error).__name__}: {error}", 1)
            if processes.count() == 1:
                raise
            traceback.print_exc()  # raised, jax would wait for the others at the exit
            return 1
        say(f"error: {line}")
        processes.fail(line, 2)
        return 2
    return 0


def _told(error: Exception) -> str | None:
    """The line that says what a user can do about an error; None for a defect of ours."""
    if isinstance(error, OSError) and error.errno not in {None, *_REFUSALS}:
        return None
    if isinstance(error, MlcError | OSError):
        return _one_line(error)
    return processes.of_a_peer(error)


def _run(argv: Sequence[str]) -> None:
    wants_help = any(word in ("-h", "--help", "-help") for word in argv[1:])
    config = _parse([word for word in argv if word not in ("-h", "--help", "-help")])
    if wants_help:
        usage = USAGE.format(
            jobs=", ".join(JOBS),
            dry_run_jobs=" and ".join(DRY_RUN_JOBS),
            distributed_jobs=" and ".join(DISTRIBUTED_JOBS),
        )
        keys = "" if config is None else f"Keys and defaults:\n{config}"
        say(f"{usage}\n{keys}", sys.stdout)
        return
    if config is None:
        raise ConfigError(f"which job? Give --config=configs/JOB.py, JOB of {', '.join(JOBS)}")
    if DRY_RUN.value:
        if config.stage not in DRY_RUN_JOBS:
            raise ConfigError(f"--dry_run is for {' and '.join(DRY_RUN_JOBS)}; leave it out")
        config.dry_run = True
    if DISTRIBUTED.value and (config.stage not in DISTRIBUTED_JOBS or DRY_RUN.value):
        raise ConfigError(
            f"--distributed is for {' and '.join(DISTRIBUTED_JOBS)}; {config.stage} "
            f"{'with --dry_run ' if DRY_RUN.value else ''}runs in one process: leave it out"
        )
    config = with_local_paths(config)
    prepare(cache_folder())  # before anything imports jax
    workdir = Path(local_path(WORKDIR.value or default_workdir(config), "--workdir"))
    if DISTRIBUTED.value:
        processes.join(cache_folder())
        workdir = processes.own_workdir(workdir)
    check_devices()
    stage = importlib.import_module(f"mlc_jax.stages.{config.stage}")
    with contextlib.suppress(processes.LeftToLeaderError):
        stage.run(config, workdir)


def default_workdir(config: ConfigDict) -> str:
    """checkpoints/JOB; of a job that reads a run, the folder JOB in that run's."""
    return f"{config.get('checkpoint', 'checkpoints')}/{config.stage}"


def _parse(argv: Sequence[str]) -> ConfigDict | None:
    # absl would print a usage page and exit with 1; what a user mistyped deserves one line and 2.
    try:
        rest = FLAGS(_with_lists(argv))
        config = CONFIG.value
        stage = None if config is None else config.get("stage")  # raises where it failed to load
    except Exception as error:
        # A configuration file is code, and may raise anything; a key that a ConfigDict does not
        # have is an AttributeError.
        if unknown := _unknown_key(argv):
            raise ConfigError(unknown) from error
        name = "" if isinstance(error, flags.Error) else f"{type(error).__name__}: "
        raise ConfigError(
            f"command line: {name}{error}; add --help for the flags and keys there are"
        ) from error
    if len(rest) > 1:
        raise ConfigError(f"command line: {rest[1]!r} is not a flag; write --config.KEY=VALUE")
    if config is not None and stage not in JOBS:
        raise ConfigError(f"config.stage={stage!r}: choose one of {', '.join(JOBS)}")
    if FLAGS.verbosity <= 0:
        logging.set_verbosity(logging.ERROR)
    return config


def _with_lists(argv: Sequence[str]) -> list[str]:
    """The command line with --config.KEY=a,b as a tuple of texts where the key holds texts.

    ml_collections would take `a,b` for one text, and `1.00` for a number. A text that holds a comma
    stands in double quotes. What is written as a tuple is left as it is.
    """
    words = list(argv)
    files = [word.partition("=")[2] for word in words if word.lstrip("-").startswith("config=")]
    try:
        config = runpy.run_path(files[-1])["get_config"]()
    except Exception:
        return words  # no file, or the file is what is wrong: absl says so
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if not equals and place + 1 < len(words) and not words[place + 1].startswith("-"):
            value = words[place + 1]
        key = name.lstrip("-").removeprefix("config.")
        if not name.lstrip("-").startswith("config.") or key not in _keys("", config):
            continue
        default = config
        for part in key.split("."):
            default = default[part]
        of_texts = isinstance(default, tuple) and all(isinstance(text, str) for text in default)
        if not of_texts or value[:1] in ("(", "["):
            continue
        texts = tuple(next(csv.reader([value], skipinitialspace=True), ()))
        if not texts and key in _MEANINGS:
            texts = ("",)  # the empty cell has this meaning
        if equals:
            words[place] = f"{name}={texts!r}"
        elif value:
            words[place + 1] = repr(texts)
    return words


def _unknown_key(argv: Sequence[str]) -> str | None:
    """What is wrong with the first --config.KEY that is no key of the configuration file."""
    words = [word.lstrip("-").partition("=") for word in argv[1:] if word.startswith("-")]
    files = [value for name, _, value in words if name == "config"]
    try:
        keys = _keys("", runpy.run_path(files[-1])["get_config"]())
    except Exception:
        return None  # no file, or the file is what is wrong
    for name, _, _ in words:
        key = name.removeprefix("config.")
        # What has brackets is an element of a key, and not looked at here.
        if name.startswith("config.") and "[" not in key and key not in keys:
            return f"--config.{key}: there is no such key; {nearest(key, keys)}"
        inside = [other for other in keys if other.startswith(f"{key}.")]
        if name.startswith("config.") and inside:
            return f"--config.{key} is a group; give one of its keys: {', '.join(inside)}"
    return None


def nearest(key: str, keys: Sequence[str]) -> str:
    """A suggestion of a key: by its whole name, else by its last part, else the way to the list."""
    likely = difflib.get_close_matches(key, keys, 1)
    if not likely:
        ends = {other.rpartition(".")[2]: other for other in keys}
        likely = [ends[end] for end in difflib.get_close_matches(key.rpartition(".")[2], ends, 1)]
    if likely:
        return f"did you mean --config.{likely[0]}?"
    return "add --help for the keys there are"


def _keys(prefix: str, config: ConfigDict) -> list[str]:
    keys: list[str] = []
    for name, value in config.items(preserve_field_references=True):
        keys.append(f"{prefix}{name}")
        if isinstance(value, ConfigDict):
            keys += _keys(f"{prefix}{name}.", value)
    return keys


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        named = "" if error.filename is None else f"{error.filename}: "
        return f"{named}{os.strerror(error.errno)}; {_REFUSALS[error.errno]}"
    text = " ".join(str(error).split())
    # Libraries that check for room themselves, or found less written than they gave.
    return f"{text}; {_REFUSALS[errno.ENOSPC]}" if isinstance(error, OSError) else text


if __name__ == "__main__":
    status = main(sys.argv)
    flush_streams()
    if status:
        # Not `sys.exit`, which waits for threads: one of them may be what is stuck.
        os._exit(status)
