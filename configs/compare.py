"""Compare: ways to learn from a table with blanks, side by side on the same folds and features.

    python -m mlc_jax.main --config=configs/compare.py --config.head.name=linear \\
        --config.data.labels=labels.csv --config.data.images=images

prints one table, best first, with paired intervals. `--config.compare.rows=full` adds conv heads
and the original's network, `training` compares optimizers, schedules and thresholds, `filling` asks
whether stage 2 gains from filled cells, `backbones` ranks the named backbone and those whose
ImageNet weights are in the cache, with seconds and megabytes beside the score.
`--config.audit=true` hides known cells instead, completes the table, and says how many came back
right.
"""

from ml_collections import ConfigDict, config_dict

from mlc_jax.settings import training_config


def get_config() -> ConfigDict:
    """The configuration of a comparison."""
    config = training_config("compare")
    config.head.name = "linear"
    config.impute = ConfigDict()
    config.impute.method = "crossfit"
    config.impute.threshold = config_dict.placeholder(str)
    config.impute.max_error = 0.02  # of the accepted cells, in an audit
    config.impute.max_error_of = "pooled"  # pooled: of all labels together | label: of each
    config.impute.unlearnable = "majority"  # majority | matched | blank, see configs/impute.py
    config.impute.rounds = config_dict.placeholder(int)
    config.impute.deals = 1
    config.compare = ConfigDict()
    config.compare.rows = "default"  # default | full | training | filling | backbones
    config.compare.hidden = (0.1, 0.3, 0.5, 0.7)  # filling, audit: shares of cells that are hidden
    config.audit = False  # true: hide and recover
    return config
