"""A dry run tries everything, keeps nothing, and says what the run will take."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from configs import impute as impute_config
from configs import multilabel as multilabel_config
from mlc_jax.data.labels import read_labels
from mlc_jax.stages import impute, multilabel
from tests.stages.conftest import Trained

CONFIGS = {impute: impute_config, multilabel: multilabel_config}


def rehearsed(job: ModuleType, data: Trained, workdir: Path, **changes: Any) -> dict[str, Any]:
    config = CONFIGS[job].get_config()
    keys = {
        "data.labels": str(data.labels),
        "data.images": str(data.images),
        "data.image_size": (32, 32),
        "data.max_bad_fraction": 0.1,
        "backbone.name": "mobilenet_v2",
        "backbone.weights": "random",
        "features.views": 1,
        "head.name": "linear",
        "folds": 3,
        "batch_size": 4,
        "dry_run": True,
    } | {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict(keys)
    made: dict[str, Any] = job.run(config, workdir)
    assert not made["finished"]
    assert {path.name for path in workdir.iterdir()} == {".lock"}
    figures: dict[str, Any] = made["dry_run"]
    assert all(value >= 0 for parts in figures.values() for value in parts.values())
    assert figures["seconds"]["train"] > 0
    return figures


def test_an_impute_run_is_rehearsed(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = rehearsed(impute, trained, tmp_path, seed=5)
    # Float16, the image and one view, 1,280 pooled channels; another seed draws other views.
    one = len(read_labels(trained.labels).table.filenames) * 2 * 1280 * 2
    assert figures["disk_bytes"]["features"] == one
    assert figures["memory_bytes"]["features"] == 2 * one, "on the host and on the device"
    said = capsys.readouterr().out
    for word in ("time: about", "disk: about", "memory: about", "nothing was trained or kept"):
        assert word in said


def test_a_multilabel_run_is_rehearsed_without_a_cache(trained: Trained, tmp_path: Path) -> None:
    figures = rehearsed(multilabel, trained, tmp_path, features__cache=False)
    assert figures["disk_bytes"]["features"] == figures["memory_bytes"]["features"] == 0
    assert figures["disk_bytes"]["checkpoints"] > 0
