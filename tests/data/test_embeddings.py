"""A user's own features: every format gives the same rows, and what is wrong is named."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mlc_jax.data.embeddings import (
    PIECE,
    channels_of,
    open_embeddings,
    read_contents,
    stream_embeddings,
)
from mlc_jax.errors import ConfigError

NAMES = ("a.jpg", "ü b.jpg", "00012", "NA", "d/e.jpg")
VECTORS = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)

Write = Callable[[Path, np.ndarray, tuple[str, ...]], Path]


def write_npy(folder: Path, array: np.ndarray, names: tuple[str, ...]) -> Path:
    np.save(folder / "own.npy", array)
    (folder / "own.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return folder / "own.npy"


def write_npz(folder: Path, array: np.ndarray, names: tuple[str, ...]) -> Path:
    np.savez_compressed(folder / "own.npz", features=array, names=np.array(names))
    return folder / "own.npz"


def write_parquet(folder: Path, array: np.ndarray, names: tuple[str, ...]) -> Path:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet

    columns = {"filename": list(names), "embedding": array.reshape(len(array), -1).tolist()}
    pyarrow.parquet.write_table(pa.table(columns), folder / "own.parquet")
    return folder / "own.parquet"


def write_columns(folder: Path, array: np.ndarray, names: tuple[str, ...]) -> Path:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet

    columns = {f"f{n}": array[:, n] for n in range(array.shape[1])} | {"image": list(names)}
    pyarrow.parquet.write_table(pa.table(columns), folder / "columns.parquet")
    return folder / "columns.parquet"


def write_safetensors(folder: Path, array: np.ndarray, names: tuple[str, ...]) -> Path:
    path = folder / "own.safetensors"
    save_file({"features": array}, path, metadata={"names": json.dumps(names)})
    return path


def write_named_beside(folder: Path, array: np.ndarray, names: tuple[str, ...]) -> Path:
    path = folder / "beside.safetensors"
    save_file({"features": array}, path)
    path.with_suffix(".txt").write_text("\n".join(names), encoding="utf-8")
    return path


WRITERS = (
    write_npy,
    write_npz,
    write_parquet,
    write_columns,
    write_safetensors,
    write_named_beside,
)


@pytest.mark.parametrize("write", WRITERS)
def test_rows_go_by_name_whatever_the_format(write: Write, tmp_path: Path) -> None:
    path = write(tmp_path, VECTORS, NAMES)
    asked = ("NA", "00012", "missing.jpg", "a.jpg")
    done = []
    found = open_embeddings(path, asked, tmp_path / "cache", done.append)
    assert found.filenames == ("NA", "00012", "a.jpg")
    assert found.places.tolist() == [0, 1, 3]
    np.testing.assert_array_equal(found.array[:, 0], VECTORS[[3, 2, 0]])
    np.testing.assert_array_equal(found[2], VECTORS[0][None, None])
    assert [(item.place, item.reason) for item in found.rejected] == [(2, "no_features")]
    assert sum(done) == 3
    assert channels_of(path) == (1, 4)


@pytest.mark.parametrize("write", WRITERS)
def test_many_rows_are_read_in_pieces(write: Write, tmp_path: Path) -> None:
    array = np.random.default_rng(1).standard_normal((PIECE + 7, 3)).astype(np.float32)
    names = tuple(f"{row}.jpg" for row in range(len(array)))
    path = write(tmp_path, array, names)
    found = open_embeddings(path, names[::-1], tmp_path / "cache", lambda _: None)
    np.testing.assert_array_equal(found.array[:, 0], array[::-1])


def test_a_file_in_the_order_of_the_labels_is_mapped_as_it_is(tmp_path: Path) -> None:
    path = write_npy(tmp_path, VECTORS, NAMES)
    found = open_embeddings(path, NAMES, tmp_path / "cache", lambda _: None)
    assert not (tmp_path / "cache").exists()
    np.testing.assert_array_equal(found.array[:, 0], VECTORS)


@pytest.mark.parametrize("write", [write_npy, write_npz, write_safetensors])
def test_views_are_an_axis_or_rows_of_one_name(write: Write, tmp_path: Path) -> None:
    views = np.random.default_rng(2).standard_normal((5, 3, 4)).astype(np.float32)
    (tmp_path / "flat").mkdir()
    apart = write(tmp_path, views, NAMES)
    again = tuple(name for name in NAMES for _ in range(3))
    as_rows = write(tmp_path / "flat", views.reshape(15, 4), again)
    for path in (apart, as_rows):
        found = open_embeddings(path, NAMES[::-1], tmp_path / "cache", lambda _: None)
        np.testing.assert_array_equal(found.array, views[::-1])
        assert found.shape == (5, 3, 1, 1, 4)
        rows, numbers = np.array([[0, 4], [1, 1]]), np.array([[0, 2], [1, 0]])
        taken = found.take(rows, numbers)
        np.testing.assert_array_equal(taken[..., 0, 0, :], views[::-1][rows, numbers])
        assert channels_of(path) == (3, 4)


def test_equal_vectors_are_copies(tmp_path: Path) -> None:
    array = VECTORS.copy()
    array[3] = array[1]
    found = open_embeddings(
        write_npy(tmp_path, array, NAMES), NAMES, tmp_path / "cache", lambda _: None
    )
    assert found.digests[3] == found.digests[1]
    assert len(set(found.digests)) == 4


def test_a_feature_that_is_not_finite_is_left_out(tmp_path: Path) -> None:
    array = VECTORS.copy()
    array[1, 2] = np.nan
    found = open_embeddings(
        write_npy(tmp_path, array, NAMES), NAMES, tmp_path / "cache", lambda _: None
    )
    assert [(item.place, item.reason) for item in found.rejected] == [(1, "not_finite")]
    np.testing.assert_array_equal(found.array[:, 0], array[[0, 2, 3, 4]])


def test_a_changed_file_is_copied_anew(tmp_path: Path) -> None:
    for array in (VECTORS, VECTORS + 1):
        path = write_npz(tmp_path, array, NAMES)
        found = open_embeddings(path, NAMES, tmp_path / "cache", lambda _: None)
        np.testing.assert_array_equal(found.array[:, 0], array)


def test_prediction_gets_every_image_of_the_file(tmp_path: Path) -> None:
    array = VECTORS.copy()
    array[0, 0] = np.inf
    path = write_npy(tmp_path, array, NAMES)
    batches = list(stream_embeddings(path, tmp_path / "cache", 2))
    assert [item.filename for item in batches[0].refused] == ["a.jpg"]
    assert [len(batch.filenames) for batch in batches] == [0, 2, 2]
    read = np.concatenate([batch.images for batch in batches])
    np.testing.assert_array_equal(read[:, 0, 0], array[1:])


def bad_suffix(folder: Path) -> Path:
    (folder / "own.pkl").write_bytes(b"\x80\x04N.")
    return folder / "own.pkl"


def no_names(folder: Path) -> Path:
    np.save(folder / "own.npy", VECTORS)
    return folder / "own.npy"


def too_few_names(folder: Path) -> Path:
    return write_npy(folder, VECTORS, NAMES[:3])


def whole_numbers(folder: Path) -> Path:
    return write_npy(folder, VECTORS.astype(np.int64), NAMES)


def objects(folder: Path) -> Path:
    np.save(folder / "own.npy", np.array([{"a": 1}], object), allow_pickle=True)
    return folder / "own.npy"


def object_names(folder: Path) -> Path:
    np.savez(folder / "own.npz", features=VECTORS, names=np.array(NAMES, object))
    return folder / "own.npz"


def four_axes(folder: Path) -> Path:
    return write_npy(folder, VECTORS.reshape(5, 1, 1, 4), NAMES)


def lacking(folder: Path) -> Path:
    np.savez(folder / "own.npz", vectors=VECTORS)
    return folder / "own.npz"


def torn(folder: Path) -> Path:
    path = write_npz(folder, VECTORS, NAMES)
    path.write_bytes(path.read_bytes()[:60])
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bad_suffix, r"features are read from \.npy, \.npz, \.parquet, \.safetensors"),
        (no_names, r"write one file name per line to own\.txt"),
        (too_few_names, r"5 rows of features, but 3 names"),
        (whole_numbers, r"holds int64; give float16, float32 or float64"),
        (objects, r"cannot be read as features"),
        (object_names, r"cannot be read as features"),
        (four_axes, r"give \[N, C\] or \[N, views, C\]"),
        (lacking, r"holds no array features and names"),
        (torn, r"cannot be read as features"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    make: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_contents(make(tmp_path))
    assert "own" in str(caught.value)


def test_images_with_different_numbers_of_views_are_refused(tmp_path: Path) -> None:
    path = write_npy(tmp_path, VECTORS, ("a", "b", "a", "c", "c"))
    with pytest.raises(ConfigError, match=r"b has 1 rows and others have 2"):
        open_embeddings(path, ("a", "b"), tmp_path / "cache", lambda _: None)


def test_no_file_is_opened_for_writing(tmp_path: Path) -> None:
    path = write_npy(tmp_path, VECTORS, NAMES)
    path.chmod(0o444)
    found = open_embeddings(path, NAMES, tmp_path / "cache", lambda _: None)
    assert not found.array.flags.writeable
