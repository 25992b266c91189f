"""Review: look at the cells that a model filled, and decide those that are doubtful.

    python -m mlc_jax.main --config=configs/review.py --config.checkpoint=checkpoints/impute

writes review.html into `--workdir`: open it, decide, save the decisions. Then

    python -m mlc_jax.main --config=configs/review.py --config.checkpoint=checkpoints/impute \\
        --config.review.decisions=decisions.json

writes labels.csv and cells.csv with the decisions in them, and changes.csv, into the same
`--workdir`. The impute run stays as it is. An export of Label Studio will do for a decisions file.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The configuration of a review."""
    config = ConfigDict()
    config.stage = "review"
    config.checkpoint = "checkpoints/impute"  # workdir of a finished impute run
    config.backbone = ConfigDict()
    config.backbone.weights = ""  # the weight files where they have moved; empty: as in the run
    config.review = ConfigDict()
    config.review.decisions = ""  # a saved decisions file: apply it; empty: write the page
    config.review.cells = 10_000  # the most cells on the page, most useful first
    config.review.maps = 200  # heat maps, for the cells shown first; each may cost a backbone pass
    config.review.neighbours = 4  # observed images beside each cell that look most like it
    config.review.thumbnail = 256  # pixels of the longer side; fewer where the page gets too large
    config.review.max_megabytes = 48  # of the page
    return config
