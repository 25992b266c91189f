"""Every loss against its published formula in float64, and the laws that all of them keep."""

import math
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from mlc_jax.errors import ConfigError
from mlc_jax.loss_settings import LOSSES, loss_config
from mlc_jax.training.losses import make_loss
from mlc_jax.training.partial_losses import Loss
from mlc_jax.training.targets import LabelStatistics, Targets

ROWS, OUTPUTS = 12, 4
STATISTICS = LabelStatistics(
    np.array([30.0, 8.0, 20.0, 5.0]),
    np.array([10.0, 32.0, 20.0, 0.0]),
    np.array([0.7, 0.2, 0.5, 1]),
)
# Every name with its defaults, and every switch thrown once.
CASES: dict[str, dict[str, Any]] = {
    **{name: {"name": name} for name in LOSSES},
    "focal_alpha": {"name": "focal", "alpha": 0.25, "gamma": 0.5},
    "asymmetric_margin_0": {"name": "asymmetric", "margin": 0.0, "gamma_negative": 2.0},
    "selective_some": {"name": "class_selective", "selective_likeliest": 0.5},
    "selective_other": {
        "name": "class_selective",
        "selective_likeliest": 1.0,
        "selective_prior": 1.0,
        "selective_weight": 0.3,
        "selective_margin": 0.1,
        "selective_gamma_positive": 1.0,
    },
    "hill_of_all": {"name": "hill", "hill_unknown": "negative"},
    "splc_later": {"name": "splc", "splc_epoch": 3, "splc_threshold": 0.4},
    "large_loss_much": {"name": "large_loss", "large_loss_delta": 0.05},
    "smoothed": {"name": "bce", "label_smoothing": 0.2},
}
# One of every kind of reduction, and all that look at the whole batch.
SHARDED = ("bce", "partial_bce", "splc", "class_selective", "selective_some", "large_loss_much")
MASKED = ("bce", "weighted_bce", "focal", "focal_alpha", "asymmetric", "hill", "smoothed")


def config_of(case: str) -> ConfigDict:
    config = loss_config()
    config.update(CASES[case])
    return config


def build(case: str, axis_name: str | None = None) -> Loss:
    return make_loss(config_of(case), LabelStatistics(*map(jnp.asarray, STATISTICS)), axis_name)


class Cells(NamedTuple):
    logits: np.ndarray
    targets: Targets


def cells(kind: str = "mixed", seed: int = 0, epoch: int = 2) -> Cells:
    """Cells of `kind` known, mixed or unknown, the last two rows padding; weights 0, 0.4 and 1."""
    rng = np.random.default_rng(seed)
    shape = (ROWS, OUTPUTS)
    known = {"known": 1.0, "mixed": 0.5, "unknown": 0.0}[kind]
    weights = (rng.random(shape) < known) * rng.choice([0.4, 1.0, 1.0], shape)
    valid = np.arange(ROWS) < ROWS - 2
    return Cells(
        rng.normal(0, 2, shape).astype(np.float32),
        Targets(
            rng.integers(0, 2, shape).astype(np.float32),
            weights.astype(np.float32),
            valid,
            np.int32(epoch),
        ),
    )


def every_loss(
    cases: tuple[str, ...], axis_name: str | None, logits: jax.Array, targets: Targets
) -> dict[str, Any]:
    """Several cases in one program, per head: ((loss_sum, count), gradient of loss_sum)."""

    def one(case: str) -> Any:
        loss = build(case, axis_name)
        in_axes = (0, Targets(0, 0, 0, None))
        return jax.vmap(jax.value_and_grad(loss, has_aux=True), in_axes)(logits, targets)

    return {case: one(case) for case in cases}


def heads(
    epoch: int = 2, kinds: tuple[str, ...] = ("mixed", "mixed", "mixed")
) -> tuple[np.ndarray, Targets]:
    """Three heads with cells of their own: [heads, rows, outputs]."""
    parts = [cells(kind, seed, epoch) for seed, kind in enumerate(kinds)]
    stacked = [
        np.stack(leaves) for leaves in zip(*(part.targets[:3] for part in parts), strict=True)
    ]
    logits = np.stack([part.logits for part in parts])
    return logits, Targets(*stacked, np.int32(epoch))


def head_of(targets: Targets, head: int) -> Targets:
    return jax.tree.map(lambda leaf: leaf[head] if leaf.ndim else leaf, targets)


@pytest.fixture(scope="module")
def compiled() -> Any:
    return jax.jit(partial(every_loss, tuple(CASES), None))


# --- the formulas, cell by cell in float64 -------------------------------------------------------


def bce(z: float, y: float) -> float:
    p = 1 / (1 + math.exp(-z))
    return -y * math.log(p) - (1 - y) * math.log(1 - p)


def asymmetric(z: float, y: float, at: float, plus: float, minus: float, margin: float) -> float:
    """`at` is the logit at which the focusing weights are taken: they carry no gradient."""
    p, q = 1 / (1 + math.exp(-z)), 1 / (1 + math.exp(-at))
    absent = 1 - max(p - margin, 0)
    weight = max(q - margin, 0) ** minus
    return -y * (1 - q) ** plus * math.log(p) - (1 - y) * weight * math.log(absent)


def focal(z: float, y: float, gamma: float, alpha: float) -> float:
    p = 1 / (1 + math.exp(-z))
    plus, minus = (alpha, 1 - alpha) if alpha >= 0 else (1, 1)
    positive = -plus * (1 - p) ** gamma * math.log(p)
    return y * positive - (1 - y) * minus * p**gamma * math.log(1 - p)


def reference(case: str, logits: np.ndarray, targets: Targets, at: np.ndarray) -> np.ndarray:
    """(loss_sum, count); `at`: the logits by which cells are weighted, ranked and turned."""
    c = SimpleNamespace(**config_of(case))
    rows = [int(r) for r in np.flatnonzero(targets.valid)]
    every = [(r, k) for r in rows for k in range(OUTPUTS)]
    unknown = [cell for cell in every if targets.weights[cell] == 0]
    by_logit = sorted(unknown, key=lambda cell: -at[cell])
    epoch = int(targets.epoch)
    in_count = every
    loss_sum = 0.0
    for cell in every:
        row, k = cell
        z, at_z, w = float(logits[cell]), float(at[cell]), float(targets.weights[cell])
        y = float(targets.labels[cell]) * (1 - c.label_smoothing) + c.label_smoothing / 2
        p = 1 / (1 + math.exp(-z))
        known = w > 0
        cost = 0.0
        if c.name in ("bce", "partial_bce") and known:
            cost = bce(z, y)
            if c.name == "partial_bce":
                share = np.mean(targets.weights[row] > 0)
                cost *= (-4.45 * share + 5.45) / OUTPUTS
        elif c.name == "weighted_bce" and known:
            n = STATISTICS.positives[k] + STATISTICS.negatives[k]
            own = STATISTICS.positives[k] if y == 1 else max(STATISTICS.negatives[k], 1)
            cost = bce(z, y) * n / (2 * own)
        elif c.name == "focal" and known:
            cost = focal(z, y, c.gamma, c.alpha)
        elif c.name == "asymmetric" and known:
            cost = asymmetric(z, y, at_z, c.gamma_positive, c.gamma_negative, c.margin)
        elif c.name == "class_selective":
            plus, margin = c.selective_gamma_positive, c.selective_margin
            dropped = by_logit[: round(c.selective_likeliest * len(rows))]
            if known:
                cost = asymmetric(z, y, at_z, plus, c.selective_gamma_negative, margin)
            elif STATISTICS.prior[k] <= c.selective_prior and cell not in dropped:
                cost = asymmetric(z, 0, at_z, plus, c.selective_gamma_unknown, margin)
                cost *= c.selective_weight
        elif c.name == "hill":
            with_margin = 1 / (1 + math.exp(1 - z))
            positive = -((1 - with_margin) ** 2) * math.log(with_margin)
            negative = (1.5 - p) * p**2
            if known:
                cost = y * positive + (1 - y) * negative
            elif c.hill_unknown == "negative":
                cost = negative
        elif c.name == "splc":
            turned = epoch >= c.splc_epoch and 1 / (1 + math.exp(-at_z)) > c.splc_threshold
            if known:
                cost = y * focal(z - 1, 1, 2, -1) + (1 - y) * focal(z, 0, 2, -1)
            else:
                cost = focal(z, float(turned), 2, -1)
        elif c.name == "large_loss":
            number = math.ceil(round(len(every) * c.large_loss_delta * epoch, 6))
            if known:
                cost = bce(z, y)
            elif cell not in by_logit[:number]:
                cost = bce(z, 0)
        loss_sum += (w if known else 1.0) * cost
    if c.name in MASKED and c.hill_unknown == "ignore":
        in_count = [cell for cell in every if cell not in unknown]
    count = sum(float(targets.weights[cell]) or 1.0 for cell in in_count)
    return np.array([loss_sum, len(rows) if c.name == "partial_bce" else count])


@pytest.mark.parametrize("case", CASES)
def test_the_published_formula(case: str, compiled: Any) -> None:
    for epoch in (0, 1, 4):
        logits, targets = heads(epoch, ("known", "mixed", "unknown"))
        made = compiled(logits, targets)[case][0]
        assert all(value.shape == (3,) for value in made)
        for head in range(3):
            expected = reference(case, logits[head], head_of(targets, head), logits[head])
            np.testing.assert_allclose(
                [value[head] for value in made], expected, rtol=2e-5, atol=1e-6
            )


# --- what others wrote ---------------------------------------------------------------------------


def test_focal_is_optax() -> None:
    logits, targets = cells("known")
    rows = np.asarray(targets.valid)
    targets = targets._replace(weights=np.ones_like(targets.weights))
    for case, gamma, alpha in (("focal", 2.0, None), ("focal_alpha", 0.5, 0.25)):
        published = jax.jit(partial(optax.sigmoid_focal_loss, alpha=alpha, gamma=gamma))
        theirs = published(logits[rows], targets.labels[rows])
        np.testing.assert_allclose(build(case)(logits, targets)[0], theirs.sum(), rtol=1e-5)


def test_weighted_bce_is_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    labels = (rng.random((60, 1)) < 0.2).astype(np.float32)
    logits = rng.normal(size=(60, 1)).astype(np.float32)
    weight = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels[:, 0].astype(int))
    theirs = log_loss(
        labels[:, 0],
        1 / (1 + np.exp(-logits[:, 0].astype(np.float64))),
        sample_weight=weight[labels[:, 0].astype(int)],
    )
    config = loss_config()
    config.name = "weighted_bce"
    statistics = LabelStatistics(labels.sum(0), (1 - labels).sum(0), labels.mean(0))
    targets = Targets(labels, np.ones_like(labels), np.ones(60, bool), np.int32(0))
    loss_sum, count = make_loss(config, statistics, None)(logits, targets)
    # Balanced weights add up to the number of cells, so both means have the same divisor.
    assert float(loss_sum / count) == pytest.approx(theirs, rel=1e-5)


def test_bce_is_optax() -> None:
    logits, targets = cells("mixed")
    weights = targets.weights * targets.valid[:, None]
    cost = optax.sigmoid_binary_cross_entropy(logits, targets.labels)
    made = build("bce")(logits, targets)
    np.testing.assert_allclose(made, ((weights * cost).sum(), weights.sum()), rtol=1e-6)


# --- laws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", MASKED)
def test_masked_equals_subset(case: str) -> None:
    logits, targets = cells("known")
    rng = np.random.default_rng(4)
    # Half of each column, so that all subsets have one shape and compile once.
    kept = rng.permuted(np.arange(ROWS - 2)[:, None].repeat(OUTPUTS, 1) % 2, axis=0)
    targets = targets._replace(weights=np.pad(kept, [(0, 2), (0, 0)]) * targets.weights)
    known = np.asarray(targets.known)
    parts = []
    for k in range(OUTPUTS):
        rows = known[:, k]
        column = LabelStatistics(*(value[k : k + 1] for value in STATISTICS))
        parts.append(
            make_loss(config_of(case), column, None)(
                logits[rows, k : k + 1],
                Targets(
                    targets.labels[rows, k : k + 1],
                    targets.weights[rows, k : k + 1],
                    np.ones(rows.sum(), bool),
                    targets.epoch,
                ),
            )
        )
    np.testing.assert_allclose(build(case)(logits, targets), np.sum(parts, axis=0), rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_padding_and_the_labels_of_unknown_cells_say_nothing(case: str, compiled: Any) -> None:
    logits, targets = heads()
    real = targets.valid[..., None]
    whole, gradient = compiled(logits, targets)[case]
    for head in range(3):
        rows, own = targets.valid[head], head_of(targets, head)
        subset = jax.tree.map(lambda leaf, rows=rows: leaf[rows] if leaf.ndim else leaf, own)
        alone = build(case)(logits[head, rows], subset)
        np.testing.assert_allclose([value[head] for value in whole], alone, rtol=1e-5)

    ignored = ~np.asarray(targets.known)
    poisoned = targets._replace(
        labels=np.where(ignored, np.nan, targets.labels),
        # A row of padding may carry a weight: it is still no row.
        weights=np.where(real, targets.weights, np.float32(1)),
    )
    wild = np.where(real, logits, np.nan)
    if case in MASKED or case == "partial_bce":
        wild = np.where(ignored, np.nan, logits)
    again, its_gradient = compiled(wild, poisoned)[case]
    np.testing.assert_array_equal(whole, again)
    np.testing.assert_array_equal(gradient, its_gradient)


@pytest.mark.parametrize("case", CASES)
def test_gradients(case: str, compiled: Any) -> None:
    for extreme in (-100.0, 100.0):
        logits, targets = heads(kinds=("known", "mixed", "unknown"))
        made = compiled(np.full_like(logits, extreme), targets)[case]
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(made))

    logits, targets = heads(4)
    made = compiled(logits, targets)[case][1][0]
    own, exact, step = head_of(targets, 0), logits[0].astype(np.float64), 1e-6
    expected = np.zeros_like(exact)
    for cell in np.ndindex(exact.shape):
        shift = np.zeros_like(exact)
        shift[cell] = step
        rise = reference(case, exact + shift, own, exact)
        expected[cell] = (rise - reference(case, exact - shift, own, exact))[0] / (2 * step)
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


def test_jit_and_vmap_over_heads_equal_eager(compiled: Any) -> None:
    logits, targets = heads(5)
    made = compiled(logits, targets)
    for case in CASES:
        for head in range(3):
            alone = build(case)(logits[head], head_of(targets, head))
            np.testing.assert_allclose(
                [value[head] for value in made[case][0]], alone, rtol=1e-5, err_msg=case
            )


def test_permuting_rows_permutes(compiled: Any) -> None:
    logits, targets = heads()
    order = np.random.default_rng(9).permutation(ROWS)
    moved = jax.tree.map(lambda leaf: leaf[:, order] if leaf.ndim else leaf, targets)
    straight, permuted = compiled(logits, targets), compiled(logits[:, order], moved)
    for case in CASES:
        np.testing.assert_allclose(straight[case][0], permuted[case][0], rtol=1e-5, err_msg=case)
        expected = np.asarray(straight[case][1])[:, order]
        np.testing.assert_allclose(permuted[case][1], expected, rtol=1e-5, err_msg=case)


def test_two_devices_add_up_to_one(compiled: Any) -> None:
    """The devices hold different numbers of known cells, and all of the padding is on the last."""
    assert len(jax.local_devices()) >= 2  # conftest simulates them
    mapped = jax.pmap(
        partial(every_loss, SHARDED, "data"),
        axis_name="data",
        in_axes=(0, Targets(0, 0, 0, None)),
        devices=jax.local_devices()[:2],
    )

    def cut(leaf: np.ndarray) -> np.ndarray:
        parts = leaf.reshape(leaf.shape[0], 2, -1, *leaf.shape[2:])
        return np.moveaxis(parts, 1, 0)

    for epoch in (0, 5):
        logits, targets = heads(epoch)
        # Likely cells are all on the first device, so a choice per device would differ.
        logits[:, : ROWS // 2] += 2.0
        parts = jax.tree.map(lambda leaf: cut(leaf) if leaf.ndim else leaf, targets)
        whole, shards = compiled(logits, targets), jax.device_get(mapped(cut(logits), parts))
        for case in SHARDED:
            for alone, added in zip(whole[case][0], shards[case][0], strict=True):
                np.testing.assert_allclose(added.sum(axis=0), alone, rtol=1e-5, err_msg=case)
            gradient = np.concatenate(list(shards[case][1]), axis=1)
            np.testing.assert_allclose(gradient, whole[case][1], rtol=1e-5, atol=1e-7, err_msg=case)


def test_ties_fall_alike_on_one_device_and_on_two() -> None:
    assert len(jax.local_devices()) >= 2  # conftest simulates them
    _, targets = cells("unknown", epoch=2)
    logits = np.zeros((ROWS, OUTPUTS), np.float32)

    def kept(axis_name: str | None, logits: Any, targets: Targets) -> Any:
        loss = build("large_loss_much", axis_name)
        return jax.grad(lambda z: loss(z, targets)[0])(logits) != 0

    mapped = jax.pmap(
        partial(kept, "data"),
        "data",
        in_axes=(0, Targets(0, 0, 0, None)),
        devices=jax.local_devices()[:2],
    )

    def cut(leaf: np.ndarray) -> np.ndarray:
        return leaf.reshape(2, ROWS // 2, *leaf.shape[1:])

    parts = jax.tree.map(lambda leaf: cut(leaf) if leaf.ndim else leaf, targets)
    whole = np.asarray(kept(None, logits, targets))
    np.testing.assert_array_equal(
        np.asarray(mapped(cut(logits), parts)).reshape(whole.shape), whole
    )
    # 40 cells of real rows, of which ⌈40 · 0.05 · 2⌉ = 4 go, the first ones.
    assert whole.sum() == 36
    assert not whole.reshape(-1)[:4].any()


@pytest.mark.parametrize("case", CASES)
def test_a_soft_label_costs_the_mixture_of_the_hard_ones(case: str, compiled: Any) -> None:
    logits, targets = heads()

    def at(label: float) -> np.ndarray:
        labels = np.full_like(logits, label)
        return np.array(compiled(logits, targets._replace(labels=labels))[case][0])

    mixture = 0.3 * at(1.0) + 0.7 * at(0.0)
    np.testing.assert_allclose(at(0.3), mixture, rtol=1e-5)
    assert (abs(at(1.0)[0] - at(0.0)[0]) > 0.1).all()


@pytest.mark.parametrize("name", LOSSES)
def test_smoothing_is_a_soft_label_and_touches_known_cells_only(name: str) -> None:
    config = config_of(name)
    config.label_smoothing = 0.2
    smoothed = make_loss(config, STATISTICS, None)
    logits, targets = cells("mixed")
    soft = targets._replace(labels=targets.labels * 0.8 + 0.1)
    np.testing.assert_allclose(smoothed(logits, targets), build(name)(logits, soft), rtol=1e-6)
    logits, targets = cells("unknown")
    np.testing.assert_array_equal(smoothed(logits, targets), build(name)(logits, targets))


def test_statistics_of_their_own_for_every_head() -> None:
    """A stack of heads fitted on different folds builds the loss inside its vmap."""
    logits, targets = heads()
    scale = np.array([1.0, 0.5, 0.1])[:, None]
    statistics = LabelStatistics(
        scale * STATISTICS.positives, STATISTICS.negatives / scale, scale * STATISTICS.prior
    )
    for case in ("weighted_bce", "selective_some"):

        def one(own: LabelStatistics, z: Any, t: Targets, case: str = case) -> Any:
            return make_loss(config_of(case), own, None)(z, t)

        stacked = jax.jit(jax.vmap(one, (0, 0, Targets(0, 0, 0, None))))
        made = stacked(statistics, logits, targets)
        for head in range(3):
            stats = LabelStatistics(*(leaf[head] for leaf in statistics))
            expected = one(stats, logits[head], head_of(targets, head))
            np.testing.assert_allclose([value[head] for value in made], expected, rtol=1e-5)


@pytest.mark.parametrize(("epoch", "dropped"), [(0, 0), (1, 2), (3, 6), (400, 800), (999, 1000)])
def test_large_loss_drops_the_whole_number_and_no_more(epoch: int, dropped: int) -> None:
    """1000 cells · 0.002 · epoch is whole, and must stay so in float32."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(250, 4)).astype(np.float32)
    zeros = np.zeros_like(logits)
    targets = Targets(zeros, zeros, np.ones(250, bool), np.int32(epoch))
    loss = build("large_loss")
    (_, count), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(logits, targets)
    assert (np.asarray(gradient) == 0).sum() == dropped
    assert float(count) == 1000


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "squared"),
        ("label_smoothing", 1.5),
        ("gamma", -1.0),
        ("margin", math.nan),
        ("selective_gamma_unknown", math.inf),
        ("splc_threshold", 2.0),
        ("large_loss_delta", -0.1),
        ("hill_unknown", "positive"),
    ],
)
def test_what_cannot_be_meant_is_refused(key: str, value: Any) -> None:
    config = loss_config()
    config[key] = value
    with pytest.raises(ConfigError, match=rf"config\.loss\.{key}=") as caught:
        make_loss(config, STATISTICS, None)
    if key == "name":
        assert all(name in str(caught.value) for name in LOSSES)
