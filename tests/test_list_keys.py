"""The table of keys is what the configurations and the comments beside their keys say."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "list_keys.py"))


def test_the_committed_table_is_up_to_date() -> None:
    """Where it is not: python scripts/list_keys.py --write."""
    assert (ROOT / "configs" / "KEYS.md").read_text() == SCRIPT["page"]()


def test_every_key_of_every_job_has_one_row_and_a_meaning() -> None:
    rows = SCRIPT["rows"]()
    without = {key for key, _, meaning in rows if not meaning}
    assert not without, f"no comment beside {without}"
    for file in (ROOT / "configs").glob("*.py"):
        config = runpy.run_path(str(file))["get_config"]()
        keys = sorted(key for (key, _, _), jobs in rows.items() if file.stem in jobs)
        assert keys == sorted(name for name in names(config.to_dict()) if name != "stage")


def names(keys: dict[str, object], prefix: str = "") -> list[str]:
    found = []
    for name, value in keys.items():
        full = prefix + name
        found += names(value, f"{full}.") if isinstance(value, dict) else [full]
    return found


def test_meanings_and_defaults_are_read_where_they_stand() -> None:
    """One of each kind: beside, above, from another function, changed by a job, left open."""
    rows = {
        (key, job): row for row, jobs in SCRIPT["rows"]().items() for job in jobs for key in row[:1]
    }
    assert rows["batch_size", "impute"][1:] == ("`32`", "rows per head and step")
    assert rows["loss.margin", "compare"][2].startswith("asymmetric: a negative")
    assert rows["head.name", "compare"][1:] == ("`linear`", "conv | linear")
    assert rows["head.name", "multilabel"][2] == "of the source, else conv"
    assert rows["epochs", "impute"][1] == "`40`; linear head: unused; demo `15`"
    assert rows["impute.method", "compare"][2] == rows["impute.method", "impute"][2]
    assert rows["near_copies", "impute"][2].startswith("Images whose standardised features")


def test_the_table_is_printed_and_its_rows_have_four_cells(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert SCRIPT["main"]([]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) > 80
    for line in table:
        assert line.replace(r"\|", "").count("|") == 5, line
