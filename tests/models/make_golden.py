"""Writes the golden files: small models of `transformers` and `timm`, and what they gave.

  python tests/models/make_golden.py            needs the extra `parity`

For each architecture `NAME.safetensors`, as the Hub would have it, and `NAME.npz`, what each block
gave of `random_images` at the native and at an odd size. The files are read without PyTorch by
`tests/models/test_golden.py`; the same seeds give the same files on one version of PyTorch.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from hub_comparison import prepare
from hub_models import (
    hub_model,
    hub_outputs,
    save_hub,
    text_outputs,
    timm_model,
    timm_outputs,
)
from hub_small import ARCHITECTURES, GOLDEN_TIMM, NATIVE, ODD, TEXT, random_ids, random_images

FOLDER = Path(__file__).parent / "golden"


def main() -> None:
    """Writes what is named on the command line, or all."""
    FOLDER.mkdir(exist_ok=True)
    for name in ARCHITECTURES:
        model = hub_model(name)
        outputs = {
            f"{size}/{key}": value
            for size, sides in (("native", NATIVE), ("odd", ODD))
            for key, value in hub_outputs(model, prepare(name, random_images(sides, 1))).items()
        }
        if name in TEXT:
            made = text_outputs(model, random_ids())
            outputs |= {f"text/{key}": value for key, value in made.items()}
        keep(name, model, outputs)
    for name in GOLDEN_TIMM:
        model = timm_model(name)
        made = timm_outputs(model, prepare(name, random_images(NATIVE, 1)))
        keep(f"timm_{name}", model, {f"native/{key}": value for key, value in made.items()})


def keep(name: str, model: object, outputs: dict[str, np.ndarray]) -> None:
    """Writes the two files of one model."""
    with TemporaryDirectory() as folder:
        written = save_hub(model, Path(folder))  # type: ignore[arg-type]
        (FOLDER / f"{name}.safetensors").write_bytes(written.read_bytes())
    np.savez_compressed(FOLDER / f"{name}.npz", **outputs)


if __name__ == "__main__":
    main()
