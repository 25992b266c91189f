"""Laws of the step: masked equals subset, heads do not meet, jit equals pmap."""

import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from sklearn.linear_model import LogisticRegression

from mlc_jax.data.sampling import Plan
from mlc_jax.loss_settings import loss_config
from mlc_jax.models.heads import HeadStack
from mlc_jax.models.tuning import Trained
from mlc_jax.training import parts
from mlc_jax.training.cached import CachedFeatures
from mlc_jax.training.features import Cells
from mlc_jax.training.optimizers import make_optimizer
from mlc_jax.training.parallel import Devices
from mlc_jax.training.step import (
    Batch,
    Frozen,
    Recipe,
    Sums,
    TrainState,
    head_network,
    init_state,
    make_train_step,
)
from mlc_jax.training.targets import LabelStatistics

HEADS, BATCH, SHAPE = 4, 12, (2, 2, 8)


def recipe(
    head: str,
    optimizer: str = "sgd",
    rate: float = 0.1,
    context: int = 0,
    l2: float = 0.0,
    outputs: int = 1,
) -> Recipe:
    schedule = ConfigDict({"name": "constant", "factor": 0.7, "rtol": 0.004, "warmup": 0.1})
    keys = ConfigDict({"name": optimizer, "learning_rate": rate, "l2": l2})
    made = make_optimizer(keys, schedule, 10, 10)
    return Recipe(HeadStack(head, SHAPE, outputs, context), made, loss_config(), 10)


def started(made: Recipe) -> TrainState:
    return init_state(made, Trained(made.stack.init(0, HEADS), {}))


def frozen(heads: int = HEADS) -> Frozen:
    rng = np.random.default_rng(5)
    return Frozen(
        jnp.asarray(rng.normal(size=(heads, 8)), jnp.float32),
        jnp.asarray(rng.uniform(0.5, 2, (heads, 8)), jnp.float32),
        LabelStatistics(*jnp.ones((3, heads, 1))),
        {},
    )


def batch(seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    return Batch(
        jnp.asarray(rng.normal(size=(HEADS, BATCH, *SHAPE)), jnp.float32),
        jnp.asarray(rng.integers(0, 2, (HEADS, BATCH, 1)), jnp.float32),
        jnp.asarray(rng.random((HEADS, BATCH, 1)) < 0.7, jnp.float32),
        jnp.zeros((HEADS, BATCH, 0)),
        jnp.ones((HEADS, BATCH), jnp.bool_),
    )


def assert_trees_close(one: Any, other: Any, rtol: float) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        scale = np.abs(np.asarray(b)).max() + 1e-30
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale)


def test_masked_cells_count_as_if_they_were_not_there() -> None:
    made = recipe("conv")
    step = jax.jit(make_train_step(made, head_network(made.stack)))
    state, whole = started(made), batch()
    poisoned = whole._replace(labels=jnp.where(whole.weights > 0, whole.labels, 1e9))
    for one, other in zip(
        jax.tree.leaves(step(state, frozen(), poisoned)),
        jax.tree.leaves(step(state, frozen(), whole)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    for head in (0, HEADS - 1):  # each number of known cells is compiled anew
        known = np.flatnonzero(whole.weights[head, :, 0])
        one = jax.tree.map(lambda leaf, h=head: leaf[h : h + 1], state._replace(step=jnp.zeros(1)))
        subset = jax.tree.map(lambda leaf, h=head, k=known: leaf[h : h + 1, k], whole)
        alone, sums = step(
            one._replace(step=state.step),
            jax.tree.map(lambda leaf, h=head: leaf[h : h + 1], frozen()),
            subset,
        )
        together, all_sums = step(state, frozen(), whole)
        own = jax.tree.map(lambda leaf, h=head: leaf[h : h + 1], together.params)
        assert_trees_close(alone.params, own, 1e-5)
        assert float(sums.known[0]) == known.size == float(all_sums.known[head])
        assert float(sums.loss_sum[0]) == pytest.approx(float(all_sums.loss_sum[head]), rel=1e-5)


def test_a_head_without_a_known_cell_stays_where_it_is() -> None:
    made = recipe("conv")
    empty = batch()._replace(weights=batch().weights.at[1].set(0.0))
    state = started(made)
    after, sums = jax.jit(make_train_step(made, head_network(made.stack)))(state, frozen(), empty)
    assert float(sums.known[1]) == 0
    same = jax.tree.map(lambda a, b: bool((a[1] == b[1]).all()), after.params, state.params)
    assert all(jax.tree.leaves(same))


@pytest.mark.parametrize("strength", [0.5, 5.0, 50.0])
def test_a_penalised_head_is_scikit_learn_s_logistic_regression(strength: float) -> None:
    made = recipe("linear", rate=0.4, l2=strength, outputs=2)
    rng = np.random.default_rng(3)
    whole = batch()._replace(
        inputs=jnp.asarray(rng.normal(size=(HEADS, 60, *SHAPE)), jnp.float32),
        labels=jnp.asarray(rng.integers(0, 2, (HEADS, 60, 2)), jnp.float32),
        weights=jnp.asarray(rng.random((HEADS, 60, 2)) < (0.8, 0.4), jnp.float32),
        context=jnp.zeros((HEADS, 60, 0)),
        valid=jnp.ones((HEADS, 60), jnp.bool_),
    )
    # What the labels' statistics count are the known cells: those of weight 1.
    positives = (whole.labels * whole.weights).sum(axis=1)
    negatives = whole.weights.sum(axis=1) - positives
    told = frozen()._replace(statistics=LabelStatistics(positives, negatives, positives))
    step = make_train_step(made, head_network(made.stack))

    @jax.jit
    def trained(state: TrainState) -> TrainState:
        return jax.lax.scan(lambda s, _: (step(s, told, whole)[0], None), state, length=3000)[0]

    fitted = trained(started(made)).params.head["dense"]
    # In float64: in the float32 of jax scikit-learn's line search can end in rounding, and warns.
    pooled = np.asarray(whole.inputs, np.float64).mean(axis=(2, 3))
    mean, std = (np.asarray(array, np.float64) for array in (told.mean, told.std))
    for head, label in itertools.product(range(HEADS), range(2)):
        x = (pooled[head] - mean[head]) / std[head]
        known = np.asarray(whole.weights[head, :, label]) > 0
        peer = LogisticRegression(C=1 / strength, solver="newton-cholesky", tol=1e-6)
        peer.fit(x[known], np.asarray(whole.labels)[head, known, label])
        np.testing.assert_allclose(fitted["kernel"][head, :, label], peer.coef_[0], atol=2e-4)
        np.testing.assert_allclose(fitted["bias"][head, label], peer.intercept_[0], atol=2e-4)


def test_a_stopped_head_does_not_move_and_the_others_do() -> None:
    made = recipe("linear", "adam")
    state = started(made)._replace(active=jnp.array([True, False, True, True]))
    after, _ = jax.jit(make_train_step(made, head_network(made.stack)))(state, frozen(), batch())
    moved = np.abs(np.asarray(after.params.head["dense"]["kernel"])).sum(axis=(1, 2)) > 0
    assert moved.tolist() == [True, False, True, True]


def test_gradients_are_finite_at_extreme_logits() -> None:
    made = recipe("linear")
    state = started(made)
    for bias in (-100.0, 100.0):
        dense = {**state.params.head["dense"], "bias": jnp.full((HEADS, 1), bias)}
        params = Trained({"dense": dense}, {})
        after, sums = make_train_step(made, head_network(made.stack))(
            state._replace(params=params), frozen(), batch()
        )
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((after.params, sums)))


def test_a_gradient_that_is_not_finite_is_seen_where_the_loss_is_finite() -> None:
    made = recipe("linear")
    network = head_network(made.stack)

    def steep(params: Any, frozen: Frozen, inputs: jax.Array, context: jax.Array) -> jax.Array:
        # The root of a zero adds nothing, and its slope is without bound.
        bad = params.head["dense"]["bias"] * inputs[0, 0, 0, 0] * 0.0
        return network(params, frozen, inputs, context) + jnp.sqrt(bad)

    state, whole = started(made), batch()
    for chosen, broken in ((network, False), (steep, True)):
        _, sums = jax.jit(make_train_step(made, chosen))(state, frozen(), whole)
        assert np.isfinite(sums.loss_sum).all()
        assert (np.asarray(sums.broken) > 0).tolist() == [broken] * HEADS


def plan(steps: int, rows: int, views: int, seed: int = 0) -> Plan:
    rng = np.random.default_rng(seed)
    shape = (steps, HEADS, BATCH)
    return Plan(
        rng.integers(0, rows, shape).astype(np.int32),
        rng.integers(0, views, shape).astype(np.int32),
        rng.random(shape) < 0.9,
    )


def one_step(head: str, devices: Devices, context: int) -> tuple[Trained, Sums, np.ndarray]:
    """Parameters, sums and logits after a step at rate 1, which is the gradient."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=(30, 3, *SHAPE)).astype(np.float16)
    cells, still = devices.replicate(
        (
            Cells(
                jnp.asarray(rng.random((2, 30, 2)), jnp.float32),
                jnp.asarray(rng.random((2, 30, 2)) * (rng.random((2, 30, 2)) < 0.8), jnp.float32),
                jnp.asarray(rng.uniform(-2, 2, (2, 30, context)), jnp.float32),
                jnp.asarray([0, 1, 0, 1], jnp.int32),
                jnp.asarray([[0], [0], [1], [1]], jnp.int32),
                jnp.arange(HEADS),
            ),
            frozen(),
        )
    )
    made = recipe(head, "sgd", 1.0, context)
    feed = CachedFeatures(features, devices).feed(made)
    # A copy, since the step donates its state.
    state = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))(devices.replicate(started(made)))
    state, sums = feed.train_epoch(state, still, cells, plan(1, 30, 3))
    logits = feed.logits(state.params, still, cells, plan(2, 30, 1, seed=2))
    assert logits.shape == (2, HEADS, BATCH, 1)
    return jax.device_get((state.params, sums, logits))


@pytest.mark.parametrize(
    ("head", "devices", "context"),
    [
        ("linear", 8, 0),
        ("linear", 8, 2),
        ("linear", 5, 2),
        ("linear", 2, 0),
        ("linear", 4, 0),
        pytest.param("conv", 2, 0, marks=pytest.mark.slow),
        pytest.param("conv", 8, 0, marks=pytest.mark.slow),
    ],
)
def test_jit_and_pmap_take_the_same_step(head: str, devices: int, context: int) -> None:
    """Four heads with twelve places each: cut by heads, by places, or by both.

    Twelve places over eight devices, or five: padding must not count either.
    """
    assert len(jax.local_devices()) >= devices  # conftest simulates them
    wanted = one_step(head, Devices("jit", jax.local_devices()[:1]), context)
    for kind in ("jit", "pmap"):
        many = one_step(head, Devices(kind, jax.local_devices()[:devices]), context)
        assert_trees_close(many, wanted, 1e-5)
    if context:
        weights = wanted[0].head["context"][:, :, 0]
        # Of its own label a head is told nothing, so that weight stays where it was.
        own = np.array([[True, False], [True, False], [False, True], [False, True]])
        assert (weights[own] == 0).all()
        assert (weights[~own] != 0).all()


def some_cells() -> Cells:
    zeros = jnp.zeros(HEADS, jnp.int32)
    known = jnp.ones((1, 10, 1))
    nothing = jnp.zeros((1, 10, 0))
    return Cells(jnp.zeros((1, 10, 1)), known, nothing, zeros, zeros[:, None], jnp.arange(HEADS))


@pytest.mark.parametrize(("kind", "devices"), [("jit", 1), ("jit", 2), ("jit", 3), ("pmap", 2)])
def test_heads_one_after_the_other_take_the_same_step(
    kind: str, devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four heads; jit on two devices has two abreast, and two of those one after the other."""
    wanted = one_step("linear", Devices("jit", jax.local_devices()[:1]), 2)
    monkeypatch.setattr(parts, "CACHED_BYTES", 1)
    made = one_step("linear", Devices(kind, jax.local_devices()[:devices]), 2)
    assert_trees_close(made, wanted, 1e-5)


@pytest.mark.parametrize(
    ("devices", "cached", "within"),
    [
        (3, 1 << 30, {"all-reduce"}),
        (4, 1 << 30, set()),
        (8, 1 << 30, {"all-reduce"}),
        (2, 1, set()),
        (3, 1, {"all-reduce"}),
    ],
)
def test_heads_on_devices_of_their_own_exchange_nothing_between_steps(
    devices: int, cached: int, within: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four heads: on three devices cut by places, on two or four by heads, on eight by both.

    With a cache of one byte those of a device are trained one after the other.
    """
    monkeypatch.setattr(parts, "CACHED_BYTES", cached)
    made = recipe("linear", "adam")
    runner = Devices("jit", jax.local_devices()[:devices])
    feed = CachedFeatures(np.zeros((10, 2, *SHAPE), np.float32), runner).feed(made)
    epoch = jax.jit(lambda *given: feed.train_epoch(*given))
    program = epoch.lower(started(made), frozen(), some_cells(), plan(3, 10, 2)).compile()
    exchanges = r"\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)\("
    # The program's entry, behind the loop of steps, puts the heads together again.
    loop, entry = program.as_text().split("\nENTRY ")
    assert set(re.findall(exchanges, loop)) == within
    assert set(re.findall(exchanges, entry)) == (set() if devices == 3 else {"all-gather"})


def test_the_epoch_compiles_once() -> None:
    features = np.zeros((10, 2, *SHAPE), np.float32)
    made = recipe("linear", "adam")
    runner = Devices("jit")
    feed = CachedFeatures(features, runner).feed(made)
    cells = some_cells()
    state = jax.tree.map(jnp.copy, runner.replicate(started(made)))
    with jax.log_compiles(False):
        state, _ = feed.train_epoch(state, frozen(), cells, plan(3, 10, 2))
        before = jax.monitoring
        compiled: list[str] = []
        before.register_event_duration_secs_listener(
            lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
        )
        for seed in range(3):
            state, _ = feed.train_epoch(state, frozen(), cells, plan(3, 10, 2, seed))
    assert not compiled
