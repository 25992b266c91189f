"""A trained classifier as one program that needs nothing of this package: StableHLO."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from mlc_jax.models.features import features_of
from mlc_jax.models.tuning import tuned_backbone
from mlc_jax.models.weights import write_safetensors
from mlc_jax.training.classifier import DECISION, trained_params
from mlc_jax.training.restore import TrainedRun
from mlc_jax.training.step import standardise

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def export_program(run: TrainedRun, which: str) -> export.Exported:
    """From images to probabilities and labels, weights inside, for any number of images.

    All of `scorer` is in it: the preparation of images, the backbone, the pooling and rounding of
    features, the head, the calibration; and the thresholds after it. It calibrates in float32,
    where `scorer` does in float64.

    Args:
      run: the trained run.
      which: best or last.

    Returns:
      A program of images, uint8 [b, H, W, 3] in RGB at the run's image size, giving (probabilities
      float32 [b, L], given bool [b, L]); NaN and false where an image's features are not finite.

    Raises:
      ConfigError: `which` is neither best nor last.
    """
    classifier, params = run.classifier, trained_params(run.classifier, which)
    backbone = tuned_backbone(run.backbone, params)
    # Folded in float64, so that float32 is met once: slope · (logit − shift) + intercept.
    slope = np.float32(classifier.slope)
    intercept = np.float32(classifier.intercept - classifier.slope * classifier.shift)
    threshold = np.float32(classifier.threshold)

    def program(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        features = features_of(backbone, run.spec, backbone.params, images)
        read = standardise(features, jnp.asarray(classifier.mean), jnp.asarray(classifier.std))
        logits = run.stack.apply(params.head, read)
        finite = jnp.isfinite(logits).all(axis=1, keepdims=True)
        probabilities = jax.nn.sigmoid(slope * jnp.where(finite, logits, jnp.nan) + intercept)
        return probabilities, probabilities > threshold

    (batch,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *run.spec.image_size, 3), jnp.uint8)
    return export.export(jax.jit(program), platforms=PLATFORMS)(images)


def write_head(path: Path, run: TrainedRun, which: str) -> None:
    """Writes what stands above the backbone, as safetensors, atomically.

    The head's own parameters by their names ("dense/kernel"), `mean` and `std` of the features it
    was fitted on, and float64 `shift`, `slope`, `intercept` and `threshold` of `Classifier`.

    Args:
      path: of the file.
      run: the trained run.
      which: best or last.
    """
    classifier = run.classifier
    leaves, _ = jax.tree.flatten_with_path(trained_params(classifier, which).head)
    arrays = {
        jax.tree_util.keystr(key, simple=True, separator="/"): np.asarray(value)
        for key, value in leaves
    }
    arrays |= {name: getattr(classifier, name) for name in ("mean", "std", *DECISION)}
    write_safetensors(path, arrays, {"head": run.config.head.name})
