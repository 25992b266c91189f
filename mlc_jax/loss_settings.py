"""The keys of `config.loss`: their defaults, their meaning and their ranges. Imports no JAX."""

import math

from ml_collections import ConfigDict

from mlc_jax.errors import ConfigError

LOSSES = (
    "bce",
    "weighted_bce",
    "focal",
    "asymmetric",
    "partial_bce",
    "class_selective",
    "hill",
    "splc",
    "large_loss",
)

_RANGES = {
    "label_smoothing": (0.0, 1.0),
    "gamma": (0.0, 100.0),
    "alpha": (-1.0, 1.0),
    "gamma_positive": (0.0, 100.0),
    "gamma_negative": (0.0, 100.0),
    "margin": (0.0, 1.0),
    "selective_gamma_positive": (0.0, 100.0),
    "selective_gamma_negative": (0.0, 100.0),
    "selective_gamma_unknown": (0.0, 100.0),
    "selective_margin": (0.0, 1.0),
    "selective_weight": (0.0, 1000.0),
    "selective_prior": (0.0, 1.0),
    "selective_likeliest": (0.0, math.inf),
    "splc_threshold": (0.0, 1.0),
    "splc_epoch": (0, math.inf),
    "large_loss_delta": (0.0, 1.0),
}


def loss_config() -> ConfigDict:
    """The keys of `config.loss` with the published defaults; a loss reads only its own."""
    config = ConfigDict()
    # bce weighted_bce focal asymmetric partial_bce, on known cells only; hill on them or on all;
    # class_selective splc large_loss give unknown cells a meaning
    config.name = "bce"
    config.label_smoothing = 0.0  # s: every known label y becomes y (1 - s) + s / 2
    config.gamma = 2.0  # focal
    config.alpha = -1.0  # focal: weight of positives, 1 - alpha that of negatives; below 0: off
    config.gamma_positive = 1.0  # asymmetric
    config.gamma_negative = 4.0  # asymmetric
    config.margin = 0.05  # asymmetric: a negative of a lower probability costs nothing
    config.selective_gamma_positive = 0.0  # class_selective
    config.selective_gamma_negative = 1.0  # class_selective; published with 1 and with 3
    config.selective_gamma_unknown = 4.0  # class_selective
    config.selective_margin = 0.0  # class_selective: as `margin`; the published runs have none
    config.selective_weight = 1.0  # class_selective: of unknown cells taken as negatives
    config.selective_prior = 0.5  # class_selective: unknown cells of more frequent labels drop out
    # class_selective: times the rows of a batch, so many of its likeliest unknown cells drop out.
    # 5 was chosen for 80 labels: with 5 labels or fewer it drops every unknown cell.
    config.selective_likeliest = 5.0
    config.hill_unknown = "ignore"  # ignore | negative, the paper's setting
    config.splc_threshold = 0.6  # splc: an unknown cell of a higher probability is a positive ...
    config.splc_epoch = 1  # ... from this epoch on, counted from 0
    config.large_loss_delta = 0.002  # large_loss: share of the cells dropped, more in each epoch
    return config


def check_loss_config(config: ConfigDict) -> None:
    """Checks the values of `config.loss`.

    Raises:
      ConfigError: an unknown name, or a value out of its range.
    """
    if config.name not in LOSSES:
        raise ConfigError(f"config.loss.name={config.name!r}: choose one of {', '.join(LOSSES)}")
    if config.hill_unknown not in ("ignore", "negative"):
        raise ConfigError(
            f"config.loss.hill_unknown={config.hill_unknown!r}: choose ignore or negative"
        )
    for key, (low, high) in _RANGES.items():
        if not low <= config[key] <= high:
            raise ConfigError(
                f"config.loss.{key}={config[key]!r}: expected a number from {low:g} to {high:g}"
            )
