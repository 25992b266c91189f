"""The backbones that a comparison ranks: the one that is named, and those whose weights are here.

Nothing is downloaded but for the one that is named. All are read once before the first of them is
run, so that a file that cannot be used costs no hours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mlc_jax.data.dataset import ImageSet
from mlc_jax.errors import WeightsError
from mlc_jax.journal import Journal
from mlc_jax.models.backbones import Backbone
from mlc_jax.models.download import at_hand, cache_state
from mlc_jax.models.hub_files import HUB_FILES
from mlc_jax.models.published import PUBLISHED
from mlc_jax.settings import cache_folder
from mlc_jax.training.contenders import Answer, Bench, ask, mlc_jax
from mlc_jax.training.feeds import (
    choose_backbone,
    feature_shape_of,
    load_configured,
    make_spec,
    open_features,
)

REMEDY = "python scripts/convert_weights.py --list says where each comes from and where it belongs"


@dataclass(frozen=True)
class Candidate:
    """A backbone to be ranked; its weights are read when it is its turn.

    Attributes:
      title: for people; no two are the same.
      config: the run's, but for the keys of `backbone` that say which it is.
      name, digest, layer: what it is, see `Backbone`.
    """

    title: str
    config: ConfigDict
    name: str
    digest: str
    layer: str

    def load(self) -> Backbone:
        """The backbone with its weights."""
        return load_configured(self.config, self.config.backbone.weights)


@dataclass(frozen=True)
class Ranked:
    """One backbone's answer, and what it cost.

    Attributes:
      answer: of the heads; its seconds are theirs.
      feature_seconds: in which features were extracted; None where all of them lay in the cache, or
        where none are kept and the heads' seconds hold them.
      weight_megabytes: of the parameters in memory, float32.
      feature_megabytes: of all views of all images; None where features are not kept.
      parameters: how many.
      origin: where the weights came from, in words.
    """

    answer: Answer
    feature_seconds: float | None
    weight_megabytes: float
    feature_megabytes: float | None
    parameters: int
    origin: str

    def costs(self) -> dict[str, Any]:
        """The columns that a comparison of backbones has beside the figures."""
        return {
            "feature_seconds": self.feature_seconds,
            "head_seconds": self.answer.seconds,
            "weight_megabytes": self.weight_megabytes,
            "feature_megabytes": self.feature_megabytes,
            "parameters": self.parameters,
            "weights": self.origin,
        }


def find_candidates(
    config: ConfigDict, journal: Journal
) -> tuple[tuple[Candidate, ...], dict[str, str]]:
    """Which backbones can be ranked, and which cannot and why.

    The one that `config.backbone` describes, with its weights file, is treated as in every other
    job: downloaded if need be, random in the demo. The others are those of `at_hand`. It comes
    first, but behind the others where its weights are random: the features of the first tell near
    copies, and random ones cannot.

    Args:
      config: the run's, resolved.
      journal: told who is left out, and what to do.

    Returns:
      The candidates, no two with the same weights and layer; and name to reason of the others.

    Raises:
      ConfigError: `config.backbone` describes nothing there is.
      WeightsError: a weights file that was given by name cannot be used, or no weights are here.
    """
    found: dict[tuple[str, str, str], Candidate] = {}
    left_out: dict[str, str] = {}
    refusal = None
    try:
        named = choose_backbone(config, journal)
        _add(found, config, named)
    except WeightsError as error:
        if config.backbone.weights != "imagenet":
            raise
        refusal = error
        left_out[config.backbone.name] = str(error)
    here = at_hand()
    for name in here:
        own = config.copy_and_resolve_references()
        own.backbone.name, own.backbone.weights, own.backbone.layer = name, "imagenet", ""
        try:
            _add(found, own, load_configured(own, "imagenet"))
        except WeightsError as error:
            left_out[name] = str(error)
    if refusal is not None and not found:
        raise refusal
    published = (*PUBLISHED, *HUB_FILES)
    others = {name: _in_words(cache_state(name)) for name in published if name not in here}
    left_out = others | left_out
    for candidate in found.values():
        if left_out.get(candidate.name) == "absent":  # from the cache, but given by path
            del left_out[candidate.name]
    candidates = sorted(found.values(), key=lambda c: c.config.backbone.weights == "random")
    _tell(candidates, left_out, journal)
    return tuple(candidates), left_out


def _add(
    found: dict[tuple[str, str, str], Candidate], config: ConfigDict, backbone: Backbone
) -> None:
    own = config.copy_and_resolve_references()
    given = own.backbone.weights
    if given == "imagenet" and backbone.random:  # the demo's way out
        own.backbone.weights = "random"
    title = backbone.name + (f", {backbone.layer}" if backbone.layer.strip(",") else "")
    if own.backbone.weights == "random":
        title += " (random weights)"
    elif given != "imagenet":
        title += f" ({', '.join(Path(entry.strip()).name for entry in given.split(','))})"
    candidate = Candidate(title, own, backbone.name, backbone.digest, backbone.layer)
    found.setdefault((backbone.name, backbone.digest, backbone.layer), candidate)


def _tell(candidates: Sequence[Candidate], left_out: dict[str, str], journal: Journal) -> None:
    absent = [name for name, reason in left_out.items() if reason == "absent"]
    for name, reason in left_out.items():
        if reason != "absent":
            journal.warn(f"{name} is left out: {reason}")
    if absent:
        journal.note(
            f"left out, because their ImageNet weights are not in the cache: {', '.join(absent)}; "
            f"{REMEDY}"
        )
    if len(candidates) == 1:
        journal.warn(
            f"{candidates[0].title} is the only backbone that can be ranked: put the weights of "
            f"others into the cache ({REMEDY}), or name one with its file in "
            "config.backbone.weights"
        )


def _in_words(state: str) -> str:
    return f"its file in the cache is damaged; {REMEDY}" if state == "damaged" else state


def rank(
    candidates: Sequence[Candidate], bench: Bench, images: ImageSet, journal: Journal
) -> list[Ranked]:
    """Asks the heads of the impute job on each backbone's features, on the same folds.

    Args:
      candidates: the first is the one whose features `bench` holds.
      bench: the folds, dealt once for all, and the features of the first.
      images: the prepared data set.
      journal: is told the phases; it has seen those of no candidate but the first.
    """
    ranked = []
    extracted = 0.0
    for number, candidate in enumerate(candidates):
        journal.line(f"backbone {number + 1} of {len(candidates)}: {candidate.title}")
        backbone = candidate.load()
        own = bench if number == 0 else _with_features(bench, candidate, backbone, images, journal)
        now = journal.seconds.get("extract features", 0.0)
        with journal.phase("fit heads", 0, ""):
            answer = ask(mlc_jax(own))
        leaves = jax.tree.leaves(backbone.params)
        ranked.append(
            Ranked(
                replace(answer, name=candidate.title),
                now - extracted or None,
                sum(leaf.nbytes for leaf in leaves) / 1e6,
                _feature_megabytes(own, backbone, len(images)),
                sum(leaf.size for leaf in leaves),
                backbone.origin,
            )
        )
        extracted = now
    return ranked


def _with_features(
    bench: Bench, candidate: Candidate, backbone: Backbone, images: ImageSet, journal: Journal
) -> Bench:
    features = open_features(
        candidate.config, images, backbone, bench.devices, cache_folder(), journal
    )
    return replace(bench, features=features, shape=feature_shape_of(candidate.config, backbone))


def _feature_megabytes(bench: Bench, backbone: Backbone, images: int) -> float | None:
    if not bench.config.features.cache:
        return None
    spec = make_spec(bench.config, backbone)
    values = images * (spec.views.augmented + 1) * int(np.prod(bench.shape))
    return values * jnp.dtype(spec.dtype).itemsize / 1e6
