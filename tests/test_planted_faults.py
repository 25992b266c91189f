"""The list of planted faults can be planted: it does not rot while the code changes."""

from dataclasses import replace
from pathlib import Path

import pytest

from scripts import planted_faults
from scripts.planted_faults import Fault, main, mistakes, read_faults


def test_every_fault_can_be_planted_in_the_code_as_it_is() -> None:
    faults = read_faults()
    assert len(faults) >= 100
    assert mistakes(faults) == []


def test_what_cannot_be_planted_is_named(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("a = 1\nb = 1\n")
    (tmp_path / "test_code.py").write_text("def test_it() -> None: ...\n")
    fault = Fault("one", "code.py", "a = 1", "a = 2", ("test_code.py::test_it",))
    assert mistakes([fault], tmp_path) == []
    for changes, told in (
        ({"old": "= 1"}, "occurs 2 times"),
        ({"old": "c = 1"}, "occurs 0 times"),
        ({"file": "gone.py"}, "occurs 0 times in gone.py"),
        ({"new": "a = 1"}, "old and new text are the same"),
        ({"tests": ("test_code.py::test_that",)}, "there is no test_code.py::test_that"),
    ):
        (found,) = mistakes([replace(fault, **changes)], tmp_path)
        assert told in found
    assert mistakes([fault, fault], tmp_path) == ["one: stands there twice"]


def test_results_say_what_was_noticed_and_are_not_made_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a tree of one file: a fault that a test sees, one that none does, one that is no code."""
    (tmp_path / "code.py").write_text("one = 1\ntwo = 2\n")
    (tmp_path / "test_code.py").write_text(
        "import code_of_it as code\n\ndef test_one() -> None:\n    assert code.one == 1\n"
    )
    (tmp_path / "code.py").rename(tmp_path / "code_of_it.py")
    names = (
        ("seen", "one = 1", "one = 3"),
        ("not seen", "two = 2", "two = 3"),
        ("no code", "1", "("),
    )
    faults = [Fault(name, "code_of_it.py", old, new, ("test_code.py",)) for name, old, new in names]
    monkeypatch.setattr(planted_faults, "ROOT", tmp_path)
    monkeypatch.setattr(planted_faults, "COPIED", ("code_of_it.py", "test_code.py"))
    monkeypatch.setattr(planted_faults, "read_faults", lambda: faults)
    monkeypatch.setattr(planted_faults, "mistakes", lambda _: [])
    state = str(tmp_path / "state.json")
    assert main(["--only", "see", "--state", state]) == 1
    told = capsys.readouterr().out
    assert "noticed   seen" in told
    assert "1 of 2 faults are noticed\nunnoticed: not seen" in told
    assert main(["--only", "no code"]) == 2
    assert "broken: no code" in capsys.readouterr().out
    monkeypatch.setattr(planted_faults, "plant", lambda *_: pytest.fail("planted again"))
    assert main(["--only", "see", "--state", state]) == 1
    assert main(["--only", "nothing has this name"]) == 2
