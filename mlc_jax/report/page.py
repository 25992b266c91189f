"""The report of a finished run: plots, and one page that opens without a network."""

import base64
import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mlc_jax.errors import WorkdirError
from mlc_jax.files.atomic import write_json, write_text
from mlc_jax.journal import Journal
from mlc_jax.report.compare import compare_page
from mlc_jax.report.explain import explain_page
from mlc_jax.report.impute import impute_page
from mlc_jax.report.multilabel import multilabel_page
from mlc_jax.report.panels import DPI
from mlc_jax.report.parts import Page
from mlc_jax.report.run import FinishedRun, read_run

_PAGES: dict[str, Callable[[FinishedRun, Path], Page]] = {
    "impute": impute_page,
    "multilabel": multilabel_page,
    "compare": compare_page,
    "explain": explain_page,
}
_CSS_PIXELS_PER_INCH = 100


def write_report(workdir: Path) -> Path:
    """Writes plots/*.png and report.html from the files of a finished run.

    The page holds its images, runs no script and loads nothing. Equal files give an equal page.

    Args:
      workdir: of the finished run.

    Returns:
      the page.

    Raises:
      WorkdirError: the run is not finished, is of a stage without a report, or one of its files is
        missing or damaged.
      LabelsError: cells.csv is damaged.
    """
    run = read_run(workdir)
    stage = run.summary["stage"]
    if stage not in _PAGES:
        raise WorkdirError(
            f"{workdir} holds a run of stage {stage!r}; reports exist for {', '.join(_PAGES)}"
        )
    page = _PAGES[stage](run, workdir / "plots")
    if run.summary["data"].get("demo"):
        page = replace(page, title=f"DEMO: {page.title}")
    report = workdir / "report.html"
    write_text(report, render(page))
    return report


def report_beside(summary: dict[str, Any], workdir: Path, journal: Journal) -> None:
    """Writes the report of a run whose results are on the disk, which stay whatever becomes of it.

    Args:
      summary: what summary.json holds; its warnings are the journal's.
      workdir: of the finished run.
      journal: warned where the report cannot be written, in summary.json as well.
    """
    try:
        write_report(workdir)
    except Exception as error:
        reason = " ".join(str(error).split())
        journal.warn(
            f"report.html cannot be written ({type(error).__name__}: {reason}); the results are "
            "whole, and the same command writes it"
        )
        with contextlib.suppress(OSError):  # what keeps the report off the disk may keep this too
            write_json(workdir / "summary.json", summary | {"warnings": journal.warnings})


def render(page: Page) -> str:
    """The page as HTML; every text in it is escaped."""
    environment = Environment(
        loader=PackageLoader("mlc_jax.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["image"] = _image
    return environment.get_template("page.html").render(page=page)


def _image(file: Path) -> dict[str, str | int]:
    """A PNG file as `src`, with its size in CSS pixels, so that the page does not jump."""
    data = file.read_bytes()
    # The header of a PNG file: width and height stand at bytes 16 and 20, big-endian.
    width, height = (int.from_bytes(data[start : start + 4], "big") for start in (16, 20))
    scale = _CSS_PIXELS_PER_INCH / DPI
    return {
        "src": f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}",
        "width": round(width * scale),
        "height": round(height * scale),
    }
