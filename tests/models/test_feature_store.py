"""Laws of the feature store: every (image, view) once, whole or not at all, and never damaged."""

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mlc_jax.data.augment import draw_view
from mlc_jax.data.dataset import ImageSet
from mlc_jax.errors import ConfigError, NumericsError, WorkdirError
from mlc_jax.models import extraction, feature_store
from mlc_jax.models.algorithms import Algorithm
from mlc_jax.models.backbones import load_backbone
from mlc_jax.models.extraction import by_image, extract_passes
from mlc_jax.models.feature_store import FeatureStore
from mlc_jax.models.features import FeatureSpec, feature_shape, features_of
from tests.image_folders import SIZE, image_folder, prepared, views

VIEWS = 2
SHAPE = (2, 2, 3)
SPEC = FeatureSpec(("fake", "1234"), SIZE, False, "float32", views(VIEWS))


def quarters(images: np.ndarray | jax.Array) -> np.ndarray:
    """The mean colour of each quarter: a cheap backbone; uint8 [B, H, W, 3] to [B, 2, 2, 3]."""
    height, width = SIZE
    cut = np.asarray(images).reshape(-1, 2, height // 2, 2, width // 2, 3)
    return cut.mean(axis=(2, 4), dtype=np.float64).astype(np.float32)


class Counting:
    """Counts the different pictures that go through; raises before call `fail_at`."""

    def __init__(self, fail_at: int | None = None, dtype: str = "float32") -> None:
        self.calls = 0
        self.seen: list[bytes] = []
        self._fail_at, self._dtype = fail_at, dtype

    def __call__(self, images: np.ndarray | jax.Array) -> jax.Array:
        if self.calls == self._fail_at:
            raise KeyboardInterrupt
        self.calls += 1
        self.seen += [image.tobytes() for image in np.asarray(images)]
        return jnp.asarray(quarters(images)).astype(self._dtype)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven images and a copy of one of them."""
    image_folder(tmp_path / "images", 7)
    shutil.copy(tmp_path / "images" / "07.png", tmp_path / "images" / "copy.png")
    return tmp_path


def images_of(folder: Path, count: int = 8) -> ImageSet:
    names = sorted(path.name for path in (folder / "images").iterdir())
    return prepared(folder, names[:count])


def open_store(
    folder: Path, spec: FeatureSpec = SPEC, warn: Callable[[str], None] = pytest.fail
) -> FeatureStore:
    return FeatureStore(folder / "cache", spec, SHAPE, warn)


def fill(store: FeatureStore, images: ImageSet, extract: Counting, batch_size: int = 4) -> int:
    """Extracts what is missing; returns the number of passes that were told of."""
    told: list[int] = []
    store.extract(images, extract, batch_size, told.append, lambda _: None)
    return sum(told)


def expected(images: ImageSet) -> np.ndarray:
    return np.stack(
        [
            quarters(
                np.stack(
                    [
                        draw_view(
                            images[row],
                            SPEC.views.augmentation,
                            seed=SPEC.views.seed,
                            digest=images.digests[row],
                            view=view,
                        )
                        for view in range(VIEWS + 1)
                    ]
                )
            )
            for row in range(len(images))
        ]
    )


@pytest.fixture(params=[1, 2, 100])
def images_per_block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    count: int = request.param
    monkeypatch.setattr(feature_store, "BLOCK_BYTES", count * (VIEWS + 1) * int(np.prod(SHAPE)) * 4)
    return count


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_passes_are_made_once_in_order(folder: Path, batch_size: int) -> None:
    images, rows = images_of(folder), np.array([5, 0, 2])
    told: list[int] = []
    extract = Counting()
    waits: list[float] = []
    passes = extract_passes(
        images, rows, SPEC.views, extract, batch_size, told.append, waits.append
    )
    made = []
    for part in passes:
        made.append(part)
        # A call is begun before the features of the one before it are handed over.
        assert extract.calls == min(len(made) + 1, -(-9 // batch_size))
    whole = np.concatenate(made).reshape(3, VIEWS + 1, *SHAPE)
    np.testing.assert_array_equal(whole, expected(images)[rows])
    assert sum(told) == whole.shape[0] * whole.shape[1]
    # Every call has the full batch, so that one compiled program serves them all.
    assert len(extract.seen) == extract.calls * batch_size
    # Images come in batches that fill a call; before the first there was nothing to do.
    assert len(waits) == -(-3 // -(-batch_size // (VIEWS + 1))) - 1


@pytest.mark.parametrize("busy", [True, False])
def test_a_wait_counts_where_the_device_has_nothing_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    class Running(np.ndarray):
        def is_ready(self) -> bool:
            return not busy

    def slowly(batches: Iterator[np.ndarray], waited: Callable[[float], None]) -> Any:
        for batch in batches:
            waited(3.0)
            yield batch

    monkeypatch.setattr(extraction, "timed", slowly)
    images, waits = images_of(folder), list[float]()

    def extract(batch: np.ndarray | jax.Array) -> Any:
        return quarters(batch).view(Running)

    rows = np.arange(4)
    list(extract_passes(images, rows, SPEC.views, extract, 3, lambda _: None, waits.append))
    assert waits == [0.0 if busy else 3.0] * 3


def test_no_image_gives_no_pass(folder: Path) -> None:
    images, none = images_of(folder), np.zeros(0, np.int64)
    assert not list(extract_passes(images, none, SPEC.views, pytest.fail, 3, print, print))


@pytest.mark.parametrize("count", [1, 2, 3, 100])
@pytest.mark.parametrize("sizes", [[12], [1] * 12, [5, 5, 2], [7, 4], [2]])
def test_passes_are_put_together_by_image(sizes: list[int], count: int) -> None:
    passes = np.arange(sum(sizes) * 2).reshape(-1, 2)
    made = list(by_image(np.split(passes, np.cumsum(sizes)[:-1]), 3, count))
    whole = sum(sizes) // 3
    assert [len(block) for block in made[:-1]] == [count] * (len(made) - 1)
    assert sum(len(block) for block in made) == whole
    if whole:
        np.testing.assert_array_equal(
            np.concatenate(made), passes[: whole * 3].reshape(whole, 3, 2)
        )


def test_every_image_and_view_goes_through_once(folder: Path, images_per_block: int) -> None:
    del images_per_block
    images, extract = images_of(folder), Counting()
    store = open_store(folder)
    different = len(set(images.digests))
    assert different == len(images) - 1
    assert store.missing(images).size == different
    assert fill(store, images, extract) == different * (VIEWS + 1)
    assert len(set(extract.seen)) == different * (VIEWS + 1)
    assert store.missing(images).size == 0
    np.testing.assert_array_equal(store.load(images), expected(images))

    again = open_store(folder)
    assert again.missing(images).size == 0
    assert fill(again, images, Counting(fail_at=0)) == 0
    np.testing.assert_array_equal(again.load(images), expected(images))


def test_a_superset_extracts_the_new_images_only(folder: Path) -> None:
    few, all_images = images_of(folder, 3), images_of(folder)
    fill(open_store(folder), few, Counting())
    store = open_store(folder)
    new = len(set(all_images.digests) - set(few.digests))
    assert new
    assert fill(store, all_images, Counting()) == new * (VIEWS + 1)
    np.testing.assert_array_equal(store.load(all_images), expected(all_images))
    np.testing.assert_array_equal(store.load(few), expected(few))


def test_two_open_stores_share_what_either_adds(folder: Path) -> None:
    images = images_of(folder)
    first, second = open_store(folder), open_store(folder)
    fill(first, images, Counting())
    assert second.missing(images).size  # it looked before
    assert fill(second, images, Counting(fail_at=0)) == 0
    np.testing.assert_array_equal(second.load(images), expected(images))


def test_a_stopped_extraction_goes_on_where_it_stopped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_store, "BLOCK_BYTES", 2 * (VIEWS + 1) * int(np.prod(SHAPE)) * 4)
    images = images_of(folder)
    # Two images a block, six passes: calls 0 and 1 make a block, and call 3 would end the second.
    with pytest.raises(KeyboardInterrupt):
        fill(open_store(folder), images, Counting(fail_at=3), batch_size=3)
    store = open_store(folder)
    left = len(set(images.digests)) - 2
    assert store.missing(images).size == left
    assert fill(store, images, Counting(), batch_size=3) == left * (VIEWS + 1)
    np.testing.assert_array_equal(open_store(folder).load(images), expected(images))
    assert not list((folder / "cache" / "features").rglob("*.partial*"))


@pytest.mark.parametrize("suffix", ["npy", "json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_block_is_made_anew_and_never_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, harm: str
) -> None:
    monkeypatch.setattr(feature_store, "BLOCK_BYTES", 2 * (VIEWS + 1) * int(np.prod(SHAPE)) * 4)
    images = images_of(folder)
    fill(open_store(folder), images, Counting())
    kept = folder / "cache" / "features"
    sound = shutil.copytree(kept, folder / "sound")
    victim = sorted(kept.rglob(f"block-*.{suffix}"))[1]
    data = victim.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.choice(len(data), 12, replace=False).tolist():
        if harm == "remove":
            victim.unlink()
        elif harm == "cut":
            victim.write_bytes(data[:place])
        else:
            victim.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        warnings: list[str] = []
        store = open_store(folder, warn=warnings.append)
        lost = store.missing(images).size
        assert lost in (1, 2)
        # A block whose record is gone never existed; one flipped letter in the digest of an image
        # makes that image unknown. All else is said.
        if suffix == "npy" or (lost == 2 and harm != "remove"):
            assert len(warnings) == 1
            assert victim.stem in warnings[0]
        assert fill(store, images, Counting()) == lost * (VIEWS + 1)
        np.testing.assert_array_equal(store.load(images), expected(images))
        clean = open_store(folder)
        assert clean.missing(images).size == 0
        np.testing.assert_array_equal(clean.load(images), expected(images))
        shutil.rmtree(kept)
        shutil.copytree(sound, kept)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_every_type_comes_back_bit_for_bit(folder: Path, dtype: str) -> None:
    images, spec = images_of(folder), dataclasses.replace(SPEC, dtype=dtype)
    fill(open_store(folder, spec), images, Counting(dtype=dtype))
    loaded = open_store(folder, spec).load(images)
    assert loaded.dtype == jnp.dtype(dtype)
    rounded = np.asarray(jnp.asarray(expected(images)).astype(dtype))
    assert loaded.tobytes() == rounded.tobytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_images_themselves_can_be_read_without_their_views(folder: Path, dtype: str) -> None:
    images, spec = images_of(folder), dataclasses.replace(SPEC, dtype=dtype)
    store = open_store(folder, spec)
    fill(store, images, Counting(dtype=dtype))
    own = store.load(images)[:, 0]
    rows = np.array([5, 0, 7, 5])
    assert store.whole(images, rows).tobytes() == own[rows].tobytes()
    pooled = own.astype(np.float32).mean(axis=(1, 2))
    np.testing.assert_allclose(store.pooled(images), pooled, rtol=1e-6)


def test_what_changes_between_opening_and_reading_is_never_given(folder: Path) -> None:
    images = images_of(folder)
    fill(open_store(folder), images, Counting())
    for read in (
        lambda store: store.load(images),
        lambda store: store.pooled(images),
        lambda store: store.whole(images, np.array([0])),
    ):
        store = open_store(folder)
        first, place = store._place_of[images.digests[0]]
        whole = first.read_bytes()
        changed = bytearray(whole)
        changed[-store.bytes_per_image * (len(store._sums[first]) - place)] ^= 16
        first.write_bytes(changed)
        with pytest.raises(WorkdirError, match=f"{first.name} was changed while it was in use"):
            read(store)
        first.write_bytes(whole)


def test_another_type_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"config\.features\.dtype='float64'"):
        dataclasses.replace(SPEC, dtype="float64")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_name_the_file_and_are_not_kept(
    folder: Path, value: float
) -> None:
    images = images_of(folder)
    sick = images[4].tobytes()

    def extract(batch: np.ndarray | jax.Array) -> jax.Array:
        made = quarters(batch)
        for place, image in enumerate(np.asarray(batch)):
            if image.tobytes() == sick:
                made[place, 1, 1, 2] = value
        return jnp.asarray(made)

    store = open_store(folder)
    with pytest.raises(NumericsError, match=images.filenames[4]):
        store.extract(images, extract, 4, lambda _: None, lambda _: None)
    assert open_store(folder).missing(images).size == len(set(images.digests))


def test_the_key_changes_with_everything_that_features_depend_on() -> None:
    augmentation = SPEC.views.augmentation
    changed = [
        dataclasses.replace(SPEC, backbone=("other", "1234")),
        dataclasses.replace(SPEC, backbone=("fake", "1235")),
        dataclasses.replace(SPEC, image_size=SIZE[::-1]),
        dataclasses.replace(SPEC, pooled=True),
        dataclasses.replace(SPEC, dtype="float16"),
        dataclasses.replace(SPEC, views=views(VIEWS + 1)),
        dataclasses.replace(SPEC, views=views(VIEWS, seed=1)),
        dataclasses.replace(SPEC, algorithm=Algorithm(("conv1",), 0)),
        dataclasses.replace(SPEC, compute="bfloat16"),
        dataclasses.replace(SPEC, mirror=True),
        dataclasses.replace(SPEC, sizes=(SIZE, (32, 32))),
    ]
    for field in dataclasses.fields(augmentation):
        value = getattr(augmentation, field.name)
        new = (0.5, 1.0) if isinstance(value, tuple) else not value
        change: dict[str, Any] = {field.name: new}
        other = dataclasses.replace(augmentation, **change)
        changed.append(dataclasses.replace(SPEC, views=SPEC.views._replace(augmentation=other)))
    assert {field.name for field in dataclasses.fields(SPEC)} == {
        "backbone",
        "image_size",
        "pooled",
        "dtype",
        "views",
        "algorithm",
        "compute",
        "mirror",
        "sizes",
    }, "a new field: change it here as well"
    digests = [spec.digest() for spec in (SPEC, *changed)]
    assert len(set(digests)) == len(digests)
    assert dataclasses.replace(SPEC).digest() == SPEC.digest()


def test_stores_of_other_keys_do_not_meet(folder: Path) -> None:
    images = images_of(folder)
    fill(open_store(folder), images, Counting())
    other = open_store(folder, dataclasses.replace(SPEC, backbone=("fake", "5678")))
    assert other.missing(images).size == len(set(images.digests))


@pytest.mark.parametrize("pooled", [True, False])
def test_mirrored_features_are_the_mean_of_two_passes(pooled: bool) -> None:
    """A map is turned back before the mean is taken, so places stay where they are."""
    backbone = load_backbone("mobilenet_v2", "random")
    spec = dataclasses.replace(SPEC, image_size=(64, 96), pooled=pooled, backbone=backbone.key)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    plain = [
        np.asarray(features_of(backbone, spec, backbone.params, some))
        for some in (images, images[:, :, ::-1])
    ]
    both = features_of(backbone, dataclasses.replace(spec, mirror=True), backbone.params, images)
    np.testing.assert_allclose(both, (plain[0] + plain[1][:, :, ::-1]) / 2, atol=1e-5)


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """By Pillow, which averages over what a pixel covers as `jax.image.resize` does."""
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))


def test_features_of_several_sizes_stand_side_by_side() -> None:
    """Those of the given size are as they were; the smaller image is Pillow's to a grey level."""
    backbone = load_backbone("mobilenet_v2", "random")
    spec = dataclasses.replace(SPEC, image_size=(96, 96), pooled=True, backbone=backbone.key)
    several = dataclasses.replace(spec, sizes=((96, 96), (64, 64)))
    smooth = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    images = np.stack([resized(one, 96) for one in smooth])
    small = np.asarray(jax.image.resize(images.astype(np.float32), (2, 64, 64, 3), "linear"))
    pillow = np.stack([resized(one, 64) for one in images]).astype(np.float32)
    assert np.abs(small - pillow).max() <= 1.0
    joined = np.asarray(features_of(backbone, several, backbone.params, images))
    assert joined.shape[-1] == feature_shape(backbone, several)[-1] == 2 * backbone.channels
    whole = np.asarray(features_of(backbone, spec, backbone.params, images))
    np.testing.assert_allclose(joined[..., : backbone.channels], whole, atol=1e-6)
    own = dataclasses.replace(spec, image_size=(64, 64))
    rounded = np.rint(small).astype(np.uint8)
    expected = np.asarray(features_of(backbone, own, backbone.params, rounded))
    np.testing.assert_allclose(joined[..., backbone.channels :], expected, atol=1e-4)
