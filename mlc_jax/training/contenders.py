"""The ways to learn from a table with blanks that a comparison sets side by side.

All see the same images in the same folds with the same features, and each answers for every image
out of fold. Unless said otherwise their answers are calibrated alike, so that figures differ by
what was learned.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ml_collections import ConfigDict
from sklearn.linear_model import LogisticRegression

from mlc_jax.assess.calibration import cross_fitted_platt, sigmoid
from mlc_jax.assess.context_patterns import draw_patterns
from mlc_jax.assess.metrics import log_loss
from mlc_jax.assess.out_of_fold import Judgement
from mlc_jax.assess.thresholds import Rule, choose_threshold, fold_thresholds
from mlc_jax.data.folds import Split
from mlc_jax.data.splits import GivenSplit
from mlc_jax.settings import solves_exactly, with_training_keys
from mlc_jax.training.completion import Deal, complete
from mlc_jax.training.crossfit import cross_fit, human_lesson, make_heads, taught_heads
from mlc_jax.training.features import Features
from mlc_jax.training.linear_crossfit import LinearCrossFit
from mlc_jax.training.parallel import Devices

# These learn from unknown cells as well, so they are shown them.
_SEE_UNKNOWN = ("class_selective", "splc", "large_loss")

LOSSES = {
    "weighted_bce": "class weights",
    "focal": "focal loss",
    "asymmetric": "asymmetric loss",
    "partial_bce": "partial BCE",
    "class_selective": "class-aware selective loss",
    "hill": "Hill loss",
    "splc": "SPLC",
    "large_loss": "large-loss rejection",
}
OPTIMIZERS = {
    "adam": 3e-3,
    "adamw": 3e-3,
    "rmsprop": 1e-3,
    "adagrad": 1e-2,
    "adadelta": 1.0,
    "sgd": 1e-2,
    "lion": 3e-4,
}
SCHEDULES = ("constant", "cosine", "exponential", "piecewise", "one_cycle", "plateau", "notebook")
RULES: tuple[Rule, ...] = ("fixed", "matched", "f1", "g_mean", "youden", "recall", "cost")


@dataclass(frozen=True)
class Bench:
    """What every contender is given.

    Attributes:
      config: the run's configuration.
      values: int8 [N, L], cells that people gave; -1 elsewhere.
      groups: int64 [N], equal for images that lie in one fold.
      deal: the folds.
      features: of all images.
      shape: (h, w, C) of one view.
      devices: what runs the programs.
      split: what the user gave of the folds.
    """

    config: ConfigDict
    values: np.ndarray
    groups: np.ndarray
    deal: Deal
    features: Features
    shape: tuple[int, int, int]
    devices: Devices
    split: GivenSplit | None = None

    def judge(
        self,
        config: ConfigDict,
        values: np.ndarray,
        deal: Deal,
        warn: Callable[[str], None] = lambda _: None,
    ) -> Judgement:
        """Completes a table of these images and keeps no checkpoint; arguments as of `complete`."""
        return complete(
            config,
            values,
            self.groups,
            deal,
            self.features,
            self.shape,
            self.devices,
            lambda _: None,
            lambda *_: None,
            warn,
        ).judgement


@dataclass(frozen=True)
class Answer:
    """What a contender says of every image, out of fold.

    Attributes:
      name: for people.
      probabilities: float64 [N, L]; NaN for labels that cannot be fitted.
      thresholds: float64 [N, L].
      seconds: wall time, without the features.
    """

    name: str
    probabilities: np.ndarray
    thresholds: np.ndarray
    seconds: float


Contender = tuple[str, Callable[[], tuple[np.ndarray, np.ndarray]]]
"""A name, and what gives (probabilities, thresholds)."""


def ask(contender: Contender) -> Answer:
    """Runs one contender."""
    name, run = contender
    started = time.perf_counter()
    probabilities, thresholds = run()
    return Answer(name, probabilities, thresholds, time.perf_counter() - started)


WITHOUT_CONTEXT = "mlc_jax without the other labels"
"""The name of the row whose heads see nothing but the image."""

MASKED = "loss.name=bce oversample=none impute.rounds=0 impute.threshold=fixed"


def keys_of(name: str) -> str:
    """The keys of the impute job that give a contender, `KEY=VALUE` joined by spaces.

    Empty where none do: the majority and scikit-learn's regression are there as outside checks.
    """
    keys = {
        "the original recipe, split repaired": "impute.method=notebook",
        "the original's network, split repaired": "head.name=conv impute.method=notebook",
        "masked BCE": MASKED,
        "conv heads, masked BCE": f"head.name=conv {MASKED}",
        "oversampling, corrected": MASKED.replace("oversample=none", "oversample=label"),
        "self-training, 2 rounds": "impute.rounds=2",
        WITHOUT_CONTEXT: "impute.rounds=0",
    }
    keys |= {title: MASKED.replace("=bce", f"={loss}") for loss, title in LOSSES.items()}
    return keys.get(name, "")


def default_contenders(bench: Bench) -> list[Contender]:
    """What the recipe did, what the literature offers for blanks, an outside check, and mlc_jax."""
    by_loss: list[Contender] = [
        (title, lambda name=name: _by_loss(bench, name))  # type: ignore[misc]
        for name, title in LOSSES.items()
    ]
    return [
        ("majority", lambda: majority(bench)),
        ("the original recipe, split repaired", lambda: _complete(bench, method="notebook")),
        ("masked BCE", lambda: _by_loss(bench, "bce")),
        ("oversampling, corrected", lambda: _by_loss(bench, "bce", oversample="label")),
        *by_loss,
        ("self-training, 2 rounds", lambda: _complete(bench, rounds=2)),
        ("logistic regression (scikit-learn)", lambda: logistic_regression(bench)),
        (
            "logistic regression with the other labels (scikit-learn)",
            lambda: logistic_regression(bench, context=True),
        ),
        (WITHOUT_CONTEXT, lambda: _complete(bench, rounds=0)),
        mlc_jax(bench),
    ]


def mlc_jax(bench: Bench) -> Contender:
    """What the impute job does with the same keys."""
    return "mlc_jax", lambda: _complete(bench)


def full_contenders(bench: Bench, conv: Bench) -> list[Contender]:
    """The default ones, convolutional heads, and the original's network.

    Args:
      bench: with pooled features and linear heads.
      conv: with feature maps and `head.name` conv.
    """
    return [
        *default_contenders(bench),
        ("conv heads, masked BCE", lambda: _by_loss(conv, "bce")),
        ("the original's network, split repaired", lambda: _complete(conv, method="notebook")),
    ]


def training_contenders(bench: Bench) -> list[Contender]:
    """The original's to-do list: optimizers, schedules and tuned thresholds, all on masked BCE."""

    def tuned(rule: Rule) -> tuple[np.ndarray, np.ndarray]:
        probabilities, _ = _by_steps(bench, "bce")
        known = bench.values >= 0
        cuts = np.full(probabilities.shape, np.nan)
        fold = np.unique(bench.deal.fold_of, return_inverse=True)[1]
        for label in _fitted(bench):
            by_fold = fold_thresholds(
                lambda *cells: choose_threshold(rule, *cells),
                bench.values[:, label],
                known[:, label],
                probabilities[:, label],
                bench.deal.fold_of,
            )
            cuts[:, label] = by_fold[fold]
        return probabilities, cuts

    optimizers: list[Contender] = [
        (
            f"{name}, rate {rate:g}, cosine",
            lambda name=name, rate=rate: _by_steps(  # type: ignore[misc]
                bench,
                "bce",
                **{
                    "optimizer.name": name,
                    "optimizer.learning_rate": rate,
                    "schedule.name": "cosine",
                },
            ),
        )
        for name, rate in OPTIMIZERS.items()
    ]
    schedules: list[Contender] = [
        (
            f"adam, {name}",
            lambda name=name: _by_steps(bench, "bce", **{"schedule.name": name}),  # type: ignore[misc]
        )
        for name in SCHEDULES
        if name != "cosine"
    ]
    cuts: list[Contender] = [
        (f"adam, cosine, thresholds by {rule}", lambda rule=rule: tuned(rule))  # type: ignore[misc]
        for rule in RULES
        if rule != "fixed"
    ]
    return [*optimizers, *schedules, *cuts]


def majority(bench: Bench) -> tuple[np.ndarray, np.ndarray]:
    """The share of positives on the other folds: what one knows without looking."""
    probabilities = np.full(bench.values.shape, np.nan)
    for fold in np.unique(bench.deal.fold_of):
        own = bench.deal.fold_of == fold
        others = bench.values[~own]
        known = (others >= 0).sum(axis=0)
        probabilities[own] = ((others == 1).sum(axis=0) + 0.5) / (known + 1.0)
    probabilities[:, list(bench.deal.unfit)] = np.nan
    return probabilities, np.full(bench.values.shape, 0.5)


def logistic_regression(bench: Bench, *, context: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's, per label and fold, on the pooled features, strength chosen on the stop fold.

    Nobody here wrote it: the outside check. With `context` the image's other labels stand beside
    its features, scaled as mlc_jax has them: 0 where they are blank, and in the judged fold no more
    of them than blanks of the label have (`draw_patterns`, the same for all).
    """
    known, pooled = bench.values >= 0, bench.features.moments[0]
    logits = np.full(bench.values.shape, np.nan)
    for split in bench.deal.splits[: int(bench.deal.fold_of.max()) + 1]:
        fitted = pooled[split.train]
        mean, spread = fitted.mean(axis=0), np.maximum(fitted.std(axis=0), 1e-12)
        standard = ((pooled - mean) / spread).astype(np.float32)
        for label in _fitted(bench):
            column = bench.values[:, label]
            train = split.train[column[split.train] >= 0]
            stop = split.stop[column[split.stop] >= 0]
            columns = standard
            if context:
                others = _other_labels(bench.values, known, split, label, bench.config.seed)
                columns = np.hstack([standard, others * math.sqrt(standard.shape[1])])
            best = np.inf
            for strength in (0.1, 0.01, 0.001, 0.0001):
                model = LogisticRegression(C=strength, max_iter=2000)
                model.fit(columns[train], column[train])
                loss = log_loss(column[stop], sigmoid(model.decision_function(columns[stop])))
                if loss < best:
                    best = loss
                    logits[split.predict, label] = model.decision_function(columns[split.predict])
    return _calibrated(bench, logits)


def _other_labels(
    values: np.ndarray, known: np.ndarray, split: Split, label: int, seed: int
) -> np.ndarray:
    """The other labels, float32 [N, L - 1], centred on the training rows; 0 where blank."""
    seen = known.copy()
    patterns = draw_patterns(known, label, np.random.default_rng([seed, 0xC0, label]))
    seen[split.predict] = patterns[split.predict]
    train = known[split.train]
    share = (values[split.train] == 1).sum(axis=0) / np.maximum(train.sum(axis=0), 1)
    centred = np.where(seen, 2 * (values - share), 0.0)
    return np.delete(centred, label, axis=1).astype(np.float32)


def _by_loss(bench: Bench, loss: str, **changes: object) -> tuple[np.ndarray, np.ndarray]:
    """One cross-fit with a loss, solved exactly where that can be, calibrated, cut at 0.5."""
    config = with_training_keys(bench.config, {"loss.name": loss, "oversample": "none", **changes})
    if not solves_exactly(config):
        return _by_steps(bench, loss, **changes)
    lesson = human_lesson(bench.values)
    splits = bench.deal.splits[: int(bench.deal.fold_of.max()) + 1]
    cross_fit = LinearCrossFit(
        config, bench.values, _fitted(bench), [splits], bench.features, bench.devices
    )
    fitted = cross_fit.fit(lesson, lambda _: None, lambda _: None, lambda _: None)
    return _calibrated(bench, fitted.logits)


def _by_steps(bench: Bench, loss: str, **changes: object) -> tuple[np.ndarray, np.ndarray]:
    """One cross-fit with a loss, trained step by step, calibrated, cut at 0.5."""
    config = with_training_keys(bench.config, {"loss.name": loss, "oversample": "none", **changes})
    ratio = config.oversample_ratio if config.oversample == "label" else 0.0
    labels, splits = _fitted(bench), bench.deal.splits
    heads = (
        taught_heads(bench.values, labels, splits)
        if loss in _SEE_UNKNOWN
        else make_heads(bench.values, labels, splits, ratio)
    )
    fitted = cross_fit(
        config,
        bench.values,
        human_lesson(bench.values),
        heads,
        bench.features,
        bench.shape,
        bench.devices,
        None,
        lambda _: None,
        lambda _: None,
    )
    return _calibrated(bench, fitted.logits)


def _calibrated(bench: Bench, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = bench.values >= 0
    known[:, list(bench.deal.unfit)] = False
    finite = np.nan_to_num(logits)
    probabilities, _ = cross_fitted_platt(finite, bench.values, known, bench.deal.fold_of)
    probabilities[:, list(bench.deal.unfit)] = np.nan
    return probabilities, np.full(logits.shape, 0.5)


def _complete(bench: Bench, **impute: object) -> tuple[np.ndarray, np.ndarray]:
    """The impute job's own way, with keys of `config.impute` changed."""
    config = bench.config.copy_and_resolve_references()
    config.impute.update(impute)
    if config.impute.method == "notebook":
        notebook = {"impute.threshold": "fixed", "impute.rounds": 0}
        sampling = {"oversample": "label", "oversample_ratio": 0.5}
        config = with_training_keys(config, notebook | sampling)
    judgement = bench.judge(config, bench.values, bench.deal)
    return judgement.probabilities, judgement.cell_thresholds


def _fitted(bench: Bench) -> list[int]:
    return [label for label in range(bench.values.shape[1]) if label not in bench.deal.unfit]
