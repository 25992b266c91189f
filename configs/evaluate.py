"""Evaluate: measure a finished run again, from its Orbax checkpoint.

    python -m mlc_jax.main --config=configs/evaluate.py --config.checkpoint=checkpoints/multilabel

scores the test split that the run held out. On other data

    python -m mlc_jax.main --config=configs/evaluate.py \\
        --config.checkpoint=checkpoints/multilabel \\
        --config.data.labels=labels.csv --config.data.images=images

every row is scored, but for images that the run was trained on, which are named. Of an impute run
the heads are restored and asked again about the folds they never saw.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The configuration of an evaluation."""
    config = ConfigDict()
    config.stage = "evaluate"
    config.checkpoint = "checkpoints/multilabel"  # workdir of a finished run
    config.checkpoint_kind = "best"  # best | last: the parameters of which epoch (multilabel)
    config.backbone = ConfigDict()
    config.backbone.weights = ""  # the weight files where they have moved; empty: as in the run
    config.data = ConfigDict()
    config.data.labels = ""  # labels file; empty for the data of the run
    config.data.images = ""  # image folder
    config.data.follow_links = False  # true: links in that folder may lead out of it
    # Of other data, a column of the labels file or a file of file names and values: images that go
    config.data.groups = ""  # together; those of a group that was learned from are left out
    config.features = ConfigDict()
    config.features.file = ""  # of a run on own features: theirs of these images
    config.batch_size = 0  # images per call of the backbone; 0: chosen for the device
    config.parallel = "jit"  # jit | pmap; an impute run keeps its own
    return config
