"""Whether a label can be learned from its images at all: asked before a single cell is filled.

A model always answers. Where its out-of-fold answers rank no better than labels dealt at random, or
say less than the share of positives does, they must not be taken for knowledge.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln
from scipy.stats import t as student

from mlc_jax.assess.known import known_cells, known_probabilities, one_class_reason
from mlc_jax.assess.metrics import log_loss
from mlc_jax.assess.ranks import tie_starts

LEVEL = 0.01
"""The Holm-adjusted p below which a label counts as better than chance."""

_MAX_DRAWS = 200_000_000
_GROUP_DRAWS = 999
_HITS = 50
_BLOCK_DRAWS = 1 << 20
_LOG_LEAST = -700.0  # of a p; less would be written as 0


@dataclass(frozen=True)
class Verdict:
    """What the out-of-fold scores know about one label.

    Attributes:
      learnable: better than chance, and better than the prior.
      auc: ROC AUC within folds over known cells, see `fold_auc`.
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
    groups: np.ndarray,
    *,
    seed: int,
    resamples: int = 9999,
) -> tuple[float, float, float, float]:
    """Tests whether scores rank a label better than chance.

    The statistic is the ROC AUC within folds (`fold_auc`). The null deals each fold's labels anew
    within the fold, and moves the labels of a group together, since copies share label and score.
    p = (1 + #{null ≥ observed}) / (B + 1) (Phipson and Smyth, 2010, with B draws); drawing ends
    after 50 hits, when p is known well enough (Besag and Clifford, 1991).

    Where each group has one known cell, the statistic is with P and N of a fold fixed a linear
    function of the positives' ranks, and a draw is a sum of ranks. Above 2e8 random numbers (20,000
    cells at B = 9999) the stratified rank sum is as good as normal and p is taken from that, from
    its exact moments (van Elteren, 1960), instead of drawn. A p of 1/(B + 1) says only that no draw
    got there. With a hundred labels it would no longer pass `holm`, and draws for each of more
    labels would take the square of their number. So it gives way to an upper bound on the true p
    that needs no draws, where that is lower: see `_log_bound`.

    With more than one fold the scores are cross-fitted, and what labels say of each other is
    counted in both directions, which doubles the variance where nothing can be learned (see the
    head of `intervals`). So the observed excess is divided by √2 before it is compared, and of the
    bound, whose exponent grows with the square of the excess, the root is taken: without that 3 to
    5 % of labels of noise have a p below 1 %, with it 0.3 to 0.7 %.

    Args:
      labels: int8 [N], 0 or 1 where known.
      mask: bool [N].
      scores: float [N], on any scale; ties are allowed.
      folds: int [N], the fold in which each image was scored; all equal on a test split.
      groups: int [N], equal for images that go together; a group lies in one fold.
      seed: of the draws.
      resamples: B.

    Returns:
      (auc, p, null mean, null standard deviation), the last with the labels dealt and the scores as
      they are. All NaN where no fold has known cells of both classes.

    Raises:
      ValueError, NumericsError: see `known_cells`.
    """
    positive, known = known_cells(labels, mask, scores)
    fold_of_cell, group_of_cell = folds[mask], groups[mask]
    strata = []
    for fold in np.unique(fold_of_cell):
        own = fold_of_cell == fold
        if positive[own].any() and not positive[own].all():
            ranks = _doubled_midranks(known[own])
            strata.append(_Stratum(ranks, positive[own], group_of_cell[own]))
    if not strata:
        return float("nan"), float("nan"), float("nan"), float("nan")
    shrink = 1 / math.sqrt(2) if np.unique(fold_of_cell).size > 1 else 1.0
    if np.unique(group_of_cell).size == group_of_cell.size:
        return _single_cells(strata, shrink, seed, resamples)
    return _whole_groups(strata, shrink, seed, resamples)


class _Stratum(NamedTuple):
    """The known cells of a fold that has both classes.

    Attributes:
      ranks: int64 [K], doubled midranks within the fold.
      positive: bool [K].
      groups: int [K].
    """

    ranks: np.ndarray
    positive: np.ndarray
    groups: np.ndarray


def _single_cells(
    strata: list[_Stratum], shrink: float, seed: int, resamples: int
) -> tuple[float, float, float, float]:
    """`permutation_p` where no two known cells are of one group."""
    sums = [(stratum.ranks, int(stratum.positive.sum())) for stratum in strata]
    pairs = sum(drawn * (ranks.size - drawn) for ranks, drawn in sums)
    least = sum(drawn * (drawn + 1) for _, drawn in sums)
    observed = sum(int(stratum.ranks[stratum.positive].sum()) for stratum in strata)
    mean = sum(ranks.mean() * drawn for ranks, drawn in sums)
    variance = sum(
        ranks.var(ddof=1) * drawn * (ranks.size - drawn) / ranks.size for ranks, drawn in sums
    )
    # Rank sums are whole numbers, so half of one parts what reaches the mark from what does not.
    compared = math.ceil(mean + (observed - mean) * shrink - 1e-6) if observed > mean else observed
    least_p = 1 / (resamples + 1)
    bound = 1.0
    if observed > mean and variance:
        bound = math.exp(max(_log_bound(observed, sums) * shrink**2, _LOG_LEAST))
    if bound <= least_p:
        p = bound
    elif sum(ranks.size for ranks, _ in sums) * resamples <= _MAX_DRAWS:
        p = _drawn_p(compared, sums, np.random.default_rng(seed), resamples)
    else:
        z = (compared - mean) / math.sqrt(variance) if variance else 0.0
        p = max(math.erfc(z / math.sqrt(2)) / 2, least_p) if variance else 1.0
    area = (observed - least) / (2 * pairs)
    return area, p, float((mean - least) / (2 * pairs)), math.sqrt(variance) / (2 * pairs)


def _whole_groups(
    strata: list[_Stratum], shrink: float, seed: int, resamples: int
) -> tuple[float, float, float, float]:
    """`permutation_p` where groups have several known cells.

    A group is given the labels of another one of its fold. Where that has fewer cells they are
    taken round and round, where it has more some are left out, from a start that is drawn. Where
    no draw gets as far as what was observed, p is that of Student's t for the distance in standard
    deviations of the draws, with the number of groups for the degrees of freedom.
    """
    rng = np.random.default_rng(seed)
    cells = sum(stratum.ranks.size for stratum in strata)
    draws = int(np.clip(_MAX_DRAWS // (100 * cells), 99, min(resamples, _GROUP_DRAWS)))
    in_order, pairs = np.zeros(draws + 1), np.zeros(draws + 1)
    for ranks, positive, groups in strata:
        order = np.argsort(groups, kind="stable")
        _, start, size = np.unique(groups[order], return_index=True, return_counts=True)
        own = np.repeat(np.arange(size.size), size)
        place = np.arange(ranks.size) - start[own]
        for first in range(0, draws + 1, block := max(1, _BLOCK_DRAWS // ranks.size)):
            rows = min(block, draws + 1 - first)
            giver = np.argsort(rng.random((rows, size.size)), axis=1)
            offset = (rng.random((rows, size.size)) * size[giver]).astype(np.int64)
            if first == 0:  # the first is what was observed
                giver[0], offset[0] = np.arange(size.size), 0
            taken = (offset[:, own] + place) % size[giver][:, own] + start[giver][:, own]
            dealt = positive[order][taken]
            ones = dealt.sum(axis=1)
            rank_sum = dealt @ ranks[order].astype(np.float64)
            in_order[first : first + rows] += (rank_sum - ones * (ones + 1)) / 2
            pairs[first : first + rows] += ones * (ranks.size - ones)
    areas = in_order / np.maximum(pairs, 1)
    observed, null = float(areas[0]), areas[1:][pairs[1:] > 0]
    mean, spread = (float(null.mean()), float(null.std())) if null.size else (0.5, 0.0)
    # Within folds the mean is one half but for the chance of the draws.
    mark = 0.5 + (observed - 0.5) * (shrink if observed > 0.5 else 1.0)
    p = (1 + int(np.count_nonzero(null >= mark - 1e-12))) / (null.size + 1)
    if p <= 1 / (null.size + 1) and spread > 0:
        freedom = sum(np.unique(stratum.groups).size for stratum in strata) - 1
        p = min(p, max(float(student.sf((mark - 0.5) / spread, freedom)), math.exp(_LOG_LEAST)))
    return observed, p, mean, spread


def _doubled_midranks(scores: np.ndarray) -> np.ndarray:
    """int64 [K], twice the rank counted from 1, mean over ties: whole, so sums of it are exact."""
    order = np.argsort(scores)
    starts = tie_starts(scores[order])
    ends = np.append(starts[1:], scores.size)
    ranks = np.empty(scores.size, np.int64)
    ranks[order] = np.repeat(starts + ends + 1, ends - starts)
    return ranks


def _drawn_p(
    observed: int,
    strata: list[tuple[np.ndarray, int]],
    rng: np.random.Generator,
    resamples: int,
) -> float:
    """The p of the strata's rank sum by draws, which end after `_HITS` that reach `observed`."""
    widest = max(ranks.size for ranks, _ in strata)
    block = min(max(1, _BLOCK_DRAWS // widest), 500)
    beyond = 0
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        total = np.zeros(rows, np.int64)
        for ranks, drawn in strata:
            # The smaller class is drawn, since the other one's rank sum follows from it.
            fewer = min(drawn, ranks.size - drawn)
            keys = rng.random((rows, ranks.size), dtype=np.float32)
            chosen = np.argpartition(keys, fewer - 1, axis=1)[:, :fewer]
            drawn_sum = ranks[chosen].sum(axis=1)
            total += drawn_sum if fewer == drawn else ranks.sum() - drawn_sum
        beyond += int(np.count_nonzero(total >= observed))
        if beyond >= _HITS:
            return (1 + beyond) / (start + rows + 1)
    return (1 + beyond) / (resamples + 1)


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
    groups: np.ndarray,
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
      groups: int [N], equal for images that go together.
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
            groups,
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
    found = f"AUC {auc:.2f} within folds, p {p_holm:.2g} after Holm"
    if not p_holm < LEVEL:
        return f"{found}: no better than chance"
    against = f"log loss {loss:.4g} against {prior:.4g} of the prior"
    if not loss < prior:
        return f"{found}, but {against}: its probabilities say less than the share of positives"
    return f"{found}, {against}: better than chance"
