"""The multilabel stage's page holds every figure, shows what it must, and cannot be made to act."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from classifier_workdirs import EPOCHS, make_classifier_workdir
from pages import ATTRIBUTE, SCRIPT, Parsed, assert_inert, assert_offline
from workdirs import rewrite

from mlc_jax.errors import WorkdirError
from mlc_jax.journal import Journal
from mlc_jax.report.page import write_report
from mlc_jax.report.tables import METRICS, WHOLE
from mlc_jax.report.terminal import show

PLOTS = [
    "cooccurrence",
    "learning_curves",
    "pr_curves",
    "reliability",
    "roc_curves",
    "samples_right",
    "samples_wrong",
    "thresholds",
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    workdir = tmp_path_factory.mktemp("plain")
    summary = make_classifier_workdir(workdir)
    write_report(workdir)
    return workdir, summary


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """At chance, names that are code, and a label without a model."""
    workdir = tmp_path_factory.mktemp("hostile")
    summary = make_classifier_workdir(
        workdir,
        (SCRIPT, ATTRIBUTE, "rare"),
        unfit=("rare",),
        gap=0.0,
        filename=ATTRIBUTE + "{}.jpg",
    )
    summary["config"]["threshold"]["rule"] = SCRIPT
    rewrite(workdir, summary)
    write_report(workdir)
    return workdir, summary


def shown(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def test_figures_of_every_label_stand_in_their_row(plain: tuple[Path, dict[str, Any]]) -> None:
    page = Parsed(plain[0] / "report.html")
    last = len(page.tables) - 2  # the phases of the run come after it
    for name, label in plain[1]["labels"].items():
        row, metrics = page.row(0, name), label["metrics"]
        assert row["Verdict"] == f"learnable{label['verdict']}"
        assert row["Test cells"] == f"{metrics['count']:.0f}"
        assert row["Prevalence"] == f"{100 * metrics['prevalence']:.1f}\u202f%"
        low, high = label["threshold_spread"]
        assert row["Threshold"] == f"{label['threshold']:.3f}{low:.3f}–{high:.3f}"
        loss, prior = label["log_loss_out_of_fold"], label["prior_log_loss"]
        assert row["Log loss, held in"] == f"{loss:.3f}prior {prior:.3f}"
        for column in ("roc_auc", "pr_auc", "f1", "mcc"):
            assert row[METRICS[column].title] == shown(metrics[column])
        figures = page.row(last, name)
        assert (figures["p"], figures["p, held in"]) == ("0.0031", "0.0025")
        for metric, value in metrics.items():
            digits = re.sub("[^0-9.−]", "", figures[METRICS[metric].title]).replace("−", "-")
            scale = 100 if metric == "prevalence" else 1
            assert float(digits) == pytest.approx(value * scale, abs=0.051)


def test_whole_figures_have_their_intervals(plain: tuple[Path, dict[str, Any]]) -> None:
    page, figures = Parsed(plain[0] / "report.html"), plain[1]["test"]
    assert set(figures) == set(WHOLE)
    for name, column in WHOLE.items():
        row = page.row(1 if name in list(WHOLE)[:7] else 2, column.title)
        if name not in ("count", "labels_judged"):
            value, low, high = figures[name].values()
            assert row["Value"] == shown(value)
            assert row["95\u202f% interval"] == f"{shown(low)}–{shown(high)}"
        else:
            assert row["Value"] == f"{figures[name]['value']:.0f}"


def test_everything_else_of_the_summary_is_said(plain: tuple[Path, dict[str, Any]]) -> None:
    page, summary = Parsed(plain[0] / "report.html"), plain[1]
    data = summary["data"]
    said = [str(data[key]) for key in ("rows", "usable", "observed", "blank", "held_in", "test")]
    said += [data["labels_file"], data["image_folder"], "96 × 72 pixels", summary["verdict"][1:]]
    said += [*summary["notes"], "304 images/s", summary["command"], summary["device"]]
    said += [summary["backbone"][key] for key in ("name", "origin", "digest")] + ["rule “f1”"]
    said += [f"after epoch {EPOCHS - 1} of {EPOCHS} were kept"]
    for group in ("versions", "digests"):
        said += [word for pair in summary[group].items() for word in pair]
    assert not [words for words in said if words not in page.text]


def test_plots_are_described(plain: tuple[Path, dict[str, Any]]) -> None:
    images = Parsed(plain[0] / "report.html").all("img")
    assert sorted(path.stem for path in (plain[0] / "plots").iterdir()) == PLOTS
    assert len(images) == len(PLOTS)
    alts = [str(image["alt"]) for image in images]
    assert sum(all(name in alt for name in plain[1]["labels"]) for alt in alts) >= 5
    assert all(f"Kept: epoch {EPOCHS - 1}." in alt for alt in alts if "Learning" in alt)
    assert sum("image_" in alt and "true: " in alt and "predicted: " in alt for alt in alts) == 2


def test_code_in_names_is_inert_and_nothing_is_loaded(hostile: tuple[Path, dict[str, Any]]) -> None:
    page = Parsed(hostile[0] / "report.html")
    assert_inert(page)
    assert_offline(hostile[0] / "report.html")
    for name in (SCRIPT, ATTRIBUTE):
        assert page.row(0, name)["Verdict"]
    samples = [
        str(image["alt"]) for image in page.all("img") if "Test pictures" in str(image["alt"])
    ]
    assert samples
    assert all(re.search(re.escape(ATTRIBUTE) + r"\d+\.jpg, true: ", alt) for alt in samples)


def test_chance_is_said_first(hostile: tuple[Path, dict[str, Any]]) -> None:
    workdir, summary = hostile
    page = Parsed(workdir / "report.html")
    assert summary["verdict"].endswith("no better than chance")
    (outcome,) = [a for a in page.all("p") if "outcome" in str(a.get("class"))]
    assert outcome["class"] == "outcome bad"
    first = page.text[: page.text.index("macro ROC AUC on test images")]
    assert first.count(summary["verdict"][1:]) == 2, "as the outcome, and among the warnings"
    assert all(warning in first for warning in summary["warnings"])


def test_label_without_a_model_has_a_row_and_no_plot(hostile: tuple[Path, dict[str, Any]]) -> None:
    page = Parsed(hostile[0] / "report.html")
    row = page.row(0, "rare")
    assert row["Verdict"] == "not fittedfewer than 5 ones"
    assert {row[key][0] for key in row if key not in ("Label", "Verdict")} == {"–"}
    assert "Without a plot, as there is nothing to judge: “rare”." in page.text
    assert all("rare " not in str(image["alt"]) for image in page.all("img"))


def test_without_pictures_or_epochs_there_is_a_page(tmp_path: Path) -> None:
    summary = make_classifier_workdir(tmp_path, ("a", "b"))
    folder = Path(summary["data"]["image_folder"])
    (tmp_path / "metrics.jsonl").unlink()
    shutil.rmtree(folder)
    page = Parsed(write_report(tmp_path))
    assert f"The image folder {folder} is gone" in page.text
    assert len(page.all("img")) == len(PLOTS) - 3
    folder.mkdir()
    page = Parsed(write_report(tmp_path))
    assert page.text.count("No test picture that can be read") == 2


def test_undefined_figures_have_their_reason(tmp_path: Path) -> None:
    summary = make_classifier_workdir(tmp_path, ("a", "b"))
    summary["test"]["map"] = {"value": None, "low": None, "high": None}
    summary["undefined"] = {"map": "no label has both classes"}
    summary["test"]["lrap"] |= {"low": None, "high": None}
    rewrite(tmp_path, summary)
    page = Parsed(write_report(tmp_path))
    assert page.row(1, "mAP")["Value"] == page.row(1, "mAP")["95\u202f% interval"] == "–1"
    assert page.row(1, "LRAP")["95\u202f% interval"] == "–2"
    assert "\nno label has both classes\n" in page.text


def test_equal_files_give_equal_pages(tmp_path: Path) -> None:
    make_classifier_workdir(tmp_path, ("a", "b"))
    first = write_report(tmp_path).read_bytes()
    assert write_report(tmp_path).read_bytes() == first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("probability", "p"), "columns"),
        (lambda text: text.replace(",test,", ",train,", 1), "split: 'train'"),
        (lambda text: text.replace(",a,1,", ",a,2,", 1), "value: '2'"),
        (lambda text: text.replace(",a,1,", ",z,1,", 1), "label: 'z'"),
        (lambda text: text + text.splitlines()[-1] + "\n", "second time"),
        (lambda text: text + "x.jpg,a,1,test,1.5,0.5\n", "probability: '1.5'"),
        (lambda text: text + "x.jpg,a,1,test,,0.5\n", "damaged"),
        (lambda text: "", "damaged"),
        (lambda text: None, "No such file"),
    ],
)
def test_damaged_scores_are_named(tmp_path: Path, change: Any, message: str) -> None:
    make_classifier_workdir(tmp_path, ("a", "b"))
    file = tmp_path / "scores.csv"
    text = change(file.read_text())
    file.unlink()
    if text is not None:
        file.write_text(text)
    with pytest.raises(WorkdirError, match=re.escape(message)) as caught:
        write_report(tmp_path)
    assert "scores.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_terminal_names_everything(
    hostile: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    summary = make_classifier_workdir(tmp_path, ("a[red]b", "rare"), unfit=("rare",))
    show(summary, tmp_path, Journal())
    said = capsys.readouterr().out
    label = summary["labels"]["a[red]b"]
    (row,) = [line for line in said.splitlines() if "a[red]b" in line]
    for name in ("prevalence", "roc_auc", "pr_auc", "f1", "mcc"):
        assert f"{label['metrics'][name]:.3f}" in row
    assert f"{label['threshold']:.3f}" in row
    (row,) = [line for line in said.splitlines() if "rare" in line and "│" in line]
    assert "not fitted" in row
    for name in ("map", "macro_roc_auc", "micro_f1", "lrap"):
        value, low, high = summary["test"][name].values()
        assert f"{value:.3f} │ {low:.3f} to {high:.3f}" in said
    assert "WARNING: label rare" in said
    assert str(tmp_path / "report.html") in said
    show(hostile[1], hostile[0], Journal())
    assert hostile[1]["verdict"] in capsys.readouterr().out
