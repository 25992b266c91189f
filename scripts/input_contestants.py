"""The input path's contestants of `benchmark.py`: files to augmented batches, views per second."""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from contest import PER_BATCH, Run, Settings

# The original's ranges; its shear of 0.2 degrees is left out of every contestant's transform.
ROTATION, ZOOM, SHIFT, BRIGHTNESS = 5.0, 0.2, 0.1, (0.8, 1.0)


def photographs(folder: Path, count: int) -> list[str]:
    """Writes JPEG files of about the size of the original's: smooth colour and grain, 512x398."""
    from PIL import Image

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = []
    for number in range(count):
        smooth = Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8))
        large = np.asarray(smooth.resize((398, 512), Image.Resampling.BICUBIC), np.int16)
        grain = rng.integers(-8, 9, large.shape, dtype=np.int16)
        names.append(f"{number:04}.jpg")
        Image.fromarray(np.clip(large + grain, 0, 255).astype(np.uint8)).save(
            folder / names[-1], quality=90
        )
    return names


def input_ours(settings: Settings) -> tuple[int, Run]:
    """The whole way of a new folder: prepare (decode, resize, keep), then every view in batches."""
    from mlc_jax.data.augment import Augmentation
    from mlc_jax.data.dataset import prepare_images
    from mlc_jax.data.pipeline import Views, whole_images

    folder = Path(tempfile.mkdtemp(prefix="mlc-jax-bench-"))
    names = photographs(folder / "images", settings.photographs)
    views = Views(
        Augmentation(ROTATION, 0.0, ZOOM, SHIFT, True, False, BRIGHTNESS), 0, settings.views
    )
    size = (settings.height, settings.width)
    calls = iter(range(10**6))

    def run() -> None:
        cache = folder / f"cache{next(calls)}"  # nothing of an earlier call may help
        images = prepare_images(folder / "images", names, size, cache, lambda _: None)
        rows = np.arange(len(images))
        batches = whole_images(images, rows, views, PER_BATCH)
        done = sum(batch.shape[0] * batch.shape[1] for batch in batches)
        assert done == settings.photographs * (settings.views + 1), done

    return settings.photographs * (settings.views + 1), run


def input_torch(settings: Settings) -> tuple[int, Run]:
    """PyTorch's DataLoader over Pillow, a worker for each core and as many batches for each.

    As in ours a photograph is decoded and resized once, and every view is made from that.
    """
    import torch

    names, folder = _folder_of_photographs(settings)

    class Photographs(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(names)

        def __getitem__(self, row: int) -> np.ndarray:
            return _pillow_views(folder / names[row], settings, row)

    loader = torch.utils.data.DataLoader(
        Photographs(),
        batch_size=PER_BATCH,
        num_workers=os.cpu_count() or 1,
        persistent_workers=True,
    )
    total = settings.photographs * (settings.views + 1)

    def run() -> None:
        done = sum(batch.shape[0] * batch.shape[1] for batch in loader)
        assert done == total, done

    return total, run


def input_keras(settings: Settings) -> tuple[int, Run]:
    """The generator that the original used, in one thread as it used it.

    It decodes and resizes a photograph anew for every view of it: it has no other way.
    """
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    _, folder = _folder_of_photographs(settings)
    generator = ImageDataGenerator(
        rotation_range=ROTATION,
        zoom_range=ZOOM,
        width_shift_range=SHIFT,
        height_shift_range=SHIFT,
        horizontal_flip=True,
        brightness_range=BRIGHTNESS,
        rescale=1 / 255,
    )
    flow = generator.flow_from_directory(
        str(folder.parent),
        target_size=(settings.height, settings.width),
        class_mode=None,
        batch_size=32,
    )

    def run() -> None:
        for number in range(len(flow)):
            flow[number]

    return settings.photographs, run


def _folder_of_photographs(settings: Settings) -> tuple[list[str], Path]:
    folder = Path(tempfile.mkdtemp(prefix="mlc-jax-bench-")) / "images"
    return photographs(folder, settings.photographs), folder


def _pillow_views(path: Path, settings: Settings, row: int) -> np.ndarray:
    """The photograph and its augmented views; uint8 [1 + views, H, W, 3]."""
    from PIL import Image

    size = (settings.width, settings.height)
    with Image.open(path) as file:
        image = file.convert("RGB").resize(size, Image.Resampling.BILINEAR)
    drawn = [np.random.default_rng([row, view]) for view in range(settings.views)]
    return np.stack([np.asarray(image), *(_pillow_view(image, rng) for rng in drawn)])


def _pillow_view(image: Any, rng: np.random.Generator) -> np.ndarray:
    from PIL import Image, ImageEnhance

    size = image.size
    turn, zoom_x, zoom_y, shift_x, shift_y = rng.uniform(-1, 1, 5)
    angle = np.deg2rad(turn * ROTATION)
    scale_x, scale_y = 1 + zoom_x * ZOOM, 1 + zoom_y * ZOOM
    a, b = np.cos(angle) * scale_x, -np.sin(angle) * scale_y
    d, e = np.sin(angle) * scale_x, np.cos(angle) * scale_y
    centre_x, centre_y = size[0] / 2, size[1] / 2
    c = centre_x - a * centre_x - b * centre_y + shift_x * SHIFT * size[0]
    f = centre_y - d * centre_x - e * centre_y + shift_y * SHIFT * size[1]
    bilinear = Image.Resampling.BILINEAR
    image = image.transform(size, Image.Transform.AFFINE, (a, b, c, d, e, f), bilinear)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    low, high = BRIGHTNESS
    return np.asarray(ImageEnhance.Brightness(image).enhance(low + rng.random() * (high - low)))
