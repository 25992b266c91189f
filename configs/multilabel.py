"""Stage 2: train the multi-label classifier and measure it on images it never saw.

    python -m mlc_jax.main --config=configs/multilabel.py

takes what the last impute run completed (`config.source`), with its backbone and image size; with
`--config.data.demo=true` the embedded demo. Any labels file, blanks included:

    python -m mlc_jax.main --config=configs/multilabel.py --workdir=checkpoints/mine \\
        --config.data.labels=labels.csv --config.data.images=images

Every key can be set on the command line as `--config.KEY=VALUE`; `mlc_jax/settings.py` lists them.
"""

from ml_collections import ConfigDict, config_dict

from mlc_jax.settings import training_config


def get_config() -> ConfigDict:
    """The configuration of a multilabel run."""
    config = training_config("multilabel")
    config.source = "checkpoints/impute"  # the impute run whose table is taken
    config.backbone.name = config_dict.placeholder(str)  # of the source, else vgg19
    config.backbone.weights = config_dict.placeholder(str)  # of the source, else imagenet
    config.backbone.layer = config_dict.placeholder(str)  # of the source, else the last map
    config.head.name = config_dict.placeholder(str)  # of the source, else conv
    # Measured on photographs of scenes: copies of rare rows raise no figure and blunt the rest.
    config.oversample = "none"  # label | labelset | none
    config.test_fraction = 0.2  # of the images; held out before anything else
    # Of a filled cell in the loss, times its probability of being right. The models that filled it
    # had seen labels of test images, so above 0 the test figures may flatter a little.
    config.loss.imputed_weight = 0.0
    config.threshold = ConfigDict()
    config.threshold.rule = "f1"  # fixed matched f1 g_mean youden recall cost
    config.threshold.min_recall = 0.9  # recall: at least this, at the highest specificity
    config.threshold.cost_ratio = 1.0  # cost: of a false positive, in false negatives
    return config
