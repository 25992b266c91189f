"""Completing a table: deal into folds, cross-fit, teach in rounds what was learned, judge.

The part of stage 1 that an audit repeats on tables with more blanks: it reads no file and writes
none but checkpoints.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mlc_jax.assess.out_of_fold import DecisionRules, Judgement, judge
from mlc_jax.data.folds import Split, make_folds
from mlc_jax.data.splits import GivenSplit
from mlc_jax.data.table import MISSING
from mlc_jax.errors import ConfigError, LabelsError
from mlc_jax.processes import agreed
from mlc_jax.settings import solves_exactly
from mlc_jax.training.blank_context import logits_as_of_blanks
from mlc_jax.training.checkpoint import Checkpoints
from mlc_jax.training.crossfit import (
    CrossFit,
    Head,
    Lesson,
    cross_fit,
    figures_for_people,
    human_lesson,
    make_heads,
    taught_heads,
    unfit_reason,
)
from mlc_jax.training.features import Features
from mlc_jax.training.linear_crossfit import (
    LinearCrossFit,
    path_metrics,
)
from mlc_jax.training.parallel import Devices
from mlc_jax.training.selftraining import Gain, gains, self_taught
from mlc_jax.training.unjudged import unjudged_labels, unjudged_probabilities

MetricsOf = Callable[[Sequence[str]], dict[str, Any]]
"""Gives the metrics of an epoch as JSON, per label, from the names of all labels."""

FitRound = Callable[..., CrossFit]


@dataclass(frozen=True)
class Deal:
    """How the images of a table lie in folds, before anything is fitted.

    Attributes:
      fold_of: int64 [N], the fold that each image is judged in.
      splits: of that deal, and of the further ones of an ensemble.
      unfit: column to the reason why a label cannot be fitted, or not judged.
      unjudged: the columns of `unfit` whose blanks get a probability all the same.
    """

    fold_of: np.ndarray
    splits: tuple[Split, ...]
    unfit: dict[int, str]
    unjudged: list[int]


@dataclass(frozen=True)
class Completion:
    """A judged cross-fit.

    Attributes:
      deal: which image was asked about by whom.
      judgement: probabilities, thresholds and figures.
      model_round: int [L], the round whose heads speak of each label; 0 is the first fit.
      rounds: per round after the first, column to what it gained.
      fits: the heads of each round.
    """

    deal: Deal
    judgement: Judgement
    model_round: np.ndarray
    rounds: list[dict[int, Gain]]
    fits: tuple[CrossFit, ...]


def deal_out(
    config: ConfigDict, values: np.ndarray, groups: np.ndarray, given: GivenSplit | None = None
) -> Deal:
    """Deals the images into folds, `config.impute.deals` times, and finds what cannot be fitted.

    Args:
      config: the run's configuration.
      values: int8 [N, L], cells that people gave; -1 elsewhere.
      groups: int [N], equal for images that must lie in one fold.
      given: the split that the user gave.

    Raises:
      LabelsError: no label can be fitted.
      ConfigError: see `make_folds`; or folds of which all are given are to be dealt again.
    """
    if given is not None and given.numbered and config.impute.deals > 1:
        raise ConfigError(
            f"config.impute.deals={config.impute.deals}: config.data.split gives every fold, so "
            "nothing is dealt; leave impute.deals at 1, or give train, val and test"
        )
    fold_of, splits = make_folds(groups, values, config.folds, config.seed, given)
    for number in range(1, config.impute.deals):
        seed = config.seed + 1000 * number
        splits += make_folds(groups, values, config.folds, seed, given)[1]
    # Every method of a comparison must be able to fit every label.
    exact = solves_exactly(config) and config.stage != "compare"
    reasons = {
        column: reason
        for column in range(values.shape[1])
        if (reason := unfit_reason(values[:, column], splits, exact)) is not None
    }
    if len(reasons) == values.shape[1]:
        raise LabelsError(
            f"no label can be fitted ({'; '.join(dict.fromkeys(reasons.values()))}); give more "
            "labelled images"
        )
    return Deal(fold_of, splits, reasons, unjudged_labels(values, reasons) if exact else [])


def fitted_labels(values: np.ndarray, deal: Deal) -> list[int]:
    """The columns that can be fitted."""
    return [column for column in range(values.shape[1]) if column not in deal.unfit]


def first_heads(config: ConfigDict, values: np.ndarray, deal: Deal) -> tuple[Head, ...]:
    """The heads of the first fit, before any self-training."""
    ratio = config.oversample_ratio if config.oversample == "label" else 0.0
    return make_heads(values, fitted_labels(values, deal), deal.splits, ratio)


def complete(
    config: ConfigDict,
    values: np.ndarray,
    groups: np.ndarray,
    deal: Deal,
    features: Features,
    feature_shape: tuple[int, int, int],
    devices: Devices,
    checkpoints_of: Callable[[str], Checkpoints | None],
    on_epoch: Callable[[int, int, MetricsOf], None],
    warn: Callable[[str], None],
) -> Completion:
    """Fits, repeats the fit with pseudo-labels and context as long as that helps, and judges.

    Args:
      config: the run's configuration; `config.impute.method` notebook takes the original recipe's
        decisions: probabilities as they come out of the oversampled fit, one cut for all.
      values: int8 [N, L], cells that people gave; -1 elsewhere.
      groups: int [N], equal for images that lie in one fold.
      deal: from `deal_out`.
      features, feature_shape, devices: see `cross_fit`.
      checkpoints_of: the checkpoints of a round, by the name of their folder.
      on_epoch: called with (round, epoch or step of the strength path, what gives its metrics).
      warn: called with what is wrong with damaged checkpoints.
    """
    labels = fitted_labels(values, deal)
    rounds = config.impute.rounds if len(labels) else 0
    fit_round = (
        _linear_rounds(config, values, labels, deal, features, devices)
        if solves_exactly(config)
        else _trained_rounds(config, values, labels, deal, features, feature_shape, devices)
    )

    fitted = fit_round(0, human_lesson(values), checkpoints_of, on_epoch, warn)
    logits, by_split = fitted.logits.copy(), fitted.by_split.copy()
    judged, of_blanks = logits.copy(), fitted.of_blanks()
    model_round = np.zeros(values.shape[1], np.int64)
    told: list[dict[int, Gain]] = []
    fits = [fitted]
    for number in range(1, rounds + 1):
        lesson = self_taught(values, deal.splits, by_split, fits[0].by_split)
        again = fit_round(number, lesson, checkpoints_of, on_epoch, warn)
        fits.append(again)
        as_of_blanks = logits_as_of_blanks(
            again, values, deal.splits, fits[0].by_split, config.seed
        )
        found = gains(values, judged, as_of_blanks, deal.fold_of, groups, labels)
        told.append(found)
        accepted = agreed([label for label in labels if found[label].accepted])
        if not accepted:
            break
        logits[:, accepted] = again.logits[:, accepted]
        judged[:, accepted] = as_of_blanks[:, accepted]
        of_blanks[:, accepted] = again.of_blanks()[:, accepted]
        model_round[accepted] = number
        if number < rounds:
            by_split[:, :, accepted] = again.by_split[:, :, accepted]
    unjudged = np.full(values.shape, np.nan)
    if deal.unjudged:
        assert fits[0].strengths is not None
        own = values[:, deal.unjudged]
        unjudged[:, deal.unjudged] = unjudged_probabilities(
            config, own, fits[0].strengths, features, devices
        )
    notebook = config.impute.method == "notebook"
    judgement = judge(
        judged,
        values,
        values != MISSING,
        deal.fold_of,
        groups,
        deal.unfit,
        DecisionRules(
            threshold=config.impute.threshold,
            max_error=config.impute.max_error,
            max_error_of=config.impute.max_error_of,
            # The original filled every label alike, whether it could be learned or not.
            unlearnable="matched" if notebook else config.impute.unlearnable,
            calibrate=not notebook,
            seed=config.seed,
        ),
        full_context=logits,
        of_blanks=of_blanks,
        unjudged=unjudged,
    )
    return Completion(deal, judgement, model_round, told, tuple(fits))


def _linear_rounds(
    config: ConfigDict,
    values: np.ndarray,
    labels: list[int],
    deal: Deal,
    features: Features,
    devices: Devices,
) -> FitRound:
    """Rounds of linear heads, solved exactly."""
    each = len(deal.splits) // config.impute.deals
    starts = range(0, len(deal.splits), each)
    assignments = [deal.splits[start : start + each] for start in starts]
    cross_fit = LinearCrossFit(config, values, labels, assignments, features, devices)

    def fit_round(
        number: int,
        lesson: Lesson,
        checkpoints_of: Callable[[str], Checkpoints | None],
        on_epoch: Callable[[int, int, MetricsOf], None],
        warn: Callable[[str], None],
    ) -> CrossFit:
        return cross_fit.fit(
            lesson,
            lambda own: checkpoints_of(f"round_{number}" + (f"_{own}" if own else "")),
            lambda step: on_epoch(number, step.step, partial(path_metrics, step, labels)),
            warn,
        )

    return fit_round


def _trained_rounds(
    config: ConfigDict,
    values: np.ndarray,
    labels: list[int],
    deal: Deal,
    features: Features,
    feature_shape: tuple[int, int, int],
    devices: Devices,
) -> FitRound:
    """Rounds of heads that are trained step by step."""

    def fit_round(
        number: int,
        lesson: Lesson,
        checkpoints_of: Callable[[str], Checkpoints | None],
        on_epoch: Callable[[int, int, MetricsOf], None],
        warn: Callable[[str], None],
    ) -> CrossFit:
        if number:
            heads = taught_heads(values, labels, deal.splits)
        else:
            heads = first_heads(config, values, deal)
        checkpoints = checkpoints_of(f"round_{number}")
        try:
            return cross_fit(
                config,
                values,
                lesson,
                heads,
                features,
                feature_shape,
                devices,
                checkpoints,
                lambda figures: on_epoch(
                    number, figures.epoch, partial(figures_for_people, figures, heads)
                ),
                warn,
                correct=config.impute.method != "notebook",
            )
        finally:
            if checkpoints is not None:
                checkpoints.close()

    return fit_round
