"""Every reader on damaged files: a table whose zeros and ones were counted, or our error."""

import contextlib
import io
import shutil
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlc_jax.data.formats import find
from mlc_jax.data.labels import read_labels
from mlc_jax.errors import MlcError
from mlc_jax.label_settings import ReadOptions
from tests.data.test_formats import GOLDEN

PIECES = (b"", b"\0", b"\n", b'"', b",", b"{", b"]", b"<", b">", b"-1", b"0", b"1", b"\xff\xfe")
PIECES += (b"null", b"[]", b"{}", b"nan", b"1e999", b"../", b"999999999", b"\r", b" ", b"true")
edits = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(PIECES) | st.binary(max_size=6)),
    min_size=1,
    max_size=4,
)
Edits = list[tuple[float, int, bytes]]


def edited(content: bytes, changes: Edits) -> bytes:
    """Pieces of the content replaced by others."""
    for where, length, piece in changes:
        start = int(where * len(content))
        content = content[:start] + piece + content[start + length :]
    return content


def edited_inside(content: bytes, place: float, changes: Edits) -> bytes:
    """A zip archive one member of which is edited, and packed anew."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        names = old.namelist()
        for number, name in enumerate(names):
            own = old.read(name)
            spoil = number == int(place * (len(names) - 1))
            new.writestr(name, edited(own, changes) if spoil else own)
    return made.getvalue()


def test_every_format_has_a_file_to_damage() -> None:
    assert {name for name, _ in GOLDEN.values()} == {find.ARCHIVE, find.EXPORT, *find.FORMATS}


@pytest.mark.parametrize("case", GOLDEN)
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    place=st.floats(0, 1),
    changes=edits,
    inside=st.booleans(),
    named=st.booleans(),
    absent=st.sampled_from(["", "false", "missing"]),
)
def test_a_damaged_file_is_a_counted_table_or_our_error(
    tmp_path_factory: pytest.TempPathFactory,
    case: str,
    place: float,
    changes: Edits,
    inside: bool,
    named: bool,
    absent: str,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    name, write = GOLDEN[case]
    path = write(folder)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    file = files[int(place * (len(files) - 1))]
    content = file.read_bytes()
    if inside and content.startswith(b"PK"):
        file.write_bytes(edited_inside(content, place, changes))
    else:
        file.write_bytes(edited(content, changes))
    options = ReadOptions(format=name if named else "auto", absent=absent)
    with contextlib.suppress(MlcError):
        read = read_labels(path, options)
        values, texts = read.table.values, read.receipt.texts
        assert values.shape == (len(read.table.filenames), len(read.table.names))
        for value in (0, 1):
            stated = sum(count for (_, own), count in texts.items() if own == value)
            assert (values == value).sum() <= stated


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    content=st.lists(st.sampled_from(PIECES) | st.binary(max_size=5), max_size=40),
    named=st.sampled_from(["auto", find.TEXT, find.ARCHIVE, find.EXPORT, *find.FORMATS]),
    suffix=st.sampled_from(["csv", "txt", "json", "xml", "jsonl", "yaml", "xlsx", "mat", "zip"]),
)
def test_any_bytes_are_a_table_or_our_error_in_any_format(
    tmp_path_factory: pytest.TempPathFactory, content: list[bytes], named: str, suffix: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"bytes.{suffix}"
    path.write_bytes(b"".join(content))
    with contextlib.suppress(MlcError):
        read_labels(path, ReadOptions(format=named, absent="missing"))
