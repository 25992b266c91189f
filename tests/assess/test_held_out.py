"""A test split is judged by groups: copies of an image are one image, in intervals and in tests."""

import numpy as np

from mlc_jax.assess.held_out import judge_test

IMAGES, COPIES = 40, 6


def test_copies_widen_intervals_and_prove_nothing() -> None:
    """Each image stands there six times: figures stay, and what they are worth is that of one."""
    rng = np.random.default_rng(3)
    labels = (rng.random((IMAGES, 2)) < 0.5).astype(np.int8)
    signal = 0.8 * (labels - 0.5) + rng.normal(size=labels.shape)
    probabilities = 1 / (1 + np.exp(-signal))
    many = np.repeat(np.arange(IMAGES), COPIES)
    thresholds = np.full(2, 0.5)

    def judged(rows: np.ndarray, groups: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
        known = np.ones((len(rows), 2), np.bool_)
        found = judge_test(labels[rows], known, probabilities[rows], thresholds, groups, seed=0)
        reach = {name: own.high - own.low for name, own in found.intervals.items()}
        return reach, found.p_values

    once, p_once = judged(np.arange(IMAGES), np.arange(IMAGES))
    grouped, p_grouped = judged(many, many)
    alone, p_alone = judged(many, np.arange(len(many)))
    for name in ("macro_roc_auc", "micro_f1", "hamming_score", "brier", "map"):
        assert 0.8 < grouped[name] / once[name] < 1.25, name
        assert alone[name] < 0.6 * once[name], name
    assert (p_alone < p_grouped).all()
    assert (p_alone < p_once / 3).all()
    assert (p_grouped > p_once / 3).all()
