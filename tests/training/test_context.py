"""Laws of what heads are told: not their own label, a share kept back, alike on any devices."""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlc_jax.data.sampling import Plan
from mlc_jax.models.heads import HeadStack
from mlc_jax.training.features import WITHHELD, Cells, take_batch, take_context, withheld
from mlc_jax.training.parallel import Devices

HEADS, BATCH, LABELS, ROWS = 6, 64, 5, 200
NUMBERS = jnp.arange(HEADS)


def told() -> tuple[jax.Array, np.ndarray]:
    """A context without a zero, and the rows that it is of; each head has its own."""
    rng = np.random.default_rng(0)
    rows = np.stack([rng.permutation(ROWS)[:BATCH] for _ in range(HEADS)]).astype(np.int32)
    return jnp.asarray(rng.uniform(0.5, 2, (HEADS, BATCH, LABELS)), jnp.float32), rows


def kept_back(step: int) -> np.ndarray:
    context, rows = told()
    return np.asarray(withheld(context, NUMBERS, rows, jnp.int32(step)) == 0)


def test_the_share_that_is_kept_back_is_what_it_is_called() -> None:
    steps = np.stack([kept_back(step) for step in range(60)])
    spread = np.sqrt(WITHHELD * (1 - WITHHELD))
    assert steps.mean() == pytest.approx(WITHHELD, abs=4 * spread / np.sqrt(steps.size))
    # No step, head, row or label is left out or hit all the time.
    for axis in range(4):
        others = tuple(a for a in range(4) if a != axis)
        shares = steps.mean(axis=others)
        cells = steps.size // steps.shape[axis]
        assert np.abs(shares - WITHHELD).max() < 4.5 * spread / np.sqrt(cells)


def test_what_is_not_kept_back_is_told_unchanged() -> None:
    context, rows = told()
    after = np.asarray(withheld(context, NUMBERS, rows, jnp.int32(7)))
    back = kept_back(7)
    np.testing.assert_array_equal(after[~back], np.asarray(context)[~back])
    assert (after[back] == 0).all()


def test_steps_heads_and_labels_are_kept_back_independently() -> None:
    """For pairs of them both are hit as often as by chance."""
    steps = np.stack([kept_back(step) for step in range(40)]).astype(np.float64)
    size = steps.size
    for axis in (0, 1, 3):
        parts = np.moveaxis(steps, axis, 0).reshape(steps.shape[axis], -1) - WITHHELD
        limit = 5 * WITHHELD * (1 - WITHHELD) / np.sqrt(size / steps.shape[axis])
        for one, other in itertools.combinations(range(len(parts)), 2):
            assert abs(np.mean(parts[one] * parts[other])) < limit, (axis, one, other)


def test_it_follows_the_row_and_not_its_place_in_the_batch() -> None:
    context, rows = told()
    order = np.random.default_rng(1).permutation(BATCH)
    moved = withheld(context[:, order], NUMBERS, rows[:, order], jnp.int32(3))
    np.testing.assert_array_equal(moved, withheld(context, NUMBERS, rows, jnp.int32(3))[:, order])


@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_eight_devices_keep_back_what_one_does(kind: str) -> None:
    context, rows = told()
    assert len(jax.local_devices()) == 8  # conftest simulates them

    def build(axis_name: str | None) -> Callable[..., jax.Array]:
        def run(context: jax.Array, rows: jax.Array, step: jax.Array) -> jax.Array:
            after = withheld(context, NUMBERS, rows, step)
            if axis_name is None:
                return after
            return jax.lax.all_gather(after, axis_name, axis=1, tiled=True)

        return run

    run = Devices(kind, jax.local_devices()).wrap(build, (1, 1, None), (0, 0, None), 0)
    for step in (0, 1, 1000):
        many = run(context, rows, jnp.int32(step))
        np.testing.assert_array_equal(many, withheld(context, NUMBERS, rows, jnp.int32(step)))


def cells(labels: int = LABELS) -> Cells:
    """Of two groups; the last head speaks of two labels, as a classifier's does of all."""
    rng = np.random.default_rng(2)
    outputs = np.array([[0, 0], [0, 0], [1, 1], [4, 4], [2, 2], [3, 1]])
    return Cells(
        jnp.asarray(rng.random((2, ROWS, LABELS)), jnp.float32),
        jnp.asarray(rng.random((2, ROWS, LABELS)), jnp.float32),
        jnp.asarray(rng.uniform(0.5, 2, (2, ROWS, labels)), jnp.float32),
        jnp.asarray([0, 1, 0, 1, 1, 0], jnp.int32),
        jnp.asarray(outputs, jnp.int32),
        NUMBERS,
    )


def plan() -> Plan:
    _, rows = told()
    return Plan(rows, np.zeros_like(rows), np.ones(rows.shape, np.bool_))


def test_a_head_is_told_what_its_group_is_and_never_its_own_labels() -> None:
    given = cells()
    found = np.asarray(take_context(given, plan()))
    batch = take_batch(jnp.zeros(()), given, plan(), jnp.int32(5))
    rows = plan().rows
    for head in range(HEADS):
        group, own = int(given.group[head]), set(np.asarray(given.outputs[head]).tolist())
        for label in range(LABELS):
            expected = given.context[group, rows[head], label]
            if label in own:
                expected = jnp.zeros(BATCH)
            np.testing.assert_array_equal(found[head, :, label], expected)
        for output, label in enumerate(np.asarray(given.outputs[head])):
            taken = batch.labels[head, :, output], batch.weights[head, :, output]
            np.testing.assert_array_equal(taken[0], given.labels[group, rows[head], label])
            np.testing.assert_array_equal(taken[1], given.weights[group, rows[head], label])
    # In training a share is kept back besides; asked, a head is told everything.
    training = np.asarray(batch.context)
    assert ((training == found) | (training == 0)).all()
    assert 0 < (training != found).mean() < 2 * WITHHELD


def test_heads_that_are_told_nothing_have_no_place_for_it() -> None:
    given = cells(labels=0)
    assert take_context(given, plan()).shape == (HEADS, BATCH, 0)
    assert take_batch(jnp.zeros(()), given, plan(), jnp.int32(0)).context.shape[-1] == 0


@pytest.mark.parametrize("head", ["linear", "conv"])
def test_a_stack_with_context_starts_as_the_one_without(head: str) -> None:
    """Then each number told adds itself, times its weight and the root of the channels."""
    shape = (2, 2, 9)
    told_stack, plain = HeadStack(head, shape, 2, context=3), HeadStack(head, shape, 2)
    params, bare = told_stack.init(0, 2), plain.init(0, 2)
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(4, *shape)), jnp.float32)
    context = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(3, 2)), jnp.float32)
    for number in range(2):
        own, before = (jax.tree.map(lambda a, h=number: a[h], tree) for tree in (params, bare))
        expected = plain.apply(before, features)
        np.testing.assert_array_equal(told_stack.apply(own, features, context), expected)
        after = told_stack.apply({**own, "context": weights}, features, context)
        wanted = np.asarray(expected) + 3 * np.asarray(context) @ np.asarray(weights)
        np.testing.assert_allclose(after, wanted, rtol=1e-5, atol=1e-5)
