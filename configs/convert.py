"""Convert: reads a label file of any format, says what was read as what, and trains nothing.

    python -m mlc_jax.main --config=configs/convert.py --config.data.labels=FILE_OR_FOLDER \\
        [--config.data.images=FOLDER] [--config.to=coco,label_studio,fiftyone,hugging_face]

writes labels.csv (file name, then 0, 1 or nothing), columns.csv (what is no label), receipt.json,
quarantine.csv and summary.json into `--workdir`. It exports back as well: the labels.csv of an
impute run, for instance, whose blanks stay blank.
"""

from ml_collections import ConfigDict

from mlc_jax.label_settings import label_config


def get_config() -> ConfigDict:
    """The configuration of a conversion."""
    config = ConfigDict()
    config.stage = "convert"
    config.data = label_config()
    config.data.follow_links = False  # true: links in the folder may lead out of it
    config.to = ()  # further forms: coco, label_studio, fiftyone, hugging_face
    return config
