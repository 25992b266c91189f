"""The forms of label tables that people have, and what is made of each."""

from pathlib import Path

import numpy as np
import pytest

from mlc_jax.data.annotators import merge_rows
from mlc_jax.data.labels import LabelsFile, read_labels, refuse_without_zeros
from mlc_jax.data.matching import match_names
from mlc_jax.data.table import MISSING
from mlc_jax.errors import ConfigError, LabelsError
from mlc_jax.label_settings import ReadOptions

M = MISSING
FILES = ("a.jpg", "b.jpg", "c.jpg")
VALUES = [[1, 0], [M, 1], [0, M]]


def read(folder: Path, text: str | bytes, **keys: object) -> LabelsFile:
    path = folder / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_labels(path, ReadOptions(**keys))  # type: ignore[arg-type]


FORMS = {
    "plain": "filename,sea,sky\na.jpg,1,0\nb.jpg,,1\nc.jpg,0,\n",
    "floats": "filename,sea,sky\na.jpg,1.0,0.00\nb.jpg,,1.\nc.jpg,0.0,\n",
    "decimal commas": "filename;sea;sky\na.jpg;1,0;0,00\nb.jpg;;1,0\nc.jpg;0,0;\n",
    "sep line": "sep=;\nfilename;sea;sky\na.jpg;1;0\nb.jpg;;1\nc.jpg;0;\n",
    "pipes": "filename|sea|sky\na.jpg|1|0\nb.jpg||1\nc.jpg|0|\n",
    "comments": "# mine\n# 2024, two\nfilename,sea,sky\na.jpg,1,0\nb.jpg,,1\nc.jpg,0,\n",
    "title": "My labels,,\nfilename,sea,sky\na.jpg,1,0\nb.jpg,,1\nc.jpg,0,\n",
    "totals": "filename,sea,sky\na.jpg,1,0\nb.jpg,,1\nc.jpg,0,\nTotal,17,12\n",
    "units": "filename,sea,sky\n,yes or no,yes or no\na.jpg,1,0\nb.jpg,,1\nc.jpg,0,\n",
    "empty columns": "filename,sea,sky,,\na.jpg,1,0,,\nb.jpg,,1,,\nc.jpg,0,,,\n",
    "empty rows": "filename,sea,sky\na.jpg,1,0\n,,\nb.jpg,,1\nc.jpg,0,\n,,\n,,\n",
    "yes and no": "filename,sea,sky\na.jpg,yes,No\nb.jpg,,YES\nc.jpg,no,\n",
    "TRUE and FALSE": "filename,sea,sky\na.jpg,TRUE,FALSE\nb.jpg,,true\nc.jpg,False,\n",
    "index": ",filename,sea,sky\n0,a.jpg,1,0\n1,b.jpg,,1\n2,c.jpg,0,\n",
    "id": "id,filename,sea,sky\n7,a.jpg,1,0\n8,b.jpg,,1\n9,c.jpg,0,\n",
    "file last": "sea,sky,filename\n1,0,a.jpg\n,1,b.jpg\n0,,c.jpg\n",
    "split 0 and 1": "filename,is_valid,sea,sky\na.jpg,1,1,0\nb.jpg,0,,1\nc.jpg,0,0,\n",
    "split": "filename,sea,sky,split\na.jpg,1,0,train\nb.jpg,,1,val\nc.jpg,0,,test\n",
    "patients": "Path,Sex,Age,sea,sky\na.jpg,Male,61,1,0\nb.jpg,Female,7,,1\nc.jpg,Male,8,0,\n",
    "long": "filename,label,value\na.jpg,sea,1\na.jpg,sky,0\nb.jpg,sky,1\nc.jpg,sea,0\n",
    "Open Images": (
        "ImageID,Source,LabelName,Confidence\na.jpg,verification,sea,1\na.jpg,verification,sky,0\n"
        "b.jpg,verification,sky,1\nc.jpg,verification,sea,0\n"
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_table(tmp_path: Path, form: str) -> None:
    file = read(tmp_path, FORMS[form])
    assert file.table.filenames == FILES
    assert file.table.names == ("sea", "sky")
    assert file.table.values.tolist() == VALUES
    assert file.quarantine == ()
    assert file.receipt.labels == {"sea": (1, 1, 1), "sky": (1, 1, 1)}


def test_columns_that_are_no_labels_come_along(tmp_path: Path) -> None:
    file = read(tmp_path, FORMS["patients"])
    assert file.extra_columns == {
        "Sex": ("Male", "Female", "Male"),
        "Age": ("61", "7", "8"),
    }
    assert "columns left out, which hold no labels: 'Sex', 'Age'" in file.notes
    assert read(tmp_path, FORMS["split"]).extra_columns["split"] == ("train", "val", "test")


@pytest.mark.parametrize("name", ["age", "Sex", "date", "train", "group"])
def test_a_column_that_may_be_a_label_or_not_is_asked_about(tmp_path: Path, name: str) -> None:
    text = f"filename,{name},sea\na.jpg,1,0\nb.jpg,0,1\n"
    with pytest.raises(LabelsError, match=f"--config.data.ignore_columns={name} .*=Sex|{name},sea"):
        read(tmp_path, text)
    assert read(tmp_path, text, ignore_columns=(name,)).table.names == ("sea",)
    assert read(tmp_path, text, label_columns=(name, "sea")).table.names == (name, "sea")
    assert read(tmp_path, text, used_columns=(name,)).table.names == ("sea",)


TAGS = {
    "spaces": "image,labels\na.jpg,sea\nb.jpg,sea sky\nc.jpg,sky\n",
    "commas": 'image,labels\na.jpg,sea\nb.jpg,"sea,sky"\nc.jpg,sky\n',
    "pipes": "Image Index,Finding Labels,Patient Age\na.jpg,sea,7\nb.jpg,sea|sky,8\nc.jpg,sky,9\n",
    "json": 'image,labels\na.jpg,"[""sea""]"\nb.jpg,"[""sea"", ""sky""]"\nc.jpg,"[""sky""]"\n',
    "python": "image;labels\na.jpg;['sea']\nb.jpg;['sea', 'sky']\nc.jpg;['sky']\n",
    "ragged": "a.jpg,sea\nb.jpg,sea,sky\nc.jpg,sky\n",
    "split": "fname,labels,is_valid\na.jpg,sea,True\nb.jpg,sea sky,False\nc.jpg,sky,False\n",
}


@pytest.mark.parametrize("form", TAGS)
def test_tags_are_read_once_it_is_stated_what_a_label_not_named_means(
    tmp_path: Path, form: str
) -> None:
    with pytest.raises(LabelsError) as caught:
        read(tmp_path, TAGS[form])
    message = str(caught.value)
    assert "--config.data.absent=false" in message
    assert "--config.data.absent=missing" in message
    assert "'sea' 2 ones and 1 zeros" in message
    no = read(tmp_path, TAGS[form], absent="false")
    assert no.table.names == ("sea", "sky")
    assert no.table.values.tolist() == [[1, 0], [1, 1], [0, 1]]
    unknown = read(tmp_path, TAGS[form], absent="missing")
    assert unknown.table.values.tolist() == [[1, M], [1, 1], [M, 1]]


def test_an_empty_cell_of_tags_is_not_an_empty_list(tmp_path: Path) -> None:
    text = "image,labels\na.jpg,sea\nb.jpg,\nc.jpg,sea sky\n"
    assert read(tmp_path, text, absent="false").table.values.tolist() == [[1, 0], [M, M], [1, 1]]
    file = read(tmp_path, text, absent="false", blank="false")
    assert file.table.values.tolist() == [[1, 0], [0, 0], [1, 1]]
    listed = "image;labels\na.jpg;['sea']\nb.jpg;[]\nc.jpg;['sea', 'sky']\n"
    assert read(tmp_path, listed, absent="false").table.values.tolist() == [[1, 0], [0, 0], [1, 1]]


def test_words_with_spaces_are_parted_where_the_words_come_again(tmp_path: Path) -> None:
    text = "image,labels\na.jpg,No Finding\nb.jpg,Mass\nc.jpg,Nodule\n"
    file = read(tmp_path, text, absent="false")
    assert file.table.names == ("No Finding", "Mass", "Nodule")
    unclear = "image,labels\na.jpg,Pleural Effusion\nb.jpg,Pleural Mass\nc.jpg,Nodule\n"
    with pytest.raises(LabelsError, match="tags_separator=space"):
        read(tmp_path, unclear, absent="false")
    whole = read(tmp_path, unclear, absent="false", tags_separator="comma")
    assert whole.table.names == ("Pleural Effusion", "Pleural Mass", "Nodule")


def test_numbers_of_classes_get_names(tmp_path: Path) -> None:
    text = "Id,Target\na,2\nb,10 0\nc,0\n"
    file = read(tmp_path, text, absent="false")
    assert file.table.names == ("0", "2", "10")
    names = tmp_path / "names.txt"
    names.write_text("".join(f"n{number}\n" for number in range(11)))
    assert read(tmp_path, text, absent="false", names=(str(names),)).table.names == (
        "n2",
        "n10",
        "n0",
    )


@pytest.mark.parametrize(
    ("text", "remedy", "keys", "values"),
    [
        ("present", "true_values=present --config.data.blank=false", {"blank": "false"}, None),
        ("x", "true_values=x --config.data.blank=false", {"blank": "false"}, None),
    ],
)
def test_marks_and_blanks(
    tmp_path: Path, text: str, remedy: str, keys: dict[str, str], values: None
) -> None:
    path = f"filename,sea,sky\na.jpg,{text},\nb.jpg,,{text}\n"
    with pytest.raises(LabelsError, match=remedy):
        read(tmp_path, path)
    file = read(tmp_path, path, true_values=(text,), **keys)
    assert file.table.values.tolist() == [[1, 0], [0, 1]]


def test_ones_and_blanks_need_a_meaning_of_the_blanks(tmp_path: Path) -> None:
    text = "filename,sea,sky\na.jpg,1,\nb.jpg,,1\n"
    for options in (ReadOptions(), ReadOptions(blank="missing"), ReadOptions(blank="false")):
        (tmp_path / "labels.csv").write_text(text)
        file = read_labels(tmp_path / "labels.csv", options)
        if options.blank:
            refuse_without_zeros(file, options, "labels.csv")
        else:
            with pytest.raises(LabelsError, match=r"--config.data.blank=false"):
                refuse_without_zeros(file, options, "labels.csv")
    assert file.table.values.tolist() == [[1, 0], [0, 1]]


def test_soft_labels(tmp_path: Path) -> None:
    text = "filename,sea,sky\na.jpg,0.1,0.9\nb.jpg,0.5,0.3\nc.jpg,0,1\n"
    with pytest.raises(LabelsError, match=r"--config.data.soft=0.5,0.5 reads 3 cells"):
        read(tmp_path, text)
    file = read(tmp_path, text, soft=(0.3, 0.7))
    assert file.table.values.tolist() == [[0, 1], [M, 0], [0, 1]]
    assert read(tmp_path, text, soft=(0.5, 0.5)).table.values.tolist() == [[0, 1], [M, 0], [0, 1]]


@pytest.mark.parametrize(("uncertain", "value"), [("missing", M), ("true", 1), ("false", 0)])
def test_uncertain_cells(tmp_path: Path, uncertain: str, value: int) -> None:
    text = "filename,sea,sky\na.jpg,1.0,0.0\nb.jpg,-1.0,1.0\n"
    file = read(tmp_path, text, uncertain=uncertain)
    assert file.table.values.tolist() == [[1, 0], [value, 1]]


def test_the_way_of_wider_is_stated(tmp_path: Path) -> None:
    text = "filename,sea,sky\na.jpg,1,-1\nb.jpg,0,1\n"
    with pytest.raises(LabelsError, match=r"uncertain=false --config.data.missing_values=0"):
        read(tmp_path, text)
    file = read(tmp_path, text, uncertain="false", missing_values=("0",))
    assert file.table.values.tolist() == [[1, 0], [M, 1]]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("majority", [1, 0, M]), ("agree", [M, M, M]), ("first", [0, 0, 1])],
)
def test_annotators(tmp_path: Path, rule: str, expected: list[int]) -> None:
    text = "image_id,rad_id,x,y,z\na,R1,0,0,1\na,R2,1,1,0\na,R3,1,0,\n"
    file = read(tmp_path, text, annotators=rule)
    assert file.table.values.tolist() == [expected]
    assert file.extra_columns == {"rad_id": ("R1",)}


def test_names_of_columns_without_a_header(tmp_path: Path) -> None:
    text = "a.jpg,1,0\nb.jpg,0,1\n"
    (tmp_path / "names.txt").write_text("sea\nsky\n")
    for names in (("sea", "sky"), (str(tmp_path / "names.txt"),)):
        file = read(tmp_path, text, names=names)
        assert file.table.names == ("sea", "sky")
        assert "no header: labels are named sea, sky" in file.notes
    with pytest.raises(ConfigError, match=r"holds 3 names, and .* 2 columns of labels"):
        read(tmp_path, text, names=("sea", "sky", "fog"))


def test_krippendorffs_alpha_of_his_own_example() -> None:
    """Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011, section A: 0.095."""
    meg = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    owen = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    names = [str(number) for number in range(10)] * 2
    votes = merge_rows(names, np.array(meg + owen, np.int8)[:, None], "majority")
    np.testing.assert_allclose(votes.alpha, [0.095], atol=5e-4)


def test_krippendorffs_alpha_of_four_observers() -> None:
    """His example of section C, alpha 0.743 of five values: each value against the others.

    The figures are of the package krippendorff 0.9.0, which gives 0.743 for all values together.
    """
    observers = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    votes = np.array([[int(vote.replace(".", "0")) for vote in own] for own in observers])
    names = [str(number) for number in range(12)] * 4
    alphas = [
        merge_rows(
            names, np.where(votes == 0, M, votes == value).astype(np.int8).reshape(-1, 1), "first"
        ).alpha[0]
        for value in (1, 2, 3, 4, 5)
    ]
    np.testing.assert_allclose(alphas, [0.720430, 0.666667, 0.74, 0.777143, 1.0], atol=1e-6)


def alpha_by_pairs(votes: list[np.ndarray]) -> float:
    """1 - observed / expected disagreement, by going through all pairs of values that there are."""
    units = [own[own >= 0] for own in votes if (own >= 0).sum() > 1]
    values = np.concatenate(units)
    observed = sum(
        float(a != b) / (len(own) - 1)
        for own in units
        for i, a in enumerate(own)
        for j, b in enumerate(own)
        if i != j
    )
    pairs = [a != b for i, a in enumerate(values) for j, b in enumerate(values) if i != j]
    return float(1 - (observed / len(values)) / np.mean(pairs))


def test_krippendorffs_alpha_by_its_definition() -> None:
    """Up to five votes of an image, some of them missing."""
    rng = np.random.default_rng(3)
    votes = rng.choice(np.array([M, 0, 1], np.int8), (40, 5, 2), p=[0.3, 0.5, 0.2])
    votes[:, :, 1] = np.where(votes[:, :, 1] == M, M, votes[:, :1, 1] == 1)  # mostly agreed
    votes[3, 2, 1] = 1
    names = np.repeat([str(number) for number in range(40)], 5).tolist()
    found = merge_rows(names, votes.reshape(200, 2).copy(), "majority").alpha
    for label in range(2):
        assert found[label] == pytest.approx(alpha_by_pairs(list(votes[:, :, label])), abs=1e-12)


@pytest.mark.parametrize(
    ("rule", "values", "said"),
    [
        ("majority", [[1], [M], [0]], "2 of them differ: 1 were decided"),
        ("agree", [[M], [M], [0]], "2 of them differ: 0 were decided"),
        ("first", [[1], [0], [0]], "2 of them differ: 2 were decided"),
    ],
)
def test_votes_of_nobody_in_particular(
    tmp_path: Path, rule: str, values: list[list[int]], said: str
) -> None:
    """A long table with several rows of an image and label, and no column of annotators."""
    rows = [("a", 1), ("a", 1), ("a", 0), ("b", 0), ("b", 1), ("c", 0), ("c", 0)]
    text = "image,label,value\n" + "".join(f"{name}.jpg,sea,{value}\n" for name, value in rows)
    file = read(tmp_path, text, annotators=rule)
    assert file.table.values.tolist() == values
    assert "3 cells are stated several times" in file.notes
    assert any(said in note for note in file.notes)
    expected = alpha_by_pairs([np.array([1, 1, 0]), np.array([0, 1]), np.array([0, 0])])
    assert file.receipt.agreement["sea"] == pytest.approx(expected)


def matched(names: list[str], listed: list[str], **keys: str) -> list[str]:
    return match_names(names, Path("images"), listed, ReadOptions(**keys)).filenames  # type: ignore


@pytest.mark.parametrize(
    "names",
    [
        ["a.jpg", "d/b.jpg"],
        ["./a.jpg", "./d/b.jpg"],
        ["images\\a.jpg", "images\\d\\b.jpg"],
        ["images/a.jpg", "images/d/b.jpg"],
        ["/data/elsewhere/a.jpg", "/data/elsewhere/d/b.jpg"],
        ["C:\\my\\a.jpg", "C:\\my\\d\\b.jpg"],
        ["https://example.com/x/a.jpg?size=1", "gs://bucket/d/b.jpg"],
        ["a.JPG", "d/b.JPG"],
        ["a", "b"],
        ["a.jpg", "b.jpg"],
        ["a.png", "b.png"],
    ],
)
def test_names_find_their_images(names: list[str]) -> None:
    assert matched(names, ["a.jpg", "d/b.jpg"]) == ["a.jpg", "d/b.jpg"]


def test_a_name_that_fits_two_images_is_an_error() -> None:
    with pytest.raises(LabelsError, match=r"'b.jpg' fits 'd/b.jpg' and 'e/b.jpg'"):
        matched(["a.jpg", "b.jpg"], ["a.jpg", "d/b.jpg", "e/b.jpg"])


def test_ways_that_find_other_files_are_an_error_and_each_of_them_may_be_given() -> None:
    """The path without its folders is one file, the name in the folder that fits best another."""
    names, listed = ["c/b/a.jpg"], ["a.jpg", "q/b/a.jpg"]
    with pytest.raises(LabelsError) as caught:
        matched(names, listed)
    assert "'c/b/a.jpg' is 'a.jpg' by --config.data.match=path" in str(caught.value)
    assert "'q/b/a.jpg' by --config.data.match=name" in str(caught.value)
    assert matched(names, listed, match="path") == ["a.jpg"]
    assert matched(names, listed, match="name") == ["q/b/a.jpg"]


def test_a_way_that_is_not_unique_does_not_stand_against_one_that_is() -> None:
    assert matched(["x/d/a.jpg", "x/e/a.jpg"], ["d/a.jpg", "e/a.jpg"]) == ["d/a.jpg", "e/a.jpg"]
    assert matched(["z/a.jpg"], ["a.jpg", "d/a.jpg"]) == ["a.jpg"]


def test_suffix_and_prefix_and_match_are_taken_at_their_word() -> None:
    assert matched(["1", "2"], ["im1.png", "im2.png"], prefix="im", suffix=".png") == [
        "im1.png",
        "im2.png",
    ]
    assert matched(["x/1.png", "nothing"], ["1.png"], match="name") == ["1.png", "nothing"]


def test_a_key_that_names_no_column_lists_those_there_are(tmp_path: Path) -> None:
    for key in ("file_column", "tags_column", "annotator_column"):
        with pytest.raises(ConfigError, match=f"{key} names 'moon'.* it has filename,sea,sky"):
            read(tmp_path, FORMS["plain"], **{key: "moon"})


def test_encodings_are_named_not_guessed(tmp_path: Path) -> None:
    text = "filename,пустыня,горы\na.jpg,0,1\nb.jpg,1,0\n"
    with pytest.raises(LabelsError, match=r"--config.data.encoding=cp1251 reads 'filename,пустыня"):
        read(tmp_path, text.encode("cp1251"))
    file = read(tmp_path, text.encode("cp1251"), encoding="cp1251")
    assert file.table.names == ("пустыня", "горы")
    with pytest.raises(LabelsError, match="is no encoding"):
        read(tmp_path, text, encoding="base64")


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("ID,Label\n5c27,8|5|0\n5fb6,14|0\n60b5,6|1\n", "Label"),
        ("image_id,label\na.jpg,0\nb.jpg,3\nc.jpg,1\nd.jpg,1\ne.jpg,0\n", "label"),
        ("image,scene\na.jpg,beach\nb.jpg,forest\nc.jpg,city\nd.jpg,beach\n", "scene"),
        (
            "Image Index,Finding Labels,View Position,OriginalImagePixelSpacing[x,y]\n"
            "1_000.png,Mass,PA,0.143,0.143\n2_000.png,Mass|Edema,AP,0.171,0.171\n",
            "Finding Labels",
        ),
    ],
    ids=["pipes", "classes", "words", "NIH"],
)
def test_a_list_of_labels_is_seen_as_one(tmp_path: Path, text: str, column: str) -> None:
    with pytest.raises(LabelsError) as caught:
        read(tmp_path, text)
    assert f"--config.data.tags_column={column}" in str(caught.value)
    assert "--config.data.absent=false" in str(caught.value)


def test_numbers_beside_labels_are_asked_about(tmp_path: Path) -> None:
    text = "filename,sea,sky,weight\na.jpg,1,0,1.0\nb.jpg,0,1,0.25\n"
    with pytest.raises(LabelsError, match=r"--config\.data\.ignore_columns=weight"):
        read(tmp_path, text)
    file = read(tmp_path, text, ignore_columns=("weight",))
    assert file.table.names == ("sea", "sky")
    assert file.extra_columns == {"weight": ("1.0", "0.25")}


def test_a_note_below_the_table_is_no_image(tmp_path: Path) -> None:
    file = read(tmp_path, FORMS["plain"] + "Made by me in 2024,,\n")
    assert file.table.filenames == FILES
    assert any(
        note.startswith("1 rows of totals or notes at the end, passed over: ")
        for note in file.notes
    )


def test_label_studio_s_csv(tmp_path: Path) -> None:
    text = (
        "image,id,choice,annotator,annotation_id,created_at,updated_at,lead_time\n"
        '/data/upload/1/0a1b2c3d-a.jpg,1,"{""choices"": [""sea"", ""sky""]}",1,1,x,y,3.1\n'
        "/data/upload/1/0a1b2c3e-b.jpg,2,sea,1,2,x,y,3.2\n"
    )
    file = read(tmp_path, text, absent="false")
    assert file.table.names == ("sea", "sky")
    assert file.table.values.tolist() == [[1, 1], [1, 0]]
    assert matched(list(file.table.filenames), ["a.jpg", "b.jpg"]) == ["a.jpg", "b.jpg"]


def test_words_that_were_given_and_stand_nowhere_are_named(tmp_path: Path) -> None:
    file = read(tmp_path, FORMS["plain"], true_values=("ja",))
    assert "config.data.true_values names 'ja', which no label cell holds" in file.notes
