"""Laws of the image streams: each is `draw_view` of the image, however it is cut into batches."""

import time
from collections.abc import Iterator

import numpy as np
import pytest

from mlc_jax.data.augment import draw_view
from mlc_jax.data.dataset import ImageSet
from mlc_jax.data.pipeline import Views, chosen_views, timed, whole_images
from tests.image_folders import SIZE, image_folder, prepared, views

ROWS = np.array([3, 0, 6, 2, 1, 5, 4])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    folder = tmp_path_factory.mktemp("pipeline")
    return prepared(folder, image_folder(folder / "images", 7))


def drawn(images: ImageSet, row: int, view: int, how: Views) -> np.ndarray:
    return draw_view(
        images[row], how.augmentation, seed=how.seed, digest=images.digests[row], view=view
    )


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_whole_images_are_all_views_in_order(images: ImageSet, batch_size: int) -> None:
    how = views(2, seed=4)
    batches = list(whole_images(images, ROWS, how, batch_size))
    assert {batch.dtype for batch in batches} == {np.dtype(np.uint8)}
    sizes = [len(batch) for batch in batches]
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
    expected = np.stack(
        [[drawn(images, row, view, how) for view in range(3)] for row in ROWS.tolist()]
    )
    np.testing.assert_array_equal(np.concatenate(batches), expected)
    # The views differ, or the comparison above would show nothing.
    assert (expected[:, 1] != expected[:, 2]).any()


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_chosen_views_are_the_ones_asked_for(images: ImageSet, batch_size: int) -> None:
    how = views(3, seed=1)
    rng = np.random.default_rng(0)
    rows, numbers = rng.integers(0, 7, 13), rng.integers(0, 4, 13)
    made = np.concatenate(list(chosen_views(images, rows, numbers, how, batch_size)))
    assert made.shape == (13, *SIZE, 3)
    for place, (row, view) in enumerate(zip(rows.tolist(), numbers.tolist(), strict=True)):
        np.testing.assert_array_equal(made[place], drawn(images, row, view, how))


def test_the_seed_changes_the_views_and_not_the_image(images: ImageSet) -> None:
    (one,), (other,) = (whole_images(images, ROWS, views(1, seed), 100) for seed in (0, 1))
    np.testing.assert_array_equal(one[:, 0], other[:, 0])
    assert (one[:, 1] != other[:, 1]).any(axis=(1, 2, 3)).all()


def test_the_waits_for_batches_are_told_but_for_the_first() -> None:
    pauses = [0.3, 0.0, 0.2, 0.0]

    def slow() -> Iterator[np.ndarray]:
        for number, pause in enumerate(pauses):
            time.sleep(pause)
            yield np.array(number)

    waits: list[float] = []
    assert [int(batch) for batch in timed(slow(), waits.append)] == [0, 1, 2, 3]
    assert len(waits) == 3
    assert waits[1] >= 0.2
    assert max(waits[0], waits[2]) < 0.2 <= sum(waits)
