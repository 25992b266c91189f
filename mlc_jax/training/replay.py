"""The original recipe's leak, replayed: oversample first, split afterwards.

Every combination of labels is copied to the size of the commonest, and the copies are split 80 to
20. So nearly every validation row is an image that was trained on, and its figures say how well the
network remembers, not what it has learned. Nothing else in this project may do this.
"""

from dataclasses import dataclass

import numpy as np
from ml_collections import ConfigDict

from mlc_jax.data.sampling import PlanSource, as_they_are, balanced_labelsets, plan_of_rows
from mlc_jax.models.heads import HeadStack
from mlc_jax.settings import with_training_keys
from mlc_jax.training.crossfit import by_head, cells_of, human_lesson
from mlc_jax.training.features import Features
from mlc_jax.training.loop import Course, fit
from mlc_jax.training.optimizers import make_optimizer
from mlc_jax.training.parallel import Devices
from mlc_jax.training.standards import freeze
from mlc_jax.training.step import Recipe


@dataclass(frozen=True)
class LeakyFit:
    """What the replay saw.

    Attributes:
      rows: int64 [V], the validation rows after oversampling; one image may be there many times.
      logits: float64 [V, L], what the network says about them.
      seen: share of them whose image was trained on.
      oversampled: rows after oversampling.
    """

    rows: np.ndarray
    logits: np.ndarray
    seen: float
    oversampled: int


def leaky_fit(
    config: ConfigDict,
    values: np.ndarray,
    features: Features,
    feature_shape: tuple[int, int, int],
    devices: Devices,
) -> LeakyFit:
    """Fits one head of all labels as the original did, leak included.

    Args:
      config: the run's configuration; the penalty is left out, as there.
      values: int8 [N, L], cells that people gave; -1 elsewhere, which teach nothing. The original
        had them filled.
      features, feature_shape, devices: see `cross_fit`.
    """
    rng = np.random.default_rng([config.seed, 0x1EAC])
    everyone = np.arange(len(values))
    copies = rng.permutation(balanced_labelsets(everyone, values).one_pass(rng))
    cut = len(copies) // 5
    validation, train = copies[:cut], copies[cut:]
    labels = values.shape[1]
    config = with_training_keys(config, {"optimizer.l2": 0.0})
    plans = PlanSource(
        (as_they_are(train),), config.batch_size, config.features.views, config.epochs, config.seed
    )
    recipe = Recipe(
        HeadStack(config.head.name, feature_shape, outputs=labels),
        make_optimizer(config.optimizer, config.schedule, plans.steps, config.epochs),
        config.loss,
        plans.steps,
    )
    feed = features.feed(recipe)
    outputs = np.arange(labels)[None]
    frozen = devices.replicate(freeze(features, feed, values, [np.unique(train)], outputs))
    cells = devices.replicate(cells_of(human_lesson(values), np.zeros(1, np.int64), outputs))
    nothing = np.zeros(1)
    course = Course(
        recipe=recipe,
        plans=plans,
        stop=plan_of_rows((validation[:1],), config.batch_size),
        stop_figures=lambda _: (nothing, nothing, nothing),
        seed=config.seed,
        patience=config.epochs + 1,
        save_every=config.epochs,
        filenames=features.filenames,
    )
    fitted = fit(course, feed, frozen, cells, devices, None, lambda _: None, lambda _: None)
    plan = plan_of_rows((validation,), config.batch_size)
    logits = by_head(feed.logits(fitted.last_params, frozen, cells, plan))[0, : len(validation)]
    return LeakyFit(validation, logits, float(np.isin(validation, train).mean()), len(copies))
