"""metrics.jsonl: what a stopped run wrote behind its checkpoint is cut off, and nothing else."""

import json
from pathlib import Path

import pytest

from mlc_jax.training.writer import MetricsWriter


def write(workdir: Path, *epochs: int) -> None:
    writer = MetricsWriter(workdir)
    for epoch in epochs:
        writer.write(epoch, {"loss": epoch / 2})
    writer.close()


@pytest.mark.parametrize("torn", [False, True])
def test_lines_of_later_epochs_are_cut_off(tmp_path: Path, torn: bool) -> None:
    """A course that stopped early leaves out numbers: the next one begins at a round one."""
    write(tmp_path, 0, 1, 2, 40, 41)
    wanted = (tmp_path / "metrics.jsonl").read_bytes()
    write(tmp_path, 42, 43)
    if torn:
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"epoch": 44, "lo')
    write(tmp_path, 40, 41)
    assert (tmp_path / "metrics.jsonl").read_bytes() == wanted
    lines = wanted.decode().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1, 2, 40, 41]


def test_a_first_epoch_begins_the_file_anew(tmp_path: Path) -> None:
    write(tmp_path, 0, 1)
    write(tmp_path, 0)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
