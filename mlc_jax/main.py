"""The command line: `python -m mlc_jax.main --config=configs/JOB.py [--config.KEY=VALUE …]`.

Exit status 0 on success, 2 with one line on bad input, and a traceback for defects of ours only
(or with --verbosity=1).
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from mlc_jax.errors import ConfigError, MlcError
from mlc_jax.runtime import prepare
from mlc_jax.settings import cache_folder

JOBS = (
    "impute",
    "multilabel",
    "evaluate",
    "predict",
    "explain",
    "review",
    "compare",
    "export",
)

FLAGS = flags.FLAGS
CONFIG = config_flags.DEFINE_config_file(
    "config", None, f"Configuration of a job: configs/JOB.py, JOB one of {', '.join(JOBS)}."
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the run keeps its files. Default: checkpoints/JOB."
)


USAGE = """python -m mlc_jax.main --config=configs/JOB.py [--workdir=DIR] [--config.KEY=VALUE …]

JOB       one of {jobs}
--workdir where the run keeps its files; default checkpoints/JOB
--config.KEY=VALUE
          any key of the job's configuration; `--config=configs/JOB.py --help` lists them
--verbosity=1
          shows the traceback of an error, and the libraries' own messages
"""


def main(argv: Sequence[str]) -> int:
    """Runs the job that the flags describe; returns the exit status."""
    try:
        wants_help = any(word in ("-h", "--help", "-help") for word in argv[1:])
        config = _parse([word for word in argv if word not in ("-h", "--help", "-help")])
        if wants_help:
            print(USAGE.format(jobs=", ".join(JOBS)))
            print("" if config is None else f"Keys and defaults:\n{config}")
            return 0
        if config is None:
            raise ConfigError(f"which job? Give --config=configs/JOB.py, JOB of {', '.join(JOBS)}")
        prepare(cache_folder())  # before anything imports jax
        stage = importlib.import_module(f"mlc_jax.stages.{config.stage}")
        stage.run(config, Path(WORKDIR.value or f"checkpoints/{config.stage}"))
    except MlcError as error:
        if FLAGS.is_parsed() and FLAGS.verbosity > 0:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _parse(argv: Sequence[str]) -> ConfigDict | None:
    # absl would print a usage page and exit with 1; what a user mistyped deserves one line and 2.
    try:
        rest = FLAGS(list(argv))
        config = CONFIG.value
        stage = None if config is None else config.get("stage")  # raises where it failed to load
    except Exception as error:
        # A configuration file is code, and may raise anything; a key that a ConfigDict does not
        # have is an AttributeError.
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


if __name__ == "__main__":
    sys.exit(main(sys.argv))
