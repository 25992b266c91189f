"""Stage 2 against leaks: what must not matter is changed, and nothing that judges moves."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from mlc_jax.assess.calibration import sigmoid
from mlc_jax.data.folds import Split
from mlc_jax.training.cached import CachedFeatures
from mlc_jax.training.joint import fit_joint
from mlc_jax.training.jointfit import JointFit, Teaching
from mlc_jax.training.parallel import Devices
from tests.training.synthetic import ROWS, configuration, drawn

THIRD = ROWS // 3
TRAIN, STOP, JUDGED = np.split(np.arange(ROWS), 3)
ALONE = (Split(0, TRAIN, STOP, JUDGED),)
TEST = np.arange(ROWS - 30, ROWS)
HELD_IN = np.arange(ROWS - 30)
FOLDS = tuple(
    Split(fold, HELD_IN[(HELD_IN + fold) % 3 == 1], HELD_IN[(HELD_IN + fold) % 3 == 2], own)
    for fold, own in enumerate(HELD_IN[(HELD_IN + fold) % 3 == 0] for fold in range(3))
)
ATOL = {"bce": 1e-4, "focal": 0.0}
KINDS = pytest.mark.parametrize("loss", ["bce", "focal"])  # solved exactly, trained step by step


class Fitted(NamedTuple):
    joint: JointFit
    epochs: list[dict[str, Any]]


def fit(
    loss: str,
    labels: np.ndarray,
    held_in: np.ndarray,
    splits: tuple[Split, ...],
    features: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    human: np.ndarray | None = None,
    **changes: Any,
) -> Fitted:
    """A joint fit of three labels; `human` tells which cells a person gave."""
    features = drawn()[0] if features is None else features
    human = labels if human is None else human
    weights = (human >= 0).astype(np.float64) if weights is None else weights
    config = configuration(**{"loss__name": loss, "oversample": "none", "epochs": 3} | changes)
    devices, lines = Devices("jit", jax.local_devices()[:1]), []
    joint = fit_joint(
        config,
        Teaching(human, labels, weights),
        held_in,
        splits,
        CachedFeatures(features, devices),
        features.shape[2:],
        devices,
        None,
        lambda _, line: lines.append(line),
        lambda _: None,
    )
    return Fitted(joint, lines)


def same(one: JointFit, other: JointFit, atol: float = 0.0) -> bool:
    """Whether two classifiers are one, to the bit or to a tolerance."""
    both = [(own.params, own.mean, own.std, np.nan_to_num(own.out_of_fold)) for own in (one, other)]
    leaves = zip(*map(jax.tree.leaves, both), strict=True)
    return all(np.allclose(*pair, rtol=0.0, atol=atol) for pair in leaves)


@KINDS
def test_labels_and_features_of_test_images_move_nothing(loss: str) -> None:
    features, labels = drawn()
    before = fit(loss, labels, HELD_IN, FOLDS)
    turned = labels.copy()
    turned[TEST] = 1 - turned[TEST]
    after = fit(loss, turned, HELD_IN, FOLDS)
    assert same(after.joint, before.joint)
    np.testing.assert_array_equal(after.joint.shift, before.joint.shift)
    assert np.isnan(after.joint.out_of_fold[TEST]).all()
    assert after.epochs == before.epochs
    moved = features.copy()
    moved[TEST] *= 3
    # The solver's design is scaled by all rows, which moves last digits and no minimum.
    assert same(fit(loss, labels, HELD_IN, FOLDS, moved).joint, before.joint, ATOL[loss])
    # Labels that are learned from do move it.
    turned = labels.copy()
    turned[HELD_IN[:40]] = 1 - turned[HELD_IN[:40]]
    assert not same(fit(loss, turned, HELD_IN, FOLDS).joint, before.joint)


@KINDS
def test_a_fold_s_labels_and_features_have_no_part_in_what_judges_it(loss: str) -> None:
    """One split, so that what is judged is watched by nobody."""
    features, labels = drawn()
    held_in = np.concatenate([TRAIN, STOP])
    before = fit(loss, labels, held_in, ALONE)
    turned = labels.copy()
    turned[JUDGED] = 1 - turned[JUDGED]
    after = fit(loss, turned, held_in, ALONE)
    assert same(after.joint, before.joint)
    assert after.epochs == before.epochs
    # Of features those of the image itself count, and no other's.
    moved = features.copy()
    moved[JUDGED[1:]] *= 3
    after = fit(loss, labels, held_in, ALONE, features=moved)
    apart = after.joint.out_of_fold[JUDGED[0]] - before.joint.out_of_fold[JUDGED[0]]
    assert np.abs(apart).max() <= ATOL[loss]
    assert (after.joint.out_of_fold[JUDGED[1:]] != before.joint.out_of_fold[JUDGED[1:]]).any()
    # It is the stop rows that are watched.
    turned = labels.copy()
    turned[STOP] = 1 - turned[STOP]
    assert fit(loss, turned, held_in, ALONE).epochs != before.epochs


@KINDS
def test_cells_without_weight_move_nothing_and_others_by_their_weight(loss: str) -> None:
    """A filled cell that does not enter the loss may be anything; nor is it watched or counted."""
    features, labels = drawn()
    rng = np.random.default_rng(0)
    filled = rng.random(labels.shape) < 0.3
    human = np.where(filled, -1, labels).astype(np.int8)
    turned = np.where(filled, 1 - labels, labels).astype(np.int8)
    found = {}
    for weight in (0.0, 0.2, 1.0):
        weights = np.where(filled, weight, 1.0)
        found[weight] = [
            fit(loss, own, HELD_IN, FOLDS, features, weights, human, epochs=6).joint
            for own in (labels, turned)
        ]
    assert same(*found[0.0])
    apart = [
        np.abs(found[weight][0].raw_logits - found[weight][1].raw_logits).mean()
        for weight in (0.2, 1.0)
    ]
    assert 0 < apart[0] < 0.7 * apart[1]


@KINDS
def test_what_oversampling_adds_is_taken_back_from_all_logits(loss: str) -> None:
    """A rare label of noise is shown more often; corrected probabilities are as common as it is."""
    labels = drawn()[1]
    labels[:, 2] = np.random.default_rng(0).random(ROWS) < 0.15
    joint = fit(loss, labels, HELD_IN, FOLDS, oversample="label", oversample_ratio=0.5, epochs=8)[0]
    share = labels[HELD_IN, 2].mean()
    assert joint.shift[2] > 0.4
    corrected = joint.out_of_fold[HELD_IN, 2]
    raw = joint.raw_logits[HELD_IN, 2]
    assert sigmoid(corrected).mean() == pytest.approx(share, abs=0.06)
    assert sigmoid(raw - joint.shift[2]).mean() == pytest.approx(share, abs=0.06)
    assert sigmoid(raw).mean() > share + 0.06
    assert sigmoid(corrected + joint.shift[2]).mean() > share + 0.06


def test_the_classifier_sees_every_held_in_image_and_a_sibling_its_own_part() -> None:
    """Features far away in one part move the means that each head is standardised by."""
    features, labels = drawn()
    joint = fit("focal", labels, HELD_IN, FOLDS).joint
    own = features[HELD_IN].astype(np.float64).mean(axis=(0, 1, 2, 3))
    np.testing.assert_allclose(joint.mean, own, rtol=1e-2, atol=0.1)
    less = replace(FOLDS[0], train=FOLDS[0].train[:20])
    again = fit("focal", labels, HELD_IN, (less, *FOLDS[1:])).joint
    np.testing.assert_array_equal(again.mean, joint.mean)
