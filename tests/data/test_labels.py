import contextlib
import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlc_jax.data import delimited
from mlc_jax.data.labels import Quarantined, read_labels, write_labels, write_quarantine
from mlc_jax.data.table import MISSING, LabelTable, Source
from mlc_jax.errors import ConfigError, LabelsError
from mlc_jax.label_settings import OURS, ReadOptions

FILES = ("00012.jpg", "NA", "grün.jpg")
VALUES = [[1, MISSING, 0], [0, 1, MISSING], [1, 0, 1]]
TEXTS = {0: "0", 1: "1", MISSING: "NA"}


def write(folder: Path, content: bytes | str) -> Path:
    path = folder / "labels.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def golden(separator: str, header: bool, end: str = "\n") -> str:
    lines = [separator.join(["filename", "sea", "sky", "sand"])] if header else []
    for name, values in zip(FILES, VALUES, strict=True):
        lines.append(separator.join([name, *(TEXTS[value] for value in values)]))
    return end.join(lines) + end


def table_of(filenames, names, values) -> LabelTable:
    values = np.array(values, np.int8).reshape(len(filenames), len(names))
    source = np.where(values == MISSING, Source.MISSING, Source.OBSERVED).astype(np.uint8)
    rows = np.arange(len(filenames), dtype=np.int64) + 2
    return LabelTable(tuple(filenames), tuple(names), values, source, rows)


@pytest.mark.parametrize("separator", [",", ";", "\t", " "])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"],
)
def test_every_form_of_file_gives_the_same_table(tmp_path, separator, header, end, encoding):
    file = read_labels(write(tmp_path, golden(separator, header, end).encode(encoding)))
    assert file.table.filenames == FILES
    expected = ("sea", "sky", "sand") if header else ("label_1", "label_2", "label_3")
    assert file.table.names == expected
    np.testing.assert_array_equal(file.table.values, VALUES)
    np.testing.assert_array_equal(file.table.rows, np.arange(3) + 1 + header)
    np.testing.assert_array_equal(file.table.known, file.table.human)
    notes = " | ".join(file.notes)
    assert {",": "comma", ";": "semicolon", "\t": "tab", " ": "space"}[separator] in notes
    assert encoding.removesuffix("-sig") in notes
    assert ("with header" if header else "no header") in notes
    assert ("mark" in notes) == (encoding in ("utf-8-sig", "utf-16"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("1.0", 1),
        ("0.0", 0),
        ("1 ", 1),
        ("?", MISSING),
        ("nA", MISSING),
        ("2", None),
        ("-1", None),
        ("−1", None),
        ("yes", None),
        ("TRUE", None),
    ],
)
def test_cell_is_a_value_or_an_error_that_names_it(tmp_path, text, value):
    path = write(tmp_path, f"filename,sea,sky\na.jpg,0,1\nb.jpg,1,{text}\n")
    if value is None:
        key = "true_values" if text in ("yes", "TRUE") else "missing_values"
        with pytest.raises(LabelsError, match=rf"row 3, column 3 \('sky'\).*{key}") as caught:
            read_labels(path)
        assert repr(text) in str(caught.value)
        assert "\n" not in str(caught.value)
    else:
        assert read_labels(path).table.values[1, 1] == value


def test_configured_values(tmp_path):
    path = write(tmp_path, "a.jpg,yes, no ,TRUE\nb.jpg,no,,0\n")
    file = read_labels(path, ReadOptions(true_values=("yes", "TRUE"), false_values=("no",)))
    np.testing.assert_array_equal(file.table.values, [[1, 0, 1], [0, MISSING, 0]])
    with pytest.raises(ConfigError, match="false_values holds 'yes'"):
        read_labels(path, ReadOptions(true_values=("yes",), false_values=("yes",)))


UNKNOWN = ("-1", "-1.0", "-", "--", ".", "unknown", "Uncertain", "unsure", "missing")
NOT_AVAILABLE = ("N/A", "n/a", "#N/A", "null", "NULL", "None", "<NA>", "?", "NaN", "na")


@pytest.mark.parametrize("word", UNKNOWN)
def test_an_unknown_value_is_never_proposed_as_a_label(tmp_path, word):
    path = write(tmp_path, f"filename,sea,sky\na.jpg,0,1\nb.jpg,1,{word}\n")
    with pytest.raises(LabelsError, match=f"--config.data.missing_values={word}(;|$)") as caught:
        read_labels(path)
    assert "true_values" not in str(caught.value)
    assert "false_values" not in str(caught.value)
    file = read_labels(path, ReadOptions(missing_values=(word,)))
    np.testing.assert_array_equal(file.table.values, [[0, 1], [1, MISSING]])


@pytest.mark.parametrize("word", NOT_AVAILABLE)
def test_not_available_is_missing_in_every_spelling(tmp_path, word):
    path = write(tmp_path, f"filename,sea,sky\na.jpg,0,1\nb.jpg,1,{word}\n")
    np.testing.assert_array_equal(read_labels(path).table.values, [[0, 1], [1, MISSING]])


@pytest.mark.parametrize("word", ["0", "1", "", "NA", "0.0"])
@pytest.mark.parametrize("key", ["true_values", "false_values", "missing_values"])
def test_every_text_may_be_given_another_meaning(tmp_path, word, key):
    path = write(tmp_path, f"filename,sea,sky\na.jpg,0,1\nb.jpg,1,{word}\n")
    meaning = {"true_values": 1, "false_values": 0, "missing_values": MISSING}[key]
    file = read_labels(path, ReadOptions(**{key: (word,)}))
    assert file.table.values[1, 1] == meaning


def test_minus_one_read_as_no_needs_a_meaning_of_0(tmp_path):
    """1 yes, -1 no, 0 not known, as WIDER writes it: 0 must not be read as no unasked."""
    path = write(tmp_path, "filename,sea\na.jpg,-1\nb.jpg,1\nc.jpg,0\n")
    with pytest.raises(LabelsError, match="missing_values=0") as caught:
        read_labels(path, ReadOptions(false_values=("-1",)))
    assert "missing_values=-1" in str(caught.value)
    stated = read_labels(path, ReadOptions(false_values=("-1",), missing_values=("0",)))
    assert stated.table.values.ravel().tolist() == [0, 1, MISSING]
    both = read_labels(path, ReadOptions(false_values=("-1", "0")))
    assert both.table.values.ravel().tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "header", ["id,0,1", "Photo,sea,NA", ",0,1", "filename,1,0", "image_id,0,1"]
)
def test_a_header_of_numbers_is_a_header(tmp_path, header):
    file = read_labels(write(tmp_path, header + "\na.jpg,0,0\nb.jpg,1,NA\nc.jpg,,1\n"))
    assert file.table.names == tuple(header.split(",")[1:])
    assert file.table.filenames == ("a.jpg", "b.jpg", "c.jpg")
    np.testing.assert_array_equal(file.table.values, [[0, 0], [1, MISSING], [MISSING, 1]])


def test_bad_value_in_the_first_row_is_no_header(tmp_path):
    with pytest.raises(LabelsError, match="row 1, column 2"):
        read_labels(write(tmp_path, "a.jpg,ja\nb.jpg,nein\n"))


def test_file_name_with_spaces(tmp_path):
    for content in ("a.jpg 1 0\nmy b.jpg 0 1\n", "my a.jpg 1 0\nmy b.jpg 0 1\n"):
        with pytest.raises(LabelsError, match=r"row \d.*file names that hold spaces need"):
            read_labels(write(tmp_path, content))
    with pytest.raises(LabelsError, match=r"header has 3 fields, the rows have 4.*spaces need"):
        read_labels(write(tmp_path, "filename a b\nmy a.jpg 1 0\nmy b.jpg 0 1\n"))
    quoted = read_labels(write(tmp_path, 'a.jpg  1  0 \n"my b.jpg" 0 1\n'))
    assert quoted.table.filenames == ("a.jpg", "my b.jpg")
    commas = read_labels(write(tmp_path, "a.jpg,1\nmy b.jpg,0\n"))
    assert commas.table.filenames == ("a.jpg", "my b.jpg")


def test_repeated_files_are_merged_and_conflicts_listed(tmp_path):
    file = read_labels(
        write(tmp_path, "file,x,y,z\na,1,0,NA\nb,1,1,1\na,1,1,0\nc,0,0,0\na,1,NA,NA\nb,1,1,1\n")
    )
    assert file.table.filenames == ("a", "b", "c")
    np.testing.assert_array_equal(file.table.values, [[1, MISSING, 0], [1, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(file.table.rows, [2, 3, 5])
    assert file.table.source[0].tolist() == [Source.OBSERVED, Source.MISSING, Source.OBSERVED]
    assert file.merged == 3
    assert [(c.filename, c.label, c.rows) for c in file.conflicts] == [("a", "y", (2, 4, 6))]
    assert "3 rows repeat" in " ".join(file.notes)


def test_unusable_rows_go_to_the_quarantine(tmp_path):
    content = 'f.jpg,1,0\n\n"a,\nb.jpg",1,0\ng.jpg,1\n ,1,1\nh.jpg,1,0,1\n'
    file = read_labels(write(tmp_path, content))
    assert file.table.filenames == ("f.jpg", "a,\nb.jpg")
    np.testing.assert_array_equal(file.table.rows, [1, 3])
    assert file.quarantine == (
        Quarantined("g.jpg", 5, "wrong_field_count"),
        Quarantined(" ", 6, "empty_filename"),
        Quarantined("h.jpg", 7, "wrong_field_count"),
    )
    write_quarantine(tmp_path / "quarantine.csv", file.quarantine)
    frame = pd.read_csv(tmp_path / "quarantine.csv", dtype=str, keep_default_na=False)
    assert list(frame.columns) == ["filename", "row", "reason"]
    assert frame["filename"].tolist() == ["g.jpg", " ", "h.jpg"]
    assert frame["row"].tolist() == ["5", "6", "7"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; expected a table"),
        (b"\n\n", "is empty"),
        (b"a.jpg\nb.jpg\n", "'a.jpg' is one column, an image and no labels"),
        (b"filename,sea\n", "no usable row"),
        (b"filename,sea,sea\na.jpg,1,1\n", "column 3: label name 'sea' is used twice"),
        (b"filename,sea, \na.jpg,1,1\n", "column 3: label name '' is empty"),
        (b"filename,sea\na.jpg,1,1\nb.jpg,1,1\n", "header has 2 fields, the rows have 3"),
        (b'a.jpg,1\n"b.jpg,1\nc.jpg,0\n', "row 2: unexpected end"),
        (b'a.jpg,1\n"b".jpg,1\n', "row 2"),
        (b"gr\xc3\xbcn.jpg,1\nbl\xe4u.jpg,0\n", "byte 14 is not utf-8"),
        (b"gr\x9cn.jpg,1\n", "byte 2 is not utf-8"),
        (b"\xef\xbb\xbfbl\xe4u.jpg,0\n", "byte 5 is not utf-8"),
        ("a.jpg,1\n".encode("utf-16") + b"\n", "byte 18 is not utf-16"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is an image"),
    ],
)
def test_unreadable_file_is_an_error_that_says_where(tmp_path, content, message):
    with pytest.raises(LabelsError, match=message) as caught:
        read_labels(write(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_invalid_byte_far_into_a_file_is_found_at_its_offset(tmp_path):
    # The piece boundary cuts the two bytes of a letter apart.
    good = b"ab.jpg,1\n" * 2**17
    content = good[: 2**20 - 1] + "ü".encode() + b",1\n" + good + b"\xff\n"
    with pytest.raises(LabelsError, match=f"byte {len(content) - 2} "):
        read_labels(write(tmp_path, content))


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "none.csv", "a\0b"):
        with pytest.raises(LabelsError):
            read_labels(path)


def test_caps(tmp_path, monkeypatch):
    path = write(tmp_path, "a.jpg,1\n" + "b" * 2000 + ".jpg,1\n" * 10)
    monkeypatch.setattr(delimited, "MAX_LINE", 1000)
    with pytest.raises(LabelsError, match="row 2: longer than 1000"):
        read_labels(path)
    monkeypatch.setattr(delimited, "MAX_FILE_BYTES", 1000)
    with pytest.raises(LabelsError, match="more than 1000"):
        read_labels(path)


# CSV in UTF-8 holds every text without half surrogate pairs; a label's name is stripped.
filenames = st.text(max_size=12).filter(str.strip)
names = st.text(max_size=8).map(str.strip).filter(bool)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_written_labels_read_back_the_same(tmp_path_factory, data):
    files = data.draw(st.lists(filenames, min_size=1, max_size=6, unique=True))
    columns = data.draw(st.lists(names, min_size=1, max_size=4, unique=True))
    count = len(files) * len(columns)
    values = data.draw(st.lists(st.sampled_from([0, 1, MISSING]), min_size=count, max_size=count))
    table = table_of(files, columns, values)
    path = tmp_path_factory.mktemp("round") / "labels.csv"
    write_labels(path, table)
    file = read_labels(path, OURS)
    assert file.table.digest() == table.digest()
    assert file.table.filenames == table.filenames
    assert file.quarantine == ()
    with path.open(newline="") as text:
        rows = list(csv.reader(text))
    assert rows[0] == ["filename", *columns]
    assert [row[0] for row in rows[1:]] == files


@settings(max_examples=400, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.text('ab.jpg,;\t "01?NA\n\r\ufeffü\0', max_size=200).map(str.encode),
        st.lists(
            st.tuples(
                st.sampled_from(["a.jpg", "b", "", '"', "my c.png", "filename"]),
                st.sampled_from([",", ";", " ", "\t"]),
                st.sampled_from(["0", "1", "NA", "", "2", "sea", '"1"']),
            ).map("".join),
            max_size=8,
        ).map(lambda lines: "\n".join(lines).encode()),
    )
)
def test_any_bytes_give_a_table_or_our_error(tmp_path_factory, content):
    path = write(tmp_path_factory.mktemp("fuzz"), content)
    with contextlib.suppress(LabelsError):
        table = read_labels(path).table
        assert table.values.shape == (len(set(table.filenames)), len(table.names))


def test_select_hide_and_digest():
    table = table_of(["a", "b", "c"], ["x", "y"], [1, 0, MISSING, 1, 0, MISSING])
    part = table.select(np.array([2, 0]))
    assert part.filenames == ("c", "a")
    np.testing.assert_array_equal(part.values, [[0, MISSING], [1, 0]])
    np.testing.assert_array_equal(part.rows, [4, 2])
    mask = np.array([[True, False], [True, False], [False, False]])
    hidden = table.hide(mask)
    np.testing.assert_array_equal(hidden.known, table.known & ~mask)
    np.testing.assert_array_equal(hidden.values[~mask], table.values[~mask])
    assert table.known.sum() == 4
    assert hidden.digest() != table.digest()
    assert table.select(np.arange(3)).digest() == table.digest()


def test_table_refuses_what_does_not_fit():
    with pytest.raises(LabelsError, match="two labels are named 'x'"):
        table_of(["a"], ["x", "x"], [0, 1])
    with pytest.raises(LabelsError, match="spaces around"):
        table_of(["a"], ["x "], [0])
    with pytest.raises(LabelsError, match="not 0, 1 or missing"):
        table_of(["a"], ["x"], [2])


def test_the_original_labels():
    folder = os.environ.get("MLC_JAX_TEST_DATA")
    if not folder:
        pytest.skip("MLC_JAX_TEST_DATA is not set: the folder with tops/ and scenes/")
    file = read_labels(Path(folder) / "tops" / "labels.txt")
    assert len(file.table.filenames) == 975
    absent = {f"image_{number}.jpg" for number in (489, 624, 875)}
    usable = np.flatnonzero([name not in absent for name in file.table.filenames])
    table = file.table.select(usable)
    assert len(table.filenames) == 972
    assert (~table.known).sum(axis=0).tolist() == [80, 91, 92, 92]
    assert (table.values == 1).sum(axis=0).tolist() == [786, 710, 464, 68]
    assert table.known.sum(axis=0).tolist() == [892, 881, 880, 880]


PEAK = """
import resource, sys
from mlc_jax.data.labels import read_labels
from mlc_jax.errors import LabelsError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_labels(sys.argv[1])
except LabelsError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "line", "said", "megabytes"),
    [
        (10_000_000, 0, "more than 2000000 lines", 20),
        (0, 10**9, "row 2: longer than 1048576 characters", 20),
        # Eight times the file, which a file with long rows is far from: names are strings.
        (1_990_000, 0, None, 300),
    ],
)
def test_huge_files_are_read_or_refused_in_little_memory(tmp_path, rows, line, said, megabytes):
    with (tmp_path / "labels.csv").open("w") as file:
        file.write("filename,a,b\n")
        for start in range(0, rows, 10_000):
            file.writelines(f"{n:08},{n % 2},0\n" for n in range(start, start + 10_000))
        file.write("a" * line)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "labels.csv")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    *errors, peak = done.stdout.splitlines()
    assert [said in error for error in errors] == ([True] if said else [])
    assert int(peak) < megabytes
