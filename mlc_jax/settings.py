"""The configuration: every key with its meaning, and the defaults that depend on other keys.

`configs/JOB.py` starts from `training_config` and adds what its job needs. A key whose default
depends on the data or the head is a placeholder there; `resolve` fills it in and says so.
"""

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, config_dict

from mlc_jax.errors import ConfigError
from mlc_jax.label_settings import ReadOptions, label_config
from mlc_jax.loss_settings import check_loss_config, loss_config

# The names that keys may have. The modules that know them come above this one; a test compares.
CHOICES = {
    "backbone.trainable": ("none", "last_block", "all"),
    "features.dtype": ("float16", "bfloat16", "float32"),
    "features.compute": ("auto", "float32", "bfloat16"),
    "oversample": ("label", "labelset", "none"),
    "head.name": ("conv", "linear"),
    "optimizer.name": ("adam", "adamw", "adadelta", "adagrad", "rmsprop", "sgd", "lion"),
    "schedule.name": (
        "constant",
        "cosine",
        "exponential",
        "piecewise",
        "one_cycle",
        "plateau",
        "notebook",
    ),
    "parallel": ("jit", "pmap"),
}
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HOME = re.compile(r"~[^/]*(/|$)")
ROWS = ("default", "full", "training", "filling", "backbones")
DEMO = "DEMO: drawn pictures, not photographs"  # begins what every job says on the demo
METHODS = ("crossfit", "notebook")
ERROR_SCOPES = ("pooled", "label")
UNLEARNABLE = ("majority", "matched", "blank")
THRESHOLDS = ("fixed", "matched", "f1", "g_mean", "youden", "recall", "cost")


def training_config(stage: str) -> ConfigDict:
    """The keys that both training stages share, with their defaults."""
    config = ConfigDict()
    config.stage = stage
    config.seed = 0  # of folds, views, batches and heads; the same seed gives the same run
    config.accept_changes = False  # true: a workdir of other inputs is begun anew, and it is said
    config.dry_run = False  # set by --dry_run

    config.data = label_config()
    # Whether these are drawn data; found out. true: the embedded demo (impute: also without data).
    config.data.demo = config_dict.placeholder(bool)
    config.data.follow_links = False  # true: links in the image folder may lead out of it
    config.data.image_size = config_dict.placeholder(tuple)  # (height, width)
    config.data.max_bad_fraction = 0.01  # rows and images that may be left out
    # A column of the labels file, or a file of two columns, file name and value:
    config.data.groups = ""  # images that lie on one side of every split: patient, scene, product
    config.data.split = ""  # train, val and test, or numbers of folds: used as given

    config.backbone = ConfigDict()
    # A name of `models/backbones.py`, or several joined by commas: their features side by side.
    config.backbone.name = "vgg19"
    # imagenet (the published ones) | a file | random; of several likewise
    config.backbone.weights = "imagenet"
    config.backbone.layer = ""  # whose output the features are; empty: the last map
    config.backbone.fold_batch_norm = True  # into the convolutions before them; not while trained
    config.backbone.trainable = "none"  # none | last_block | all: what of it is fine-tuned
    config.backbone.learning_rate = 1e-5  # of what is fine-tuned

    config.features = ConfigDict()
    config.features.views = config_dict.placeholder(int)  # augmented views beside the image itself
    # Each image's features are averaged with those of its mirror image; linear heads only.
    config.features.mirror = config_dict.placeholder(bool)
    # Sizes, as multiples of data.image_size, whose features stand side by side; linear heads only.
    config.features.scales = (1.0,)
    # Own features instead of images: .npy with names in .txt, .npz, .parquet or .safetensors
    config.features.file = ""
    config.features.cache = True  # false: run the backbone inside every step, as fine-tuning does
    # float16 | bfloat16 | float32, in the cache; float32 where gradients pass through them
    config.features.dtype = config_dict.placeholder(str)
    # auto | float32 | bfloat16: how a frozen backbone is computed; auto: bfloat16 but on a CPU
    config.features.compute = "auto"
    config.features.batch_size = 0  # passes per call of the backbone; 0: chosen for the device
    config.features.memory = 0.25  # share of all memory that features may take; more: from disk
    config.features.measure = True  # on a CPU: choose the fastest convolutions by measuring, once

    config.augment = ConfigDict()
    config.augment.rotation = 5.0  # degrees
    config.augment.shear = 0.2  # degrees
    config.augment.zoom = 0.2  # height and width are each scaled by 1 - zoom to 1 + zoom
    config.augment.shift = 0.1  # share of height and of width
    config.augment.horizontal_flip = True  # of half of the views
    config.augment.vertical_flip = False  # of half of the views
    config.augment.brightness = (0.8, 1.0)  # range of the factor on the grey values

    config.oversample = config_dict.placeholder(str)  # label | labelset (multilabel only) | none
    config.oversample_ratio = 0.5  # share of the minority class after oversampling

    config.head = ConfigDict()
    config.head.name = "conv"  # conv | linear
    # linear: of the Gaussian prior on its weights, 1/C of scikit-learn; 0: chosen by inner
    # cross-validation, for each label and fold
    config.head.strength = 0.0

    config.loss = loss_config()

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"  # adam adamw adadelta adagrad rmsprop sgd lion
    config.optimizer.learning_rate = config_dict.placeholder(float)  # of the heads
    config.optimizer.l2 = config_dict.placeholder(float)  # ||kernels||² · l2/2 + sum of losses

    config.schedule = ConfigDict()
    # constant cosine exponential piecewise one_cycle plateau notebook (the original's plateau rule)
    config.schedule.name = config_dict.placeholder(str)
    config.schedule.factor = 0.7  # plateau, notebook, piecewise: multiplies the rate
    config.schedule.rtol = 0.004  # plateau, notebook: a smaller gain of the loss is none
    config.schedule.warmup = 0.1  # cosine, one_cycle: share of all steps
    config.schedule.rate = 0.95  # exponential: factor per epoch
    config.schedule.boundaries = (0.5, 0.75)  # piecewise: shares of all steps

    config.epochs = config_dict.placeholder(int)  # at most; see patience
    config.patience = config_dict.placeholder(int)  # epochs without a better AUC until a head stops
    config.batch_size = 32  # rows per head and step
    config.folds = 5  # fit on some, stop on one, predict another
    # Images whose standardised features have this cosine are near copies and share a fold.
    config.near_copies = 0.9  # Above 1: byte-identical images alone.
    config.save_every = 5  # epochs between checkpoints
    config.parallel = "jit"  # jit | pmap
    return config


def is_demo(config: ConfigDict) -> bool:
    """Whether the run draws its own data."""
    return bool(config.data.demo) or not (config.data.labels or config.data.images)


EXACT_LOSSES = ("bce", "weighted_bce", "partial_bce")
"""Losses that are convex in the logit: a linear head has one minimum, which is solved for."""

TRAINED_ONLY = (
    "epochs",
    "patience",
    "optimizer.learning_rate",
    "optimizer.l2",
    "schedule.name",
)
"""Keys that mean nothing to heads that are solved exactly."""


def solves_exactly(config: ConfigDict) -> bool:
    """Whether the run's heads are solved exactly, and not trained step by step."""
    notebook = "impute" in config and config.impute.method == "notebook"
    return (
        config.head.name == "linear"
        and config.loss.name in EXACT_LOSSES
        and config.backbone.trainable == "none"
        and not notebook
    )


def prepared_size(config: ConfigDict) -> tuple[int, int]:
    """(height, width) in which images are prepared: the largest of `features.scales`."""
    return scaled_sizes(config)[0]


def scaled_sizes(config: ConfigDict) -> tuple[tuple[int, int], ...]:
    """The (height, width) of each of `features.scales`, the largest first."""
    height, width = config.data.image_size
    scales = sorted(config.features.scales, reverse=True)
    return tuple((round(height * scale), round(width * scale)) for scale in scales)


def cache_folder() -> Path:
    """Where weights, prepared data and features are kept: $MLC_JAX_CACHE or ~/.cache/mlc_jax.

    Raises:
      ConfigError: it is no path of this machine, or there is no home folder.
    """
    given = os.environ.get("MLC_JAX_CACHE") or "~/.cache/mlc_jax"
    return Path(local_path(given, "MLC_JAX_CACHE")).absolute()


def local_path(text: str, name: str) -> str:
    """A path with `~` and `~user` written out, as a shell does it for words that begin with them.

    Args:
      text: as it was given; what does not look like a path comes back as it is.
      name: of the flag, key or variable, for messages.

    Raises:
      ConfigError: it names a place in the network, or a home folder that is not known.
    """
    if _REMOTE.match(text):
        raise ConfigError(
            f"{name}={text}: files are read and written by path; mount {text.split(':')[0]}:// as "
            "a folder (gcsfuse, s3fs, rclone), or copy it, and give the path"
        )
    if not _HOME.match(text):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError as error:
        raise ConfigError(
            f"{name}={text}: no home folder is known for it; give an absolute path"
        ) from error


def with_local_paths(config: ConfigDict, prefix: str = "config") -> ConfigDict:
    """A copy of a configuration in which `local_path` went over every text.

    Raises:
      ConfigError: see `local_path`.
    """
    config = config.copy_and_resolve_references()
    for key, value in config.items():
        name = f"{prefix}.{key}"
        if isinstance(value, ConfigDict):
            config[key] = with_local_paths(value, name)
        elif isinstance(value, tuple) and len(value) == 1 and isinstance(value[0], str):
            config[key] = (local_path(value[0], name),)  # a file that stands for a list
        elif isinstance(value, str):
            # Of weights there may be several, joined by commas.
            config[key] = ",".join(local_path(part, name) for part in value.split(","))
    return config


def training_defaults(config: ConfigDict) -> dict[str, Any]:
    """The defaults of `TRAINED_ONLY`, which depend on the head and the data."""
    demo, linear = is_demo(config), config.head.name == "linear"
    return {
        "epochs": 15 if demo else 40,
        "optimizer.learning_rate": 3e-3 if linear else (3e-4 if demo else 1e-5),
        "optimizer.l2": 200.0 if linear else 0.0,
        # A cosine has to run its course: the best epoch is kept, but nothing stops early.
        "schedule.name": "cosine" if linear else "plateau",
        "patience": 40 if linear else 5,
    }


def with_training_keys(config: ConfigDict, changes: dict[str, Any]) -> ConfigDict:
    """A copy with some keys changed, whose heads can be trained step by step."""
    config = config.copy_and_resolve_references()
    _set(config, changes)
    missing = training_defaults(config)
    _set(config, {key: value for key, value in missing.items() if _at(config, key) is None})
    return config


def resolve(config: ConfigDict, note: Callable[[str], None]) -> ConfigDict:
    """Fills in the defaults that depend on other keys, and checks every value.

    Args:
      config: as the config file and the command line left it.
      note: told which defaults were chosen, and why.

    Returns:
      A copy without placeholders.

    Raises:
      ConfigError: a value that cannot be used, naming key, value and remedy.
    """
    config = config.copy_and_resolve_references()
    own = bool(config.features.file)
    if own and not config.data.labels:
        raise ConfigError("config.features.file needs config.data.labels, the labels of its rows")
    if not own and bool(config.data.labels) != bool(config.data.images):
        raise ConfigError(
            "config.data.labels and config.data.images go together: give both, or neither for the "
            "embedded demo"
        )
    config.data.demo = demo = is_demo(config)
    if own and config.head.name != "linear":
        config.head.name = "linear"
        note("head.name=linear: own features are vectors, which have no places for a conv head")
    linear = (config.head.name or "conv") == "linear"
    tuned = config.backbone.trainable != "none"
    exact = linear and solves_exactly(config)
    chosen: dict[str, Any] = {
        "backbone.name": "vgg19",
        "backbone.weights": "imagenet",
        "backbone.layer": "",
        "head.name": "conv",
        "data.image_size": (64, 64) if demo else (450, 350),
        "features.views": 0 if exact or own else (1 if demo else 8),
        "features.mirror": linear and not tuned and not own,
        "oversample": "none" if exact else "label",
        "features.dtype": "float32" if tuned or own else "float16",
    }
    if exact:
        unused = [f"config.{key}" for key in TRAINED_ONLY if _at(config, key) is not None]
        if unused:
            note(
                f"{', '.join(unused)}: without effect, since linear heads are solved exactly; "
                "config.head.strength sets the strength of their prior"
            )
        _set(config, dict.fromkeys(TRAINED_ONLY))
    else:
        chosen |= training_defaults(config)
    if config.stage in ("impute", "compare"):
        notebook = config.impute.method == "notebook"
        chosen["impute.threshold"] = "fixed" if notebook else "matched"
        chosen["impute.rounds"] = 1 if linear and not notebook else 0
    chosen = {key: value for key, value in chosen.items() if _at(config, key) is None}
    _set(config, chosen)
    said = [f"{key}={value}" for key, value in chosen.items()]
    if tuned and config.features.cache:
        config.features.cache = False
        note("features.cache=false: the features change while the backbone is fine-tuned")
    if said:
        reason = "the demo" if demo else f"own data with the {config.head.name} head"
        note(f"defaults for {reason}: {' '.join(said)}")
    _check(config)
    check_loss_config(config.loss)
    ReadOptions.of(config.data)
    return config


def _check(config: ConfigDict) -> None:
    size, brightness = config.data.image_size, config.augment.brightness
    # In the order of `training_config`; what is expected, and whether it is there.
    checks = {
        "seed": ("0 to 2147483647", 0 <= config.seed < 2**31),
        "backbone.learning_rate": (
            "a positive number",
            0 < config.backbone.learning_rate < math.inf,
        ),
        "data.image_size": (
            "height,width of at least 32 pixels each",
            len(size) == 2 and all(isinstance(side, int) and side >= 32 for side in size),
        ),
        "data.max_bad_fraction": ("a share, 0 to 1", 0 <= config.data.max_bad_fraction <= 1),
        "features.views": ("0 to 1000", 0 <= config.features.views <= 1000),
        "features.batch_size": (
            "a positive number, or 0 to have it chosen",
            config.features.batch_size >= 0,
        ),
        "features.memory": ("a share, 0 to 1", 0 <= config.features.memory <= 1),
        "augment.rotation": ("degrees, 0 to 180", 0 <= config.augment.rotation <= 180),
        "augment.shear": ("degrees, 0 and more, below 90", 0 <= config.augment.shear < 90),
        "augment.zoom": ("0 and more, below 1", 0 <= config.augment.zoom < 1),
        "augment.shift": ("0 and more, below 1", 0 <= config.augment.shift < 1),
        "augment.brightness": (
            "low,high with 0 <= low <= high",
            len(brightness) == 2
            and all(isinstance(factor, int | float) for factor in brightness)
            and 0 <= brightness[0] <= brightness[1] < math.inf,
        ),
        "oversample_ratio": (
            "a share above 0 and at most 0.5",
            0 < config.oversample_ratio <= 0.5,
        ),
        "optimizer.learning_rate": (
            "a positive number",
            0 < (config.optimizer.learning_rate or 0) < math.inf,
        ),
        "optimizer.l2": ("0 or more", 0 <= (config.optimizer.l2 or 0) < math.inf),
        "schedule.factor": ("between 0 and 1", 0 < config.schedule.factor < 1),
        "schedule.rtol": ("0 and more, below 1", 0 <= config.schedule.rtol < 1),
        "schedule.warmup": ("a share, 0 and more, below 1", 0 <= config.schedule.warmup < 1),
        "schedule.rate": ("above 0 and at most 1", 0 < config.schedule.rate <= 1),
        "schedule.boundaries": (
            "shares between 0 and 1",
            all(isinstance(b, int | float) and 0 < b < 1 for b in config.schedule.boundaries),
        ),
        "epochs": ("1 or more", (config.epochs or 0) >= 1),
        "patience": ("1 or more", (config.patience or 0) >= 1),
        "batch_size": ("1 or more", config.batch_size >= 1),
        "near_copies": ("above 0.5", config.near_copies > 0.5),
        "folds": (
            "at least 3: fit on some, stop on one, predict another",
            config.folds >= 3,
        ),
        "save_every": ("1 or more", config.save_every >= 1),
    }
    if solves_exactly(config):
        checks = {key: check for key, check in checks.items() if key not in TRAINED_ONLY}
        checks["head.strength"] = (
            "a positive number, or 0 to have it chosen",
            0 <= config.head.strength < math.inf,
        )
    scales = config.features.scales
    pooled = config.head.name == "linear" and config.backbone.trainable == "none"
    checks["features.scales"] = (
        "positive numbers, of which several need head.name=linear with a frozen backbone",
        bool(scales)
        and all(isinstance(scale, int | float) and 0 < scale <= 8 for scale in scales)
        and (len(scales) == 1 or pooled),
    )
    if config.features.mirror:
        checks["features.mirror"] = (
            "false but for the pooled features of head.name=linear with a frozen backbone",
            pooled,
        )
    # A name that is no choice is refused now, not when it is looked up after hours of extraction.
    for key, names in CHOICES.items():
        if key in TRAINED_ONLY and solves_exactly(config):
            continue
        checks[key] = (f"one of {', '.join(names)}", _at(config, key) in names)
    if config.stage == "multilabel":
        threshold, loss = config.threshold, config.loss
        checks |= {
            "test_fraction": ("a share from 0.05 to 0.5", 0.05 <= config.test_fraction <= 0.5),
            "loss.imputed_weight": ("0 to 1", 0 <= loss.imputed_weight <= 1),
            "threshold.rule": (f"one of {', '.join(THRESHOLDS)}", threshold.rule in THRESHOLDS),
            "threshold.min_recall": ("a share, 0 to 1", 0 <= threshold.min_recall <= 1),
            "threshold.cost_ratio": ("above 0", 0 < threshold.cost_ratio < math.inf),
        }
    if config.stage == "compare":
        hidden = config.compare.hidden
        checks |= {
            "compare.rows": (f"one of {', '.join(ROWS)}", config.compare.rows in ROWS),
            "compare.hidden": (
                "shares between 0 and 1",
                bool(hidden) and all(isinstance(s, float) and 0 < s < 1 for s in hidden),
            ),
        }
    if config.stage in ("impute", "compare"):
        checks["oversample"] = ("label or none", config.oversample in ("label", "none"))
        threshold = config.impute.threshold
        checks |= {
            "impute.method": (f"one of {', '.join(METHODS)}", config.impute.method in METHODS),
            "impute.threshold": (
                f"a number from 0 to 1, or one of {', '.join(THRESHOLDS)}",
                threshold in THRESHOLDS or _is_share(threshold),
            ),
            "impute.max_error": ("a share above 0 and at most 1", 0 < config.impute.max_error <= 1),
            "impute.max_error_of": (
                f"one of {', '.join(ERROR_SCOPES)}",
                config.impute.max_error_of in ERROR_SCOPES,
            ),
            "impute.unlearnable": (
                f"one of {', '.join(UNLEARNABLE)}",
                config.impute.unlearnable in UNLEARNABLE,
            ),
            "impute.rounds": ("0 to 20", 0 <= config.impute.rounds <= 20),
            "impute.deals": ("1 to 50", 1 <= config.impute.deals <= 50),
        }
    if config.backbone.trainable != "none":
        checks["features.dtype"] = (
            "float32 while the backbone is fine-tuned",
            config.features.dtype == "float32",
        )
        checks["features.compute"] = (
            "auto or float32 while the backbone is fine-tuned",
            config.features.compute != "bfloat16",
        )
    if config.backbone.trainable == "last_block":
        checks["backbone.layer"] = (
            "none while the last block is fine-tuned, since what is after the layer is not used",
            not config.backbone.layer,
        )
    if config.features.file:
        checks["backbone.trainable"] = (
            "none with config.features.file, which comes from no network",
            config.backbone.trainable == "none",
        )
        checks["features.cache"] = (
            "true with config.features.file, which is read as it is",
            bool(config.features.cache),
        )
        checks["dry_run"] = (
            "no --dry_run with config.features.file: nothing is extracted",
            not config.dry_run,
        )
    for key, (expected, good) in checks.items():
        if not good:
            raise ConfigError(
                f"config.{key}={_at(config, key)!r} cannot be used; expected {expected}"
            )


def _at(config: ConfigDict, key: str) -> Any:
    group, _, name = key.rpartition(".")
    return (config[group] if group else config)[name]


def _set(config: ConfigDict, values: dict[str, Any]) -> None:
    for key, value in values.items():
        group, _, name = key.rpartition(".")
        (config[group] if group else config)[name] = value


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False
