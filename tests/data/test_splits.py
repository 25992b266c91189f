"""Groups and splits that the user gives: read as they are, and refused where they contradict."""

from pathlib import Path

import numpy as np
import pytest

from mlc_jax.data.folds import divide, make_folds, torn_rows
from mlc_jax.data.groups import united
from mlc_jax.data.splits import (
    Given,
    check_split,
    group_numbers,
    make_split,
    read_given,
    write_given,
)
from mlc_jax.errors import ConfigError, LabelsError

NAMES = tuple(f"{row}.jpg" for row in range(60))
LABELS = np.random.default_rng(0).integers(-1, 2, (60, 3)).astype(np.int8)
PARTS = ("train",) * 36 + ("val",) * 12 + ("test",) * 12


def read(
    tmp_path: Path, text: str, names: tuple[str, ...] = ("a.jpg", "b c.jpg", "d.jpg")
) -> Given | None:
    file = tmp_path / "given.csv"
    file.write_text(text)
    return read_given("groups", str(file), {}, names, tmp_path / "labels.csv")


@pytest.mark.parametrize(
    "text",
    [
        "filename,patient\na.jpg,P1\nb c.jpg,P 2\nd.jpg,P1\n",
        "d.jpg;P1\n\nb c.jpg;P 2\na.jpg; P1\n",
        "image\tscene\nb c.jpg\tP 2\nelsewhere.jpg\tP3\na.jpg\tP1\nd.jpg\tP1\na.jpg\tP1\n",
        'a.jpg P1\n"b c.jpg" "P 2"\nd.jpg P1\n',
    ],
)
def test_a_file_of_two_columns_is_read_in_any_order_and_form(tmp_path: Path, text: str) -> None:
    given = read(tmp_path, text)
    assert given is not None
    assert given.values == ("P1", "P 2", "P1")
    assert group_numbers(given).tolist() == [0, 1, 0]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    given = Given("x", ("P1", "", 'P,"2'))
    names = ("a.jpg", "b c.jpg", 'd".jpg')
    write_given(tmp_path / "groups.csv", given, names)
    (tmp_path / "cells.csv").touch()
    # Beside the completed table of an impute run it is found without being named.
    found = read_given("groups", "", {}, names, tmp_path / "labels.csv")
    assert found is not None
    assert found.values == given.values
    assert found.digest() == given.digest()


def test_images_without_a_group_stand_alone() -> None:
    given = Given("x", ("P1", "", "P1", "", "P2"))
    assert group_numbers(given).tolist() == [0, 1, 0, 2, 3]


def test_a_column_of_the_labels_file_is_taken_by_its_name() -> None:
    given = read_given("split", "fold", {"fold": ("0", " 1 ")}, ("a", "b"), Path("labels.csv"))
    assert given is not None
    assert given.values == ("0", "1")
    assert "'fold'" in given.source


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg,P1,x\nd.jpg,P2,y\n", "two columns"),
        ("a.jpg,P1\nd.jpg,P2\na.jpg,P3\n", "a.jpg has 'P1' in row 1, 'P3' in row 3"),
        ("x.jpg,P1\ny.jpg,P2\n", "names none of the images"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_rows(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(LabelsError, match=message):
        read(tmp_path, text)


def test_neither_a_file_nor_a_column_is_refused_with_the_columns_there_are(tmp_path: Path) -> None:
    columns = {"patient": ("1",), "site": ("2",)}
    with pytest.raises(ConfigError, match=r"config\.data\.groups='scan'.*'patient', 'site'"):
        read_given("groups", "scan", columns, ("a.jpg",), tmp_path / "labels.csv")
    assert read_given("groups", "", {}, ("a.jpg",), tmp_path / "labels.csv") is None


@pytest.mark.parametrize(
    ("values", "fold", "test", "numbered"),
    [
        (("Train", "VAL", "test", "dev"), [-1, 0, -1, 0], [0, 0, 1, 0], False),
        (("training", "training", "testing", "valid"), [-1, -1, -1, 0], [0, 0, 1, 0], False),
        (("3", "1", "1.0", "7"), [1, 0, 0, 2], [0, 0, 0, 0], True),
    ],
)
def test_words_and_numbers_mean_what_they_say(
    values: tuple[str, ...], fold: list[int], test: list[int], numbered: bool
) -> None:
    split = make_split(Given("x", values), NAMES[:4])
    assert split.fold.tolist() == fold
    assert split.test.tolist() == list(map(bool, test))
    assert split.numbered == numbered


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("train", "", "test", ""), r"2 images have no part .*1\.jpg, 3\.jpg"),
        (("train", "query", "test", "val"), r"'query' of 1\.jpg is no part"),
        (("0", "1", "test", "2"), r"'test' of 2\.jpg is no part"),
        (("0.5", "1", "2", "3"), r"'0\.5' of 0\.jpg is no part"),
    ],
)
def test_what_is_no_part_of_a_split_is_refused_with_its_image(
    values: tuple[str, ...], message: str
) -> None:
    with pytest.raises(LabelsError, match=message):
        make_split(Given("x", values), NAMES[:4])


@pytest.mark.parametrize(
    ("split", "torn"),
    [
        (
            ("train", "test", "train", "train"),
            "group 'P': 0.jpg (row 2) is in train, 1.jpg (row 3)",
        ),
        (("val", "val", "train", "dev"), "group 'Q': 2.jpg (row 4) is in train, 3.jpg (row 5)"),
        (("1", "2", "3", "3"), "group 'P': 0.jpg (row 2) is in 1, 1.jpg (row 3) in 2"),
    ],
)
def test_a_group_on_two_sides_of_the_split_is_refused_with_its_rows(
    split: tuple[str, ...], torn: str
) -> None:
    groups, given = Given("x", ("P", "P", "Q", "Q")), Given("y", split)
    with pytest.raises(LabelsError, match="contradict each other in 1 groups") as raised:
        check_split(groups, given, make_split(given, NAMES[:4]), NAMES, np.arange(2, 6))
    assert torn in str(raised.value)


@pytest.mark.parametrize("split", [("train", "Training", "val", "dev"), ("1", "1.0", "2", "2")])
def test_groups_within_a_part_contradict_nothing(split: tuple[str, ...]) -> None:
    given = Given("y", split)
    made = make_split(given, NAMES[:4])
    check_split(Given("x", ("P", "P", "Q", "Q")), given, made, NAMES, np.arange(4))
    check_split(Given("x", ("", "P", "", "Q")), given, made, NAMES, np.arange(4))


@pytest.mark.parametrize("seed", range(5))
def test_united_groups_are_the_finest_that_hold_both(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = (
        np.unique(rng.integers(0, 25, 40), return_inverse=True)[1].astype(np.int64)
        for _ in range(2)
    )
    found = united(one, other)
    # By hand: spread the smallest number over both groupings until nothing moves.
    expected = np.arange(40)
    for _ in range(40):
        for groups in (one, other):
            for group in np.unique(groups):
                expected[groups == group] = expected[groups == group].min()
    same = found[:, None] == found
    np.testing.assert_array_equal(same, expected[:, None] == expected)
    assert sorted(set(found.tolist())) == list(range(found.max() + 1))


def test_given_parts_are_used_as_they_are() -> None:
    split = make_split(Given("x", PARTS), NAMES)
    groups = np.arange(60)
    fold_of, splits = make_folds(groups, LABELS, 4, 0, split)
    assert len(splits) == 5
    assert set(fold_of[36:48].tolist()) == {0}  # val is one fold
    assert set(fold_of[:36].tolist()) == {1, 2, 3}  # train is dealt into the others
    assert set(fold_of[48:].tolist()) == {4}
    test = set(range(48, 60))
    for part in splits:
        assert not test & {*part.train.tolist(), *part.stop.tolist()}
    np.testing.assert_array_equal(splits[4].predict, np.arange(48, 60))
    predicted = np.concatenate([part.predict for part in splits])
    assert sorted(predicted.tolist()) == list(range(60))
    division = divide(groups, LABELS, 0.3, 4, 0, split)
    assert division.test.tolist() == list(range(48, 60))
    assert division.held_in.tolist() == list(range(48))
    assert set(division.fold_of[36:48].tolist()) == {0}
    assert len(division.splits) == 4


def test_given_folds_are_used_as_they_are() -> None:
    numbers = np.arange(60) % 6
    split = make_split(Given("x", tuple(map(str, numbers + 10))), NAMES)
    fold_of, splits = make_folds(np.arange(60), LABELS, 5, 0, split)
    np.testing.assert_array_equal(fold_of, numbers)
    assert len(splits) == 6
    division = divide(np.arange(60), LABELS, 0.2, 5, 0, split)
    np.testing.assert_array_equal(division.test, np.flatnonzero(numbers == 0))
    np.testing.assert_array_equal(division.fold_of, numbers - 1)


def test_without_test_rows_the_validation_rows_are_held_out() -> None:
    parts = tuple("val" if part == "test" else "train" for part in PARTS)
    division = divide(np.arange(60), LABELS, 0.2, 3, 0, make_split(Given("x", parts), NAMES))
    assert division.test.tolist() == list(range(48, 60))
    assert set(division.fold_of[:48].tolist()) == {0, 1, 2}
    with pytest.raises(ConfigError, match="names train rows alone"):
        divide(np.arange(60), LABELS, 0.2, 3, 0, make_split(Given("x", ("train",) * 60), NAMES))


@pytest.mark.parametrize("numbered", [False, True])
def test_nobody_is_fitted_on_what_goes_with_what_is_predicted(numbered: bool) -> None:
    """Copies that a published split tears apart are on no two sides all the same."""
    rng = np.random.default_rng(3)
    groups = rng.integers(0, 45, 60)
    groups = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    values = tuple(map(str, np.arange(60) % 4)) if numbered else PARTS
    split = make_split(Given("x", values), NAMES)
    fold_of, splits = make_folds(groups, LABELS, 4, 0, split)
    assert torn_rows(groups, fold_of).size
    division = divide(groups, LABELS, 0.2, 4, 0, split)
    assert division.left_out.size
    tested = set(groups[division.test].tolist())
    for part in (*splits, *division.splits):
        sides = [set(groups[rows].tolist()) for rows in (part.train, part.stop, part.predict)]
        assert part.train.size
        assert not sides[0] & sides[1]
        assert not sides[0] & sides[2]
        assert not sides[1] & sides[2]
    for part in division.splits:
        assert not tested & set(groups[np.concatenate([part.train, part.stop])].tolist())


def test_too_few_given_folds_are_refused() -> None:
    split = make_split(Given("x", ("0", "1") * 30), NAMES)
    with pytest.raises(ConfigError, match=r"config\.data\.split gives 2 folds"):
        make_folds(np.arange(60), LABELS, 5, 0, split)


def test_torn_rows_are_those_of_groups_in_two_parts() -> None:
    groups, parts = np.array([0, 0, 1, 2, 2, 3]), np.array([0, 1, 1, 0, 0, 2])
    assert torn_rows(groups, parts).tolist() == [0, 1]
