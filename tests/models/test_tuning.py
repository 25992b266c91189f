"""What is trained of a backbone, and what is not."""

import dataclasses

import jax
import numpy as np
import pytest

from mlc_jax.errors import ConfigError
from mlc_jax.models.backbones import NETWORKS, load_backbone
from mlc_jax.models.tuning import Trained, merged, split_params, tuned_backbone


def leaf_names(tree: object) -> set[str]:
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(path) for path, _ in leaves}


@pytest.mark.parametrize("trainable", ["none", "last_block", "all"])
@pytest.mark.parametrize("name", ["vgg19", "mobilenet_v2"])
def test_the_parts_are_disjoint_and_make_up_the_whole(name: str, trainable: str) -> None:
    backbone = load_backbone(name, "random")
    trained, frozen = split_params(backbone, trainable)
    assert not leaf_names(trained) & leaf_names(frozen)
    assert leaf_names(trained) | leaf_names(frozen) == leaf_names(backbone.params)
    assert leaf_names(merged(frozen, trained)) == leaf_names(backbone.params)
    assert not any("moving" in leaf for leaf in leaf_names(trained))
    assert bool(leaf_names(trained)) == (trainable != "none")


def test_the_last_block_of_vgg19_is_its_fifth() -> None:
    trained, _ = split_params(load_backbone("vgg19", "random"), "last_block")
    assert sum(leaf.size for leaf in jax.tree.leaves(trained)) == 4 * (9 * 512 * 512 + 512)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_names_a_last_block_that_it_has(name: str) -> None:
    network = NETWORKS[name]()
    assert network.last_block
    assert all(hasattr(network, part) for part in network.last_block)


def test_a_tuned_backbone_has_the_trained_parameters_and_keeps_the_others() -> None:
    backbone = load_backbone("mobilenet_v2", "random")
    trained, _ = split_params(backbone, "last_block")
    moved = tuned_backbone(backbone, Trained({}, jax.tree.map(lambda leaf: leaf + 1, trained)))
    np.testing.assert_array_equal(
        moved.params["Conv_1"]["kernel"], backbone.params["Conv_1"]["kernel"] + 1
    )
    np.testing.assert_array_equal(
        moved.params["Conv1"]["kernel"], backbone.params["Conv1"]["kernel"]
    )


def test_another_word_is_refused() -> None:
    backbone = dataclasses.replace(load_backbone("mobilenet_v2", "random"), params={})
    with pytest.raises(ConfigError, match="choose one of none, last_block, all"):
        split_params(backbone, "first")
