"""Explaining a trained classifier's labels, and judging every explanation in the same way.

An explanation is a heat map over an image for one label, whatever method made it. It is judged by
hiding what it calls important: the label should be lost sooner than where superpixels are hidden in
an order dealt at random.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mlc_jax.assess.faithfulness import (
    Curves,
    chance,
    deletion_masks,
    importance_order,
    make_curves,
)
from mlc_jax.models.explanations import enlarge, heat_maps
from mlc_jax.models.perturbations import Probe, lime, occlusion, patches_over, superpixels
from mlc_jax.models.tuning import tuned_backbone
from mlc_jax.training.classifier import trained_params
from mlc_jax.training.parallel import Devices
from mlc_jax.training.restore import TrainedRun, scorer

METHODS = ("grad_cam", "lime", "occlusion")


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a method says of one label of an image, and what that is worth.

    Attributes:
      label: its column.
      method: one of `METHODS`.
      heat: float [H, W], positive where it speaks for the label.
      curves: of the label.
      chance: how often an order dealt at random does as well.
      fidelity: of LIME's linear model; NaN for other methods.
    """

    label: int
    method: str
    heat: np.ndarray
    curves: Curves
    chance: float
    fidelity: float


@dataclass(frozen=True, eq=False)
class Explained:
    """An image and its explanations.

    Attributes:
      filename: of the image.
      whole, nothing: float64 [L], probabilities of the image, and of it hidden as a whole.
      explanations: by label, then method.
      random: the curves of random orders, by label.
    """

    filename: str
    whole: np.ndarray
    nothing: np.ndarray
    explanations: list[Explanation]
    random: list[Curves]


class Explainer:
    """The classifier and the methods, compiled once for all images.

    Args:
      trained: the run whose classifier is explained.
      config: of configs/explain.py.
    """

    def __init__(self, trained: TrainedRun, config: ConfigDict) -> None:
        self._trained, self._config = trained, config.explain
        self._seed = config.seed
        self._score, self._most = scorer(
            trained, config.checkpoint_kind, Devices(config.parallel), config.batch_size
        )
        params = trained_params(trained.classifier, config.checkpoint_kind)
        self._head = params.head
        self._heat_maps = heat_maps(tuned_backbone(trained.backbone, params), trained.stack)

    def cost(self) -> str:
        """What an image takes, for people."""
        config = self._config
        per_order = 2 * (config.steps - 1)
        passes = per_order * config.random_orders
        if "lime" in config.methods:
            passes += config.samples
        if "occlusion" in config.methods:
            passes += len(patches_over(self._trained.spec.image_size, config.patch))
        per_label = per_order * len(config.methods)
        return (
            f"each image takes about {passes} passes of {self._trained.backbone.name}, and "
            f"{per_label} more per label"
        )

    def explain(
        self, filename: str, image: np.ndarray, chosen: list[int], advance: Callable[[int], None]
    ) -> Explained | None:
        """Explains an image, uint8 [H, W, 3]; None where its features are not finite.

        Args:
          filename: of the image.
          image: resized for the backbone.
          chosen: columns of labels; where empty, the labels given, at least the likeliest.
          advance: told of the passes of the backbone.
        """
        whole = self._score(image[None])[0]
        if np.isnan(whole).any():
            return None
        given = np.flatnonzero(whole > self._trained.classifier.threshold).tolist()
        columns = chosen or given or [int(np.argmax(whole))]
        segments = superpixels(image, self._config.superpixels)
        probe = Probe(image, segments, self._score, self._most, advance)
        nothing = probe.hiding_superpixels(np.ones((1, len(probe.sizes)), bool))[0]
        # The same draws for every image, so that none depends on those before it.
        orders = np.random.default_rng([self._seed, 1])
        random = [
            self._curves(probe, orders.permutation(len(probe.sizes)), whole, nothing)
            for _ in range(self._config.random_orders)
        ]
        random_gains = np.stack([curves.gain for curves in random])
        explanations = []
        for method in self._config.methods:
            heats, fidelity = self._heats(method, probe, whole, columns)
            for heat, fidelity_of_label, column in zip(heats, fidelity, columns, strict=True):
                order = importance_order(heat, segments)
                curves = of_label(self._curves(probe, order, whole, nothing), column)
                explanations.append(
                    Explanation(
                        column,
                        method,
                        heat,
                        curves,
                        chance(float(curves.gain), random_gains[:, column]),
                        float(fidelity_of_label),
                    )
                )
        explanations.sort(key=lambda made: made.label)  # stable: methods stay in their order
        by_label = [of_label(curves, column) for column in columns for curves in random]
        return Explained(filename, whole, nothing, explanations, by_label)

    def _heats(
        self, method: str, probe: Probe, whole: np.ndarray, columns: list[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Heat maps [n, H, W] of the columns and, for LIME, how faithful its model is, [n]."""
        no_model = np.full(len(columns), np.nan)
        if method == "occlusion":
            return occlusion(probe, whole, self._config.patch)[columns], no_model
        if method == "lime":
            rng = np.random.default_rng([self._seed, 0])
            model = lime(probe, self._config.samples, rng)
            return model.weights[columns][:, probe.segments], model.fidelity[columns]
        classifier, image = self._trained.classifier, jnp.asarray(probe.image[None])
        mean, std = jnp.asarray(classifier.mean), jnp.asarray(classifier.std)
        maps = [self._heat_maps(image, self._head, mean, std, column) for column in columns]
        return enlarge(jnp.concatenate(maps), probe.image.shape[:2]), no_model

    def _curves(
        self, probe: Probe, order: np.ndarray, whole: np.ndarray, nothing: np.ndarray
    ) -> Curves:
        masks = deletion_masks(order, self._config.steps)
        answers = probe.hiding_superpixels(np.concatenate([masks, ~masks]))
        deleted, inserted = answers[: len(masks)], answers[len(masks) :]
        return make_curves(masks, probe.sizes, deleted, inserted, (whole, nothing))


def of_label(curves: Curves, column: int) -> Curves:
    """The curves of one label out of those of all."""
    return Curves(curves.shares, curves.deletion[:, column], curves.insertion[:, column])
