"""Every format that is read: a golden file of one truth, a damaged one, and random JSON in each."""

import contextlib
import csv
import gzip
import json
import shlex
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlc_jax.data.formats import archive, find
from mlc_jax.data.labels import LabelsFile, read_labels
from mlc_jax.data.table import MISSING
from mlc_jax.errors import LabelsError, MlcError
from mlc_jax.label_settings import ReadOptions
from mlc_jax.stages import convert
from tests.label_flags import config_of, flags_of

NAMES = ("sea", "sky")
IMAGES = ("a.jpg", "b.jpg", "c.jpg")
# The truth: a has the sea, b both, c the sky.
TRUTH = {"a": {"sea": 1, "sky": 0}, "b": {"sea": 1, "sky": 1}, "c": {"sea": 0, "sky": 1}}
HELD = {"a.jpg": ["sea"], "b.jpg": ["sea", "sky"], "c.jpg": ["sky"]}
IDS = {name: [NAMES.index(label) for label in own] for name, own in HELD.items()}

Writer = Callable[[Path], Path]


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def as_json(name: str, content: Any) -> Writer:
    return lambda folder: text(folder / name, json.dumps(content))


def lines(name: str, items: list[Any]) -> Writer:
    return lambda folder: text(folder / name, "".join(json.dumps(item) + "\n" for item in items))


def frame() -> pd.DataFrame:
    values = {name: [TRUTH[image[0]][name] for image in IMAGES] for name in NAMES}
    return pd.DataFrame({"filename": IMAGES, **values})


def voc(folder: Path) -> Path:
    for image, own in HELD.items():
        objects = "".join(f"<object><name>{label}</name></object>" for label in own)
        content = f"<annotation><filename>{image}</filename>{objects}</annotation>"
        text(folder / f"{image[0]}.xml", content)
    return folder


def voc_image_sets(folder: Path) -> Path:
    for label in NAMES:
        rows = [f"{image} {1 if TRUTH[image][label] else -1}\n" for image in "abc"]
        text(folder / "ImageSets" / "Main" / f"{label}_trainval.txt", "".join(rows))
    return folder


def yolo(folder: Path) -> Path:
    for image, own in IDS.items():
        text(folder / "labels" / f"{image[0]}.txt", "".join(f"{n} 0.5 0.5 0.1 0.1\n" for n in own))
    text(folder / "data.yaml", "nc: 2\nnames: ['sea', 'sky']\n")
    return folder


def class_folders(folder: Path) -> Path:
    for image, own in HELD.items():
        for label in own:
            text(folder / label / image, image)
    return folder


def nus_wide(folder: Path) -> Path:
    text(folder / "ImageList" / "Imagelist.txt", "".join(f"{image}\n" for image in IMAGES))
    for label in NAMES:
        rows = [f"{TRUTH[image][label]}\n" for image in "abc"]
        text(folder / "Groundtruth" / f"Labels_{label}.txt", "".join(rows))
    return folder


def celeba(folder: Path) -> Path:
    rows = [f"{i}.jpg {TRUTH[i]['sea'] * 2 - 1} {TRUTH[i]['sky'] * 2 - 1}\n" for i in "abc"]
    return text(folder / "list_attr_celeba.txt", "3\n5_o_Clock_Shadow sky\n" + "".join(rows))


def xlsx(folder: Path) -> Path:
    """As small as a workbook can be, written by hand: nothing here writes them."""
    cells = [["filename", *NAMES]]
    cells += [[image, *(TRUTH[image[0]][name] for name in NAMES)] for image in IMAGES]
    rows = ""
    for row in cells:
        rows += "<row>" + "".join(
            f"<c><v>{cell}</v></c>"
            if isinstance(cell, int)
            else f'<c t="inlineStr"><is><t>{cell}</t></is></c>'
            for cell in row
        )
        rows += "</row>"
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    path = folder / "labels.xlsx"
    with zipfile.ZipFile(path, "w") as book:
        book.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{package}/content-types"><Default Extension="xml" '
            'ContentType="application/xml"/></Types>',
        )
        book.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{package}/relationships"><Relationship Id="r0" '
            f'Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        )
        book.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
            '<sheet name="mine" sheetId="1" r:id="r1"/></sheets></workbook>',
        )
        book.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" '
            f'Type="{office}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        )
        book.writestr(
            "xl/worksheets/sheet1.xml",
            f'<worksheet xmlns="{main}"><sheetData>{rows}</sheetData></worksheet>',
        )
    return path


def parquet(folder: Path) -> Path:
    frame().to_parquet(folder / "labels.parquet")
    return folder / "labels.parquet"


def feather(folder: Path) -> Path:
    frame().to_feather(folder / "labels.feather")
    return folder / "labels.feather"


def npz(folder: Path) -> Path:
    values = frame()[list(NAMES)].to_numpy()
    np.savez(folder / "labels.npz", names=np.array(IMAGES), y=values, classes=np.array(NAMES))
    return folder / "labels.npz"


def mat(folder: Path) -> Path:
    def cells(texts: tuple[str, ...]) -> np.ndarray:
        made = np.empty((len(texts), 1), object)
        made[:, 0] = texts
        return made

    values = frame()[list(NAMES)].to_numpy()
    content = {
        "attributes": cells(NAMES),
        "train_label": values[:2],
        "train_images_name": cells(IMAGES[:2]),
        "test_label": np.repeat(values[2:], 3, axis=0),
        "test_images_name": cells(("c.jpg", "d.jpg", "e.jpg")),
    }
    scipy.io.savemat(folder / "labels.mat", content)
    return folder / "labels.mat"


def gz(folder: Path) -> Path:
    with gzip.open(folder / "labels.csv.gz", "wt") as file:
        file.write(frame().to_csv(index=False))
    return folder / "labels.csv.gz"


def zipped(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "labels.zip", "w") as file:
        file.writestr("inner/labels.csv", frame().to_csv(index=False))
        file.writestr("images/a.jpg", b"an image")
    return folder / "labels.zip"


def packed_export(folder: Path) -> Path:
    voc(folder / "export" / "Annotations")
    with zipfile.ZipFile(folder / "voc.zip", "w") as file:
        for item in (folder / "export").rglob("*.xml"):
            file.write(item, item.relative_to(folder))
    return folder / "voc.zip"


CATEGORIES = [{"id": 7, "name": "sea"}, {"id": 9, "name": "sky"}]
COCO = {
    "images": [{"id": 10 + n, "file_name": image} for n, image in enumerate(IMAGES)],
    "categories": CATEGORIES,
    "annotations": [
        {"id": n, "image_id": 10 + image, "category_id": category, "iscrowd": 0}
        for n, (image, category) in enumerate([(0, 7), (0, 7), (1, 7), (1, 9), (2, 9)])
    ],
}
STUDIO = [
    {
        "id": n,
        "annotations": [
            {
                "completed_by": 1,
                "was_cancelled": False,
                "result": [{"type": "choices", "value": {"choices": own}}],
            },
            {"completed_by": 2, "was_cancelled": True, "result": []},
        ],
        "data": {"image": f"/data/upload/1/0a1b2c3d-{image}"},
    }
    for n, (image, own) in enumerate(HELD.items())
]
CVAT = "".join(
    f'<image name="{image}">' + "".join(f'<tag label="{own}"/>' for own in held) + "</image>"
    for image, held in HELD.items()
)
VIA = {
    f"{image}123": {
        "filename": image,
        "file_attributes": {"what": dict.fromkeys(own, True)},
        "regions": [],
    }
    for image, own in HELD.items()
}


def via_csv(folder: Path) -> Path:
    """A row for every region; an image without one has a row of its own, as VIA writes it."""
    with (folder / "via_export.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "filename",
                "file_size",
                "file_attributes",
                "region_count",
                "region_id",
                "region_shape_attributes",
                "region_attributes",
            ]
        )
        for image, own in HELD.items():
            for number, name in enumerate(own or [None]):
                box = json.dumps({"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4})
                region = {"what": name} if name else {}
                writer.writerow([image, 123, "{}", len(own), number, box, json.dumps(region)])
    return folder / "via_export.csv"


CLASS_MAP = {"0": "sea", "1": "sky"}


def written(name: str) -> Writer:
    """A file that another library wrote, see make_golden.py."""
    return lambda folder: Path(shutil.copy(Path(__file__).parent / "golden" / name, folder))


def stream(folder: Path) -> Path:
    """An Arrow stream, as in Hugging Face's cache."""
    table = pa.Table.from_pandas(frame(), preserve_index=False)
    with (
        pa.OSFile(str(folder / "l.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as to,
    ):
        to.write_table(table)
    return folder / "l.arrow"


def export(folder: Path) -> Path:
    """Hugging Face's folder of images, in two splits that hold other labels."""
    for part, images in (("train", IMAGES[:1]), ("test", IMAGES[1:])):
        rows = [{"file_name": image, "labels": HELD[image]} for image in images]
        content = "".join(json.dumps(row) + "\n" for row in rows)
        text(folder / "export" / part / "metadata.jsonl", content)
    return folder / "export"


GOLDEN: dict[str, tuple[str, Writer]] = {
    "export": ("export_root", export),
    "spreadsheet": ("spreadsheet", xlsx),
    "ods": ("spreadsheet", written("labels.ods")),
    "xls": ("spreadsheet", written("labels.xls")),
    "matlab 7.3": ("arrays", written("labels.mat")),
    "arrow stream": ("columnar", stream),
    "parquet": ("columnar", parquet),
    "feather": ("columnar", feather),
    "npz": ("arrays", npz),
    "gz": ("archive", gz),
    "zip": ("archive", zipped),
    "packed export": ("archive", packed_export),
    "records": ("json_table", as_json("l.json", frame().to_dict("records"))),
    "columns": ("json_table", as_json("l.json", json.loads(frame().to_json()))),
    "split": ("json_table", as_json("l.json", json.loads(frame().to_json(orient="split")))),
    "lines": (
        "json_table",
        lines("metadata.jsonl", [{"file_name": i, "labels": own} for i, own in HELD.items()]),
    ),
    "name map": ("name_map", as_json("l.json", HELD)),
    "values by name": ("name_map", as_json("l.json", {f"{i}.jpg": TRUTH[i] for i in "abc"})),
    "coco": ("coco", as_json("l.json", COCO)),
    "voc": ("voc", voc),
    "voc image sets": ("voc_image_sets", voc_image_sets),
    "yolo": ("yolo", yolo),
    "label studio": ("label_studio", as_json("l.json", STUDIO)),
    "label studio min": (
        "label_studio",
        as_json(
            "l.json",
            [
                {"image": f"/data/local-files/?d={i}", "id": 1, "choice": own[0], "annotator": 1}
                if len(own) == 1
                else {"image": i, "id": 1, "choice": {"choices": own}, "annotator": 1}
                for i, own in HELD.items()
            ],
        ),
    ),
    "cvat": ("cvat", lambda folder: text(folder / "a.xml", f"<annotations>{CVAT}</annotations>")),
    "via": ("via", as_json("l.json", VIA)),
    "via csv": ("via_csv", via_csv),
    "fiftyone": (
        "fiftyone",
        as_json("l.json", {"classes": NAMES, "labels": {i[0]: own for i, own in IDS.items()}}),
    ),
    "datumaro": (
        "datumaro",
        as_json(
            "l.json",
            {
                "categories": {"label": {"labels": [{"name": name} for name in NAMES]}},
                "items": [
                    {"id": i[0], "annotations": [{"type": "label", "label_id": n} for n in own]}
                    for i, own in IDS.items()
                ],
            },
        ),
    ),
    "createml": (
        "createml",
        as_json("l.json", [{"image": i, "annotations": own} for i, own in HELD.items()]),
    ),
    "mmpretrain": (
        "mmpretrain",
        as_json(
            "l.json",
            {
                "metainfo": {"classes": NAMES},
                "data_list": [{"img_path": i, "gt_label": own} for i, own in IDS.items()],
            },
        ),
    ),
    "imaterialist": (
        "imaterialist",
        as_json(
            "l.json",
            {
                "images": [{"imageId": i[0], "url": "x"} for i in IDS],
                "annotations": [
                    {"imageId": i[0], "labelId": list(map(str, own))} for i, own in IDS.items()
                ],
            },
        ),
    ),
    "wider": (
        "wider_attributes",
        as_json(
            "l.json",
            {
                "attribute_id_map": {"0": "sea", "1": "sky"},
                "images": [
                    {
                        "file_name": f"{i}.jpg",
                        "targets": [{"attribute": [2 * TRUTH[i][name] - 1 for name in NAMES]}],
                    }
                    for i in "abc"
                ],
            },
        ),
    ),
    "vertex": (
        "vertex",
        lambda folder: text(
            folder / "import.csv",
            "".join(f"training,gs://b/{i},{','.join(own)}\n" for i, own in HELD.items()),
        ),
    ),
    "vertex lines": (
        "vertex",
        lines(
            "import.jsonl",
            [
                {
                    "imageGcsUri": f"gs://b/{i}",
                    "classificationAnnotations": [{"displayName": one} for one in own],
                }
                for i, own in HELD.items()
            ],
        ),
    ),
    "sagemaker": (
        "sagemaker",
        lines(
            "output.manifest",
            [
                {"source-ref": f"s3://b/{i}", "x": own, "x-metadata": {"class-map": CLASS_MAP}}
                for i, own in IDS.items()
            ],
        ),
    ),
    "celeba": ("celeba", celeba),
    "nus-wide": ("nus_wide", nus_wide),
    "class folders": ("class_folders", class_folders),
}


STATES_ZEROS = {"spreadsheet", "parquet", "feather", "npz", "gz", "zip", "records", "columns"}
STATES_ZEROS |= {
    "ods",
    "xls",
    "matlab 7.3",
    "arrow stream",
    "split",
    "values by name",
    "voc image sets",
    "wider",
    "celeba",
    "nus-wide",
}


def cells(file: LabelsFile) -> dict[str, dict[str, int]]:
    names = {"5_o_Clock_Shadow": "sea", "0": "sea", "1": "sky"}
    return {
        Path(filename).stem: {
            names.get(name, name): value
            for name, value in zip(file.table.names, values, strict=True)
        }
        for filename, values in zip(file.table.filenames, file.table.values.tolist(), strict=True)
    }


@pytest.mark.parametrize("case", GOLDEN)
def test_every_format_holds_the_same_truth(tmp_path: Path, case: str) -> None:
    name, write = GOLDEN[case]
    path = write(tmp_path)
    assert find.format_of(path, ReadOptions()) == name
    assert cells(read_labels(path, ReadOptions(absent="false"))) == TRUTH


@pytest.mark.parametrize("case", GOLDEN)
def test_what_is_not_named_is_never_a_zero_unasked(tmp_path: Path, case: str) -> None:
    path = GOLDEN[case][1](tmp_path)
    if case in STATES_ZEROS:
        assert cells(read_labels(path)) == TRUTH
        return
    with pytest.raises(LabelsError) as caught:
        read_labels(path)
    assert "--config.data.absent=false" in str(caught.value)
    assert "--config.data.absent=missing" in str(caught.value)
    file = read_labels(path, ReadOptions(absent="missing"))
    assert set(np.unique(file.table.values)) == {MISSING, 1}


@pytest.mark.parametrize("case", GOLDEN)
def test_a_cut_or_spoilt_file_is_our_error(tmp_path: Path, case: str) -> None:
    path = GOLDEN[case][1](tmp_path)
    files = [item for item in path.rglob("*") if item.is_file()] if path.is_dir() else [path]
    for file in files:
        whole = file.read_bytes()
        for spoilt in (
            whole[: len(whole) // 2],
            whole[:-3],
            b"",
            whole[:9] + b"\0\xff" + whole[9:],
        ):
            file.write_bytes(spoilt)
            with contextlib.suppress(MlcError):
                read_labels(path, ReadOptions(absent="false"))
        file.write_bytes(whole)


def test_matlab_s_parts_are_the_split(tmp_path: Path) -> None:
    file = read_labels(mat(tmp_path))
    assert file.table.names == NAMES
    assert file.table.values[:3].tolist() == [[1, 0], [1, 1], [0, 1]]
    assert file.extra_columns["split"] == ("train", "train", "test", "test", "test")


def test_matlab_s_files_of_hdf5_refer_to_no_other(tmp_path: Path) -> None:
    path = written("labels.mat")(tmp_path)
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["label"] = np.zeros((2, 3))
    with h5py.File(path, "r+") as file:
        del file["label"]
        file["label"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "label")
    with pytest.raises(LabelsError, match="'label' refers to another place; save it again"):
        read_labels(path)
    with h5py.File(path, "r+") as file:
        del file["label"]
        outside = [(str(tmp_path / "other.h5"), 0, 6)]
        file.create_dataset("label", (2, 3), "u1", external=outside)
    with pytest.raises(LabelsError, match="label lies in another file"):
        read_labels(path)


def test_coco_s_crowds_and_lvis_s_negatives(tmp_path: Path) -> None:
    content = json.loads(json.dumps(COCO))
    content["annotations"] = [
        {"id": 1, "image_id": 10, "category_id": 7, "iscrowd": 1},
        {"id": 2, "image_id": 11, "category_id": 7, "iscrowd": 1},
        {"id": 3, "image_id": 11, "category_id": 7, "iscrowd": 0},
    ]
    content["images"][2] |= {"neg_category_ids": [9], "not_exhaustive_category_ids": [7]}
    path = as_json("l.json", content)(tmp_path)
    file = read_labels(path, ReadOptions(absent="missing"))
    assert cells(file) == {
        "a": {"sea": MISSING, "sky": MISSING},
        "b": {"sea": 1, "sky": MISSING},
        "c": {"sea": MISSING, "sky": 0},
    }


def test_a_difficult_object_is_missing_unless_another_is_not(tmp_path: Path) -> None:
    hard = "<object><name>sea</name><difficult>1</difficult></object>"
    easy = "<object><name>sea</name><difficult>0</difficult></object>"
    text(tmp_path / "a.xml", f"<annotation>{hard}</annotation>")
    text(tmp_path / "b.xml", f"<annotation>{hard}{easy}</annotation>")
    file = read_labels(tmp_path, ReadOptions(absent="false"))
    assert cells(file) == {"a": {"sea": MISSING}, "b": {"sea": 1}}


def test_one_file_of_voc_names_its_folder(tmp_path: Path) -> None:
    voc(tmp_path)
    with pytest.raises(LabelsError, match=f"--config.data.labels={tmp_path}"):
        read_labels(tmp_path / "a.xml")


def test_a_task_that_nobody_labelled_is_missing_whatever_absent_means(tmp_path: Path) -> None:
    tasks = json.loads(json.dumps(STUDIO))
    tasks[2]["annotations"][0]["was_cancelled"] = True
    file = read_labels(as_json("l.json", tasks)(tmp_path), ReadOptions(absent="false"))
    assert cells(file) == {**TRUTH, "c": {"sea": MISSING, "sky": MISSING}}


def test_several_annotators_of_a_task_vote(tmp_path: Path) -> None:
    tasks = json.loads(json.dumps(STUDIO))
    for who, choices in ((3, ["sea"]), (4, ["sea"])):
        tasks[2]["annotations"].append(
            {"completed_by": who, "result": [{"type": "choices", "value": {"choices": choices}}]}
        )
    file = read_labels(as_json("l.json", tasks)(tmp_path), ReadOptions(absent="false"))
    assert cells(file)["c"] == {"sea": 1, "sky": 0}
    assert file.receipt.agreement["sea"] < 1


def test_the_label_files_of_an_export_s_splits(tmp_path: Path) -> None:
    """Roboflow's CSV and COCO, and COCO's own folder; one name may stand in two splits."""
    for part, value in (("train", 1), ("valid", 0)):
        text(tmp_path / "csv" / part / "_classes.csv", f"filename, sea\na.jpg, {value}\n")
        text(tmp_path / "rf" / part / "_annotations.coco.json", json.dumps(COCO))
        text(tmp_path / "coco" / "annotations" / f"instances_{part}2017.json", json.dumps(COCO))
        text(tmp_path / "coco" / "annotations" / f"captions_{part}2017.json", "{}")
    file = read_labels(tmp_path / "csv")
    assert file.table.filenames == ("train/a.jpg", "valid/a.jpg")
    assert file.table.values.tolist() == [[1], [0]]
    assert file.extra_columns["split"] == ("train", "valid")
    file = read_labels(tmp_path / "rf", ReadOptions(absent="false"))
    assert file.table.filenames[3:] == tuple(f"valid/{image}" for image in IMAGES)
    file = read_labels(tmp_path / "coco", ReadOptions(absent="false"))
    assert (file.merged, cells(file)) == (3, TRUTH)


def test_a_label_that_one_of_several_lists_lacks(tmp_path: Path) -> None:
    """It is what `absent` says, but of images that nobody looked at."""
    one = text(tmp_path / "one.csv", "filename,tags\na.jpg,sea\nb.jpg,\n")
    two = text(tmp_path / "two.csv", "filename,tags\nc.jpg,sky\n")
    file = read_labels(f"{one},{two}", ReadOptions(absent="false"))
    assert cells(file) == {
        "a": {"sea": 1, "sky": 0},
        "b": {"sea": MISSING, "sky": MISSING},
        "c": {"sea": 0, "sky": 1},
    }
    assert sum(file.receipt.texts.values()) == 6
    file = read_labels(f"{one},{two}", ReadOptions(absent="missing"))
    assert cells(file)["c"] == {"sea": MISSING, "sky": 1}


def test_of_several_label_files_in_a_folder_one_is_named(tmp_path: Path) -> None:
    one = text(tmp_path / "one.csv", "filename,sea\na.jpg,1\n")
    text(tmp_path / "two.csv", "filename,sea\na.jpg,0\n")
    with pytest.raises(LabelsError, match="2 files that may be label files") as caught:
        read_labels(tmp_path)
    (flag,) = flags_of(str(caught.value))
    assert flag == f"--config.data.labels={one}"
    class_folders(tmp_path / "classes")
    text(tmp_path / "classes" / "metadata.csv", "file_name,fog\nsea/a.jpg,1\n")
    with pytest.raises(LabelsError, match="may be class_folders or export_root"):
        read_labels(tmp_path / "classes")
    named = read_labels(tmp_path / "classes", ReadOptions(format="export_root"))
    assert named.table.names == ("fog",)


def test_splits_of_an_export_come_along(tmp_path: Path) -> None:
    for part, image in (("train", "a"), ("valid", "b")):
        text(tmp_path / part / "labels" / f"{image}.txt", "0 0.5 0.5 0.1 0.1\n")
    text(tmp_path / "data.yaml", "names:\n  0: sea\n  1: sky\n")
    file = read_labels(tmp_path, ReadOptions(absent="false"))
    assert file.extra_columns["split"] == ("train", "valid")
    assert file.table.names == NAMES


def test_several_files_are_one_table(tmp_path: Path) -> None:
    one = text(tmp_path / "one.csv", "filename,sea\na.jpg,1\nb.jpg,0\n")
    two = text(tmp_path / "two.csv", "filename,sky,sea\nb.jpg,1,\nc.jpg,1,0\n")
    file = read_labels(f"{one},{two}")
    assert file.table.names == NAMES
    assert cells(file) == {
        "a": {"sea": 1, "sky": MISSING},
        "b": {"sea": 0, "sky": 1},
        "c": {"sea": 0, "sky": 1},
    }


OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
BOMB = '<!DOCTYPE a [<!ENTITY y "lol"><!ENTITY x "&y;&y;&y;&y;">]>'


@pytest.mark.parametrize("root", ["annotations", "annotation"])
@pytest.mark.parametrize("entity", [OUTSIDE, BOMB], ids=["outside", "bomb"])
def test_xml_with_entities_is_refused(tmp_path: Path, root: str, entity: str) -> None:
    text(tmp_path / "a.xml", f"{entity}<{root}><image name='&x;'/></{root}>")
    with pytest.raises(LabelsError, match="defines a document type or entities"):
        read_labels(tmp_path if root == "annotation" else tmp_path / "a.xml")


@pytest.mark.parametrize("name", ["../out.csv", "/out.csv", "a/../../out.csv", "..\\out.csv"])
def test_no_archive_writes_outside(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "deep" / "deeper"
    inside.mkdir(parents=True)
    with zipfile.ZipFile(inside / "l.zip", "w") as file:
        file.writestr(name, "filename,sea\na.jpg,1\n")
    with pytest.raises(LabelsError, match="leads out of the archive"):
        read_labels(inside / "l.zip")
    assert not list(tmp_path.rglob("out.csv"))


def test_an_archive_in_an_archive_is_left_to_people(tmp_path: Path) -> None:
    """One that holds itself would never end."""
    inner = gz(tmp_path)
    with gzip.open(tmp_path / "outer.gz", "wb") as file:
        file.write(inner.read_bytes())
    with pytest.raises(LabelsError, match="holds another archive; unpack it"):
        read_labels(tmp_path / "outer.gz")
    assert cells(read_labels(inner, ReadOptions(format="archive"))) == TRUTH


def test_archives_have_a_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 10)
    for write in (gz, zipped):
        with pytest.raises(LabelsError, match="more than 10 bytes"):
            read_labels(write(tmp_path))


def test_arrays_with_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "l.npz", names=np.array(["a", {}], object), y=np.zeros((2, 2)))
    with pytest.raises(LabelsError, match="without executing code"):
        read_labels(tmp_path / "l.npz")


def test_a_format_may_be_named_and_must_be_one(tmp_path: Path) -> None:
    path = text(tmp_path / "l.json", "filename,sea\na.jpg,1\n")
    assert read_labels(path, ReadOptions(format="text")).table.names == ("sea",)
    with pytest.raises(MlcError, match=r"format='cocoa' cannot be used.*coco"):
        read_labels(path, ReadOptions(format="cocoa"))


KEYS = ["images", "annotations", "categories", "id", "file_name", "image_id", "category_id", "name"]
KEYS += ["labels", "classes", "data_list", "metainfo", "img_path", "gt_label", "items", "label"]
KEYS += ["data", "result", "value", "choices", "image", "annotator", "attribute_id_map", "targets"]
KEYS += ["labelId", "imageId", "filename", "file_attributes", "regions", "a.jpg", "source-ref"]
KEYS += ["imageGcsUri", "classificationAnnotations", "x", "x-metadata", "class-map", "columns"]
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.floats(allow_nan=False)
    | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=14,
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=anything, named=st.sampled_from(["auto", *find.FORMATS]), by_lines=st.booleans())
def test_any_json_is_a_table_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, content: Any, named: str, by_lines: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.json"
    path.write_text((json.dumps(content) + "\n") * (2 if by_lines else 1))
    with contextlib.suppress(MlcError):
        table = read_labels(path, ReadOptions(format=named, absent="false")).table
        assert table.values.shape == (len(set(table.filenames)), len(table.names))


def commands_of_the_readme() -> dict[str, list[str]]:
    """Format to the words of its command in the README's table."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    table = readme[readme.index("### Any label file") :].split("\n## ")[0]
    rows = [line.split("`") for line in table.splitlines() if line.startswith("| `")]
    return {row[1]: shlex.split(row[-2]) for row in rows}


def test_the_readme_lists_every_format() -> None:
    assert sorted(commands_of_the_readme()) == sorted(
        [find.TEXT, find.ARCHIVE, find.EXPORT, *find.FORMATS]
    )


@pytest.mark.parametrize("name", [find.TEXT, find.ARCHIVE, find.EXPORT, *find.FORMATS])
def test_the_readme_s_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    words = commands_of_the_readme()[name]
    place = tmp_path / words[0].removeprefix("--config.data.labels=")
    (tmp_path / "made").mkdir()
    if name == find.TEXT:
        made = text(tmp_path / "made" / "labels.csv", frame().to_csv(index=False))
    else:
        fitting = [write for own, write in GOLDEN.values() if own == name]
        made = next(
            made for write in fitting if (made := write(tmp_path / "made")).suffix == place.suffix
        )
    shutil.move(made, place)
    monkeypatch.chdir(tmp_path)
    convert.run(config_of(*words), tmp_path / "out")
    found = cells(read_labels(tmp_path / "out" / "labels.csv"))
    assert {image: found[image] for image in "abc"} == TRUTH
