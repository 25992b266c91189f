"""Stage 1: fill the blanks of a labels file.

    python -m mlc_jax.main --config=configs/impute.py

runs the embedded demo. Own data:

    python -m mlc_jax.main --config=configs/impute.py --workdir=checkpoints/mine \\
        --config.data.labels=labels.csv --config.data.images=images

Every key can be set on the command line as `--config.KEY=VALUE`; `mlc_jax/settings.py` lists them.
"""

from ml_collections import ConfigDict

from mlc_jax.settings import training_config


def get_config() -> ConfigDict:
    """The configuration of an impute run."""
    config = training_config("impute")
    config.impute = ConfigDict()
    # matched: as many cells come out positive as the calibrated probabilities imply; or a number.
    config.impute.threshold = "matched"
    return config
