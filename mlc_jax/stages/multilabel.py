"""Stage 2: train the multi-label classifier, and measure it on images that it never saw.

A test split is held out before anything else. The rest is dealt into folds: siblings of the
classifier are judged on them, and give it its number of epochs, its calibration and its thresholds.
Filled cells may enter the loss; no figure, threshold or calibration ever looks at one.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from mlc_jax.assess.calibration import cross_fitted_platt, fit_platt_per_label
from mlc_jax.assess.held_out import TestFigures, judge_test
from mlc_jax.assess.learnability import Verdict, learnable
from mlc_jax.assess.thresholds import choose_threshold, fold_thresholds, spread_over_folds
from mlc_jax.data.collection import Collection, open_collection, without_filled
from mlc_jax.data.folds import Division, divide
from mlc_jax.data.groups import (
    find_groups,
    given_split,
    group_digests,
    group_record,
    known_groups,
    say_torn,
)
from mlc_jax.data.labels import write_quarantine
from mlc_jax.data.near_copies import SeenImages
from mlc_jax.data.table import MISSING
from mlc_jax.errors import CheckpointError, LabelsError
from mlc_jax.files.atomic import replacing, write_json
from mlc_jax.files.runs import Run, open_run
from mlc_jax.files.workdir import changes, claim, owned
from mlc_jax.journal import Journal
from mlc_jax.models.backbones import Backbone
from mlc_jax.processes import agreed, check_alike, leave_to_leader
from mlc_jax.report import numbers
from mlc_jax.report.page import report_beside
from mlc_jax.report.terminal import show
from mlc_jax.settings import cache_folder, resolve, solves_exactly
from mlc_jax.training.checkpoint import Checkpoints
from mlc_jax.training.classifier import Classifier, save_classifier
from mlc_jax.training.crossfit import left_out_warnings, unfit_reason
from mlc_jax.training.features import Features
from mlc_jax.training.feeds import choose_backbone, feature_shape_of, open_features
from mlc_jax.training.joint import fit_joint
from mlc_jax.training.jointfit import JointFit, Teaching, joint_samples
from mlc_jax.training.parallel import Devices, leaders
from mlc_jax.training.provenance import describe_run, row_inputs, run_inputs
from mlc_jax.training.rehearsal import Course, rehearse
from mlc_jax.training.restore import check_inputs, image_folder_of, run_config
from mlc_jax.training.strengths import MOST_STEPS
from mlc_jax.training.writer import MetricsWriter

# Keys of the impute run that is the source which hold where they are not given.
ADOPTED = (
    "data.image_size",
    "features.views",
    "backbone.name",
    "backbone.weights",
    "backbone.layer",
    "head.name",
)


def run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Runs stage 2, goes on with it, or shows the summary of a finished run.

    Args:
      config: of configs/multilabel.py, as the command line left it.
      workdir: where the run keeps its files.

    Returns:
      What summary.json holds.
    """
    journal = Journal()
    config, source = adopt_source(config, journal)
    config = resolve(config, journal.note)
    with owned(workdir):
        collection = open_collection(config, cache_folder(), journal)
        if source is not None:
            check_source(source, collection)
        backbone = choose_backbone(config, journal)
        if config.dry_run:
            return dry_run(config, workdir, collection, backbone, journal)
        inputs = run_inputs(config, collection, backbone)
        check_alike(inputs)
        finished = claim(workdir, inputs, row_inputs(collection), accept=config.accept_changes)
        for change in changes(workdir):
            journal.warn(change)
        if agreed(finished is not None):
            leave_to_leader()
        if finished is not None:
            journal.note(f"{workdir} holds this run, finished; nothing to do")
            if not (workdir / "report.html").exists():
                report_beside(finished, workdir, journal)
            show(finished, workdir, journal)
            return finished
        table = collection.table
        human = np.where(table.human, table.values, np.int8(MISSING))

        # Before anything is extracted: what exact copies alone make impossible.
        shares = config.test_fraction, config.folds, config.seed, given_split(collection)
        unfit_labels(config, table.names, human, divide(known_groups(collection), human, *shares))
        devices = Devices(config.parallel)
        features = open_features(
            config, collection.images, backbone, devices, cache_folder(), journal
        )
        # The test split comes first: nothing below looks at it before the classifier is finished.
        # The features of the leader, so that all processes find the same copies.
        found = find_groups(collection, leaders(features.pooled), config.near_copies, journal)
        groups = found.of_image
        division = divide(groups, human, *shares)
        say_left_out(groups, division, collection, journal)
        unfit = unfit_labels(config, table.names, human, division)
        for warning in left_out_warnings(table.names, unfit):
            journal.warn(warning)
        fitted = [column for column in range(len(table.names)) if column not in unfit]
        names = [table.names[column] for column in fitted]

        teaching = make_teaching(config, collection, human, fitted, division, journal)
        joint = fit_classifier(
            config, workdir, collection, backbone, features, devices, division, teaching, journal
        )
        leave_to_leader()
        with journal.phase("judge", len(names), "labels") as advance:
            held_in = division.held_in
            own = teaching.human[held_in]
            known, folds = own != MISSING, division.fold_of[held_in]
            logits = joint.out_of_fold[held_in]
            held_in_probabilities, _ = cross_fitted_platt(logits, own, known, folds)
            verdicts = learnable(
                own,
                known,
                logits,
                held_in_probabilities,
                folds,
                groups[held_in],
                seed=config.seed,
            )
            classifier, spreads = decide(config, joint, own, held_in_probabilities, folds)
            test = division.test
            probabilities = classifier.probabilities(joint.raw_logits)
            figures = judge_test(
                teaching.human[test],
                teaching.human[test] != MISSING,
                probabilities[test],
                classifier.threshold,
                groups[test],
                seed=config.seed,
            )
            advance(len(names))
        warn_unlearnable(names, verdicts, figures, journal)

        save_classifier(workdir, inputs, classifier)
        write_quarantine(workdir / "quarantine.csv", collection.quarantine)
        write_json(
            workdir / "thresholds.json", threshold_records(config, names, classifier, spreads)
        )
        shown = probabilities.copy()
        shown[held_in] = held_in_probabilities
        write_scores(
            workdir / "scores.csv", collection, names, teaching, shown, classifier, division
        )
        # By these an evaluation knows again what was learned from.
        seen = SeenImages.of(features.pooled, held_in)
        write_json(
            workdir / "split.json",
            {
                "held_in": [collection.images.digests[row] for row in held_in],
                "held_in_groups": group_digests(collection, held_in),
                "held_in_features": seen.write(workdir / "held_in.npz"),
                "test": [collection.images.filenames[row] for row in test],
                "test_groups": groups[test].tolist(),
            },
        )
        summary = describe_run(config, workdir, collection, backbone, journal) | {
            "labels": label_records(
                names, classifier, spreads, verdicts, figures, table.names, unfit
            ),
            "test": {name: value._asdict() for name, value in figures.intervals.items()},
            "undefined": figures.metrics.reasons,
            "verdict": figures.verdict,
            "best_epoch": joint.best_epoch,
        }
        summary["data"] |= {"held_in": len(held_in), "test": len(test)}
        summary["data"]["left_out_of_split"] = [table.filenames[row] for row in division.left_out]
        summary["data"] |= group_record(found, collection)
        # The summary marks the run as finished, so it comes after every file but the report.
        write_json(workdir / "summary.json", summary)
        report_beside(summary, workdir, journal)
        show(summary, workdir, journal)
        return summary


def dry_run(
    config: ConfigDict, workdir: Path, collection: Collection, backbone: Backbone, journal: Journal
) -> dict[str, Any]:
    """Tries every phase of the run, and keeps nothing; see `rehearse`."""
    table = collection.table
    human = np.where(table.human, table.values, np.int8(MISSING))
    division = divide(
        known_groups(collection),
        human,
        config.test_fraction,
        config.folds,
        config.seed,
        given_split(collection),
    )
    unfit = unfit_labels(config, table.names, human, division)
    for warning in left_out_warnings(table.names, unfit):
        journal.warn(warning)
    fitted = [column for column in range(len(table.names)) if column not in unfit]
    samples = joint_samples(config, human[:, fitted], division.held_in, division.splits)
    course = Course(
        samples,
        np.tile(fitted, (len(samples), 1)),
        max(split.stop.size for split in division.splits),
    )
    return rehearse(config, workdir, collection, backbone, course, journal)


def adopt_source(config: ConfigDict, journal: Journal) -> tuple[ConfigDict, Run | None]:
    """Takes the table of an impute run, and its way of seeing images, where no data are named.

    Returns:
      (the configuration, the run whose table it takes; None where data are named).

    Raises:
      CheckpointError: `config.source` holds no finished impute run; the message lists those nearby.
    """
    if config.data.labels or config.data.images or config.data.demo:
        return config, None
    try:
        source = open_run(Path(config.source), ("impute",), "config.source")
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; or give labels and images (config.data.labels, config.data.images), or "
            "config.data.demo=true for drawn pictures"
        ) from error
    seen = run_config(source)
    taken: dict[str, Any] = {
        "data.labels": str(source.workdir / "labels.csv"),
        "data.images": "" if source.features_file else str(image_folder_of(source)),
        "features.file": source.features_file,
        "data.demo": source.demo,
        "data.follow_links": config.data.follow_links or seen.data.follow_links,
    }
    for key in ADOPTED:
        group, _, name = key.rpartition(".")
        if config[group][name] is None:
            taken[key] = seen[group][name]
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(taken)
    journal.note(f"the table of {config.source}: {' '.join(f'{k}={v}' for k, v in taken.items())}")
    return config, source


def check_source(source: Run, collection: Collection) -> None:
    """Compares what is adopted from a run with what the run was made from.

    Raises:
      CheckpointError: the table or the images have changed since.
    """
    own = without_filled(collection)
    now = {"labels": own.table.digest()}
    size = source.inputs["config"]["data"]["image_size"]
    if list(collection.images.image_size) == list(size):
        now["images"] = collection.images.digest()
    elif collection.images.files_digest != source.summary["digests"].get("image_files"):
        now["images"] = ""  # resized to another size they cannot be compared, but their files can
    check_inputs(source, now)


def unfit_labels(
    config: ConfigDict, names: tuple[str, ...], human: np.ndarray, division: Division
) -> dict[int, str]:
    """Finds the labels that cannot be learned and judged, column to reason.

    Raises:
      LabelsError: no label is left.
    """
    reasons: dict[int, str] = {}
    for column in range(len(names)):
        reason = unfit_reason(human[:, column], division.splits, solves_exactly(config))
        if reason is not None:
            reasons[column] = reason
    if len(reasons) == len(names):
        raise LabelsError(
            f"no label can be fitted ({'; '.join(dict.fromkeys(reasons.values()))}); give more "
            "labelled images"
        )
    return reasons


def say_left_out(
    groups: np.ndarray, division: Division, collection: Collection, journal: Journal
) -> None:
    """Warns of groups that a given split tears apart.

    Images that go with a test image are left out; what is torn between folds, `rotations` purges.
    """
    if division.left_out.size:
        first = ", ".join(collection.images.filenames[row] for row in division.left_out[:10])
        journal.warn(
            f"{len(division.left_out)} images go with images of the test split, but "
            "config.data.split has them outside it: they are left out of the fit "
            f"({first}{', …' if len(division.left_out) > 10 else ''})"
        )
    held_in = division.held_in
    names = [collection.images.filenames[row] for row in held_in]
    say_torn(groups[held_in], division.fold_of[held_in], names, journal)


def make_teaching(
    config: ConfigDict,
    collection: Collection,
    human: np.ndarray,
    fitted: list[int],
    division: Division,
    journal: Journal,
) -> Teaching:
    """The cells that are learned from: human ones whole, filled ones as the configuration says."""
    table = collection.table
    known = human != MISSING
    confidence = np.nan_to_num(collection.confidence)
    weights = np.where(known, 1.0, config.loss.imputed_weight * confidence)
    entering = int(((weights > 0) & ~known)[division.held_in].sum())
    if entering:
        journal.warn(
            f"{entering} filled cells enter the loss; the models that filled them had seen labels "
            "of test images, so the test figures may flatter a little"
        )
    else:
        journal.note("filled and blank cells are masked: the loss sees human labels only")
    return Teaching(human[:, fitted], table.values[:, fitted], weights[:, fitted])


def fit_classifier(
    config: ConfigDict,
    workdir: Path,
    collection: Collection,
    backbone: Backbone,
    features: Features,
    devices: Devices,
    division: Division,
    teaching: Teaching,
    journal: Journal,
) -> JointFit:
    """Trains the classifier with its siblings."""
    journal.note(
        f"training 1 {config.head.name} head on {len(division.held_in)} images and "
        f"{len(division.splits)} siblings, {teaching.human.shape[1]} labels each; "
        f"{len(division.test)} images held out; {devices.count} {devices.platform} device(s) "
        f"under {config.parallel}"
    )
    checkpoints = Checkpoints(workdir / "checkpoints", run_inputs(config, collection, backbone))
    writer = MetricsWriter(workdir, journal.warn)
    try:
        exact = solves_exactly(config)
        steps = (MOST_STEPS, "strengths") if exact else (config.epochs, "epochs")
        with journal.phase("train classifier", *steps) as advance:

            def on_epoch(epoch: int, metrics: dict[str, Any]) -> None:
                writer.write(epoch, metrics)
                advance(1)

            return fit_joint(
                config,
                teaching,
                division.held_in,
                division.splits,
                features,
                feature_shape_of(config, backbone),
                devices,
                checkpoints,
                on_epoch,
                journal.warn,
            )
    finally:
        writer.close()
        checkpoints.close()


def decide(
    config: ConfigDict,
    joint: JointFit,
    labels: np.ndarray,
    probabilities: np.ndarray,
    folds: np.ndarray,
) -> tuple[Classifier, list[tuple[float, float]]]:
    """Calibration and thresholds, from held-in human labels only.

    Args:
      config: the run's configuration.
      joint: the trained heads.
      labels, probabilities, folds: of the held-in rows; probabilities are the siblings', out of
        fold and calibrated on other folds.

    Returns:
      (the classifier, the spread of each label's threshold over folds).
    """
    held_in = ~np.isnan(joint.out_of_fold).any(axis=1)
    known = labels != MISSING
    slope, intercept, _ = fit_platt_per_label(joint.out_of_fold[held_in], labels, known)
    rule = config.threshold
    choose = partial(
        choose_threshold, rule.rule, min_recall=rule.min_recall, cost_ratio=rule.cost_ratio
    )
    columns = [
        (labels[:, column], known[:, column], probabilities[:, column])
        for column in range(labels.shape[1])
    ]
    threshold = np.array([choose(*column) for column in columns])
    spreads = [spread_over_folds(fold_thresholds(choose, *column, folds)) for column in columns]
    classifier = Classifier(
        joint.params,
        joint.last_params,
        joint.mean,
        joint.std,
        joint.shift,
        slope,
        intercept,
        threshold,
    )
    return classifier, spreads


def warn_unlearnable(
    names: list[str], verdicts: list[Verdict], figures: TestFigures, journal: Journal
) -> None:
    """Says the test's verdict, and warns once of the labels that are no better than chance."""
    unlearnable = [
        f"{name} (out of fold: {verdict.reason})"
        for name, verdict in zip(names, verdicts, strict=True)
        if not verdict.learnable
    ]
    if unlearnable:
        journal.warn(
            f"{len(unlearnable)} of {len(names)} labels cannot be learned from these images: "
            f"{numbers.shortened(unlearnable)}"
        )
    if "no better than chance" in figures.verdict:
        journal.warn(figures.verdict)
    else:
        journal.note(figures.verdict)


def threshold_records(
    config: ConfigDict,
    names: list[str],
    classifier: Classifier,
    spreads: list[tuple[float, float]],
) -> dict[str, dict[str, Any]]:
    """thresholds.json: per label the threshold, its rule, and its spread over folds."""
    return {
        name: {
            "threshold": float(classifier.threshold[column]),
            "rule": config.threshold.rule,
            "spread": list(spreads[column]),
        }
        for column, name in enumerate(names)
    }


def write_scores(
    path: Path,
    collection: Collection,
    names: list[str],
    teaching: Teaching,
    probabilities: np.ndarray,
    classifier: Classifier,
    division: Division,
) -> None:
    """scores.csv: every human cell with its split and probability; held-in ones out of fold.

    Those of images that are left out of a given split are in no part of it.
    """
    used = np.ones(len(teaching.human), np.bool_)
    used[division.left_out] = False
    rows, columns = np.nonzero((teaching.human != MISSING) & used[:, None])
    split = np.full(len(teaching.human), "held_in", object)
    split[division.test] = "test"
    frame = pd.DataFrame(
        {
            "filename": np.array(collection.images.filenames, object)[rows],
            "label": np.array(names, object)[columns],
            "value": teaching.human[rows, columns],
            "split": split[rows],
            "probability": probabilities[rows, columns],
            "threshold": classifier.threshold[columns],
        }
    )
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False)


def label_records(
    names: list[str],
    classifier: Classifier,
    spreads: list[tuple[float, float]],
    verdicts: list[Verdict],
    figures: TestFigures,
    all_names: tuple[str, ...],
    unfit: dict[int, str],
) -> dict[str, dict[str, Any]]:
    """summary.json's `labels`: figures on the test split, human labels only."""
    records: dict[str, dict[str, Any]] = {}
    for column, name in enumerate(names):
        metrics, verdict = figures.metrics.per_label[column], verdicts[column]
        records[name] = {
            "learnable": verdict.learnable,
            "verdict": verdict.reason,
            "fitted": True,
            "p_value": verdict.p_holm,
            "test_p_value": float(figures.p_values[column]),
            "threshold": float(classifier.threshold[column]),
            "threshold_spread": list(spreads[column]),
            "log_loss_out_of_fold": verdict.log_loss,
            "prior_log_loss": verdict.prior_log_loss,
            "metrics": metrics.values,
            "undefined": metrics.reasons,
        }
    for column, reason in unfit.items():
        records[all_names[column]] = {"learnable": False, "verdict": reason, "fitted": False}
    return {name: records[name] for name in all_names}
