"""Label Studio's tasks, the labelling configuration they need, and answers as it exports them."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest

from mlc_jax.data.decisions import read_decisions
from mlc_jax.data.label_studio import Question, write_labelling_config, write_tasks
from mlc_jax.errors import LabelsError

RUN = "ab12" * 16
NAMES = ("sea, sand & sun", '"><b>')
QUESTIONS = [
    Question("a b&c.jpg", NAMES[0], 1, "filled"),
    Question("d.jpg", NAMES[1], -1, "abstained"),
    Question("a b&c.jpg", NAMES[1], 0, "suspect"),
]


@pytest.fixture
def tasks(tmp_path: Path) -> list[dict[str, Any]]:
    assert write_tasks(tmp_path / "tasks.json", QUESTIONS, NAMES, RUN, Path("my images")) == 2
    made: list[dict[str, Any]] = json.loads((tmp_path / "tasks.json").read_text())
    return made


def choice(control: str, value: str) -> dict[str, Any]:
    """A result as Label Studio exports it: some of its keys are not looked at."""
    return {
        "id": "x7",
        "from_name": control,
        "to_name": "image",
        "type": "choices",
        "origin": "manual",
        "value": {"choices": [value]},
    }


def annotation(*results: Any, **more: Any) -> dict[str, Any]:
    return {"id": 3, "completed_by": 1, "was_cancelled": False, "result": list(results)} | more


def exported(path: Path, tasks: list[dict[str, Any]], *annotations: list[Any]) -> Path:
    """The tasks as an export gives them back, with annotations and keys of its own."""
    content = [
        task | {"id": number, "project": 1, "annotations": own}
        for number, (task, own) in enumerate(zip(tasks, annotations, strict=False), 1)
    ]
    path.write_text(json.dumps(content))
    return path


def test_a_task_names_its_image_its_run_and_the_values_in_doubt(
    tasks: list[dict[str, Any]],
) -> None:
    first, second = (task["data"] for task in tasks)
    assert (first["filename"], second["filename"]) == ("a b&c.jpg", "d.jpg")
    assert first["run"] == second["run"] == RUN
    address = urlsplit(first["image"])
    assert (address.path, parse_qs(address.query)) == (
        "/data/local-files/",
        {"d": ["my images/a b&c.jpg"]},
    )
    given = [
        [
            (result["from_name"], result["value"]["choices"])
            for result in task["predictions"][0]["result"]
        ]
        for task in tasks
    ]
    assert given == [[("label_1", ["1"]), ("label_2", ["0"])], []]


def test_the_configuration_has_the_controls_that_the_tasks_name(
    tasks: list[dict[str, Any]], tmp_path: Path
) -> None:
    write_labelling_config(tmp_path / "config.xml", NAMES)
    view = ElementTree.parse(tmp_path / "config.xml").getroot()
    image = view.find("Image")
    assert image is not None
    assert image.get("value") == "$image"
    assert [header.get("value") for header in view.findall("Header")] == list(NAMES)
    controls = {control.get("name"): control for control in view.findall("Choices")}
    for task in tasks:
        assert {value[1:] for value in ("$image", "$look_at")} <= task["data"].keys()
        for result in task["predictions"][0]["result"]:
            control = controls[result["from_name"]]
            assert control.get("toName") == result["to_name"] == image.get("name")
            assert result["value"]["choices"][0] in {c.get("value") for c in control}


def test_answers_come_back_as_decisions(tasks: list[dict[str, Any]], tmp_path: Path) -> None:
    file = exported(
        tmp_path / "e.json",
        tasks,
        [
            annotation(choice("label_1", "0"), choice("label_2", "1")),
            annotation(choice("label_1", "1"), was_cancelled=True),
        ],
        [annotation(choice("label_2", "0")), annotation(choice("label_2", "1"))],
    )
    read = read_decisions(file, RUN, NAMES)
    assert read.values == {("a b&c.jpg", NAMES[0]): 0, ("a b&c.jpg", NAMES[1]): 1}
    assert read.left_open == 1, "two people disagree"


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (choice("label_3", "1"), "control 'label_3' .*label_studio.xml"),
        (choice("label_1", "yes"), "is not one choice, 1 or 0"),
        (choice("label_1", "1") | {"value": {"choices": ["0", "1"]}}, "is not one choice"),
        (choice("label_1", "1") | {"type": "rectanglelabels"}, "of type 'rectanglelabels'"),
        ({"from_name": "label_1"}, "is no result; export as JSON"),
    ],
)
def test_other_results_are_refused(
    tasks: list[dict[str, Any]], tmp_path: Path, result: dict[str, Any], said: str
) -> None:
    file = exported(tmp_path / "e.json", tasks, [annotation(result)])
    with pytest.raises(LabelsError, match=f"task 1.*{said}"):
        read_decisions(file, RUN, NAMES)


def test_tasks_of_another_run_or_another_export_are_refused(
    tasks: list[dict[str, Any]], tmp_path: Path
) -> None:
    file = exported(tmp_path / "e.json", tasks, [annotation(choice("label_1", "1"))])
    with pytest.raises(LabelsError, match="task 1 is about another run"):
        read_decisions(file, "other", NAMES)
    # "JSON_MIN" lays the answers flat, beside the data.
    file.write_text(json.dumps([{"image": "x", "filename": "d.jpg", "run": RUN, "label_1": "1"}]))
    with pytest.raises(LabelsError, match=r"holds no data\.filename; export as JSON"):
        read_decisions(file, RUN, NAMES)
    with pytest.raises(LabelsError, match="decides no cell"):
        read_decisions(exported(file, tasks, [], []), RUN, NAMES)
