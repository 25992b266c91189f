"""Laws of changed inputs: refused with the difference, or begun anew beside what was there."""

import json
from pathlib import Path

import pytest

from mlc_jax.errors import WorkdirError
from mlc_jax.files.workdir import Row, changes, claim, owned

INPUTS = {"config": {"seed": 0}, "labels": "ab" * 32, "images": "cd" * 32}
OTHER = {"config": {"seed": 1}, "labels": "ef" * 32, "images": "cd" * 32}
ROWS: list[Row] = [("a.png", "0123", "1,0"), ("b.png", "4567", ",1"), ("c.png", "89ab", "0,0")]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([ROWS[0], ("b.png", "4567", "0,1"), ROWS[2]], "'b.png' has labels ,1 there, 0,1 here"),
        ([ROWS[0], ("b.png", "9999", ",1"), ROWS[2]], "'b.png' is another image"),
        (ROWS[:2], "'c.png' is not here"),
        ([*ROWS, ("d\n.png", "1", "")], r"'d\n.png' was not there"),
        (ROWS[::-1], "the rows are in another order"),
    ],
)
def test_a_changed_row_is_named(tmp_path: Path, rows: list[Row], said: str) -> None:
    claim(tmp_path, INPUTS, ROWS)
    with pytest.raises(WorkdirError) as caught:
        claim(tmp_path, OTHER, rows)
    message = str(caught.value)
    assert "config.seed: 0 there, 1 here" in message
    assert said in message
    assert "--config.accept_changes=true" in message
    assert "\n" not in message
    assert claim(tmp_path, INPUTS, ROWS) is None, "a refusal changed the folder"


def test_many_changed_rows_are_counted_and_damaged_ones_explain_nothing(tmp_path: Path) -> None:
    rows = [(f"{number}.png", "", "1") for number in range(9)]
    claim(tmp_path, INPUTS, rows)
    with pytest.raises(WorkdirError, match="; and 4 more"):
        claim(tmp_path, OTHER, [(name, "", "0") for name, _, _ in rows])
    (tmp_path / "rows.jsonl").write_text("[1, 2]\n{")
    with pytest.raises(WorkdirError, match="other inputs"):
        claim(tmp_path, OTHER, rows)


def test_an_accepted_change_sets_the_run_aside_and_is_remembered(tmp_path: Path) -> None:
    claim(tmp_path, INPUTS, ROWS)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "5").write_text("what was learned")
    (tmp_path / "mine.txt").write_text("not of the run")
    assert claim(tmp_path, OTHER, ROWS, accept=True) is None
    assert not (tmp_path / "checkpoints").exists()
    aside = tmp_path / "superseded-1"
    assert (aside / "checkpoints" / "5").read_text() == "what was learned"
    assert json.loads((aside / "run.json").read_text()) == INPUTS
    assert (tmp_path / "mine.txt").exists()
    assert claim(tmp_path, OTHER, ROWS) is None
    claim(tmp_path, INPUTS, ROWS, accept=True)
    assert len(changes(tmp_path)) == 2
    assert "config.seed: 0 there, 1 here" in changes(tmp_path)[0]
    assert "superseded-2" in changes(tmp_path)[1]


def test_without_a_change_nothing_is_set_aside(tmp_path: Path) -> None:
    for _ in range(2):
        claim(tmp_path, INPUTS, ROWS, accept=True)
    assert changes(tmp_path) == []


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    for name in (".labels.0a1b2c3d.partial.csv", "plots/.roc.00000000.partial.png"):
        (tmp_path / name).write_text("half")
    (tmp_path / "my.partial.csv").write_text("mine")
    with owned(tmp_path):
        left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {".lock", "my.partial.csv"}
