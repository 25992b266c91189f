"""Export: a finished multilabel run as a folder that can be handed on, and run without mlc_jax.

    python -m mlc_jax.main --config=configs/export.py \\
        --config.checkpoint=checkpoints/multilabel --workdir=exported

writes weights (safetensors), configuration, label names, thresholds, a model card (README.md), a
program that needs only jax (StableHLO by jax.export, for any number of images) and the digests of
all of these, over those of an earlier export.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The configuration of an export."""
    config = ConfigDict()
    config.stage = "export"
    config.checkpoint = "checkpoints/multilabel"  # workdir of a finished multilabel run
    config.checkpoint_kind = "best"  # best | last: the parameters of which epoch
    config.backbone = ConfigDict()
    config.backbone.weights = ""  # the weight files where they have moved; empty: as in the run
    return config
