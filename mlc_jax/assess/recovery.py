"""Hide and recover: known cells are hidden, filled, and compared with what they were.

The only measurement of filled cells themselves; every other figure speaks of known ones.
"""

from collections.abc import Callable

import numpy as np

from mlc_jax.assess.acceptance import confidence_of
from mlc_jax.assess.intervals import Interval
from mlc_jax.assess.metrics import calibration_error, ratio, reliability, roc_auc

COVERAGES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Shares of hidden cells, the most confident first, at which the precision of filling is told."""

KINDS = ("random", "by class", "rows")
"""Ways to hide cells, see `hide_cells`."""


def hide_cells(values: np.ndarray, share: float, kind: str, seed: int) -> np.ndarray:
    """Chooses known cells to hide; bool [N, L].

    Args:
      values: int8 [N, L], 0 or 1 where known.
      share: of the known cells of each label; of the rows with a known cell where rows are hidden.
      kind: "random"; "by class": positives are hidden three times as readily as negatives, so that
        what is missing depends on what it is; or "rows": all cells of a row, as of images that
        nobody has labelled.
      seed: of the draw.

    Raises:
      ValueError: another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"cells are hidden in one of {', '.join(KINDS)}, not {kind!r}")
    rng = np.random.default_rng([seed, 0x41DE])
    hidden = np.zeros(values.shape, np.bool_)
    if kind == "rows":
        rows = np.flatnonzero((values >= 0).any(axis=1))
        chosen = rng.choice(rows, round(share * rows.size), replace=False)
        hidden[chosen] = values[chosen] >= 0
        return hidden
    for label in range(values.shape[1]):
        known = np.flatnonzero(values[:, label] >= 0)
        weights = np.ones(known.size)
        if kind == "by class":
            weights[values[known, label] == 1] = 3.0
        count = round(share * known.size)
        if count:
            chosen = rng.choice(known, count, replace=False, p=weights / weights.sum())
            hidden[chosen, label] = True
    return hidden


def recovery_figures(
    truth: np.ndarray,
    hidden: np.ndarray,
    probabilities: np.ndarray,
    thresholds: np.ndarray,
    accepted: np.ndarray,
) -> dict[str, float]:
    """How well hidden cells came back, all labels together.

    Args:
      truth: int8 [N, L], 0 or 1 where hidden.
      hidden: bool [N, L]; cells without a probability are left out, and counted.
      probabilities: float64 [N, L], NaN where a label has no model.
      thresholds: float64 [N, L]; a cell is filled with 1 where its probability is greater.
      accepted: bool [N, L], cells that the promise of a small error lets through.

    Returns:
      accuracy (at the thresholds), accuracy_at_half, balanced_accuracy, mcc, roc_auc, brier, ece
      (10 bins), prevalence_error (mean over labels of |share filled with 1 − true share|),
      accepted_share, accepted_error, precision_at_P (accuracy on the P percent most confident), and
      unanswered (share of hidden cells without a model).
    """
    asked = hidden & np.isfinite(probabilities)
    given, p = truth[asked] == 1, probabilities[asked]
    filled = p > thresholds[asked]
    right = filled == given
    tp, fp = int((filled & given).sum()), int((filled & ~given).sum())
    fn, tn = int((~filled & given).sum()), int((~filled & ~given).sum())
    gaps = []
    for label in range(truth.shape[1]):
        own = asked[:, label]
        if own.any():
            made = probabilities[own, label] > thresholds[own, label]
            gaps.append(abs(made.mean() - (truth[own, label] == 1).mean()))
    order = np.argsort(-confidence_of(filled.astype(np.int8), p), kind="stable")
    taken = accepted[asked]
    figures = {
        "accuracy": ratio(tp + tn, len(p)),
        "accuracy_at_half": ratio(int(((p > 0.5) == given).sum()), len(p)),
        "balanced_accuracy": (ratio(tp, tp + fn) + ratio(tn, tn + fp)) / 2,
        "mcc": ratio(
            float(tp) * tn - float(fp) * fn,
            float(np.sqrt(float(tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))),
        ),
        "roc_auc": roc_auc(given, p),
        "brier": ratio(float(np.sum((p - given) ** 2)), len(p)),
        "ece": calibration_error(reliability(given, p)),
        "prevalence_error": ratio(float(np.sum(gaps)), len(gaps)),
        "accepted_share": ratio(int(taken.sum()), len(p)),
        "accepted_error": ratio(int((~right & taken).sum()), int(taken.sum())),
        "unanswered": 1 - ratio(len(p), int(hidden.sum())),
    }
    for coverage in COVERAGES:
        first = order[: max(1, round(coverage * len(p)))]
        figures[f"precision_at_{round(100 * coverage)}"] = ratio(
            int(right[first].sum()), first.size
        )
    return figures


def over_images(
    figures_of: Callable[[np.ndarray], dict[str, float]],
    groups: np.ndarray,
    *,
    seed: int,
    resamples: int = 200,
) -> dict[str, Interval]:
    """Figures with 95 % percentile bootstrap intervals over images.

    Args:
      figures_of: from row numbers int [n], with repeats, to figures.
      groups: int [N], equal for copies of an image, which are drawn together.
      seed: of the draws.
      resamples: how many.
    """
    members = np.unique(groups, return_inverse=True)[1]
    by_group = np.split(np.argsort(members, kind="stable"), np.cumsum(np.bincount(members))[:-1])
    rng = np.random.default_rng([seed, 0x0B5E])
    whole = figures_of(np.arange(len(groups)))
    drawn: dict[str, list[float]] = {name: [] for name in whole}
    for _ in range(resamples):
        picked = rng.integers(len(by_group), size=len(by_group))
        again = figures_of(np.concatenate([by_group[group] for group in picked]))
        for name, value in again.items():
            drawn[name].append(value)
    found = {}
    for name, value in whole.items():
        defined = np.array(drawn[name])[~np.isnan(drawn[name])]
        low = high = float("nan")
        if not np.isnan(value) and 2 * defined.size >= resamples:
            low, high = np.quantile(defined, [0.025, 0.975]).tolist()
        found[name] = Interval(value, low, high)
    return found
