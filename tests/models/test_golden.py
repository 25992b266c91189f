"""Every block of the Hub's architectures against golden files of `transformers` and `timm`."""

from pathlib import Path

import numpy as np
import pytest
from hub_comparison import compare, load_small, our_outputs
from hub_small import ARCHITECTURES, GOLDEN_TIMM, NATIVE, ODD, random_images

GOLDEN = Path(__file__).parent / "golden"
FILES = {name: name for name in ARCHITECTURES} | {f"timm_{name}": name for name in GOLDEN_TIMM}


@pytest.mark.parametrize("file", FILES)
def test_every_block_agrees_with_the_golden_file(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_small(FILES[file], GOLDEN / f"{file}.safetensors", monkeypatch)
    with np.load(GOLDEN / f"{file}.npz", allow_pickle=False) as expected:
        for size, sides in (("native", NATIVE), ("odd", ODD)):
            theirs = {
                key.partition("/")[2]: expected[key]
                for key in expected.files
                if key.startswith(f"{size}/")
            }
            if theirs:
                compare(our_outputs(backbone, random_images(sides, 1)), theirs)
        assert any(key.startswith("native/") for key in expected.files)


def test_golden_files_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in GOLDEN.iterdir()}
    assert {Path(name).stem for name in sizes} == set(FILES)
    assert max(sizes.values()) < 300_000, sizes
