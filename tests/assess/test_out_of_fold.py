"""Laws of judging a cross-fit: no cell helps to judge itself, and what has no model says why."""

import time
from typing import Any, get_args

import numpy as np
import pytest

from mlc_jax.assess.acceptance import upper_bound
from mlc_jax.assess.beta_calibration import cross_fitted_calibration
from mlc_jax.assess.learnability import permutation_p
from mlc_jax.assess.metrics import binary_metrics
from mlc_jax.assess.out_of_fold import DecisionRules, Judgement, judge
from mlc_jax.assess.thresholds import Rule, choose_threshold
from mlc_jax.errors import ConfigError

ROWS, FOLDS = 300, 5


def drawn(seed: int = 0) -> dict[str, np.ndarray]:
    """Two labels that can be learned, one common and one rare, and one of noise."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((ROWS, 3)) < [0.6, 0.15, 0.4]).astype(np.int8)
    logits = 2.0 * rng.normal(size=(ROWS, 3)) + [[2.5, 4.0, 0.0]] * (labels - 0.5) - 1.0
    human = rng.random((ROWS, 3)) < 0.8
    return {
        "logits": logits,
        "labels": np.where(human, labels, -1).astype(np.int8),
        "human": human,
        "folds": rng.permutation(ROWS) % FOLDS,
        "groups": np.arange(ROWS),
    }


def judged(
    data: dict[str, np.ndarray],
    threshold: str = "matched",
    unfit: dict[int, str] | None = None,
    **rules: Any,
) -> Judgement:
    """By the threshold's rule for every label, also for the one of noise."""
    chosen = DecisionRules(threshold, 0, **{"unlearnable": "matched", **rules})
    return judge(**data, unfit=unfit or {}, rules=chosen)


@pytest.mark.parametrize("threshold", ["matched", "f1", "youden", "recall", "g_mean", "0.3"])
def test_no_label_has_a_part_in_its_own_probability_or_threshold(threshold: str) -> None:
    """All human labels of a fold are turned round; nothing that judges them moves one bit."""
    data = drawn()
    before = judged(data, threshold)
    moved = False
    for fold in range(FOLDS):
        own = data["folds"] == fold
        turned = np.where(own[:, None] & data["human"], 1 - data["labels"], data["labels"])
        after = judged({**data, "labels": turned.astype(np.int8)}, threshold)
        given = own[:, None] & data["human"]
        np.testing.assert_array_equal(after.probabilities[own], before.probabilities[own])
        np.testing.assert_array_equal(after.cell_thresholds[given], before.cell_thresholds[given])
        moved |= bool((after.probabilities[~own] != before.probabilities[~own]).any())
    assert moved


def test_what_no_person_gave_is_never_read() -> None:
    """Values of unknown cells, of filled ones above all, change nothing anywhere."""
    data = drawn()
    before = judged(data)
    filled = np.where(data["human"], data["labels"], 1).astype(np.int8)
    after = judged({**data, "labels": filled})
    for name in ("probabilities", "thresholds", "cell_thresholds"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert repr(after.metrics) == repr(before.metrics)
    assert after.verdicts == before.verdicts
    assert after.macro_roc_auc == before.macro_roc_auc


def test_metrics_are_those_of_the_human_cells() -> None:
    data = drawn()
    found = judged(data)
    for label in range(3):
        human = data["human"][:, label]
        alone = binary_metrics(
            data["labels"][human, label],
            np.ones(human.sum(), np.bool_),
            found.probabilities[human, label],
            found.cell_thresholds[human, label],
        )
        places = data["folds"][human], np.arange(human.sum())
        cells = (data[name][human, label] for name in ("labels", "human", "logits"))
        within = permutation_p(*cells, *places, seed=0, resamples=1)[0]
        expected = alone.values | {"roc_auc": within}
        assert found.metrics[label].values == pytest.approx(expected, nan_ok=True)
        assert found.metrics[label].values["count"] == human.sum()


def test_blank_cells_are_cut_by_the_label_s_threshold_human_ones_by_their_fold_s() -> None:
    data = drawn()
    found = judged(data, "f1")
    for label in range(3):
        human = data["human"][:, label]
        assert (found.cell_thresholds[~human, label] == found.thresholds[label]).all()
        by_fold = []
        for fold in range(FOLDS):
            (one,) = set(found.cell_thresholds[human & (data["folds"] == fold), label].tolist())
            by_fold.append(one)
        assert found.spreads[label] == (min(by_fold), max(by_fold))
        assert len(set(by_fold)) > 1


def test_signal_is_learnable_and_noise_is_not() -> None:
    found = judged(drawn())
    assert [verdict.learnable for verdict in found.verdicts] == [True, True, False]
    areas = [metrics.values["roc_auc"] for metrics in found.metrics]
    assert found.macro_roc_auc.value == pytest.approx(np.mean(areas), abs=0.02)
    assert found.macro_roc_auc.low < found.macro_roc_auc.value < found.macro_roc_auc.high


@pytest.mark.parametrize("seed", range(3))
def test_matched_shares_are_what_the_probabilities_add_up_to(seed: int) -> None:
    data = drawn(seed)
    found = judged(data)
    for label in range(3):
        probabilities = found.probabilities[:, label]
        positive = int((probabilities > found.thresholds[label]).sum())
        can_be_had = [(probabilities > cut).sum() for cut in (-1.0, *probabilities)]
        nearest = min(abs(count - probabilities.sum()) for count in can_be_had)
        assert abs(positive - probabilities.sum()) == pytest.approx(nearest)
        if label < 2:  # whose values are distinct: only rounding to whole cells is left
            assert nearest <= 0.5
        # And those are, after calibration, as many as people gave.
        given = data["labels"][data["human"][:, label], label].mean()
        assert positive / ROWS == pytest.approx(given, abs=0.08)


@pytest.mark.parametrize("rule", [rule for rule in get_args(Rule) if rule != "matched"])
def test_the_other_rules_are_those_of_choose_threshold(rule: Rule) -> None:
    data = drawn()
    found = judged(data, rule)
    for label in range(3):
        column = data["labels"][:, label], data["human"][:, label], found.probabilities[:, label]
        assert found.thresholds[label] == choose_threshold(rule, *column)


@pytest.mark.parametrize("number", ["0", "0.25", "1", "1e-3"])
def test_a_number_is_the_threshold_of_every_cell(number: str) -> None:
    found = judged(drawn(), number)
    assert (found.cell_thresholds == float(number)).all()
    assert (found.thresholds == float(number)).all()
    assert found.spreads == [(float(number), float(number))] * 3


@pytest.mark.parametrize("threshold", ["1.5", "-0.1", "nan", "inf", "best", "", "0,5"])
def test_another_threshold_is_refused(threshold: str) -> None:
    with pytest.raises(ConfigError, match=r"config\.impute\.threshold=") as caught:
        judged(drawn(), threshold)
    assert "matched" in str(caught.value)


def test_a_label_without_a_model_is_nan_with_its_reason_and_the_others_do_not_notice() -> None:
    data = drawn()
    before = judged(data)
    data["logits"][:, 1] = np.nan
    found = judged(data, unfit={1: "too few positives for 5 folds"})
    assert np.isnan(found.probabilities[:, 1]).all()
    assert np.isnan(found.cell_thresholds[:, 1]).all()
    assert np.isnan(found.thresholds[1])
    assert np.isnan(found.spreads[1]).all()
    assert not found.verdicts[1].learnable
    metrics = found.metrics[1]
    assert metrics.values["count"] == data["human"][:, 1].sum()
    assert np.isnan(metrics.values["roc_auc"])
    assert metrics.reasons["roc_auc"] == "too few positives for 5 folds"
    assert {name for name, value in metrics.values.items() if np.isnan(value)} == set(
        metrics.reasons
    )
    assert metrics.values["prevalence"] == before.metrics[1].values["prevalence"]
    areas = [before.metrics[label].values["roc_auc"] for label in (0, 2)]
    assert found.macro_roc_auc.value == pytest.approx(np.mean(areas), abs=0.02)
    for label in (0, 2):
        np.testing.assert_array_equal(found.probabilities[:, label], before.probabilities[:, label])
        assert repr(found.metrics[label]) == repr(before.metrics[label])


@pytest.mark.parametrize(
    ("labels", "reason"), [([1], "are 1"), ([0], "are 0"), ([], "no human label")]
)
def test_one_class_among_the_human_cells_is_no_model(labels: list[int], reason: str) -> None:
    """`judge` finds it by itself: a caller's table may hold filled cells besides."""
    data = drawn()
    if labels:
        data["labels"][:, 0] = np.where(data["human"][:, 0], labels[0], -1)
    else:
        data["human"][:, 0] = False
    found = judged(data)
    assert np.isnan(found.probabilities[:, 0]).all()
    assert reason in found.metrics[0].reasons["roc_auc"]
    assert not found.verdicts[0].learnable
    assert np.isfinite(found.probabilities[:, 1:]).all()


def test_probabilities_are_the_cross_fitted_ones() -> None:
    data = drawn()
    expected, _ = cross_fitted_calibration(
        data["logits"], data["labels"], data["human"], data["folds"]
    )
    np.testing.assert_array_equal(judged(data).probabilities, expected)


def test_a_label_that_cannot_be_learned_gets_its_commoner_value() -> None:
    data = drawn()
    found, matched = judged(data, unlearnable="majority"), judged(data)
    assert [verdict.learnable for verdict in found.verdicts] == [True, True, False]
    known = data["human"][:, 2]
    for fold in range(FOLDS):
        own = known & (data["folds"] == fold)
        others = data["labels"][known & (data["folds"] != fold), 2]
        assert (found.probabilities[own, 2] > found.cell_thresholds[own, 2]).all() == (
            others.mean() > 0.5
        )
    blank = ~known
    assert (found.probabilities[blank, 2] <= found.thresholds[2]).all()
    wrong = 1 - found.metrics[2].values["accuracy"]
    assert wrong == pytest.approx((data["labels"][known, 2] == 1).mean())
    assert wrong <= 1 - matched.metrics[2].values["accuracy"]
    np.testing.assert_array_equal(found.decided, True)
    np.testing.assert_array_equal(found.accepted, [[True, True, False]] * ROWS)
    for label in (0, 1):
        np.testing.assert_array_equal(
            found.cell_thresholds[:, label], matched.cell_thresholds[:, label]
        )
    left = judged(data, unlearnable="blank")
    np.testing.assert_array_equal(left.decided, [[True, True, False]] * ROWS)
    np.testing.assert_array_equal(left.accepted, left.decided)


def test_the_bound_of_each_value_is_of_the_known_cells_that_would_get_it() -> None:
    data = drawn()
    found = judged(data, max_error=0.2)
    assert 0 < found.accepted.mean() < 1
    for label in range(3):
        decided = found.probabilities[:, label] > found.cell_thresholds[:, label]
        for value in (0, 1):
            own = data["human"][:, label] & found.accepted[:, label] & (decided == value)
            errors = int((data["labels"][own, label] != value).sum())
            expected = float(upper_bound(errors, int(own.sum())))
            bound = found.error_bounds[label][value]
            assert (bound.errors, bound.count) == (errors, own.sum())
            assert bound.bound == pytest.approx(expected)


def test_a_promise_of_each_label_is_kept_by_each() -> None:
    data = drawn()
    found = judged(data, max_error=0.2, max_error_of="label")
    cuts = [rule.cut for rule in found.acceptance]
    assert cuts[1] < np.inf
    assert cuts[2] == np.inf, "the label of noise keeps no promise"
    for label, rule in enumerate(found.acceptance):
        known = data["human"][:, label]
        decided = found.probabilities[known, label] > found.cell_thresholds[known, label]
        own = found.accepted[known, label]
        wrong = (decided != data["labels"][known, label])[own]
        assert (rule.errors, rule.count) == (wrong.sum(), wrong.size)
        if wrong.size:
            assert rule.bound == pytest.approx(float(upper_bound(rule.errors, rule.count)))
            assert rule.bound <= 0.2
    pooled = judged(data, max_error=0.2).acceptance
    assert pooled[0] is pooled[1] is pooled[2]


def test_noise_in_scenes_is_called_neither_learnable_nor_below_chance() -> None:
    """Frames of a scene share labels and scores; the whole judgement takes a scene as one."""
    learnable, held = 0, 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        scenes = np.repeat(np.arange(40), 5)
        labels = (rng.random((40, 2)) < 0.4).astype(np.int8)[scenes]
        logits = rng.normal(size=(40, 2))[scenes] + 0.1 * rng.normal(size=(200, 2))
        folds = (rng.permutation(40) % FOLDS)[scenes]
        rules = DecisionRules("matched", seed)
        found = judge(logits, labels, labels >= 0, folds, scenes, {}, rules)
        learnable += sum(verdict.learnable for verdict in found.verdicts)
        held += found.macro_roc_auc.low <= 0.5 <= found.macro_roc_auc.high
    assert learnable <= 3
    assert held >= 26


def test_a_promise_weighs_known_cells_by_the_blanks_of_their_label() -> None:
    """An easy label that is hardly blank cannot pay for a hard one that mostly is."""
    rng = np.random.default_rng(0)
    truth = (rng.random((3000, 2)) < 0.5).astype(np.int8)
    logits = np.array([8.0, 1.5]) * (truth - 0.5) + rng.normal(size=truth.shape)
    shares = {}
    for name, known in (("hard", [0.95, 0.3]), ("easy", [0.3, 0.95])):
        human = rng.random(truth.shape) < known
        labels = np.where(human, truth, -1).astype(np.int8)
        folds, groups = np.arange(3000) % FOLDS, np.arange(3000)
        rules = DecisionRules("matched", 0, max_error=0.05)
        found = judge(logits, labels, human, folds, groups, {}, rules)
        decided = found.probabilities > found.cell_thresholds
        blank = found.accepted & ~human
        assert (decided != truth)[blank].mean() < 0.05
        shares[name] = found.acceptance[0].coverage
    assert shares["hard"] < shares["easy"] - 0.1


def test_a_promise_counts_a_scene_as_one() -> None:
    """Five frames of a scene are wrong together, and prove as much as one."""
    data = drawn()
    repeated = {name: np.repeat(part, 5, axis=0) for name, part in data.items()}
    alone = repeated | {"groups": np.arange(5 * ROWS)}
    # From 0.2 on both end before the cells of the noise, whose confidences are all but equal.
    found = [judged(own, max_error=0.18).acceptance[0] for own in (repeated, alone)]
    assert found[0].coverage < found[1].coverage - 0.02


def test_what_a_scene_repeats_is_no_evidence_of_learning() -> None:
    """A ranking that is worth little by scenes is beyond doubt if their frames count alone."""
    rng = np.random.default_rng(2)
    scenes = np.repeat(np.arange(25), 20)
    labels = (np.arange(25) % 10 < 5).astype(np.int8)[:, None]
    logits = (1.0 * (labels - 0.5) + rng.normal(size=(25, 1)))[scenes]
    labels = labels[scenes]
    folds = scenes % FOLDS
    rules = DecisionRules("matched", 0)
    found = [
        judge(logits, labels, labels >= 0, folds, groups, {}, rules).verdicts[0]
        for groups in (scenes, np.arange(len(scenes)))
    ]
    assert found[0].auc == found[1].auc
    assert found[0].p > 0.01
    assert found[1].p < 1e-4


def test_suspects_are_found_with_all_the_context_there_is_and_nothing_else_is() -> None:
    data = drawn()
    before = judged(data)
    full = data["logits"].copy()
    row = int(np.flatnonzero(data["labels"][:, 0] == 1)[0])
    full[row, 0] = -20.0
    chosen = DecisionRules("matched", 0, unlearnable="matched")
    after = judge(**data, unfit={}, rules=chosen, full_context=full)
    assert after.suspects[0].rows[0] == row
    assert row not in before.suspects[0].rows
    np.testing.assert_array_equal(after.probabilities, before.probabilities)
    np.testing.assert_array_equal(after.cell_thresholds, before.cell_thresholds)
    for one, other in zip(after.metrics, before.metrics, strict=True):
        np.testing.assert_equal(one.values, other.values)


@pytest.mark.slow
def test_eighty_labels_of_a_thousand_images_are_judged_in_seconds() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((1000, 80)) < 0.2).astype(np.int8)
    logits = rng.normal(size=labels.shape) + rng.uniform(0, 3, 80) * labels
    human = rng.random(labels.shape) < 0.8
    for groups in (np.arange(1000), np.arange(1000) // 2):
        started = time.process_time()
        judge(logits, labels, human, groups % 5, groups, {}, DecisionRules("matched", 0))
        assert time.process_time() - started < 20


def test_the_inputs_are_left_as_they_are() -> None:
    data = drawn()
    copies = {name: array.copy() for name, array in data.items()}
    judged(data, unfit={0: "none"})
    for name, array in data.items():
        np.testing.assert_array_equal(array, copies[name])


def test_blanks_are_filled_by_what_all_folds_say_and_judged_by_nothing_else() -> None:
    """Other logits for blanks move their probabilities, and no figure of known cells."""
    data = drawn()
    rules = DecisionRules("matched", 0, unlearnable="matched")
    before = judge(**data, unfit={}, rules=rules)
    higher = np.where(data["human"], 99.0, data["logits"] + 1)
    after = judge(**data, unfit={}, rules=rules, of_blanks=higher)
    human = data["human"]
    np.testing.assert_array_equal(after.probabilities[human], before.probabilities[human])
    np.testing.assert_array_equal(after.out_of_fold, before.out_of_fold)
    np.testing.assert_array_equal(before.out_of_fold, before.probabilities)
    assert (after.probabilities[:, 0] > before.probabilities[:, 0])[~human[:, 0]].all()
    for own, other in zip(before.verdicts, after.verdicts, strict=True):
        assert own == other
    assert before.macro_roc_auc == after.macro_roc_auc


@pytest.mark.parametrize("policy", ["majority", "matched", "blank"])
def test_what_nothing_has_judged_is_filled_and_never_accepted(policy: str) -> None:
    data = drawn()
    guesses = np.full(data["logits"].shape, np.nan)
    guesses[:, 1] = np.linspace(0.01, 0.6, ROWS)
    data["logits"][:, 1] = np.nan
    rules = DecisionRules("matched", 0, unlearnable=policy)
    found = judge(**data, unfit={1: "why"}, rules=rules, unjudged=guesses)
    human = data["human"][:, 1]
    assert np.isnan(found.probabilities[human, 1]).all()
    np.testing.assert_array_equal(found.probabilities[~human, 1], guesses[~human, 1])
    assert not found.accepted[:, 1].any()
    assert found.decided[:, 1].tolist() == (~human & (policy != "blank")).tolist()
    assert not found.verdicts[1].learnable
    assert np.isnan(found.metrics[1].values["accuracy"])
    filled = found.probabilities[~human, 1] > found.cell_thresholds[~human, 1]
    known = data["labels"][human, 1]
    if policy == "matched":
        assert filled.mean() == pytest.approx(guesses[:, 1].mean(), abs=0.1)
    else:
        assert set(filled) == {(known == 1).mean() > 0.5}
