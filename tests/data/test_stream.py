"""Streams of images: what a path names, in which order, and how much of it is held."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlc_jax.data.images import decode_image
from mlc_jax.data.pixels import resize_image
from mlc_jax.data.stream import ImageBatch, list_images, stream_images
from mlc_jax.errors import ConfigError
from tests.image_folders import SIZE, image_folder
from tests.memory import held_at_the_end, many_links


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_batches_hold_the_readable_files_in_order(tmp_path: Path, batch_size: int) -> None:
    names = sorted(image_folder(tmp_path, 9))
    (tmp_path / names[2]).write_bytes(b"no picture")
    batches = list(stream_images(list_images(str(tmp_path), ""), SIZE, batch_size))
    read = [name for batch in batches for name in batch.filenames]
    assert read == [*names[:2], *names[3:]]
    assert [row for batch in batches for row in batch.rows] == [1, 2, *range(4, 10)]
    refused = [item for batch in batches for item in batch.refused]
    assert [(item.filename, item.row) for item in refused] == [(names[2], 3)]
    for batch in batches:
        assert 0 < len(batch.filenames) + len(batch.refused) <= batch_size
        assert batch.images.shape == (len(batch.filenames), *SIZE, 3)
        for name, image in zip(batch.filenames, batch.images, strict=True):
            np.testing.assert_array_equal(image, resize_image(decode_image(tmp_path / name), SIZE))


def test_a_list_gives_its_own_line_numbers(tmp_path: Path) -> None:
    names = image_folder(tmp_path / "images", 3)
    text = tmp_path / "list.txt"
    text.write_text(f"filename\r\n\r\n{names[2]}\r\n{names[0]}\r\n", newline="")
    assert list(list_images(str(text), str(tmp_path / "images"))) == [(3, names[2]), (4, names[0])]
    (tmp_path / "empty.txt").write_text("\n")
    assert list(list_images(str(tmp_path / "empty.txt"), "")) == []
    table = tmp_path / "list.csv"
    table.write_text('"with, comma.jpg",1\nplain.jpg,0\n')
    assert list(list_images(str(table), "")) == [(1, "with, comma.jpg"), (2, "plain.jpg")]


def test_a_root_is_for_lists_and_must_be_a_folder(tmp_path: Path) -> None:
    (name,) = image_folder(tmp_path, 1)
    (tmp_path / "list.txt").write_text(name)
    for images in (tmp_path, tmp_path / name):
        with pytest.raises(ConfigError, match=r"config\.data\.root=.* is for lists"):
            list_images(str(images), str(tmp_path))
    with pytest.raises(ConfigError, match=r"config\.data\.root=.* is no folder"):
        list_images(str(tmp_path / "list.txt"), str(tmp_path / "no"))


def test_ten_times_the_images_take_the_same_memory(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "source.png")

    def held_by(count: int) -> int:
        images = many_links(tmp_path / "source.png", tmp_path / str(count), count)
        return held_at_the_end(stream_images(list_images(str(images), ""), (128, 128), 8))

    # 360 more images would be 18 MB.
    assert abs(held_by(400) - held_by(40)) < 1_500_000


def test_a_consumer_that_stops_early_is_not_read_for(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "source.png")
    many_links(tmp_path / "source.png", tmp_path / "images", 100)
    (tmp_path / "images" / "00050.txt").write_text("passed over by whoever gets this far")
    listing = list_images(str(tmp_path / "images"), "")
    stream = stream_images(listing, SIZE, 4)
    next(stream)
    stream.close()
    assert listing.passed_over == 0


def test_hidden_files_and_what_macos_adds_are_passed_over(tmp_path: Path) -> None:
    names = ("a.jpg", "._a.jpg", ".thumbnails/b.jpg", "__MACOSX/._a.jpg", "sub/.c.jpg", "sub/d.jpg")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listing = list_images(str(tmp_path), "")
    assert [name for _, name in listing] == ["a.jpg", "sub/d.jpg"]
    assert listing.passed_over == 4


def test_links_out_of_the_folder_are_followed_where_that_is_allowed(tmp_path: Path) -> None:
    """As Hugging Face's cache, DVC and git-annex lay them out."""
    (tmp_path / "store").mkdir()
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "store" / "blob.jpg")
    (tmp_path / "images" / "a.jpg").symlink_to(tmp_path / "store" / "blob.jpg")

    def read(name: str, allowed: bool = False) -> ImageBatch:
        (batch,) = stream_images(list_images(str(tmp_path / name), "", allowed), (8, 8), 4)
        return batch

    (refused,) = read("images").refused
    assert refused.reason == "outside_root"
    assert read("images", allowed=True).filenames == ("a.jpg",)
    assert read("images/a.jpg").filenames == ("a.jpg",)  # named, and meant as it is
