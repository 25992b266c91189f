"""Predict: the labels of any number of images, by a finished multilabel run.

    python -m mlc_jax.main --config=configs/predict.py \\
        --config.checkpoint=checkpoints/multilabel --config.data.images=FOLDER

writes predictions.csv, quarantine.csv and summary.json into `--workdir`, over those of an earlier
prediction.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The configuration of a prediction."""
    config = ConfigDict()
    config.stage = "predict"
    config.checkpoint = "checkpoints/multilabel"  # workdir of a finished multilabel run
    config.checkpoint_kind = "best"  # best | last: the parameters of which epoch
    config.backbone = ConfigDict()
    config.backbone.weights = ""  # the weight files where they have moved; empty: as in the run
    config.data = ConfigDict()
    config.data.images = ""  # a folder, one image, or a .txt or .csv list with one path per line
    config.data.follow_links = False  # true: links in the folder may lead out of it
    config.data.root = ""  # of the paths in a list; empty: the folder that the list lies in
    config.annotate = False  # true: pictures with their labels written on them, under annotated/
    config.features = ConfigDict()
    config.features.file = ""  # of a run on own features: theirs of these images
    config.batch_size = 0  # images per call of the backbone; 0: chosen for the device
    config.parallel = "jit"  # jit | pmap
    return config
