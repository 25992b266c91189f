"""Whether a label can be learned from its images at all: asked before a single cell is filled.

A model always answers. Where its out-of-fold answers rank no better than labels dealt at random, or
say less than the share of positives does, they must not be taken for knowledge.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from mlc_jax.assess.known import known_cells, known_probabilities, one_class_reason
from mlc_jax.assess.metrics import log_loss
from mlc_jax.assess.ranks import tie_starts

LEVEL = 0.01
"""The Holm-adjusted p below which a label counts as better than chance."""

_MAX_DRAWS = 200_000_000
_BLOCK_DRAWS = 1 << 20
_LOG_LEAST = -700.0  # of a p; less would be written as 0


@dataclass(frozen=True)
class Verdict:
    """What the out-of-fold scores know about one label.

    Attributes:
      learnable: better than chance, and better than the prior.
      auc: pooled out-of-fold ROC AUC over known cells.
      p, p_holm: one-sided permutation p or an upper bound on it, and the same adjusted for the
        number of labels.
      null_mean, null_sd: of the AUC under permutation.
      log_loss, prior_log_loss: nats per known cell, of the probabilities and of the prior.
      reason: one sentence part for people.
    """

    learnable: bool
    auc: float
    p: float
    p_holm: float
    null_mean: float
    null_sd: float
    log_loss: float
    prior_log_loss: float
    reason: str


def permutation_p(
    labels: np.ndarray,
    mask: np.ndarray,
    scores: np.ndarray,
    folds: np.ndarray,
    *,
    seed: int,
    resamples: int = 9999,
) -> tuple[float, float, float, float]:
    """Tests whether out-of-fold scores rank a label better than chance.

    The statistic is the pooled ROC AUC over known cells. The null deals each fold's labels anew
    within the fold, because the folds have models, and so score levels, of their own: under it the
    pooled AUC need not average 0.5. With P and N fixed the AUC is a linear function of the
    positives' rank sum, so a draw is a sum of ranks. p = (1 + #{null ≥ observed}) / (B + 1)
    (Phipson and Smyth, 2010, with B draws). Above 2e8 random numbers (20,000 cells at B = 9999) the
    stratified rank sum is as good as normal and p is taken from that, from its exact moments
    (van Elteren, 1960), instead of drawn, and kept at or above 1/(B + 1).

    A p of 1/(B + 1) says only that no draw got there. With a hundred labels it would no longer pass
    `holm`, and draws for each of more labels would take the square of their number. So it gives
    way to an upper bound on the true p that needs no draws, where that is lower: see `_log_bound`.

    Args:
      labels: int8 [N], 0 or 1 where known.
      mask: bool [N].
      scores: float [N], out-of-fold, on any scale; ties are allowed.
      folds: int [N], the fold in which each image was scored.
      seed: of the draws.
      resamples: B.

    Returns:
      (auc, p, null mean, null standard deviation); the last two are exact. All NaN where the known
      cells have one class only.

    Raises:
      ValueError, NumericsError: see `known_cells`.
    """
    positive, known = known_cells(labels, mask, scores)
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives * negatives:
        return float("nan"), float("nan"), float("nan"), float("nan")

    ranks = _doubled_midranks(known)
    fold_of_cell = folds[mask]
    strata = [
        (ranks[own], int(positive[own].sum()))
        for own in (fold_of_cell == fold for fold in np.unique(fold_of_cell))
    ]
    observed = int(ranks[positive].sum())
    mean = sum(inside.mean() * drawn for inside, drawn in strata)
    variance = sum(
        inside.var(ddof=1) * drawn * (inside.size - drawn) / inside.size
        for inside, drawn in strata
        if inside.size > 1
    )
    if known.size * resamples <= _MAX_DRAWS:
        beyond = _count_at_least(observed, strata, np.random.default_rng(seed), resamples)
        p = (1 + beyond) / (resamples + 1)
    else:
        z = (observed - mean) / math.sqrt(variance) if variance else 0.0
        p = max(math.erfc(z / math.sqrt(2)) / 2, 1 / (resamples + 1)) if variance else 1.0
    if p <= 1 / (resamples + 1) and observed > mean:
        p = min(p, math.exp(max(_log_bound(observed, strata), _LOG_LEAST)))

    def as_auc(rank_sum: float) -> float:
        return float((rank_sum / 2 - positives * (positives + 1) / 2) / (positives * negatives))

    null_sd = math.sqrt(variance) / 2 / (positives * negatives)
    return as_auc(observed), p, as_auc(mean), null_sd


def _doubled_midranks(scores: np.ndarray) -> np.ndarray:
    """int64 [K], twice the rank counted from 1, mean over ties: whole, so sums of it are exact."""
    order = np.argsort(scores)
    starts = tie_starts(scores[order])
    ends = np.append(starts[1:], scores.size)
    ranks = np.empty(scores.size, np.int64)
    ranks[order] = np.repeat(starts + ends + 1, ends - starts)
    return ranks


def _count_at_least(
    observed: int,
    strata: list[tuple[np.ndarray, int]],
    rng: np.random.Generator,
    resamples: int,
) -> int:
    """In how many of `resamples` draws the strata's rank sums reach `observed`."""
    widest = max(ranks.size for ranks, _ in strata)
    block = max(1, _BLOCK_DRAWS // widest)
    beyond = 0
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        total = np.zeros(rows, np.int64)
        for ranks, drawn in strata:
            # The smaller class is drawn, since the other one's rank sum follows from it.
            fewer = min(drawn, ranks.size - drawn)
            drawn_sum = np.zeros(rows, np.int64)
            if fewer:
                keys = rng.random((rows, ranks.size), dtype=np.float32)
                chosen = np.argpartition(keys, fewer - 1, axis=1)[:, :fewer]
                drawn_sum = ranks[chosen].sum(axis=1)
            total += drawn_sum if fewer == drawn else ranks.sum() - drawn_sum
        beyond += int(np.count_nonzero(total >= observed))
    return beyond


def _log_bound(observed: int, strata: list[tuple[np.ndarray, int]]) -> float:
    """Log of an upper bound on the chance that the strata's rank sums reach `observed`.

    Chernoff's: for any rate t > 0 it is at most E exp(t · (sum − observed)). Of k ranks r drawn
    from n the expectation of exp(t · sum) is at most what it is with replacement (Hoeffding, 1963,
    theorem 4), which is close where k is small; and, being a sum over all ways to draw them, at
    most Π (1 + exp(a + t r)) · exp(−a k) / (n over k) for any a, which is close where the classes
    are nearly told apart. For each stratum and rate the smaller counts.

    Args:
      observed: above what is expected.
      strata: ranks and how many of them are drawn; they differ within one stratum at least.
    """
    excess, spread, parts = float(observed), 0.0, []
    for ranks, drawn in strata:
        centred = ranks - ranks.mean()
        excess -= drawn * ranks.mean()
        # Of the smaller class, which loses less by replacement; the others' sum is minus theirs.
        fewer = min(drawn, ranks.size - drawn)
        parts.append((centred if fewer == drawn else -centred, fewer))
        spread += fewer * float(ranks.var())
    # Any rate gives a bound. The first would be the best if sums were normal; theirs fall faster.
    rates = excess / spread * 2.0 ** np.arange(0, 8, 0.5)
    logs = -rates * excess
    for centred, fewer in parts:
        if not fewer:
            continue
        scaled = rates[:, None] * np.sort(centred)[::-1]
        top = scaled[:, 0]
        replaced = fewer * (top + np.log(np.exp(scaled - top[:, None]).mean(axis=1)))
        # Between the last rank that would be drawn if the highest were, and the first that is not.
        between = (scaled[:, fewer - 1] + scaled[:, fewer]) / 2
        ways = gammaln(centred.size + 1) - gammaln(fewer + 1) - gammaln(centred.size - fewer + 1)
        told_apart = np.logaddexp(0.0, scaled - between[:, None]).sum(axis=1) + fewer * between
        logs += np.minimum(replaced, told_apart - ways)
    return float(logs.min())


def holm(p_values: np.ndarray) -> np.ndarray:
    """Adjusts p values for their number, by steps down (Holm, 1979).

    Args:
      p_values: float [L]; NaN for a label without a test, which does not count as one.

    Returns:
      float64 [L], at most 1; NaN where it was NaN.
    """
    adjusted = np.full(p_values.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    steps = p_values[order] * np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def prior_log_loss(labels: np.ndarray, mask: np.ndarray, folds: np.ndarray) -> float:
    """Log loss of knowing nothing but how common the label is, out of fold like the model's.

    Each fold is predicted by the share of positives among the known cells of the other folds, with
    half a cell of each class added (Jeffreys' prior; Krichevsky and Trofimov, 1981), so that no
    fold is ever told 0 or 1.

    Args:
      labels: int8 [N], 0 or 1 where known.
      mask: bool [N].
      folds: int [N].

    Returns:
      nats per known cell; NaN without one.
    """
    positive, _ = known_cells(labels, mask, np.zeros(labels.shape))
    numbers, fold_of_cell = np.unique(folds[mask], return_inverse=True)
    count = np.bincount(fold_of_cell, minlength=numbers.size)
    hits = np.bincount(fold_of_cell, positive, numbers.size)
    share = (hits.sum() - hits + 0.5) / (count.sum() - count + 1.0)
    return log_loss(positive, share[fold_of_cell])


def learnable(
    labels: np.ndarray,
    mask: np.ndarray,
    scores: np.ndarray,
    probabilities: np.ndarray,
    folds: np.ndarray,
    *,
    seed: int,
) -> list[Verdict]:
    """Judges every label: Holm-adjusted p below 0.01, and log loss below the prior's.

    Args:
      labels: int8 [N, L], 0 or 1 where known.
      mask: bool [N, L]; all False for a label that has no model.
      scores: float [N, L], out-of-fold scores that rank, such as logits.
      probabilities: float [N, L] in [0, 1], out-of-fold and cross-fitted.
      folds: int [N].
      seed: of the draws.

    Returns:
      one verdict per label; NaN figures where a label's known cells have one class only.

    Raises:
      ValueError, NumericsError: see `known_cells`.
    """
    columns = labels.shape[1]
    tests = [
        permutation_p(
            labels[:, column],
            mask[:, column],
            scores[:, column],
            folds,
            seed=seed + column,
        )
        for column in range(columns)
    ]
    adjusted = holm(np.array([test[1] for test in tests]))
    verdicts = []
    for column, (auc, p, null_mean, null_sd) in enumerate(tests):
        cells = labels[:, column], mask[:, column]
        positive, known = known_probabilities(*cells, probabilities[:, column])
        one_class = one_class_reason(positive)
        loss, prior = float("nan"), float("nan")
        if one_class is None:
            loss, prior = log_loss(positive, known), prior_log_loss(*cells, folds)
        p_holm = float(adjusted[column])
        passed = p_holm < LEVEL and loss < prior
        reason = (
            f"{one_class}: nothing to learn" if one_class else _reason(auc, p_holm, loss, prior)
        )
        verdicts.append(Verdict(passed, auc, p, p_holm, null_mean, null_sd, loss, prior, reason))
    return verdicts


def _reason(auc: float, p_holm: float, loss: float, prior: float) -> str:
    found = f"AUC {auc:.2f} before calibration, p {p_holm:.2g} after Holm"
    if not p_holm < LEVEL:
        return f"{found}: no better than chance"
    against = f"log loss {loss:.4g} against {prior:.4g} of the prior"
    if not loss < prior:
        return f"{found}, but {against}: its probabilities say less than the share of positives"
    return f"{found}, {against}: better than chance"
