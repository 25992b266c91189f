"""A trained multi-label classifier: from features to probabilities, saved by Orbax."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlc_jax.assess.calibration import apply_platt
from mlc_jax.errors import CheckpointError, ConfigError
from mlc_jax.models.heads import HeadStack
from mlc_jax.models.tuning import Params, Trained
from mlc_jax.training.checkpoint import Checkpoints
from mlc_jax.training.step import standardise

CHECKPOINTS = ("best", "last")


@dataclass(frozen=True, eq=False)
class Classifier:
    """What a classifier is made of.

    Attributes:
      best, last: parameters of the head, and of what was trained of the backbone, at the best epoch
        and after the last one.
      mean, std: float32 [C], of the features it was fitted on.
      shift: float64 [L], log odds that oversampling added to its logits.
      slope, intercept: float64 [L], Platt's map from corrected logits to probabilities.
      threshold: float64 [L]; a label is given where its probability is greater.
    """

    best: Trained
    last: Trained
    mean: np.ndarray
    std: np.ndarray
    shift: np.ndarray
    slope: np.ndarray
    intercept: np.ndarray
    threshold: np.ndarray

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float64 [N, L], of the head's raw logits [N, L]."""
        corrected = logits.astype(np.float64) - self.shift
        return apply_platt(corrected, self.slope, self.intercept)


def trained_params(classifier: Classifier, which: str) -> Trained:
    """The parameters of the best or of the last epoch.

    Raises:
      ConfigError: `which` is neither best nor last.
    """
    if which not in CHECKPOINTS:
        raise ConfigError(f"config.checkpoint_kind={which!r}: choose best or last")
    params: Trained = getattr(classifier, which)
    return params


def logits_of(
    classifier: Classifier, stack: HeadStack, which: str
) -> Callable[[jax.Array | np.ndarray], np.ndarray]:
    """Compiles the head: features [B, h, w, C] to raw logits, float32 [B, L]."""
    params = trained_params(classifier, which).head
    mean, std = jnp.asarray(classifier.mean), jnp.asarray(classifier.std)

    @jax.jit
    def run(features: jax.Array) -> jax.Array:
        return stack.apply(params, standardise(features, mean, std))

    return lambda features: np.asarray(run(jnp.asarray(features)))


DECISION = ("shift", "slope", "intercept", "threshold")


def save_classifier(workdir: Path, inputs: Any, classifier: Classifier) -> None:
    """Saves a classifier under workdir/classifier."""
    tree = {
        "best": classifier.best,
        "last": classifier.last,
        "mean": classifier.mean,
        "std": classifier.std,
    }
    # float64 numbers go into the JSON beside the arrays, since JAX would make them float32.
    decision = {name: getattr(classifier, name).tolist() for name in DECISION}
    checkpoints = Checkpoints(workdir / "classifier", inputs)
    try:
        checkpoints.save(0, tree, decision)
    finally:
        checkpoints.close()


def load_classifier(
    workdir: Path, inputs: Any, stack: HeadStack, tuned: Params, warn: Callable[[str], None]
) -> Classifier:
    """Restores the classifier of a finished multilabel run, on any number of devices.

    Args:
      workdir: of the run.
      inputs: what its run.json holds.
      stack: the architecture it was trained with.
      tuned: the part of the backbone that was trained with it, with any values.
      warn: told of damage.

    Raises:
      CheckpointError: there is none, or it is damaged.
    """
    if not (workdir / "classifier").is_dir():
        raise CheckpointError(
            f"config.checkpoint={str(workdir)!r} holds no classifier; give the workdir of a "
            "finished multilabel run"
        )
    head = jax.eval_shape(lambda: jax.tree.map(lambda leaf: leaf[0], stack.init(0, 1)))
    params = Trained(head, jax.tree.map(lambda leaf: jax.typeof(leaf), tuned))
    channels = jax.ShapeDtypeStruct((stack.feature_shape[-1],), jnp.float32)
    like = {"best": params, "last": params, "mean": channels, "std": channels}
    checkpoints = Checkpoints(workdir / "classifier", inputs)
    try:
        restored = checkpoints.restore_latest(like, warn)
    finally:
        checkpoints.close()
    if restored is None:
        raise CheckpointError(f"{workdir}/classifier is empty; run the training again")
    tree, decision, _ = restored
    arrays = jax.tree.map(np.asarray, tree)
    return Classifier(
        arrays["best"],
        arrays["last"],
        arrays["mean"],
        arrays["std"],
        **{name: np.array(decision[name], np.float64) for name in DECISION},
    )
