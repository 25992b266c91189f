"""CHANGELOG.md and CONTRIBUTING.md speak of what is there."""

import re
from pathlib import Path

import pytest

import mlc_jax

ROOT = Path(__file__).parents[1]


def test_the_changelog_is_about_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    newest = re.search(r"^## \[(.+?)\](?:: (\S+))?", text, re.MULTILINE)
    assert newest is not None
    assert mlc_jax.__version__ in newest.groups()


@pytest.mark.parametrize("name", ["CHANGELOG.md", "CONTRIBUTING.md"])
def test_the_files_and_names_in_it_exist(name: str) -> None:
    """Paths in backquotes are files; names in capitals stand in a file of the same paragraph."""
    for paragraph in re.split(r"\n\n|\n(?=\d\. |- )", (ROOT / name).read_text()):
        quoted = re.findall(r"`([^`\n]+)`", paragraph)
        paths = [text for text in quoted if re.fullmatch(r"[\w.]+(/[\w.]+)+/?|[A-Z]+\.md", text)]
        files = [ROOT / path for path in paths if "JOB" not in path]
        for file in files:
            assert file.exists(), (name, file)
        for word in (text for text in quoted if re.fullmatch(r"[A-Z]{4,}", text)):
            there = [file for file in files if file.is_file() and word in file.read_text()]
            assert there, (name, word, paths)
