"""Refusals: what a message proposes is taken out of it, done, and then the file is read rightly."""

import bz2
import io
import json
import lzma
import pickle
import re
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlc_jax.data.labels import LabelsFile
from mlc_jax.data.table import MISSING
from mlc_jax.errors import LabelsError, MlcError
from mlc_jax.stages import convert
from tests.label_flags import config_of, flags_of

M = MISSING
PREFIX = "--config.data."
TABLE = b"filename,sea,sky\na.jpg,1,0\nb.jpg,,1\n"


def read(labels: Path, *keys: str) -> LabelsFile:
    """Reads labels as the command line would, with the images that lie beside them."""
    images = labels.parent / "images"
    beside = [f"{PREFIX}images={images}"] if images.is_dir() else []
    given = [key if key.startswith("--") else PREFIX + key for key in keys]
    return convert.read(config_of(f"{PREFIX}labels={labels}", *beside, *given))


def refusal(labels: Path, *keys: str) -> str:
    with pytest.raises(MlcError) as caught:
        read(labels, *keys)
    message = str(caught.value)
    assert "\n" not in message
    return message


ONE_TWO = [[1, 0], [0, 1]]
# Name: the file, keys that were given, then ways that the message proposes, each with its values.
Way = tuple[list[str], list[list[int]]]
TEXTS: dict[str, tuple[str, list[str], list[Way]]] = {
    "-1": (
        "filename,sea,sky\na.jpg,1,-1\nb.jpg,0,1\nc.jpg,-1,0\n",
        [],
        [
            (["missing_values=-1"], [[1, M], [0, 1], [M, 0]]),
            (["uncertain=false", "missing_values=0"], [[1, 0], [M, 1], [0, M]]),
        ],
    ),
    "-1 without a 0": (
        "filename,sea,sky\na.jpg,1,-1\nb.jpg,-1,+1\n",
        [],
        [(["missing_values=-1"], [[1, M], [M, 1]]), (["false_values=-1"], ONE_TWO)],
    ),
    "lists of the classes 0 and 1": (
        "filename,what\na.jpg,0 1\nb.jpg,1\nc.jpg,0\n",
        ["absent=false"],
        [(["tags_column=what"], [[1, 1], [0, 1], [1, 0]])],
    ),
    "-1 as 0": (
        "filename,sea,sky\na.jpg,1,-1\nb.jpg,0,1\n",
        ["false_values=-1"],
        [(["missing_values=0"], [[1, 0], [M, 1]]), (["false_values=-1,0"], ONE_TWO)],
    ),
    "claimed twice": (
        "filename,sea,sky\na.jpg,1,x\nb.jpg,0,1\n",
        ["false_values=x,-", "true_values=x"],
        [(["false_values=x,-"], ONE_TWO), (["false_values=-", "true_values=x"], [[1, 1], [0, 1]])],
    ),
    "decimal commas": (
        "filename;sea;sky\na.jpg;1,0;0,0\nb.jpg;0,0;1,0\n",
        ["true_values=1,0", "false_values=0,0"],
        [(["true_values=1"], ONE_TWO)],
    ),
    "dots": (
        "filename,sea,sky\na.jpg,1,0\nb.jpg,.,1\n",
        [],
        [(["missing_values=."], [[1, 0], [M, 1]])],
    ),
    "dashes": (
        "filename,sea,sky\na.jpg,1,-\nb.jpg,0,1\n",
        [],
        [(["missing_values=-"], [[1, M], [0, 1]])],
    ),
    "words of doubt": (
        "filename,sea,sky\na.jpg,1,not_sure\nb.jpg,unknown,1\nc.jpg,0,0\n",
        [],
        [(["missing_values=unknown,not_sure"], [[1, M], [M, 1], [0, 0]])],
    ),
    "words": (
        "filename,sea,sky\na.jpg,present,absent\nb.jpg,absent,present\n",
        [],
        [(["true_values=present", "false_values=absent"], ONE_TWO)],
    ),
    "words beside numbers": (
        "filename,sea,sky\na.jpg,TRUE,0\nb.jpg,0,1\nc.jpg,no,1\n",
        [],
        [(["true_values=TRUE", "false_values=no"], [*ONE_TWO, [0, 1]])],
    ),
    "words with commas": (
        'filename,sea,sky\na.jpg,1,0\nb.jpg,"well, no",1\n',
        [],
        [(['missing_values="well, no"'], [[1, 0], [M, 1]])],
    ),
    "a third number": (
        "filename,sea,sky\na.jpg,1,2\nb.jpg,0,1\n",
        [],
        [(["missing_values=2"], [[1, M], [0, 1]])],
    ),
    "marks": (
        "filename,sea,sky\na.jpg,x,\nb.jpg,,x\n",
        [],
        [(["true_values=x", "blank=false"], ONE_TWO)],
    ),
    "ones and blanks": (
        "filename,sea,sky\na.jpg,1,\nb.jpg,,1\n",
        [],
        [(["blank=false"], ONE_TWO)],
    ),
    "soft labels": (
        "filename,sea,sky\na.jpg,0.9,0.2\nb.jpg,0.1,0.6\n",
        [],
        [(["soft=0.5,0.5"], ONE_TWO), (["soft=0.3,0.7"], [[1, 0], [0, M]])],
    ),
    "percentages": (
        "filename,sea,sky\na.jpg,93%,31 %\nb.jpg,7.5%,60%\n",
        [],
        [(["soft=0.5,0.5"], ONE_TWO), (["soft=0.3,0.7"], [[1, M], [0, M]])],
    ),
    "numbers up to 100": (
        "filename,sea,sky\na.jpg,93,1\nb.jpg,0,60\n",
        [],
        [(["soft=50,50"], ONE_TWO), (["soft=30,70"], [[1, 0], [0, M]])],
    ),
    "tags": (
        "filename,my tags\na.jpg,sea\nb.jpg,sky\nc.jpg,sea|sky\n",
        [],
        [
            (["tags_column=my tags", "absent=false"], [*ONE_TWO, [1, 1]]),
            (["tags_column=my tags", "absent=missing"], [[1, M], [M, 1], [1, 1]]),
        ],
    ),
    "labels that may hold spaces": (
        "filename,tags\na.jpg,deep sea\nb.jpg,sky\nc.jpg,deep\nd.jpg,the blue sky\n",
        ["absent=false"],
        [
            (
                ["tags_separator=space"],
                [[1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 1, 1, 1]],
            ),
            (
                ["tags_separator=comma"],
                [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
            ),
        ],
    ),
    "a column that may be a label": (
        "filename,sea,sky,sex\na.jpg,1,0,1\nb.jpg,0,1,0\n",
        [],
        [
            (["ignore_columns=sex"], ONE_TWO),
            (["label_columns=sea,sky,sex"], [[1, 0, 1], [0, 1, 0]]),
        ],
    ),
    "a column of remarks": (
        "filename,sea,sky,remarks\na.jpg,1,0,a dog\nb.jpg,0,1,two cats\nc.jpg,1,1,what else\n",
        [],
        [(["ignore_columns=remarks"], [*ONE_TWO, [1, 1]])],
    ),
    "one column of names of labels": (
        "filename,thing\na.jpg,sea\nb.jpg,sky\n",
        [],
        [(["tags_column=thing", "absent=false"], ONE_TWO)],
    ),
    "Cyrillic": (
        "filename,море,горы\na.jpg,1,0\nb.jpg,0,1\n",
        [],
        [(["encoding=cp1251"], ONE_TWO)],
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_what_a_message_proposes_works(case: str, tmp_path: Path) -> None:
    text, given, ways = TEXTS[case]
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode("cp1251" if case == "Cyrillic" else "utf-8"))
    for way, values in ways:
        keys, seen, taken = list(given), set(), []
        # One message may name the first flag, and the next the second.
        while set(taken) != set(way):
            message = refusal(path, *keys)
            proposed = [flag.removeprefix(PREFIX) for flag in flags_of(message)]
            now = [flag for flag in way if flag in proposed and flag not in taken]
            assert now, (message, way)
            assert message not in seen
            seen.add(message)
            taken += now
            # A list that is proposed replaces the one that was given.
            names = {flag.partition("=")[0] for flag in taken}
            replaced = "claimed" in case or "decimal" in case
            keys = [k for k in given if k.partition("=")[0] not in names and not replaced] + taken
        assert read(path, *keys).table.values.tolist() == values


def images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).write_text(name)


def test_what_surrounds_the_names_is_proposed(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("id,sea\n001,1\n002,0\n")
    images(tmp_path, "IMG_001_a.jpg", "IMG_002_a.jpg")
    file = read(tmp_path / "l.csv")
    assert file.receipt.matched == (0, 2)
    flags = flags_of(file.hint)
    assert flags == [f"{PREFIX}prefix=IMG_", f"{PREFIX}suffix=_a.jpg"]
    assert "2 of 2 are found" in file.hint
    assert read(tmp_path / "l.csv", *flags).receipt.matched == (2, 2)


def test_single_names_that_are_not_there_are_named(tmp_path: Path) -> None:
    names = [f"{number:03}.jpg" for number in range(200)]
    images(tmp_path, *names[:-1])
    for given in (names, [f"x/{name}" for name in names]):
        rows = "".join(f"{name},{place % 2}\n" for place, name in enumerate(given))
        (tmp_path / "l.csv").write_text(f"id,sea\n{rows}")
        file = read(tmp_path / "l.csv")
        assert file.receipt.matched == (199, 200)
        assert file.hint.startswith(f"1 of 200 names are not in the image folder, as '{given[-1]}'")


def test_another_column_of_names_is_proposed(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("image id,patient id,sea\n0x1,p 1,1\n0x2,p 2,0\n")
    images(tmp_path, "p 1.jpg", "p 2.jpg")
    (flag,) = flags_of(read(tmp_path / "l.csv").hint)
    assert flag == f"{PREFIX}file_column=patient id"
    assert read(tmp_path / "l.csv", flag).receipt.matched == (2, 2)


def test_of_two_files_that_fit_a_suffix_decides(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("id,sea\nin/a,1\nin/b,0\n")
    images(tmp_path, "in/a.jpg", "in/a.png", "in/b.jpg", "in/b.png", "out/a.jpg")
    message = refusal(tmp_path / "l.csv")
    assert "'in/a.jpg' and 'in/a.png'" in message
    for flag, suffix in zip(flags_of(message), ("jpg", "png"), strict=True):
        found = read(tmp_path / "l.csv", flag).table.filenames
        assert found == (f"in/a.{suffix}", f"in/b.{suffix}")


def test_folders_tell_files_of_one_name_apart(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("id,sea\nx/train/1,1\nx/val/1,0\n")
    images(tmp_path, "Train/1.JPG", "Val/1.JPG")
    assert read(tmp_path / "l.csv").table.filenames == ("Train/1.JPG", "Val/1.JPG")


def test_files_of_one_name_are_told_apart_by_nothing(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("id,sea\n1,1\n2,0\n")
    images(tmp_path, "x/1.jpg", "y/1.jpg", "x/2.jpg")
    assert "write the paths" in refusal(tmp_path / "l.csv")
    (tmp_path / "l.csv").write_text("id,sea\ny/1.jpg,1\nx/2.jpg,0\n")
    assert read(tmp_path / "l.csv").table.filenames == ("y/1.jpg", "x/2.jpg")


@pytest.mark.parametrize(
    ("named", "on_disk", "found"),
    [
        # Without leading folders and by the last part.
        ("train/1.jpg", ("1.jpg", "Train/1.jpg"), {"path": "1.jpg", "name": "Train/1.jpg"}),
        # By the last part and without suffix: the part of another split has the very name.
        (
            "x/train/1.jpg",
            ("train/1.png", "val/1.jpg"),
            {"name": "val/1.jpg", "stem": "train/1.png"},
        ),
    ],
)
def test_ways_that_find_different_images_are_both_named(
    named: str, on_disk: tuple[str, ...], found: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "l.csv").write_text(f"id,sea\n{named},1\n")
    images(tmp_path, *on_disk)
    message = refusal(tmp_path / "l.csv")
    assert all(f"'{file}'" in message for file in found.values())
    flags = flags_of(message)
    assert flags == [f"{PREFIX}match={key}" for key in found]
    for flag, file in zip(flags, found.values(), strict=True):
        assert read(tmp_path / "l.csv", flag).table.filenames == (file,)


def test_ways_that_find_the_same_images_are_one(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("id,sea\nin/train/1.jpg,1\nin/val/1.jpg,0\n")
    images(tmp_path, "train/1.jpg", "val/1.jpg")
    file = read(tmp_path / "l.csv")
    assert file.table.filenames == ("train/1.jpg", "val/1.jpg")
    (said,) = (note for note in file.notes if "config.data.match" in note)
    assert said.endswith("(config.data.match=path), in the same images as with name and stem")


def test_the_folder_itself_is_no_subfolder_of_its_name(tmp_path: Path) -> None:
    images(tmp_path, "1.jpg", "images/1.jpg")
    (tmp_path / "l.csv").write_text(f"id,sea\nfile://{tmp_path}/images/1.jpg,1\n")
    assert read(tmp_path / "l.csv").table.filenames == ("1.jpg",)


def test_one_name_of_many_that_two_images_fit_is_refused(tmp_path: Path) -> None:
    names = [f"{number:03}" for number in range(200)]
    (tmp_path / "l.csv").write_text("id,sea\n" + "".join(f"{n},{int(n) % 2}\n" for n in names))
    images(tmp_path, *(f"x/{name}.jpg" for name in names), "y/007.jpg")
    message = refusal(tmp_path / "l.csv")
    assert "'007' fits" in message
    assert "'x/007.jpg' and 'y/007.jpg'" in message or "'y/007.jpg' and 'x/007.jpg'" in message


def test_what_an_export_does_not_name_is_counted_in_all_its_files(tmp_path: Path) -> None:
    for part, label in (("train", "sea"), ("valid", "sky"), ("test", "sea")):
        content = {
            "images": [{"id": n, "file_name": f"{part}{n}.jpg"} for n in (1, 2)],
            "categories": [{"id": 1, "name": label}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1}],
        }
        (tmp_path / part).mkdir()
        (tmp_path / part / "_annotations.coco.json").write_text(json.dumps(content))
    files = ",".join(f"{tmp_path}/{part}/_annotations.coco.json" for part in ("train", "valid"))
    for path, said in (
        (str(tmp_path), "6 rows name 2 labels"),
        (files, "4 rows name 2 labels"),
    ):
        with pytest.raises(LabelsError) as caught:
            convert.read(config_of(f"{PREFIX}labels={path}"))
        message = str(caught.value)
        assert said in message
        for word in ("false", "missing"):
            file = convert.read(config_of(f"{PREFIX}labels={path}", f"{PREFIX}absent={word}"))
            for name, (ones, zeros, missing) in file.receipt.labels.items():
                counted = f"{zeros} zeros" if word == "false" else f"{missing} missing"
                assert f"'{name}' {ones} ones and {counted}" in message


def test_of_two_formats_that_fit_one_is_named(tmp_path: Path) -> None:
    for label in ("sea", "sky"):
        images(tmp_path, f"{label}/{label}.jpg")
    (tmp_path / "images" / "labels").mkdir()
    (tmp_path / "images" / "labels" / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    message = refusal(tmp_path / "images")
    assert "may be yolo or class_folders" in message
    (flag,) = flags_of(message)
    assert read(tmp_path / "images", flag, "absent=false").table.names == ("0",)
    other = read(tmp_path / "images", "format=class_folders", "absent=false")
    assert other.table.names == ("sea", "sky")


def test_links_that_lead_out_are_named_with_their_key(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("filename,sea\na.jpg,1\nsub/b.jpg,0\nc.jpg,1\n")
    images(tmp_path, "c.jpg")
    (tmp_path / "store").mkdir()
    for name in "ab":
        (tmp_path / "store" / f"{name}.jpg").write_text(name)
    (tmp_path / "images" / "a.jpg").symlink_to(tmp_path / "store" / "a.jpg")
    (tmp_path / "images" / "sub").symlink_to(tmp_path / "store")
    config = config_of(f"{PREFIX}labels={tmp_path / 'l.csv'}", f"{PREFIX}images={tmp_path}/images")
    (warning,) = convert.run(config, tmp_path / "out")["warnings"]
    assert "2 images are links that lead out" in warning
    (flag,) = flags_of(warning)
    assert flag == f"{PREFIX}follow_links=true"
    config = config_of(
        f"{PREFIX}labels={tmp_path / 'l.csv'}", f"{PREFIX}images={tmp_path}/images", flag
    )
    assert convert.run(config, tmp_path / "out")["warnings"] == []


def voc(path: Path, label: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    objects = f"<object><name>{label}</name></object>"
    path.write_text(f"<annotation><filename>{path.stem}.jpg</filename>{objects}</annotation>")
    return path


def test_one_annotation_of_many_names_its_folder(tmp_path: Path) -> None:
    one = voc(tmp_path / "my notes" / "a.xml", "sea")
    alone = refusal(one)
    assert "holds no other" in alone
    voc(tmp_path / "my notes" / "b.xml", "sky")
    message = refusal(one)
    assert "1 more lie beside it" in message
    for flags in (flags_of(alone), flags_of(message)):
        config = config_of(*flags, f"{PREFIX}absent=false")
        assert convert.read(config).table.values.tolist() == ONE_TWO


def tar(path: Path) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        item = tarfile.TarInfo("labels.csv")
        item.size = len(TABLE)
        archive.addfile(item, io.BytesIO(TABLE))


def database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("create table labels (filename, sea)")
    connection.commit()
    connection.close()


def document(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", "<document/>")


def document_of_a_later_zip(path: Path) -> None:
    """Its directory asks for a version of unpackers that there is not."""
    document(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 255
    path.write_bytes(content)


FOREIGN: dict[str, tuple[Callable[[Path], object] | bytes, str]] = {
    "a.jpg": (lambda path: Image.new("RGB", (9, 9)).save(path), "is an image; config.data.labels"),
    "a.png": (lambda path: Image.new("RGB", (9, 9)).save(path), "is an image"),
    "a.webp": (lambda path: Image.new("RGB", (9, 9)).save(path), "is an image"),
    "a.tif": (lambda path: Image.new("RGB", (9, 9)).save(path), "is an image"),
    "l.pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "is a PDF document; save the table as CSV"),
    "l.db": (database, "is an SQLite database; save the table"),
    "l.h5": (b"\x89HDF\r\n\x1a\n" + bytes(90), "is an HDF5 file; save"),
    "l.pkl": (lambda path: path.write_bytes(pickle.dumps([1])), "is a pickle, which would execute"),
    "l.tar": (tar, "is a tar archive; unpack it"),
    "l.tgz": (tar, "is a tar archive; unpack it"),
    "l.csv.bz2": (lambda path: path.write_bytes(bz2.compress(TABLE)), "packed with bzip2; unpack"),
    "l.csv.xz": (lambda path: path.write_bytes(lzma.compress(TABLE)), "packed with xz; unpack it"),
    "l.7z": (b"7z\xbc\xaf\x27\x1c" + bytes(40), "is a 7z archive; unpack it"),
    "l.rar": (b"Rar!\x1a\x07\x01\0" + bytes(40), "is a RAR archive; unpack it"),
    "l.npy": (lambda path: np.save(path, np.eye(2)), "is one array without names; save it with"),
    "l.html": (b"<!DOCTYPE html><html><body>no</body></html>", "is a web page"),
    "l.csv": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "l.doc": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "or one with a password"),
    "l.docx": (document, "is a document of Word"),
    "l.zip": (b"PK\x03\x04" + bytes(60), "is damaged or cut off"),
    "l.new.zip": (document_of_a_later_zip, "is damaged or cut off"),
    "l.xml": (b"<?xml version='1.0'?><root/>", "is XML of none of the formats"),
    "l.json": (b'{"a": {"b": {"c": 1}}}', "is JSON of no form that is known"),
    "l.yaml": (b"a: 1\n", "is a YAML file"),
    "l.tfrecord": (bytes(range(90)), "is a file of TensorFlow's records"),
    "l.orc": (b"ORC" + bytes(60), "is an ORC file"),
    "empty.csv": (b"", "is empty; expected a table"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_label_file_is_named_for_what_it_is(name: str, tmp_path: Path) -> None:
    made, said = FOREIGN[name]
    if isinstance(made, bytes):
        (tmp_path / name).write_bytes(made)
    else:
        made(tmp_path / name)
    message = refusal(tmp_path / name)
    assert said in message
    assert str(tmp_path / name) in message
    assert "encoding" not in message
    assert "max_bad_fraction" not in message


def test_examples_in_messages_are_read(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("a.jpg\nb.jpg\n")
    message = refusal(tmp_path / "l.txt")
    assert "one column, an image and no labels" in message
    (tmp_path / "l.csv").write_text("\n".join(message.rpartition(": ")[2].split(" / ")))
    assert read(tmp_path / "l.csv").table.values.tolist() == [[1, 0], [M, 1]]
    (tmp_path / "l.json").write_text('{"a": {"b": {"c": 1}}}')
    message = refusal(tmp_path / "l.json")
    for example in re.findall(r'\[\{.*?\}\]|\{"a\.jpg".*?\}', message):
        (tmp_path / "l.json").write_text(example)
        assert read(tmp_path / "l.json", "absent=false").table.values[0, 0] == 1
    assert json.loads(example) == {"a.jpg": ["sea"]}


def test_one_array_is_saved_as_the_message_says(tmp_path: Path) -> None:
    np.save(tmp_path / "l.npy", np.array(ONE_TWO))
    code = refusal(tmp_path / "l.npy").rpartition(": ")[2]
    names, y, classes = ["a.jpg", "b.jpg"], np.load(tmp_path / "l.npy"), ["sea", "sky"]
    call = code.replace("'labels.npz'", "path")
    path = tmp_path / "labels.npz"
    exec(call, {"numpy": np, "names": names, "y": y, "classes": classes, "path": path})
    file = read(path)
    assert (file.table.names, file.table.values.tolist()) == (("sea", "sky"), ONE_TWO)


def test_the_names_of_a_yolo_data_set_are_no_labels(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (tmp_path / "labels" / "b.txt").write_text("1 0.5 0.5 0.1 0.1\n")
    (tmp_path / "data.yaml").write_text("names: [sea, sky]\n")
    flags = flags_of(refusal(tmp_path / "data.yaml"))
    file = convert.read(config_of(*flags, f"{PREFIX}absent=false"))
    assert (file.table.names, file.table.values.tolist()) == (("sea", "sky"), ONE_TWO)
