"""What a collection says of its files: nothing that was left out or doubtful passes in silence."""

from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs.impute import get_config
from mlc_jax.data.collection import Collection, open_collection
from mlc_jax.errors import LabelsError
from mlc_jax.journal import Journal
from mlc_jax.settings import resolve


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pictures: two of the same pixels, and a third of three pages."""
    images = tmp_path / "images"
    (images / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    one, other, *pages = (
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)) for _ in range(4)
    )
    one.save(images / "a.png")
    one.save(images / "b.bmp")
    other.save(images / "deep" / "c.tiff", save_all=True, append_images=pages)
    return tmp_path


def opened(
    data: Path, text: str, budget: float = 0.5, follow_links: bool = False
) -> tuple[Collection, str]:
    """The collection of a labels file, and all that was said."""
    (data / "labels.csv").write_text(text)
    config: ConfigDict = get_config()
    config.data.labels, config.data.images = str(data / "labels.csv"), str(data / "images")
    config.data.image_size, config.data.max_bad_fraction = (32, 32), budget
    config.data.follow_links = follow_links
    journal = Journal()
    made = open_collection(resolve(config, lambda _: None), data / "cache", journal)
    return made, "\n".join(journal.notes)


SOUND = "filename,x,y\na.png,1,0\nb.bmp,1,\ndeep/c.tiff,0,1\n"


def test_several_pages_are_said_whether_or_not_the_set_was_there(data: Path) -> None:
    for _ in range(2):
        _, said = opened(data, SOUND)
        assert "of several frames the first is taken: 1 (deep/c.tiff)" in said
        assert "in no row" not in said
        assert "noise" not in said, "a blank disagrees with nobody"


def test_labels_that_disagree_on_the_same_pixels_are_noise(data: Path) -> None:
    _, said = opened(data, SOUND.replace("b.bmp,1,", "b.bmp,1,1"))
    assert "(label noise): 1 (b.bmp and a.png)" in said


def test_images_in_no_row_are_counted(data: Path) -> None:
    for number in range(12):
        (data / "images" / f"more{number:02}.png").write_bytes(b"never opened")
    (data / "images" / "notes.txt").write_text("no image")
    _, said = opened(data, SOUND)
    assert "in no row: 12 (more00.png, more01.png" in said
    assert "more10.png" not in said


def test_an_absent_file_is_told_its_likely_name(data: Path) -> None:
    _, said = opened(data, SOUND.replace("a.png", "A.PNG") + "nothing.png,1,1\n", 0.6)
    assert "2 of 4 rows cannot be used" in said
    assert "A.PNG (absent; did you mean 'a.png'?)" in said
    assert "nothing.png (absent)" in said
    with pytest.raises(LabelsError, match="did you mean"):
        opened(data, SOUND.replace("a.png", "A.PNG") + "nothing.png,1,1\n", 0.1)
    collection, said = opened(data, SOUND.replace("a.png", "A.PNG"), 0.1)
    assert collection.table.filenames[0] == "a.png"
    assert "file names are found by their names without suffix (config.data.match=stem)" in said


def test_where_no_image_is_found_a_larger_budget_is_not_proposed(data: Path) -> None:
    with pytest.raises(LabelsError, match=r"config\.data\.file_column") as caught:
        opened(data, "filename,x,y\np.png,1,0\nq.png,0,1\n", 0.1)
    assert "raise it" not in str(caught.value)


def test_links_out_of_the_folder_are_followed_where_a_key_allows_it(data: Path) -> None:
    """As DVC, git-annex and Hugging Face's cache make them."""
    (data / "store").mkdir()
    for name in ("a.png", "b.bmp", "deep/c.tiff"):
        stored = data / "store" / Path(name).name
        (data / "images" / name).rename(stored)
        (data / "images" / name).symlink_to(stored)
    with pytest.raises(LabelsError, match=r"outside_root.*--config\.data\.follow_links=true"):
        opened(data, SOUND)
    collection, _ = opened(data, SOUND, follow_links=True)
    assert collection.table.filenames == ("a.png", "b.bmp", "deep/c.tiff")
    assert len(collection.images) == 3
    with pytest.raises(LabelsError, match="unsafe_path"):
        opened(data, "filename,x\n../store/a.png,1\n../store/b.bmp,0\n", follow_links=True)
