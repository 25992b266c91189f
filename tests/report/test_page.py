"""The page holds every figure of a run, needs nothing but itself, and cannot be made to act."""

import base64
import copy
import io
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pages import ATTRIBUTE, SCRIPT, Parsed, assert_inert, assert_offline
from PIL import Image
from workdirs import DEMO, make_workdir, rewrite

from mlc_jax.errors import LabelsError, WorkdirError
from mlc_jax.report.page import write_report
from mlc_jax.report.tables import METRICS

PLOTS = ["coverage", "learning_curves", "pr_curves", "probabilities", "reliability", "roc_curves"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    workdir = tmp_path_factory.mktemp("demo")
    summary = make_workdir(workdir)
    write_report(workdir)
    return workdir, summary


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Names that are code, and a label with one class only."""
    workdir = tmp_path_factory.mktemp("hostile")
    summary = make_workdir(
        workdir,
        {SCRIPT: 1.5, ATTRIBUTE: 0.02, "always": 1.0},
        rows=150,
        one_class=("always",),
        filename=f"{SCRIPT}_{{}}.jpg",
        demo=False,
    )
    for key in ("warnings", "notes"):
        summary[key] += [f"{key} {SCRIPT}", ATTRIBUTE]
    summary["command"] += ATTRIBUTE
    summary["device"] = SCRIPT
    summary["config"][SCRIPT] = ATTRIBUTE
    rewrite(workdir, summary)
    write_report(workdir)
    return workdir, summary


def test_the_time_together_is_that_of_the_phases_with_their_waits(
    demo: tuple[Path, dict[str, Any]],
) -> None:
    page = Parsed(demo[0] / "report.html")
    rows = {table[0][0]: {row[0]: row[1:] for row in table[1:]} for table in page.tables}["Phase"]
    assert rows["together"][0] == "4 min 55 s"
    assert rows["of it waiting for images"][0] == "2.4 s"
    assert rows["train"] == ["41.7 s", "", "4 min 23 s"]


def test_figures_of_every_label_stand_in_their_row(demo: tuple[Path, dict[str, Any]]) -> None:
    page = Parsed(demo[0] / "report.html")
    for name, label in demo[1]["labels"].items():
        row = page.row(0, name)
        metrics, truth = label["metrics"], label["truth"]
        assert row["Known"] == str(label["known"])
        assert row["Blank"] == str(label["blank"])
        assert row["Prevalence"] == f"{100 * metrics['prevalence']:.1f}\u202f%"
        assert row["Filled prev."] == f"{100 * label['filled_prevalence']:.1f}\u202f%"
        low, high = label["threshold_spread"]
        assert row["Threshold"] == f"{label['threshold']:.3f}{low:.3f}–{high:.3f}"
        loss, prior = metrics["log_loss"], label["prior_log_loss"]
        assert row["Log loss"] == f"{loss:.3f}prior {prior:.3f}"
        for column in ("roc_auc", "pr_auc", "f1", "mcc"):
            assert row[METRICS[column].title] == f"{metrics[column]:.3f}"
        assert row["Verdict"] == f"learnable{label['verdict']}"
        right = f"{100 * truth['share']:.1f}\u202f%{truth['right']} of {truth['filled']}"
        assert row["Filled right"] == right

        trust, guards = page.row(1, name), label["guards"]
        assert trust["Blanks"].startswith(f"{100 * guards['filled_prevalence']['expected']:.1f}")
        assert f"z {guards['filled_prevalence']['z']:+.1f}" in trust["Blanks"]
        assert trust["Copies"] == f"{guards['copies']['disagree']} of {guards['copies']['pairs']}"
        assert trust["Blanks told"] == f"{guards['blankness']['auc']['value']:.3f}"
        assert trust["Brier"].startswith(f"{metrics['brier']:.3f}before ")

        errors = page.row(2, name)
        zeros, ones = label["error"]["zeros"], label["error"]["ones"]
        assert errors["Filled with 0"] == str(zeros["filled"])
        assert errors["Filled with 1"] == str(ones["filled"])
        assert errors["At most"] == f"{100 * zeros['bound']:.1f}\u202f%"
        assert errors["At most, of ones"] == f"{100 * ones['bound']:.1f}\u202f%"
        assert errors["Of these wrong"].endswith(f"{ones['errors']} of {ones['count']}")

        figures = page.row(3, name)
        assert figures["p"] == "0.0004"
        for metric, value in metrics.items():
            shown = figures[METRICS[metric].title]
            digits = float(re.sub("[^0-9.−]", "", shown).replace("−", "-"))
            assert digits == pytest.approx(value * (100 if "%" in shown else 1), abs=0.051)


def test_everything_else_of_the_summary_is_said(demo: tuple[Path, dict[str, Any]]) -> None:
    page, summary = Parsed(demo[0] / "report.html"), demo[1]
    data, auc = summary["data"], summary["oof"]["macro_roc_auc"]
    said = [f"{data[key]:,}" for key in ("rows", "usable", "left_out", "copies", "observed")]
    said += [f"{data['filled']} of {data['blank']} blank cells", "450 × 350 pixels"]
    said += [data["labels_file"], data["image_folder"], "embedded demo"]
    said += [f"{auc['value']:.3f}", f"{auc['low']:.3f}–{auc['high']:.3f}"]
    said += summary["notes"] + ["3.2 s", "4 min 10 s", "41.7 s", "304 images/s", "7.8 images/s"]
    said += [summary["backbone"][key] for key in ("name", "origin", "digest")] + ["14 × 10 × 512"]
    said += [summary["device"], summary["command"], "optimizer.learning_rate", "1e-05"]
    for group in ("versions", "digests"):
        said += [word for pair in summary[group].items() for word in pair]
    said += ["image_972.jpg", "3 × absent", "20 models", "13 in the last"]
    said += [f"{data['groups']['count']:,}, the largest of 6", "5 of 20 images, by column 'rack'"]
    said += [f"{data['given_split']['images']['train']:,} train, 30 test, by split.csv"]
    missing = [words for words in said if words not in page.text]
    assert not missing


def test_code_in_names_is_inert(hostile: tuple[Path, dict[str, Any]]) -> None:
    page = Parsed(hostile[0] / "report.html")
    assert_inert(page)
    for name in (SCRIPT, ATTRIBUTE):
        assert page.row(0, name)["Verdict"]
    assert f"{SCRIPT}_150.jpg" in page.text
    assert page.text.count(SCRIPT) >= 9


def test_page_loads_nothing(hostile: tuple[Path, dict[str, Any]]) -> None:
    assert_offline(hostile[0] / "report.html")


def test_images_are_whole_and_described(demo: tuple[Path, dict[str, Any]]) -> None:
    images = Parsed(demo[0] / "report.html").all("img")
    assert sorted(path.stem for path in (demo[0] / "plots").iterdir()) == PLOTS
    assert len(images) == len(PLOTS)
    for image in images:
        # One curve is of all labels together.
        together = str(image["alt"]).startswith("Share of wrong cells")
        assert together or all(name in str(image["alt"]) for name in DEMO)
        data = base64.b64decode(str(image["src"]).partition(",")[2])
        width, height = Image.open(io.BytesIO(data)).size
        assert int(str(image["width"])) / int(str(image["height"])) == pytest.approx(
            width / height, rel=0.01
        )


def test_undefined_figures_have_their_reason(hostile: tuple[Path, dict[str, Any]]) -> None:
    workdir, summary = hostile
    page = Parsed(workdir / "report.html")
    label = summary["labels"]["always"]
    reason = label["undefined"]["roc_auc"]
    row = page.row(3, "always")
    assert row["ROC AUC"] == row["MCC"] == "–1"
    assert row["Known"] == str(label["known"])
    assert reason in [attributes.get("title") for attributes in page.all("span")]
    assert f"\n{reason}\n" in page.text, "as a footnote"
    assert row["p"].startswith("–")
    assert page.row(0, "always")["Blank"] == f"{label['blank']}{label['blank']} left blank"
    assert page.row(0, "always")["Verdict"].startswith("not fitted")
    assert "“always” there was no model" in page.text
    assert all("always" not in str(image["alt"]) for image in page.all("img"))


def test_warnings_come_first(hostile: tuple[Path, dict[str, Any]]) -> None:
    workdir, summary = hostile
    text = Parsed(workdir / "report.html").text
    start, end = text.index("4 warnings"), text.index("macro ROC AUC")
    assert len(summary["warnings"]) == 4
    assert all(warning in text[start:end] for warning in summary["warnings"])
    assert f"“{ATTRIBUTE}” is a guess" in text[:start]


def test_eighty_labels_stay_usable(tmp_path: Path) -> None:
    make_workdir(tmp_path, {f"label {i}": 1.5 for i in range(80)}, rows=60, demo=False)
    page = Parsed(write_report(tmp_path))
    assert len(page.tables[0]) == len(page.tables[1]) == len(page.tables[2]) == 81
    assert "The first 12 of 80 labels are plotted" in page.text
    alts = [str(image["alt"]) for image in page.all("img")]
    (together,) = [alt for alt in alts if alt.startswith("Share of wrong cells")]
    for alt in set(alts) - {together}:
        assert "label 11 " in alt
        assert "label 12 " not in alt


def test_equal_files_give_equal_pages_also_in_threads(tmp_path: Path) -> None:
    workdirs = [tmp_path / name for name in ("one", "two", "three")]
    for workdir in workdirs:
        make_workdir(workdir, {"a": 1.5, "b": 1.0}, rows=100)
    alone = write_report(workdirs[0])
    with ThreadPoolExecutor(2) as pool:
        pages = list(pool.map(write_report, workdirs[1:]))
    assert [page.read_bytes() for page in pages] == 2 * [alone.read_bytes()]
    for name in PLOTS:
        first, *rest = [(workdir / "plots" / f"{name}.png").read_bytes() for workdir in workdirs]
        assert rest == 2 * [first]
    assert not list(tmp_path.rglob("*.partial*"))


def test_any_name_can_be_drawn(tmp_path: Path) -> None:
    names = ["$x$ _{", "日本語", "x" * 300, "50 % \\alpha", "tab\tbell\x07"]
    make_workdir(tmp_path, dict.fromkeys(names, 1.5), rows=60)
    page = Parsed(write_report(tmp_path))
    assert [row[0] for row in page.tables[0][1:]] == names


def test_run_without_epochs_or_models_has_a_page(tmp_path: Path) -> None:
    summary = make_workdir(tmp_path, {"a": 1.5, "b": 1.0}, rows=60)
    (tmp_path / "metrics.jsonl").unlink()
    assert len(Parsed(write_report(tmp_path)).all("img")) == len(PLOTS) - 1
    bare = copy.deepcopy(summary)
    bare["oof"]["macro_roc_auc"] = {"value": None, "low": None, "high": None}
    for label in bare["labels"].values():
        label |= {"fitted": False, "learnable": False, "threshold": None, "threshold_spread": None}
    rewrite(tmp_path, bare)
    page = Parsed(write_report(tmp_path))
    assert page.all("img") == []
    assert "“a” and “b”" in page.text


@pytest.mark.parametrize(
    ("file", "content", "error", "message"),
    [
        ("summary.json", None, WorkdirError, "finish the run"),
        ("summary.json", '{"finished": false, "labels": {"a": {}}}', WorkdirError, "not finished"),
        ("summary.json", '{"finished": tr', WorkdirError, "damaged"),
        ("summary.json", "[]", WorkdirError, "damaged"),
        ("metrics.jsonl", '{"epoch": 0', WorkdirError, "damaged"),
        ("quarantine.csv", "a,b\n", WorkdirError, "filename,row,reason"),
        ("quarantine.csv", None, WorkdirError, "No such file"),
        ("cells.csv", "a,b\n", LabelsError, "columns"),
    ],
)
def test_damaged_files_are_named(
    tmp_path: Path, file: str, content: str | None, error: type[Exception], message: str
) -> None:
    make_workdir(tmp_path, {"a": 1.5}, rows=60)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(error, match=message) as caught:
        write_report(tmp_path)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_stage_without_a_report_is_named(tmp_path: Path) -> None:
    summary = make_workdir(tmp_path, {"a": 1.5}, rows=60)
    rewrite(tmp_path, summary | {"stage": "predict"})
    with pytest.raises(WorkdirError, match="stage 'predict'; reports exist for impute"):
        write_report(tmp_path)


def test_report_leaves_jax_and_pyplot_alone() -> None:
    program = (
        "import sys, mlc_jax.report.page\n"
        "assert not {'jax', 'flax', 'matplotlib.pyplot'} & sys.modules.keys()\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True)
