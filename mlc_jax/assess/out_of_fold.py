"""Judging a cross-fit by what its heads said about cells that a person gave and they never saw."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import get_args

import numpy as np

from mlc_jax.assess.acceptance import (
    Acceptance,
    ErrorBound,
    KnownCells,
    accept_up_to,
    confidence_of,
    error_bound,
)
from mlc_jax.assess.beta_calibration import cross_fitted_calibration
from mlc_jax.assess.calibration import sigmoid
from mlc_jax.assess.intervals import Interval, macro_roc_auc_interval
from mlc_jax.assess.learnability import Verdict, learnable
from mlc_jax.assess.metrics import BinaryMetrics, binary_metrics
from mlc_jax.assess.suspects import Suspects, find_suspects
from mlc_jax.assess.thresholds import (
    Rule,
    choose_threshold,
    fold_thresholds,
    matched_threshold,
    spread_over_folds,
)
from mlc_jax.errors import ConfigError


@dataclass(frozen=True)
class Judgement:
    """What a cross-fit is worth, per label and as a whole.

    Attributes:
      probabilities: float64 [N, L], calibrated by other folds: of a known cell out of fold, of a
        blank one by the heads of all folds; NaN where a label has no model.
      out_of_fold: float64 [N, L], the same with blank cells out of fold too, so that known and
        blank cells can be compared.
      thresholds: float64 [L], chosen on all folds; NaN likewise.
      cell_thresholds: float64 [N, L]; a cell is positive where its probability is greater. For a
        human cell it was chosen on the other folds, for a blank one it is the label's.
      spreads: (lowest, highest) threshold when one fold is left out, per label.
      decided: bool [N, L], whether the cell is given a value where it is blank: it has a model, its
        confidence is enough, and its label is not left blank as one that cannot be learned.
      accepted: bool [N, L], those of them whose label can be learned, or that the promise of
        `max_error` covers.
      acceptance: the rule of each label; with a pooled promise, one for all.
      error_bounds: per label, of the known cells that its rule accepts: those it would fill with 0
        and those it would fill with 1.
      metrics, verdicts: per label, on human labels only. `roc_auc` is that of the logits within
        folds (see the head of `intervals`), where calibration cannot flatten a fold; the others
        pool the folds, the average precision among them, which so reads slightly low.
      raw: float64 [N, L], the probabilities before calibration.
      uncalibrated: per label their figures, as `metrics`.
      suspects: per label, cells that a person gave and the model contradicts; none for a label that
        cannot be learned.
      macro_roc_auc: mean over the labels that have one, with a 95 % interval over groups.
    """

    probabilities: np.ndarray
    out_of_fold: np.ndarray
    thresholds: np.ndarray
    cell_thresholds: np.ndarray
    spreads: list[tuple[float, float]]
    decided: np.ndarray
    accepted: np.ndarray
    acceptance: list[Acceptance]
    error_bounds: list[tuple[ErrorBound, ErrorBound]]
    metrics: list[BinaryMetrics]
    raw: np.ndarray
    uncalibrated: list[BinaryMetrics]
    verdicts: list[Verdict]
    suspects: list[Suspects]
    macro_roc_auc: Interval


@dataclass(frozen=True)
class DecisionRules:
    """How cells are decided, the keys of `config.impute`.

    Attributes:
      threshold: a number, or a rule of `choose_threshold`; `matched` makes as many cells positive,
        known and blank together, as their calibrated probabilities add up to.
      max_error: what the error of the accepted blanks must not exceed.
      max_error_of: `pooled`: of all labels together; `label`: of each label by itself.
      unlearnable: what a label that cannot be learned is filled with. `majority`: its commoner
        value, which is wrong least often; `matched`: what `threshold` makes of it; `blank`:
        nothing, and what it would be is judged as for `majority`.
      calibrate: false to take probabilities as they come out of the fit.
      seed: of permutations and resamples.
    """

    threshold: str
    seed: int
    max_error: float = 1.0
    max_error_of: str = "pooled"
    unlearnable: str = "majority"
    calibrate: bool = True


def judge(
    logits: np.ndarray,
    labels: np.ndarray,
    human: np.ndarray,
    folds: np.ndarray,
    groups: np.ndarray,
    unfit: Mapping[int, str],
    rules: DecisionRules,
    full_context: np.ndarray | None = None,
    of_blanks: np.ndarray | None = None,
    unjudged: np.ndarray | None = None,
) -> Judgement:
    """Calibrates, chooses thresholds and measures, all on human labels and out of fold.

    Args:
      logits: float64 [N, L], out-of-fold; NaN for labels without a model. Of heads that see other
        labels: those of a known cell with as many of them as blanks have.
      labels: int8 [N, L], 0 or 1 where known.
      human: bool [N, L], cells that a person gave.
      folds: int [N], the fold that each image was predicted in.
      groups: int [N], equal for copies of one image, which count as one unit in every interval,
        test and bound.
      unfit: why a label has no model, for those that have none.
      rules: how cells are decided.
      full_context: float64 [N, L], the same with every other label that is known; by default
        `logits`. They find suspects, and are used for nothing else.
      of_blanks: float64 [N, L], what fills blank cells, by the heads of all folds; by default
        `logits`. Those of known cells are not used.
      unjudged: float64 [N, L], probabilities for the blanks of labels in `unfit`; NaN for others.
        Such blanks are filled, by `unlearnable`, and never accepted. By default there are none.

    Raises:
      ConfigError: no such threshold rule.
    """
    mask = human.copy()
    mask[:, list(unfit)] = False
    strictly = np.nan_to_num(logits)
    logits = strictly if of_blanks is None else np.where(human, strictly, np.nan_to_num(of_blanks))
    probabilities, maps = cross_fitted_calibration(logits, labels, mask, folds)
    unfit = {**maps.platt.reasons, **unfit}
    mask[:, list(unfit)] = False
    out_of_fold = maps.apply(strictly, folds)
    if not rules.calibrate:
        probabilities, out_of_fold = sigmoid(logits), sigmoid(strictly)
    probabilities[:, list(unfit)] = out_of_fold[:, list(unfit)] = np.nan
    finite = np.nan_to_num(probabilities)
    verdicts = learnable(labels, mask, logits, finite, folds, groups, seed=rules.seed)
    rule = _chooser(rules.threshold)
    thresholds = np.full(labels.shape[1], np.nan)
    spreads = [(float("nan"), float("nan"))] * labels.shape[1]
    cell_thresholds = np.full(labels.shape, np.nan)
    informed = finite if full_context is None else np.zeros(labels.shape)
    fold_number = np.unique(folds, return_inverse=True)[1]
    for label in (label for label in range(labels.shape[1]) if label not in unfit):
        column = labels[:, label], mask[:, label], probabilities[:, label]
        guess = rules.unlearnable != "matched" and not verdicts[label].learnable
        choose = _cut_for_majority if guess else rule
        thresholds[label] = choose(*column)
        # A cell that a person gave must not help to choose the threshold it is judged by. In the
        # probabilities of other folds it has a part, so each fold's own map, which has not seen it,
        # gives the probabilities among which that fold's threshold is chosen.
        own_map = probabilities[:, label]
        if rules.calibrate:
            own_map = maps.by_fold(logits[:, label], label)
        if full_context is not None:
            best = np.nan_to_num(full_context[:, label])
            informed[:, label] = (
                maps.by_fold(best, label)[fold_number, np.arange(len(labels))]
                if rules.calibrate
                else sigmoid(best)
            )
        by_fold = fold_thresholds(choose, *column[:2], own_map, folds)
        spreads[label] = spread_over_folds(by_fold)
        cell_thresholds[:, label] = np.where(
            mask[:, label], by_fold[fold_number], thresholds[label]
        )

    def figures(said: np.ndarray, cuts: np.ndarray) -> list[BinaryMetrics]:
        return [
            _without_model(labels[:, label], human[:, label], unfit[label])
            if label in unfit
            else _within_folds(
                binary_metrics(labels[:, label], mask[:, label], said[:, label], cuts[:, label]),
                verdicts[label].auc,
            )
            for label in range(labels.shape[1])
        ]

    values = (finite > np.nan_to_num(cell_thresholds, nan=1.0)).astype(np.int8)
    confidence = confidence_of(values, finite)
    modelled = np.isfinite(probabilities)
    cell_row, cell_label = np.nonzero(mask)
    wrong = (values != labels)[mask]
    known = KnownCells(confidence[mask], wrong, cell_label, groups[cell_row])
    acceptance = _acceptance(known, (~human & modelled).sum(axis=0), rules)
    sure = modelled & (confidence >= [rule.cut for rule in acceptance])
    learned = np.array([verdict.learnable for verdict in verdicts], np.bool_)
    left_blank = rules.unlearnable == "blank"
    accepted = sure & (learned if rules.max_error >= 1 or left_blank else True)
    decided = sure & (learned if left_blank else True)
    guesses = np.full(labels.shape, np.nan) if unjudged is None else unjudged
    for label in np.flatnonzero(np.isfinite(guesses).all(axis=0)).tolist():
        blank = ~human[:, label]
        probabilities[blank, label] = guesses[blank, label]
        # No cell was out of fold, so no other rule can be followed.
        choose = _match_mean if rules.unlearnable == "matched" else _cut_for_majority
        cut = choose(labels[:, label], human[:, label], guesses[:, label])
        thresholds[label] = cell_thresholds[:, label] = cut
        decided[:, label] = blank & (not left_blank)
    within = known.where(sure[mask])
    filled_with = values[mask][sure[mask]]
    return Judgement(
        probabilities,
        out_of_fold,
        thresholds,
        cell_thresholds,
        spreads,
        decided,
        accepted,
        acceptance,
        [
            (
                error_bound(within.where((within.label == label) & (filled_with == 0))),
                error_bound(within.where((within.label == label) & (filled_with == 1))),
            )
            for label in range(labels.shape[1])
        ],
        figures(probabilities, cell_thresholds),
        sigmoid(logits),
        figures(sigmoid(logits), np.full(labels.shape, 0.5)),
        verdicts,
        [
            find_suspects(labels[:, label], mask[:, label], informed[:, label])
            if verdicts[label].learnable
            else Suspects(np.zeros(0, np.int64), np.zeros(0))
            for label in range(labels.shape[1])
        ],
        macro_roc_auc_interval(labels, mask, logits, folds, groups),
    )


def _acceptance(known: KnownCells, blanks: np.ndarray, rules: DecisionRules) -> list[Acceptance]:
    """The rule of each label: one for all, or each by its own cells."""
    if rules.max_error_of == "pooled":
        return [accept_up_to(known, blanks, rules.max_error)] * blanks.size
    return [
        accept_up_to(known.where(known.label == label), blanks, rules.max_error)
        for label in range(blanks.size)
    ]


def _within_folds(pooled: BinaryMetrics, area: float) -> BinaryMetrics:
    """The figures with the ROC AUC within folds in the place of the pooled one."""
    values, reasons = pooled.values | {"roc_auc": area}, dict(pooled.reasons)
    if np.isnan(area):
        reasons.setdefault("roc_auc", "no fold has known cells of both classes")
    return BinaryMetrics(values, reasons)


def _without_model(labels: np.ndarray, human: np.ndarray, reason: str) -> BinaryMetrics:
    judged = binary_metrics(labels, human, np.zeros(labels.shape), 0.5)
    counts = ("count", "positives", "prevalence")
    values = {name: v if name in counts else float("nan") for name, v in judged.values.items()}
    return BinaryMetrics(values, {name: reason for name, v in values.items() if np.isnan(v)})


def _chooser(threshold: str) -> Callable[[np.ndarray, np.ndarray, np.ndarray], float]:
    if threshold == "matched":
        return _match_mean
    for rule in get_args(Rule):
        if threshold == rule:
            return partial(choose_threshold, rule)
    try:
        number = float(threshold)
    except ValueError:
        number = float("nan")
    if not 0 <= number <= 1:
        raise ConfigError(
            f"config.impute.threshold={threshold!r}: give a number from 0 to 1, or one of "
            f"{', '.join(get_args(Rule))}"
        )
    return lambda labels, mask, probabilities: number


def _cut_for_majority(labels: np.ndarray, mask: np.ndarray, probabilities: np.ndarray) -> float:
    """Above every probability, or below: all cells get the commoner value, 0 where they tie."""
    del probabilities
    return 0.0 if (labels[mask] == 1).mean() > 0.5 else 1.0


def _match_mean(labels: np.ndarray, mask: np.ndarray, probabilities: np.ndarray) -> float:
    del labels, mask
    return matched_threshold(probabilities, float(probabilities.mean()))
