"""Several backbones at once: each one's features are extracted once, whoever it stands beside."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.impute import get_config
from mlc_jax.data.dataset import ImageSet
from mlc_jax.errors import ConfigError
from mlc_jax.journal import Journal
from mlc_jax.models import backbones
from mlc_jax.models.backbones import Backbone, load_backbone
from mlc_jax.models.features import features_of
from mlc_jax.models.tuning import merged, split_params
from mlc_jax.settings import resolve
from mlc_jax.training.features import Features
from mlc_jax.training.feeds import make_spec, open_features
from mlc_jax.training.parallel import Devices
from tests.image_folders import image_folder, prepared
from tests.small_networks import Small

ROWS, SIZE = 5, (32, 40)


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backbones.NETWORKS, "fine", lambda: Small("tf", 5, 6))
    monkeypatch.setitem(backbones.NETWORKS, "coarse", lambda: Small("torch", 8, 3))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    folder = tmp_path_factory.mktemp("side_by_side")
    return prepared(folder, image_folder(folder / "images", ROWS), SIZE)


def configuration(head: str, *, cache: bool = True) -> ConfigDict:
    config = get_config()
    config.data.image_size, config.features.views = SIZE, 1
    config.features.cache, config.head.name = cache, head
    config.features.batch_size = 5
    return resolve(config, lambda _: None)


def opened(
    backbone: Backbone, config: ConfigDict, images: ImageSet, cache: Path
) -> tuple[Features, Journal]:
    journal = Journal()
    devices = Devices("jit", jax.local_devices()[:1])
    return open_features(config, images, backbone, devices, cache, journal), journal


@pytest.mark.parametrize("head", ["linear", "conv"])
def test_the_store_and_the_step_give_the_same_features(
    head: str, images: ImageSet, tmp_path: Path
) -> None:
    backbone = load_backbone("fine,coarse", "random")
    kept, _ = opened(backbone, configuration(head), images, tmp_path)
    online, _ = opened(backbone, configuration(head, cache=False), images, tmp_path)
    for stored, made in zip(kept.moments, online.moments, strict=True):
        assert stored.shape == (ROWS, 9)
        np.testing.assert_allclose(stored, made, rtol=2e-3, atol=1e-4)


def test_a_backbone_is_extracted_once_whoever_it_stands_beside(
    images: ImageSet, tmp_path: Path
) -> None:
    config = configuration("linear")
    alone, _ = opened(load_backbone("coarse", "random"), config, images, tmp_path)
    both, journal = opened(load_backbone("fine,coarse", "random"), config, images, tmp_path)
    assert (
        f"feature cache: {ROWS} images of coarse are there already, 0 to extract" in journal.notes
    )
    assert journal.rates["extract features"]["per_second"] > 0
    assert journal.first["extract features"] > 0
    np.testing.assert_array_equal(both.moments[0][:, 6:], alone.moments[0])
    turned, journal = opened(load_backbone("coarse,fine", "random"), config, images, tmp_path)
    assert "extract features" not in journal.seconds
    np.testing.assert_array_equal(
        turned.moments[0], np.concatenate([both.moments[0][:, 6:], both.moments[0][:, :6]], axis=1)
    )


def test_another_layer_or_unfolded_norms_are_other_features(images: ImageSet) -> None:
    config = configuration("linear")
    keys = [
        make_spec(config, load_backbone("fine", "random", **how)).digest()
        for how in ({}, {"layer": "first"}, {"fold": False}, {"seed": 1})
    ]
    assert len(set(keys)) == len(keys)


def test_several_are_tuned_each_in_its_last_block() -> None:
    both = load_backbone("fine,coarse", "random", fold=False)
    trained, frozen = split_params(both, "last_block")
    assert {name: list(part) for name, part in trained.items()} == {
        "fine": ["second"],
        "coarse": ["second"],
    }
    whole = merged(frozen, trained)
    spec = dataclasses.replace(make_spec(configuration("conv"), both), dtype="float32")
    pictures = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), np.uint8)
    made = features_of(both, spec, whole, pictures)
    np.testing.assert_array_equal(made, both.apply(both.params, pictures))
    assert made.shape == (2, *both.feature_shape(SIZE)) == (2, 4, 5, 9)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (("fine,fine", "random"), "give each backbone once"),
        (("fine,coarse", "a.h5"), "has 1 entries for 2 backbones .fine, coarse."),
        (("fine,coarse", "random", "first"), "config.backbone.layer='first': has 1 entries"),
        (("fine,absent", "random"), "'absent': choose one of vgg16"),
    ],
)
def test_lists_that_do_not_fit_are_refused(how: tuple[str, ...], message: str) -> None:
    name, weights, *layer = how
    with pytest.raises(ConfigError, match=message):
        load_backbone(name, weights, layer="".join(layer))
