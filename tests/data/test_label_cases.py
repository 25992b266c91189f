"""The label files that people sent: accepted with the counted truth, or refused with a way to it.

`label_cases.json` holds, for every case, the counts [known, ones, blank] of each label and, of a
case that is refused, the flags that its owner takes of those that the message proposes (`drop`:
what they replace). The counts are those of the cases' own list, or were counted with pandas.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mlc_jax.data.labels import LabelsFile
from mlc_jax.errors import MlcError
from mlc_jax.stages import convert
from tests.label_flags import config_of, flags_of

DATA = os.environ.get("MLC_JAX_TEST_DATA")
CASES = Path(DATA).parent / "cases" / "labels" if DATA else Path("none")
EXPECTED = json.loads(Path(__file__).with_name("label_cases.json").read_text(encoding="utf-8"))
PREFIX = "--config.data."

pytestmark = pytest.mark.skipif(
    not (CASES / "cases.json").is_file(),
    reason=f"{CASES}/cases.json is not there: MLC_JAX_TEST_DATA's sibling cases/labels",
)


def read(*flags: str) -> LabelsFile:
    return convert.read(config_of(*flags))


def counts(file: LabelsFile) -> dict[str, list[int]]:
    return {
        name: [ones + zeros, ones, missing]
        for name, (ones, zeros, missing) in file.receipt.labels.items()
    }


def inputs(name: str, case: dict[str, Any], folder: Path) -> list[str]:
    """The flags of a case, and empty files under the names of its images."""
    for image in filter(None, (CASES / name / "images.txt").read_text().split("\n")):
        (folder / "images" / image).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / image).write_text(image)
    labels = str(folder / "images") if case["labels"] == "IMAGES" else str(CASES / case["labels"])
    return [f"{PREFIX}labels={labels}", f"{PREFIX}images={folder / 'images'}", *case["flags"]]


@pytest.mark.parametrize("name", EXPECTED["cases"])
def test_a_case_ends_rightly(name: str, tmp_path: Path) -> None:
    case = json.loads((CASES / "cases.json").read_text())[name]
    expected = EXPECTED["cases"][name]
    truth = expected["truth"]
    truth = EXPECTED["tables"][truth] if isinstance(truth, str) else truth
    flags = inputs(name, case, tmp_path)
    if "answer" not in expected:
        file = read(*flags)
        assert file.receipt.matched is not None
        assert file.receipt.matched[0] == file.receipt.matched[1]
        assert counts(file) == truth
        return
    with pytest.raises(MlcError) as caught:
        read(*flags)
    message = str(caught.value)
    assert "\n" not in message
    if expected["answer"] == ["EXAMPLE"]:
        rows = message.rpartition(": ")[2].split(" / ")
        (tmp_path / "labels.csv").write_text("\n".join(rows))
        assert counts(read(f"{PREFIX}labels={tmp_path / 'labels.csv'}")) == truth
        return
    proposed = flags_of(message)
    folder = str((CASES / case["labels"]).parent)
    taken = [PREFIX + text.replace("FOLDER", folder) for text in expected["answer"]]
    assert set(taken) <= set(proposed)
    dropped = tuple(f"{PREFIX}{key}=" for key in expected.get("drop", ()))
    flags = [flag for flag in flags if not dropped or not flag.startswith(dropped)]
    assert counts(read(*flags, *taken)) == truth


def test_every_case_is_expected_to_end_somehow() -> None:
    assert set(EXPECTED["cases"]) == set(json.loads((CASES / "cases.json").read_text()))
