"""Which parameters of a backbone are trained, and how they join those that stay as they are."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from mlc_jax.errors import ConfigError
from mlc_jax.models.backbones import NETWORKS, Backbone

Params = dict[str, Any]
TRAINABLE = ("none", "last_block", "all")

# Statistics of a batch norm describe the data that a network was trained on; no gradient is right
# for them, and a decay of weights must not reach them either.
_STATISTICS = ("moving_mean", "moving_variance")


class Trained(NamedTuple):
    """The parameters that training changes.

    Attributes:
      head: of the head.
      backbone: the part of the backbone that is fine-tuned; empty where it is frozen whole. Each
        head of a stack tunes a copy of its own, since a sibling's backbone must not have seen what
        the sibling is asked about.
    """

    head: Any
    backbone: Any


def split_params(backbone: Backbone, trainable: str) -> tuple[Params, Params]:
    """Parts a backbone's parameters into those that are trained and those that are not.

    Args:
      backbone: whose params.
      trainable: "none"; "last_block" (`Network.last_block`: VGG19's block5); or "all". Stored
        statistics of batch norms are never trained.

    Returns:
      (trained, frozen): nested dicts without common leaves; `merged` joins them again.

    Raises:
      ConfigError: another word.
    """
    if trainable not in TRAINABLE:
        raise ConfigError(
            f"config.backbone.trainable={trainable!r}: choose one of {', '.join(TRAINABLE)}"
        )
    if trainable == "none":
        return {}, backbone.params
    if backbone.parts:
        parts = {part.name: split_params(part, trainable) for part in backbone.parts}
        return (
            {name: trained for name, (trained, _) in parts.items()},
            {name: frozen for name, (_, frozen) in parts.items()},
        )
    moving = set(backbone.params)
    if trainable == "last_block":
        moving &= set(NETWORKS[backbone.name]().last_block)
    trained: Params = {}
    frozen: Params = {}
    for name, tree in backbone.params.items():
        if name in moving:
            own, rest = _part_statistics(tree)
            trained |= {name: own} if own else {}
            frozen |= {name: rest} if rest else {}
        else:
            frozen[name] = tree
    return trained, frozen


def merged(frozen: Mapping[str, Any], trained: Mapping[str, Any]) -> Params:
    """One nested dict of the leaves of both; where both have one, the trained one."""
    whole = dict(frozen)
    for name, tree in trained.items():
        there = whole.get(name)
        whole[name] = merged(there, tree) if isinstance(there, Mapping) else tree
    return whole


def tuned_backbone(backbone: Backbone, trained: Trained) -> Backbone:
    """The backbone with the parameters that training gave it."""
    if not trained.backbone:
        return backbone
    return replace(backbone, params=merged(backbone.params, trained.backbone))


def _part_statistics(tree: Mapping[str, Any]) -> tuple[Params, Params]:
    own: Params = {}
    rest: Params = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            inner_own, inner_rest = _part_statistics(value)
            own |= {name: inner_own} if inner_own else {}
            rest |= {name: inner_rest} if inner_rest else {}
        elif name in _STATISTICS:
            rest[name] = value
        else:
            own[name] = value
    return own, rest
