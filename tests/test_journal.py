"""What a run says fits where it is said: a live bar on a terminal, plain lines elsewhere."""

import io
import re
import sys

import pytest

from mlc_jax.journal import Journal

COLOUR = re.compile(r"\x1b\[[0-9;]*\b(3[0-8]|9[0-7])\b[0-9;]*m")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def said(monkeypatch: pytest.MonkeyPatch, place: io.StringIO) -> str:
    monkeypatch.setattr(sys, "stdout", place)
    monkeypatch.setenv("TERM", "xterm-256color")
    journal = Journal()
    journal.warn("[red]mind[/red] this")
    with journal.phase("train", 3, "epochs") as advance:
        advance(3)
    return place.getvalue()


@pytest.fixture(autouse=True)
def no_wishes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def test_a_terminal_gets_colour_and_a_bar_unless_no_color_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coloured = said(monkeypatch, Terminal())
    assert COLOUR.search(coloured)
    assert "3/3" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    plain = said(monkeypatch, Terminal())
    assert not COLOUR.search(plain)
    assert "WARNING: [red]mind[/red] this" in plain


def test_a_pipe_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    text = said(monkeypatch, io.StringIO())
    assert "\x1b" not in text
    assert "\r" not in text
    lines = text.splitlines()
    assert lines[:2] == ["WARNING: [red]mind[/red] this", "train …"]
    assert re.fullmatch(r"train: \d+\.\d s, 3 epochs, .* epochs/s", lines[2])
    assert len(lines) == 3


def test_waits_add_up_and_are_no_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    journal = Journal()
    with journal.phase("train", 3, "epochs"):
        journal.wait("images", 0.5)
        journal.wait("images", 0.25)
    assert journal.waits == {"images": 0.75}
    assert list(journal.seconds) == ["train"]
