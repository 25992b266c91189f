"""Explain: what in a picture makes a finished multilabel run give it a label.

    python -m mlc_jax.main --config=configs/explain.py \\
        --config.checkpoint=checkpoints/multilabel --config.data.images=FOLDER_OR_FILE_OR_LIST

takes the first images, explains the labels they are given by Grad-CAM, LIME and occlusion, and
judges every explanation by deletion and insertion against orders dealt at random. It writes
overlays/, explanations.csv, quarantine.csv, summary.json and report.html into `--workdir`, over
those of an earlier run.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The configuration of explanations."""
    config = ConfigDict()
    config.stage = "explain"
    config.checkpoint = "checkpoints/multilabel"  # workdir of a finished multilabel run
    config.checkpoint_kind = "best"  # best | last: the parameters of which epoch
    config.backbone = ConfigDict()
    config.backbone.weights = ""  # the weight files where they have moved; empty: as in the run
    config.seed = 0  # of LIME's samples and of the random orders
    config.data = ConfigDict()
    config.data.images = ""  # a folder, one image, or a .txt or .csv list with one path per line
    config.data.follow_links = False  # true: links in the folder may lead out of it
    config.data.root = ""  # of the paths in a list; empty: the folder that the list lies in
    config.explain = ConfigDict()
    config.explain.limit = 8  # images, the first that can be read; 0: all
    config.explain.labels = ()  # names; empty: those the image is given, at least the likeliest
    config.explain.methods = ("grad_cam", "lime", "occlusion")  # some or all of them
    config.explain.superpixels = 50  # about so many; LIME's pieces, and those of the scores
    config.explain.samples = 500  # lime: passes of the backbone per image
    config.explain.patch = 0.2  # occlusion: share of height and width; it moves by half of that
    config.explain.steps = 10  # of the deletion and insertion curves
    config.explain.random_orders = 10  # to compare with; each counts backwards too
    config.batch_size = 0  # images per call of the backbone; 0: chosen for the device
    config.parallel = "jit"  # jit | pmap
    return config
