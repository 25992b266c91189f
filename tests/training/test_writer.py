"""Laws of metrics.jsonl: a stopped and continued run leaves the lines of an undisturbed one."""

import json
from pathlib import Path

import pytest

from mlc_jax.training.writer import MetricsWriter

EPOCHS = (0, 1, 2, 10, 11, 12, 20)
"""Of three rounds of at most ten epochs, the first two stopped early."""


def written(workdir: Path, epochs: tuple[int, ...]) -> bytes:
    writer = MetricsWriter(workdir, pytest.fail)
    try:
        for epoch in epochs:
            writer.write(epoch, {"round": epoch // 10, "loss": 1 / (1 + epoch)})
    finally:
        writer.close()
    return (workdir / "metrics.jsonl").read_bytes()


# Within a round, at its end, back into the round before, from the start, and behind all lines.
@pytest.mark.parametrize(
    ("stopped_after", "again_from", "torn"),
    [(5, 4, ""), (6, 4, '{"epoch": 1'), (3, 3, "\n"), (5, 2, ""), (7, 0, '{"epoch"'), (7, 6, "")],
)
def test_lines_behind_the_restored_epoch_are_cut(
    tmp_path: Path, stopped_after: int, again_from: int, torn: str
) -> None:
    whole = written(tmp_path / "whole", EPOCHS)
    written(tmp_path / "parts", EPOCHS[:stopped_after])
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write(torn)
    assert written(tmp_path / "parts", EPOCHS[again_from:]) == whole


def test_a_figure_that_is_not_a_number_is_null(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, pytest.fail)
    writer.write(0, {"auc": float("nan"), "of": {"label": float("inf")}})
    writer.close()
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line) == {"epoch": 0, "auc": None, "of": {"label": None}}


def test_without_tensorboard_the_lines_are_written_and_it_is_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    writer = MetricsWriter(tmp_path, said.append)
    for epoch in range(3):
        writer.write(epoch, {"loss": 0.5})
    writer.close()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    (warning,) = said
    assert "TensorBoard's files cannot be written" in warning
