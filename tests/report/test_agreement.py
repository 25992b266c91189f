"""Agreement of annotators in reports: the ceiling beside the figure of the model."""

import json
from pathlib import Path

import pytest
from classifier_workdirs import make_classifier_workdir
from pages import Parsed
from workdirs import make_workdir

from mlc_jax.files.atomic import write_json
from mlc_jax.report import numbers
from mlc_jax.report.page import write_report

MAKERS = {"impute": make_workdir, "multilabel": make_classifier_workdir}


def rows_of(workdir: Path) -> dict[str, dict[str, str]]:
    """The first table of a report: label to column to text."""
    table = Parsed(write_report(workdir)).tables[0]
    return {row[0]: dict(zip(table[0], row, strict=True)) for row in table[1:]}


@pytest.mark.parametrize("job", MAKERS)
def test_the_ceiling_stands_beside_the_model(tmp_path: Path, job: str) -> None:
    summary = MAKERS[job](tmp_path / "run")
    assert not any("\u03b1" in column for column in next(iter(rows_of(tmp_path / "run").values())))
    name, other = list(summary["labels"])[:2]
    summary["receipt"] = {"agreement": {name: 0.412, other: None}}
    write_json(tmp_path / "run" / "summary.json", summary)
    rows = rows_of(tmp_path / "run")
    assert rows[name]["Annotators\u2019 \u03b1"] == numbers.figure(0.412)
    assert rows[other]["Annotators\u2019 \u03b1"].startswith(numbers.DASH)
    metrics = summary["labels"][name]["metrics"]
    tp, fp, tn, fn = (metrics[key] for key in ("tp", "fp", "tn", "fn"))
    # By the formula for two observers, Krippendorff 2011, section A.
    ones, zeros, wrong = 2 * tp + fp + fn, 2 * tn + fp + fn, fp + fn
    alpha = 1 - (ones + zeros - 1) * wrong / (ones * zeros)
    assert rows[name]["Model\u2019s \u03b1"] == numbers.figure(alpha)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["receipt"]
