"""The random views, against Keras's own affine transform and the laws of a keyed generator."""

import math

import numpy as np
import pytest
from keras.src.legacy.preprocessing.image import apply_affine_transform
from scipy import ndimage

from mlc_jax.data.augment import Augmentation, affine_matrix, draw_view, view_rng, warp

PLAIN = Augmentation(5.0, 0.2, 0.2, 0.1, True, False, (0.8, 1.0))
DIGEST = "5f" * 32


def smooth_image(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [128 + 100 * np.sin(rows / 9 + k) * np.cos(columns / 11 - k) for k in range(3)]
    return np.stack(waves, axis=-1).astype(np.uint8)


def drawn_transform(seed: int) -> tuple[float, float, tuple[float, float], tuple[float, float]]:
    rng = np.random.default_rng(seed)
    theta, shear = rng.uniform(-20, 20, 2)
    zoom, shift = rng.uniform(0.8, 1.2, 2), rng.uniform(-9, 9, 2)
    return theta, shear, tuple(zoom), tuple(shift)


def assert_close_in_grey(ours: np.ndarray, theirs: np.ndarray) -> None:
    # OpenCV places samples on a grid of 1/32 pixel; the image changes by at most 12 per pixel.
    difference = np.abs(ours.astype(np.float64) - theirs)
    assert difference.max() <= 2.0
    assert difference.mean() <= 0.5


@pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")
@pytest.mark.parametrize("seed", range(4))
def test_warp_of_a_square_is_that_of_keras(seed: int) -> None:
    theta, shear, zoom, shift = drawn_transform(seed)
    image = smooth_image(80, 80)
    theirs = apply_affine_transform(
        image.astype(np.float64),
        theta=theta,
        tx=shift[0],
        ty=shift[1],
        shear=shear,
        zx=zoom[0],
        zy=zoom[1],
        row_axis=0,
        col_axis=1,
        channel_axis=2,
        fill_mode="nearest",
        order=1,
    )
    matrix = affine_matrix(math.radians(theta), math.radians(shear), zoom, shift)
    assert_close_in_grey(warp(image, matrix), theirs)


@pytest.mark.parametrize("size", [(90, 70), (45, 61)])
@pytest.mark.parametrize("seed", range(3))
def test_warp_turns_any_image_about_its_centre(size: tuple[int, int], seed: int) -> None:
    theta, shear, zoom, shift = drawn_transform(seed)
    image = smooth_image(*size)
    matrix = affine_matrix(math.radians(theta), math.radians(shear), zoom, shift)
    by_row = matrix[[1, 0, 2]][:, [1, 0, 2]]  # SciPy speaks of (row, column)
    centre = (np.array(size) - 1) / 2
    offset = centre - by_row[:2, :2] @ centre + by_row[:2, 2]
    theirs = np.stack(
        [
            ndimage.affine_transform(
                image[..., k].astype(np.float64), by_row[:2, :2], offset, order=1, mode="nearest"
            )
            for k in range(3)
        ],
        axis=-1,
    )
    assert_close_in_grey(warp(image, matrix), theirs)


def test_view_0_is_the_image_itself() -> None:
    image = smooth_image(40, 30)
    assert (draw_view(image, PLAIN, seed=0, digest=DIGEST, view=0) == image).all()


def test_a_view_depends_on_seed_content_and_number_alone() -> None:
    image = smooth_image(40, 30)

    def view(seed: int, digest: str, number: int) -> np.ndarray:
        return draw_view(image, PLAIN, seed=seed, digest=digest, view=number)

    first = view(1, DIGEST, 3)
    assert (first == view(1, DIGEST, 3)).all()
    for other in (view(2, DIGEST, 3), view(1, "a0" * 32, 3), view(1, DIGEST, 4)):
        assert (first != other).any()


def test_generators_of_neighbouring_views_are_independent() -> None:
    draws = np.array([view_rng(0, DIGEST, v).random(4) for v in range(2000)])
    assert np.abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 0.08
    assert np.abs(draws.mean(axis=0) - 0.5).max() < 0.03


def test_no_ranges_no_change() -> None:
    still = Augmentation(0.0, 0.0, 0.0, 0.0, False, False, (1.0, 1.0))
    image = smooth_image(33, 47)
    assert (draw_view(image, still, seed=0, digest=DIGEST, view=5) == image).all()


@pytest.mark.parametrize(("sideways", "upside_down"), [(True, False), (False, True)])
def test_each_flip_obeys_its_own_key(sideways: bool, upside_down: bool) -> None:
    image = smooth_image(12, 16)
    flips = Augmentation(0.0, 0.0, 0.0, 0.0, sideways, upside_down, (1.0, 1.0))
    turned = image[:, ::-1] if sideways else image[::-1]
    for view in range(1, 41):
        seen = draw_view(image, flips, seed=0, digest=DIGEST, view=view)
        assert (seen == image).all() or (seen == turned).all()


def test_flips_come_in_half_of_the_views_and_brightness_in_its_range() -> None:
    image = np.full((8, 8, 3), 200, np.uint8)
    image[:, :4] = 100
    flips = Augmentation(0.0, 0.0, 0.0, 0.0, True, False, (1.0, 1.0))
    mirrored = [
        draw_view(image, flips, seed=0, digest=DIGEST, view=v)[0, 0, 0] == 200
        for v in range(1, 401)
    ]
    assert 0.42 < np.mean(mirrored) < 0.58
    dark = Augmentation(0.0, 0.0, 0.0, 0.0, False, False, (0.8, 1.0))
    levels = [draw_view(image, dark, seed=0, digest=DIGEST, view=v).max() for v in range(1, 201)]
    assert min(levels) >= 160
    assert max(levels) <= 200
    assert np.ptp(levels) > 30
