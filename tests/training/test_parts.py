"""Into how many parts a CPU takes the heads of a step."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from mlc_jax.data.sampling import Plan
from mlc_jax.training.parallel import Devices
from mlc_jax.training.parts import CACHED_BYTES, in_parts, number_of_parts

HEADS = 12


def test_parts_are_equal_and_the_fewest_that_fit() -> None:
    for heads, abreast, share in itertools.product((1, 4, 12, 60, 97), (1, 2, 4), (0.01, 0.3, 2)):
        if heads % abreast:
            continue
        size = int(CACHED_BYTES * share)
        found = number_of_parts(heads, abreast, size)
        together = heads // abreast
        fitting = [
            parts
            for parts in range(1, together + 1)
            if together % parts == 0 and together // parts * size <= CACHED_BYTES
        ]
        assert found == min(fitting, default=together), (heads, abreast, share)


def test_each_head_gets_its_own_and_nothing_else_is_cut() -> None:
    """Axes of heads in the first, second and third place, and an argument that has none."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(HEADS, 2)), rng.normal(size=(3, HEADS))
    rows = rng.integers(0, 9, (5, HEADS, 8))
    plan = Plan(rows, rows, rows > 3)
    table = rng.normal(size=9)
    traced: list[int] = []

    def function(
        first: jax.Array, second: jax.Array, table: jax.Array, plan: Plan
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        traced.append(len(first))
        looked = jnp.where(plan.mask, table[plan.rows], 0.0)
        return first.sum(axis=1), second[:, None] * looked.sum(axis=2), table * 2

    wanted = function(first, second, table, plan)
    # Under jit a device has its share of the batch, or of the heads; under pmap the batch is cut.
    for kind, devices, parts, together in (
        ("jit", 1, 1, 12),
        ("jit", 1, 4, 3),
        ("jit", 1, 12, 1),
        ("jit", 4, 1, 12),
        ("jit", 4, 3, 4),
        ("pmap", 4, 4, 3),
    ):
        # So many bytes for each place of a device's own that its heads go into so many parts.
        abreast = devices if kind == "jit" else 1
        place = CACHED_BYTES * parts * abreast // (HEADS * 8)
        traced.clear()
        runner = Devices(kind, jax.local_devices()[:devices])
        made = in_parts(function, (0, 1, None, 1), (0, 2, None), runner, place)
        for one, other in zip(jax.jit(made)(first, second, table, plan), wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)
        assert traced == [together], (kind, devices, parts)
