"""Label Studio's JSON: tasks to import there, the labelling configuration for them, the answers.

One task per image, one single choice between 1 and 0 per label, named label_1, label_2, … in the
order of the labels, since a label's own name may hold what a control's name must not.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from mlc_jax.data.delimited import shown
from mlc_jax.errors import LabelsError
from mlc_jax.files.atomic import write_json, write_text

IMAGE = "image"  # the image control, and the key of its address in a task's data


@dataclass(frozen=True)
class Answer:
    """What a person said of a cell: 0, 1, or None for open.

    Attributes:
      where: its place in the file, for messages.
      run: digest of the run it is about, as the file gives it.
      filename, label, value: the cell and what was said.
    """

    where: str
    run: str
    filename: str
    label: str
    value: int | None


@dataclass(frozen=True)
class Question:
    """A cell to be looked at: its value in the table, -1 where blank, and why it is doubtful."""

    filename: str
    label: str
    value: int
    reason: str


def write_tasks(
    path: str | os.PathLike[str],
    questions: Sequence[Question],
    names: Sequence[str],
    run: str,
    image_folder: Path,
) -> int:
    """Writes the tasks, one per image in the order of its first question; returns their number.

    The image's address is that of Label Studio's local file server, whose document root has to be
    the folder that the image folder lies in: it serves what lies in a "local files" storage of the
    project, and such a storage cannot be the root itself. The table's value of a questioned cell is
    given as a prediction.

    Args:
      path: the file.
      questions: most useful first.
      names: all labels of the run, in its order.
      run: digest of the run; comes back with the answers.
      image_folder: that the file names are relative to.
    """
    folder = image_folder.absolute().name
    by_image: dict[str, list[Question]] = {}
    for question in questions:
        by_image.setdefault(question.filename, []).append(question)
    control = {name: f"label_{number}" for number, name in enumerate(names, 1)}
    tasks = [
        {
            "data": {
                IMAGE: f"/data/local-files/?d={quote(f'{folder}/{filename}')}",
                "filename": filename,
                "run": run,
                "look_at": ", ".join(f"{q.label} ({q.reason})" for q in own),
            },
            "predictions": [
                {
                    "model_version": run[:12],
                    "result": [
                        {
                            "from_name": control[q.label],
                            "to_name": IMAGE,
                            "type": "choices",
                            "value": {"choices": [str(q.value)]},
                        }
                        for q in own
                        if q.value >= 0
                    ],
                }
            ],
        }
        for filename, own in by_image.items()
    ]
    write_json(path, tasks)
    return len(tasks)


def write_labelling_config(path: str | os.PathLike[str], names: Sequence[str]) -> None:
    """Writes the labelling configuration that the tasks need."""
    lines = ["<View>", f'  <Image name="{IMAGE}" value="${IMAGE}"/>']
    lines.append('  <Text name="look_at" value="$look_at"/>')
    for number, name in enumerate(names, 1):
        lines += [
            f"  <Header value={quoteattr(name)}/>",
            f'  <Choices name="label_{number}" toName="{IMAGE}" choice="single" showInline="true">',
            '    <Choice value="1"/>',
            '    <Choice value="0"/>',
            "  </Choices>",
        ]
    write_text(path, "\n".join([*lines, "</View>"]) + "\n")


def read_answers(where: str, tasks: list[Any], names: Sequence[str]) -> list[Answer]:
    """The answers in an export ("JSON", not "JSON_MIN") of the tasks that `write_tasks` wrote.

    Annotations that were cancelled do not count. Where those of a task disagree about a cell, it
    stays open.

    Args:
      where: names the file.
      tasks: its content.
      names: all labels of the run, in its order.

    Raises:
      LabelsError: a task of another project, or a choice that is neither 1 nor 0.
    """
    label_of = {f"label_{number}": name for number, name in enumerate(names, 1)}
    return [
        answer
        for number, task in enumerate(tasks, 1)
        for answer in _answers(f"{where}, task {number}", task, label_of)
    ]


def _answers(where: str, task: Any, label_of: dict[str, str]) -> Iterator[Answer]:
    data = task.get("data") if isinstance(task, dict) else None
    if not isinstance(data, dict) or not isinstance(data.get("filename"), str):
        raise LabelsError(
            f"{where} holds no data.filename; export as JSON the tasks of label_studio.json"
        )
    annotations = task.get("annotations", [])
    if not isinstance(annotations, list) or not all(isinstance(a, dict) for a in annotations):
        raise LabelsError(f"{where}: annotations are no list of objects; export as JSON")
    given = [dict(_choices(where, a, label_of)) for a in annotations if not a.get("was_cancelled")]
    for label in label_of.values():
        values = {own[label] for own in given if label in own}
        if values:
            value = values.pop() if len(values) == 1 else None
            yield Answer(where, str(data.get("run")), data["filename"], label, value)


def _choices(
    where: str, annotation: dict[str, Any], label_of: dict[str, str]
) -> Iterator[tuple[str, int]]:
    result = annotation.get("result", [])
    for item in result if isinstance(result, list) else [result]:
        try:
            control, kind = item["from_name"], item["type"]
            chosen = item["value"]["choices"] if kind == "choices" else None
        except (KeyError, TypeError):
            raise LabelsError(f"{where}: {shown(str(item))} is no result; export as JSON") from None
        if kind != "choices" or control not in label_of:
            raise LabelsError(
                f"{where}: control {shown(str(control))} of type {shown(str(kind))} is none of "
                "label_studio.xml; use the labelling configuration as it was written"
            )
        if chosen not in (["0"], ["1"]):
            raise LabelsError(
                f"{where}, label {shown(label_of[control])}: {shown(str(chosen))} is not one "
                "choice, 1 or 0"
            )
        yield label_of[control], int(chosen[0])
