"""Laws of the prepared data set: the pixels are the file's, once made it is reused or done anew."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from mlc_jax.data import dataset
from mlc_jax.data.dataset import ImageSet, prepare_images
from mlc_jax.data.images import decode_image
from mlc_jax.data.pixels import resize_image
from tests.image_folders import SIZE, image_folder, prepared

REASONS = {"absent.png": "absent", "words.jpg": "not_an_image", "cut.png": "truncated"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image_folder(tmp_path / "images", 6)
    (tmp_path / "images" / "words.jpg").write_text("this is no image")
    whole = (tmp_path / "images" / "06.png").read_bytes()
    (tmp_path / "images" / "cut.png").write_bytes(whole[: len(whole) // 2])
    return tmp_path


# Neither sorted, nor in the order of hashes in which records are stored.
NAMES = ["04.png", "words.jpg", "01.jpg", "06.png", "absent.png", "05.jpg", "cut.png", "02.png"]
USABLE = [name for name in NAMES if name not in REASONS]


def set_folder(folder: Path) -> Path:
    (found,) = (folder / "cache" / "datasets" / "prepared_images").glob("*/*/")
    return found


def no_decoding(*_: object) -> np.ndarray:
    raise AssertionError("an image was decoded anew")


def assert_is_what_the_files_hold(images: ImageSet, folder: Path) -> None:
    for row, name in enumerate(images.filenames):
        pixels = resize_image(decode_image(folder / "images" / name), images.image_size)
        np.testing.assert_array_equal(images[row], pixels)


def test_pixels_are_those_of_decoding_and_resizing(folder: Path) -> None:
    images = prepared(folder, NAMES)
    assert_is_what_the_files_hold(images, folder)
    for row, name in enumerate(images.filenames):
        # Pillow knows these files without any code of ours.
        with Image.open(folder / "images" / name) as image:
            resized = image.resize(SIZE[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(images[row], np.asarray(resized))


def test_the_order_of_the_input_is_kept_and_the_bad_are_named(folder: Path) -> None:
    images = prepared(folder, NAMES)
    assert list(images.filenames) == USABLE
    assert [NAMES[place] for place in images.places] == USABLE
    assert len(images) == len(USABLE)
    assert {NAMES[item.place]: item.reason for item in images.rejected} == REASONS
    assert [item.place for item in images.rejected] == [1, 4, 6]
    for item in images.rejected:
        assert NAMES[item.place] in item.message


def test_equal_pixels_have_equal_digests_and_only_they(folder: Path) -> None:
    shutil.copy(folder / "images" / "04.png", folder / "images" / "copy.png")
    images = prepared(folder, [*NAMES, "copy.png"])
    assert images.digests[images.filenames.index("copy.png")] == images.digests[0]
    assert len(set(images.digests)) == len(USABLE)


def test_the_second_call_decodes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    arguments = (folder / "images", NAMES, SIZE, folder / "cache", counted.append)
    first = prepare_images(*arguments)
    assert sum(counted) == len(NAMES) - 1  # the absent one is known before
    counted.clear()
    monkeypatch.setattr(dataset, "decode_first", no_decoding)
    second = prepare_images(*arguments)
    assert not counted
    assert second.digest() == first.digest()
    assert second.rejected == first.rejected
    np.testing.assert_array_equal(second[2], first[2])


def test_another_order_of_the_same_files_gives_the_same_images(folder: Path) -> None:
    one, other = prepared(folder, USABLE), prepared(folder, USABLE[::-1])
    assert other.filenames == one.filenames[::-1]
    assert other.digests == one.digests[::-1]
    assert other.digest() != one.digest()


def test_an_interrupted_preparation_is_done_anew(folder: Path) -> None:
    """A kill between TFDS's rename and our index, and one before the rename."""
    whole = prepared(folder, NAMES)
    broken = set_folder(folder)
    (broken / dataset.INDEX).unlink()
    for records in broken.glob("*.array_record*"):
        records.write_bytes(b"")
    leftover = broken.with_name(f"incomplete.ABCDEF_{broken.name}")
    leftover.mkdir()
    again = prepared(folder, NAMES)
    assert again.digest() == whole.digest()
    assert [item.reason for item in again.rejected] == [item.reason for item in whole.rejected]
    assert_is_what_the_files_hold(again, folder)
    assert not leftover.exists()


def test_a_changed_image_or_size_makes_another_set(folder: Path) -> None:
    before = prepared(folder, USABLE)
    Image.new("RGB", (50, 50), "red").save(folder / "images" / "04.png")
    after = prepared(folder, USABLE)
    assert after.digests[0] != before.digests[0]
    assert after.digests[1:] == before.digests[1:]
    assert_is_what_the_files_hold(after, folder)
    assert prepared(folder, USABLE, (40, 32))[0].shape == (40, 32, 3)


@pytest.mark.parametrize("names", [["absent.png"], ["words.jpg", "cut.png"], []])
def test_a_set_without_a_usable_image_is_empty_and_not_an_accident(
    folder: Path, names: list[str]
) -> None:
    for _ in range(2):
        images = prepared(folder, names)
        assert len(images) == 0
        assert [NAMES.index(names[item.place]) for item in images.rejected] == [
            NAMES.index(name) for name in names
        ]


def test_plain_tfds_reads_it(folder: Path) -> None:
    images = prepared(folder, NAMES)
    source = tfds.builder_from_directory(set_folder(folder)).as_data_source("train")
    pixels = {record["filename"].decode(): record["image"] for record in source}
    assert sorted(pixels) == sorted(USABLE)
    for row, name in enumerate(images.filenames):
        np.testing.assert_array_equal(pixels[name], images[row])


def test_nothing_is_said(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    prepared(folder, NAMES)
    assert capfd.readouterr().out == ""
