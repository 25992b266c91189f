"""Labels that no fold can judge, where all positives, or all negatives, lie in one group of images.

Any head that is judged there would be fitted on one class. One head on all known cells still tells
the blanks apart better than nothing does, so they get its probability; how good it is, is unknown.
"""

import numpy as np
from ml_collections import ConfigDict

from mlc_jax.assess.calibration import sigmoid
from mlc_jax.training.features import Features
from mlc_jax.training.linear_heads import TOLERANCE
from mlc_jax.training.linear_solver import LinearSolver, Targets
from mlc_jax.training.parallel import Devices


def unjudged_labels(values: np.ndarray, unfit: dict[int, str]) -> list[int]:
    """The columns among `unfit` that have a known cell of both classes.

    Args:
      values: int8 [N, L], observed cells; -1 elsewhere.
      unfit: column to the reason why it cannot be judged.
    """
    return [column for column in unfit if {0, 1} <= set(values[:, column].tolist())]


def unjudged_probabilities(
    config: ConfigDict,
    values: np.ndarray,
    strengths: np.ndarray,
    features: Features,
    devices: Devices,
) -> np.ndarray:
    """Probabilities float64 [N, L] by one head per label, fitted on all its known cells.

    Args:
      config: the run's configuration.
      values: int8 [N, L], observed cells of the labels, both classes of each; -1 elsewhere.
      strengths: float64, those that other labels chose. With nothing to choose one by, the heads
        have their median.
      features: of all images.
      devices: what computes.
    """
    count, labels = values.shape
    limit = round(config.features.memory * devices.memory())
    pooled = features.moments[0]
    solver = LinearSolver(pooled, devices, limit, 1, labels, features.filenames)
    known = (values >= 0).astype(np.float64)
    targets = Targets(np.maximum(values, 0.0)[None], known[None], np.zeros((1, count, 0)))
    problems = solver.place(targets, np.ones((1, count), np.bool_))
    strength = np.full((1, labels), float(np.median(strengths)))
    _, logits, _ = solver.fit(problems, strength, None, TOLERANCE)
    return sigmoid(logits[:, 0].astype(np.float64))
