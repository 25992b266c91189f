"""A trained classifier as one program that needs nothing of this package: StableHLO by jax.export."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from mlc_jax.models.features import features_of
from mlc_jax.training.classifier import chosen
from mlc_jax.training.restore import TrainedRun

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def export_program(run: TrainedRun, which: str) -> export.Exported:
    """From images to probabilities and labels, weights inside, for any number of images.

    All of `scorer` is in it: preparation of the images, backbone, pooling and rounding of features,
    standardisation, head, calibration; and the thresholds. It computes in float32, where `scorer`
    calibrates in float64.

    Args:
      run: the trained run.
      which: best or last.

    Returns:
      A program of images, uint8 [b, H, W, 3] RGB at the run's image size, giving (probabilities
      float32 [b, L], given bool [b, L]); NaN and false where an image's features are not finite.

    Raises:
      ConfigError: `which` is neither best nor last.
    """
