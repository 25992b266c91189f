"""The label files that people sent: accepted with the counted truth, or refused with a way on."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mlc_jax.data.labels import LabelsFile, read_labels, refuse_without_zeros
from mlc_jax.errors import MlcError
from mlc_jax.label_settings import ReadOptions

DATA = os.environ.get("MLC_JAX_TEST_DATA")
CASES = Path(DATA).parent / "cases" / "labels" if DATA else Path("none")


def options(flags: list[str]) -> ReadOptions:
    """Flags as the command line reads them."""
    keys: dict[str, Any] = {}
    for flag in flags:
        key, _, value = flag.removeprefix("--config.data.").partition("=")
        field = ReadOptions.__dataclass_fields__[key]
        keys[key] = value
        if isinstance(field.default, tuple):
            bare = value.removeprefix("('").removesuffix("',)")
            keys[key] = tuple(next(csv.reader([bare]), ())) or ("",)
    return ReadOptions.of(keys)


def read(name: str, case: dict[str, Any], images: Path, flags: list[str]) -> LabelsFile:
    listed = [n for n in (CASES / name / "images.txt").read_text().split("\n") if n]
    for image in listed:
        (images / image).parent.mkdir(parents=True, exist_ok=True)
        (images / image).write_bytes(b"")
    path = str(images) if case["labels"] == "IMAGES" else str(CASES / case["labels"])
    file = read_labels(path, options(flags), images=images, listed=listed)
    refuse_without_zeros(file, options(flags), path)
    return file


def test_every_case_ends_rightly(tmp_path: Path) -> None:
    """A case whose flags or form contradict its truth is refused, never read otherwise."""
    if not (CASES / "cases.json").is_file():
        pytest.skip(f"{CASES}/cases.json is not there: MLC_JAX_TEST_DATA's sibling cases/labels")
    cases = json.loads((CASES / "cases.json").read_text())
    accepted = 0
    for name, case in cases.items():
        try:
            file = read(name, case, tmp_path / name, case["flags"])
        except MlcError as error:
            message = str(error)
            assert "--config.data." in message or "config.data." in message or "expected" in message
            for word in ("-1", "null", "None", "N/A"):
                if f"{word!r} is not a label" in message:
                    assert "true_values" not in message, name
                    assert "false_values" not in message, name
            continue
        accepted += 1
        assert file.receipt.matched is not None
        assert file.receipt.matched[0] == file.receipt.matched[1], name
        if case["truth"] is not None:
            read_as = [
                [ones + zeros, ones, missing]
                for ones, zeros, missing in file.receipt.labels.values()
            ]
            assert read_as == list(case["truth"].values()), name
    assert accepted >= 50, "as many forms need no key at all"
