"""Small folders of generated images, and the prepared sets made of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mlc_jax.data.augment import Augmentation
from mlc_jax.data.dataset import ImageSet, prepare_images
from mlc_jax.data.pipeline import Views

SIZE = (32, 40)
AUGMENTATION = Augmentation(
    rotation=5.0,
    shear=0.2,
    zoom=0.2,
    shift=0.1,
    horizontal_flip=True,
    vertical_flip=False,
    brightness=(0.8, 1.0),
)


def views(augmented: int, seed: int = 0) -> Views:
    """`augmented` views of every image beside itself."""
    return Views(AUGMENTATION, seed, augmented)


def image_folder(folder: Path, count: int, seed: int = 0) -> list[str]:
    """Writes `count` images of as many sizes, PNG and JPEG in turn; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    names = []
    for number in range(count):
        pixels = rng.integers(0, 256, (33 + 5 * number, 61 - 2 * number, 3), dtype=np.uint8)
        # From the last name to the first, so that no order of files happens to be the input's.
        names.append(f"{count - number:02}.{('png', 'jpg')[number % 2]}")
        Image.fromarray(pixels).save(folder / names[-1])
    return names


def prepared(folder: Path, names: Sequence[str], size: tuple[int, int] = SIZE) -> ImageSet:
    """The prepared set of images of `folder / "images"`, kept under `folder / "cache"`."""
    return prepare_images(folder / "images", names, size, folder / "cache", lambda _: None)
