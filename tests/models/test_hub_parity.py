"""Every block of the Hub's architectures against `transformers` and `timm` (extra `parity`)."""

from pathlib import Path

import pytest
from hub_comparison import compare, load_small, our_outputs, prepare
from hub_small import ARCHITECTURES, NATIVE, ODD, TIMM, random_images

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("size", [NATIVE, ODD], ids=["native", "odd"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_block_agrees_with_transformers(
    name: str, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed: extra parity")
    from hub_models import hub_model, hub_outputs, save_hub

    model = hub_model(name)
    backbone = load_small(name, save_hub(model, tmp_path), monkeypatch)
    images = random_images(size)
    compare(our_outputs(backbone, images), hub_outputs(model, prepare(name, images)))


@pytest.mark.parametrize("name", TIMM)
def test_every_block_agrees_with_timm(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the native size: timm resizes positions when a model is built, by a rule of its own."""
    pytest.importorskip("timm", reason="timm is not installed: extra parity")
    from hub_models import save_hub, timm_model, timm_outputs

    model = timm_model(name)
    backbone = load_small(name, save_hub(model, tmp_path), monkeypatch)
    images = random_images(NATIVE)
    compare(our_outputs(backbone, images), timm_outputs(model, prepare(name, images)))
