"""Compare: ways to learn, or backbones, on the same folds; or an audit of the filling.

Everything is judged out of fold on cells that people gave, but for the replay of the original's
leak, which is shown beside the honest figures to say where its 0.98 came from. Nothing is
checkpointed: features are kept, and the fits are repeated when a comparison is stopped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from mlc_jax.assess.contest import stand
from mlc_jax.assess.metrics import roc_auc
from mlc_jax.assess.recovery import KINDS, hide_cells, over_images, recovery_figures
from mlc_jax.data.collection import Collection, open_collection, without_filled
from mlc_jax.data.groups import Groups, find_groups, given_split, group_record, say_torn
from mlc_jax.data.labels import write_quarantine
from mlc_jax.data.table import MISSING
from mlc_jax.files.atomic import replacing, write_json
from mlc_jax.files.workdir import changes, claim, owned
from mlc_jax.journal import Journal
from mlc_jax.models.backbones import Backbone
from mlc_jax.report.page import report_beside
from mlc_jax.report.terminal import show
from mlc_jax.settings import cache_folder, resolve, with_training_keys
from mlc_jax.training.completion import deal_out
from mlc_jax.training.contenders import (
    WITHOUT_CONTEXT,
    Answer,
    Bench,
    Contender,
    ask,
    default_contenders,
    full_contenders,
    keys_of,
    training_contenders,
)
from mlc_jax.training.crossfit import left_out_warnings
from mlc_jax.training.feeds import choose_backbone, feature_shape_of, open_features
from mlc_jax.training.filling import VARIANTS, filling_rows
from mlc_jax.training.parallel import Devices
from mlc_jax.training.provenance import describe_run, row_inputs, run_inputs
from mlc_jax.training.ranking import Candidate, find_candidates, rank
from mlc_jax.training.replay import leaky_fit


def run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Runs a comparison or an audit, or shows the summary of a finished one.

    Args:
      config: of configs/compare.py, as the command line left it.
      workdir: where compare.csv, summary.json and the report go.

    Returns:
      What summary.json holds.
    """
    journal = Journal()
    config = resolve(config, journal.note)
    with owned(workdir):
        collection = without_filled(open_collection(config, cache_folder(), journal))
        candidates: tuple[Candidate, ...] = ()
        if config.compare.rows == "backbones" and not config.audit:
            candidates, left_out = find_candidates(config, journal)
        backbone = candidates[0].load() if candidates else choose_backbone(config, journal)
        inputs = run_inputs(config, collection, backbone) | _weights_of(candidates)
        finished = claim(workdir, inputs, row_inputs(collection), accept=config.accept_changes)
        for change in changes(workdir):
            journal.warn(change)
        if finished is not None:
            journal.note(f"{workdir} holds this run, finished; nothing to do")
            show(finished, workdir, journal)
            return finished
        bench, groups = open_bench(config, collection, backbone, journal)
        if config.audit:
            found = {"audit": audit(bench, journal)}
        elif candidates:
            found = backbones(bench, candidates, collection, journal) | {"left_out": left_out}
        elif config.compare.rows == "filling":
            found = {"filling": filling(bench, journal)}
        else:
            found = contest(bench, collection, backbone, journal)
        rows = next(iter(found.values()))
        write_rows(workdir / "compare.csv", rows)
        write_quarantine(workdir / "quarantine.csv", collection.quarantine)
        summary = describe_run(config, workdir, collection, backbone, journal) | {
            "labels": {
                name: {"known": int((bench.values[:, column] != MISSING).sum())}
                for column, name in enumerate(collection.table.names)
            },
            **found,
        }
        summary["data"] |= group_record(groups, collection)
        write_json(workdir / "summary.json", summary)
        report_beside(summary, workdir, journal)
        show(summary, workdir, journal)
        return summary


def open_bench(
    config: ConfigDict, collection: Collection, backbone: Backbone, journal: Journal
) -> tuple[Bench, Groups]:
    """Features, groups and folds that every contender gets."""
    table = collection.table
    values = np.where(table.human, table.values, np.int8(MISSING))
    devices = Devices(config.parallel)
    features = open_features(config, collection.images, backbone, devices, cache_folder(), journal)
    groups = find_groups(collection, features.pooled, config.near_copies, journal)
    split = given_split(collection)
    deal = deal_out(config, values, groups.of_image, split)
    say_torn(groups.of_image, deal.fold_of, collection.images.filenames, journal)
    for warning in left_out_warnings(table.names, deal.unfit):
        journal.warn(warning)
    shape = feature_shape_of(config, backbone)
    bench = Bench(config, values, groups.of_image, deal, features, shape, devices, split)
    return bench, groups


def contest(
    bench: Bench, collection: Collection, backbone: Backbone, journal: Journal
) -> dict[str, Any]:
    """Asks every contender and measures them against the last one; then replays the leak.

    Returns:
      the parts of summary.json: `rows`, best first, `reference`, `better` (what to set for a row
      whose gap to the reference is better than zero), and with the default rows `leak`.
    """
    rows = bench.config.compare.rows
    contenders: list[Contender] = {
        "default": lambda: default_contenders(bench),
        "training": lambda: training_contenders(bench),
        "full": lambda: full_contenders(bench, _conv_bench(bench, collection, backbone, journal)),
    }[rows]()
    answers: list[Answer] = []
    with journal.phase("contenders", len(contenders), "contenders") as advance:
        for contender in contenders:
            answers.append(ask(contender))
            advance(1)
    reference = next((a for a in answers if a.name == "mlc_jax"), answers[0])
    records = judged(bench, answers, reference, journal)
    better = [better_row(row, reference.name) for row in records if is_better(row)]
    for told in better:
        journal.note(told)
    found: dict[str, Any] = {"rows": records, "reference": reference.name, "better": better}
    found |= part_of_context(records, journal)
    if rows != "training":
        found["leak"] = replay(bench, records, journal)
    return found


def judged(
    bench: Bench, answers: Sequence[Answer], reference: Answer, journal: Journal
) -> list[dict[str, Any]]:
    """The figures of every answer and its gap to the reference, the lowest log loss first."""
    mask = bench.values != MISSING
    mask[:, list(bench.deal.unfit)] = False
    records: list[dict[str, Any]] = []
    with journal.phase("judge", len(answers), "contenders") as advance:
        for answer in answers:
            standing = stand(
                bench.values,
                mask,
                answer.probabilities,
                answer.thresholds,
                reference.probabilities,
                bench.deal.fold_of,
                bench.groups,
            )
            records.append(
                {
                    "name": answer.name,
                    **standing.figures,
                    "auc": standing.auc._asdict(),
                    "auc_gap": standing.auc_gap._asdict(),
                    "log_loss_gap": standing.log_loss_gap._asdict(),
                    "seconds": answer.seconds,
                }
            )
            advance(1)
    return sorted(records, key=lambda record: record["log_loss"])


def part_of_context(records: list[dict[str, Any]], journal: Journal) -> dict[str, Any]:
    """How much of mlc_jax's metrics comes from the other labels of an image.

    Returns:
      `context`, for summary.json: macro ROC AUC with and without them; nothing where either row is
      not there.
    """
    areas = {record["name"]: record["macro_roc_auc"] for record in records}
    if not {"mlc_jax", WITHOUT_CONTEXT} <= areas.keys():
        return {}
    whole, alone = areas["mlc_jax"], areas[WITHOUT_CONTEXT]
    journal.note(
        f"of the macro AUC {whole:.3f} of mlc_jax {whole - alone:+.3f} comes from the image's "
        f"other labels: without them it is {alone:.3f}, and images without any label have no more"
    )
    return {"context": {"macro_roc_auc": whole, "without": alone}}


def is_better(record: dict[str, Any]) -> bool:
    """Whether the interval of a row's gap to the reference lies on the better side of zero."""
    return bool(record["auc_gap"]["low"] > 0 or record["log_loss_gap"]["high"] < 0)


def better_row(record: dict[str, Any], reference: str) -> str:
    """By how much a row is better than the reference, and which keys to set for it."""
    area, loss = record["auc_gap"], record["log_loss_gap"]
    found = (
        f"“{record['name']}” is better than {reference}: macro AUC {area['value']:+.4f} "
        f"({area['low']:+.4f} to {area['high']:+.4f}), log loss {loss['value']:+.4f} "
        f"({loss['low']:+.4f} to {loss['high']:+.4f})"
    )
    keys = " ".join(f"--config.{key}" for key in keys_of(record["name"]).split())
    return f"{found}; set {keys}" if keys else f"{found}; no key of the impute job gives it"


def backbones(
    bench: Bench, candidates: Sequence[Candidate], collection: Collection, journal: Journal
) -> dict[str, Any]:
    """Ranks backbones by what the impute job's heads make of their features.

    Folds are dealt once, and near copies are found with the features of the first backbone, so all
    are asked about the same images by heads that were fitted on the same ones.

    Returns:
      the parts of summary.json: `backbones`, best first, and `reference`, the first one's title.
    """
    ranked = rank(candidates, bench, collection.images, journal)
    answers = [one.answer for one in ranked]
    costs = {one.answer.name: one.costs() for one in ranked}
    records = judged(bench, answers, answers[0], journal)
    for record in records:
        del record["seconds"]  # the costs say whose
        record |= costs[record["name"]]
    return {"backbones": records, "reference": answers[0].name}


def replay(bench: Bench, records: list[dict[str, Any]], journal: Journal) -> dict[str, Any]:
    """The original's leaky split, and what it makes of these data."""
    with journal.phase("replay the leak", 0, ""):
        leak = leaky_fit(bench.config, bench.values, bench.features, bench.shape, bench.devices)
    truth = bench.values[leak.rows]
    areas = []
    for column in range(truth.shape[1]):
        known = truth[:, column] != MISSING
        areas.append(roc_auc(truth[known, column] == 1, leak.logits[known, column]))
    defined = [area for area in areas if not np.isnan(area)]
    area = float(np.mean(defined)) if defined else float("nan")
    honest = next(r for r in records if r["name"] == "the original recipe, split repaired")
    journal.note(
        f"the original oversampled before it split: {leak.oversampled} rows of "
        f"{len(bench.values)} images, {leak.seen:.0%} of the validation rows show an image that "
        f"was trained on; macro AUC there {area:.3f}, out of fold {honest['macro_roc_auc']:.3f}"
    )
    return {
        "macro_roc_auc": area,
        "seen": leak.seen,
        "rows": leak.oversampled,
        "honest_macro_roc_auc": honest["macro_roc_auc"],
    }


def audit(bench: Bench, journal: Journal) -> list[dict[str, Any]]:
    """Hides known cells, completes the table, and compares: once for each kind."""
    config = bench.config
    cases = [(share, kind) for share in config.compare.hidden for kind in KINDS]
    records = []
    with journal.phase("hide and recover", len(cases), "tables") as advance:
        for share, kind in cases:
            hidden = hide_cells(bench.values, share, kind, config.seed)
            left = np.where(hidden, np.int8(MISSING), bench.values)
            deal = deal_out(config, left, bench.groups, bench.split)
            judged = bench.judge(config, left, deal, journal.warn)
            cells = (
                bench.values,
                hidden,
                judged.probabilities,
                judged.cell_thresholds,
                judged.accepted,
            )
            figures = over_images(partial(_figures_of, cells), bench.groups, seed=config.seed)
            records.append(
                {"hidden": share, "kind": kind}
                | {name: interval._asdict() for name, interval in figures.items()}
            )
            advance(1)
    return records


def _figures_of(cells: tuple[np.ndarray, ...], rows: np.ndarray) -> dict[str, float]:
    truth, hidden, probabilities, thresholds, accepted = (part[rows] for part in cells)
    return recovery_figures(truth, hidden, probabilities, thresholds, accepted)


def filling(bench: Bench, journal: Journal) -> list[dict[str, Any]]:
    """Stage 2 on masked, filled and true cells, at each share of hidden ones."""
    records = []
    total = len(bench.config.compare.hidden) * len(VARIANTS)
    with journal.phase("teach stage 2", total, "classifiers") as advance:
        for taught in _each(filling_rows(bench)):
            records.append(taught)
            advance(1)
    return records


def _each(rows: Iterator[Any]) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {
            "hidden": row.hidden,
            "variant": row.variant,
            "map": row.map,
            "macro_roc_auc": row.macro_roc_auc,
        }


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """compare.csv: one line per row of the table, intervals as NAME_low and NAME_high."""
    flat = []
    for row in rows:
        line: dict[str, Any] = {}
        for name, value in row.items():
            if isinstance(value, dict):
                line |= {name: value["value"]}
                line |= {f"{name}_{end}": value[end] for end in ("low", "high")}
            else:
                line[name] = value
        flat.append(line)
    with replacing(path) as temporary:
        pd.DataFrame(flat).to_csv(temporary, index=False)


def _weights_of(candidates: Sequence[Candidate]) -> dict[str, Any]:
    """What decides a ranking beside the weights of its first backbone: all that are ranked."""
    weights: dict[str, list[str]] = {}
    for candidate in candidates:
        weights.setdefault(candidate.name, []).append(candidate.digest)
    return {"backbones": weights} if weights else {}


def _conv_bench(
    bench: Bench, collection: Collection, backbone: Backbone, journal: Journal
) -> Bench:
    """The same images, groups and folds with feature maps and convolutional heads."""
    config = with_training_keys(
        bench.config,
        {
            "head.name": "conv",
            "features.mirror": False,
            "optimizer.l2": 0.0,
            "optimizer.learning_rate": 1e-4,
            "schedule.name": "plateau",
            "patience": 5,
        },
    )
    features = open_features(
        config, collection.images, backbone, bench.devices, cache_folder(), journal
    )
    shape = feature_shape_of(config, backbone)
    return replace(bench, config=config, features=features, shape=shape)
