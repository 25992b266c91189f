"""What the tests of several stages share: one device, one cache, and a finished run of each."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pytest
from ml_collections import ConfigDict

from configs import impute as impute_config
from configs import multilabel as multilabel_config
from mlc_jax.data.demo import draw_demo
from mlc_jax.stages import impute, multilabel

ROWS = 90
TRAINED_ROWS = 120
Configure = Callable[..., ConfigDict]


class Trained(NamedTuple):
    """A finished multilabel run and the data it was trained on."""

    workdir: Path
    images: Path
    labels: Path


@pytest.fixture(scope="session", autouse=True)
def one_device() -> Iterator[None]:
    """Eight simulated devices on two cores are slow, so only the tests of them use them.

    It lasts for the session; a test that needs more asks `jax.local_devices`.
    """
    with pytest.MonkeyPatch.context() as patch:
        only = jax.devices()[:1]
        patch.setattr(jax, "devices", lambda *_: only)
        yield


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache that all tests of stages share, so that no features are extracted twice."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLC_JAX_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def trained(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A classifier over a random backbone, trained on a drawn set that is used as own data."""
    folder = tmp_path_factory.mktemp("trained")
    demo = draw_demo(folder / "set", rows=TRAINED_ROWS)
    config = multilabel_config.get_config()
    config.update_from_flattened_dict(
        {
            "data.labels": str(demo.labels),
            "data.images": str(demo.images),
            "data.image_size": (32, 32),
            "data.max_bad_fraction": 0.1,
            "backbone.name": "mobilenet_v2",
            "backbone.weights": "random",
            "features.views": 1,
            "head.name": "linear",
            "loss.name": "focal",  # trained step by step: its last epoch and its best differ
            "epochs": 3,
            "folds": 3,
            "batch_size": 16,
        }
    )
    multilabel.run(config, folder / "run")
    return Trained(folder / "run", demo.images, demo.labels)


@pytest.fixture(scope="session")
def drawn(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn set that is used as own data; beside the cache that all tests of stages share."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_demo(folder / "set", rows=ROWS)
    return folder


@pytest.fixture(scope="session")
def configure(drawn: Path) -> Configure:
    def make(**changes: Any) -> ConfigDict:
        config = impute_config.get_config()
        keys = {
            "data.labels": str(drawn / "set" / "labels.csv"),
            "data.images": str(drawn / "set" / "images"),
            "data.image_size": (32, 32),
            "backbone.name": "mobilenet_v2",
            "backbone.weights": "random",
            "features.views": 1,
            "head.name": "linear",
            "epochs": 4,
            "folds": 3,
            "batch_size": 16,
        } | {key.replace("__", "."): value for key, value in changes.items()}
        config.update_from_flattened_dict(keys)
        return config

    return make


@pytest.fixture(scope="session")
def finished(
    configure: Configure, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, impute.run(configure(), workdir)
