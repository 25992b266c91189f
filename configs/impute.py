"""Stage 1: fill the blanks of a labels file.

    python -m mlc_jax.main --config=configs/impute.py

runs the embedded demo. Own data:

    python -m mlc_jax.main --config=configs/impute.py --workdir=checkpoints/mine \\
        --config.data.labels=labels.csv --config.data.images=images

Every key can be set on the command line as `--config.KEY=VALUE`; `mlc_jax/settings.py` lists them.
"""

from ml_collections import ConfigDict, config_dict

from mlc_jax.settings import training_config


def get_config() -> ConfigDict:
    """The configuration of an impute run."""
    config = training_config("impute")
    config.impute = ConfigDict()
    # crossfit | notebook: the original recipe's decisions, uncalibrated, cut at 0.5; split repaired
    config.impute.method = "crossfit"
    # matched: as many cells come out positive as the calibrated probabilities imply; or a number,
    # or fixed f1 g_mean youden recall cost.
    config.impute.threshold = config_dict.placeholder(str)
    # Of the accepted blanks; what cannot keep this stays blank. 1 fills all.
    config.impute.max_error = 1.0
    config.impute.max_error_of = "pooled"  # pooled: of all labels together | label: of each
    # What a label that cannot be learned is filled with, never accepted unless max_error covers it.
    # majority: its commoner value | matched: what the threshold makes of it | blank: nothing.
    config.impute.unlearnable = "majority"
    # Of self-training, each kept for a label only if it helps out of fold.
    config.impute.rounds = config_dict.placeholder(int)
    config.impute.deals = 1  # times the images are dealt into folds; more make an ensemble
    return config
