"""suspects.csv as the impute job writes it, and what is refused."""

from pathlib import Path

import pytest

from mlc_jax.data.suspects import Suspect, read_suspects
from mlc_jax.errors import LabelsError

HEADER = "filename,label,value,probability,confidence\n"


def test_suspects_are_read(tmp_path: Path) -> None:
    file = tmp_path / "suspects.csv"
    file.write_text(f'{HEADER}"a, b.jpg",beach,1,0.015,0.985\nc.jpg,sea,0,0.99,0.99\n')
    assert read_suspects(file) == (
        Suspect("a, b.jpg", "beach", 1, 0.015, 0.985),
        Suspect("c.jpg", "sea", 0, 0.99, 0.99),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("filename,label\n", "columns 'filename,label' are not filename,label,value"),
        (f"{HEADER}a.jpg,sea,1,0.5\n", "row 2: 4 fields, expected 5"),
        (f"{HEADER}a.jpg,sea,,0.5,0.5\n", "row 2, value: '' is not 0 or 1"),
        (f"{HEADER}a.jpg,sea,1,1.5,0.5\n", r"row 2, probability: '1\.5' is not a number"),
        (f"{HEADER}a.jpg,sea,1,0.5,nan\n", "row 2, confidence: 'nan' is not a number"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "suspects.csv").write_text(text)
    with pytest.raises(LabelsError, match=said):
        read_suspects(tmp_path / "suspects.csv")
