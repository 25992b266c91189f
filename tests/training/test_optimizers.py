"""Optimizers go downhill; schedules and the two plateau rules are what their formulas say."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from mlc_jax.errors import ConfigError
from mlc_jax.training.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    Optimizer,
    make_optimizer,
    notebook_plateau,
)

KEYS = {"factor": 0.7, "rtol": 0.004, "warmup": 0.1, "rate": 0.95, "boundaries": (0.5, 0.75)}
STEPS, EPOCHS = 10, 10


def make(
    optimizer: str = "sgd",
    schedule: str = "constant",
    rate: float = 0.05,
    steps: int = STEPS,
    epochs: int = EPOCHS,
    **changed: Any,
) -> Optimizer:
    return make_optimizer(
        ConfigDict({"name": optimizer, "learning_rate": rate, "l2": 0.0}),
        ConfigDict({"name": schedule, **KEYS, **changed}),
        steps,
        epochs,
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_downhill(name: str) -> None:
    """A quadratic of uneven curvature; adadelta starts slowly, so its rate is higher."""
    tx = make(name, rate=1.0 if name == "adadelta" else 0.02).tx
    curvature = jnp.array([1.0, 3.0, 0.3])

    def loss(params: Any) -> jax.Array:
        return 0.5 * jnp.sum(curvature * params["kernel"] ** 2)

    @jax.jit
    def run(params: Any) -> jax.Array:
        def one(carry: Any, _: Any) -> Any:
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), loss(params)

        return jax.lax.scan(one, (params, tx.init(params)), None, length=200)[1]

    start = {"kernel": jnp.array([1.0, -2.0, 0.5])}
    losses = run(start)
    assert losses[0] < loss(start)
    assert losses[-1] < 0.6 * loss(start)


def rates(schedule: str, steps: int = STEPS, epochs: int = EPOCHS, **changed: Any) -> np.ndarray:
    """The rate of every step, read off updates: a gradient of 1 under Lion moves by the rate."""
    tx = make("lion", schedule, 0.5, steps, epochs, **changed).tx
    held = {"kernel": jnp.zeros(())}

    def one(state: Any, _: Any) -> Any:
        # Lion's weight decay is relative to the parameters, so they are held at zero.
        updates, state = tx.update({"kernel": jnp.ones(())}, state, held)
        return state, -updates["kernel"]

    return np.asarray(jax.lax.scan(one, tx.init(held), None, length=steps * epochs)[1])


def cosine(low: float, high: float, share: float) -> float:
    return low + (high - low) * (1 - math.cos(math.pi * share)) / 2


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rate_of_every_step(schedule: str) -> None:
    total, peak = STEPS * EPOCHS, 0.5
    expected = {
        # The plateau rules act between epochs, on the updates.
        "constant": lambda t: peak,
        "plateau": lambda t: peak,
        "notebook": lambda t: peak,
        "cosine": lambda t: peak * t / 10 if t < 10 else cosine(peak, 0, (t - 10) / (total - 10)),
        "exponential": lambda t: peak * 0.95 ** (t / STEPS),
        "piecewise": lambda t: peak * 0.7 ** ((t >= 50) + (t >= 75)),
        "one_cycle": lambda t: (
            cosine(peak / 25, peak, t / 10)
            if t < 10
            else cosine(peak, peak / 25e4, (t - 10) / (total - 10))
        ),
    }[schedule]
    np.testing.assert_allclose(
        rates(schedule), [expected(t) for t in range(total)], rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("epochs", [1, 2])
def test_the_shortest_runs(schedule: str, epochs: int) -> None:
    for warmup in (0.0, 0.1, 0.99):
        made = rates(schedule, steps=1, epochs=epochs, warmup=warmup)
        assert np.isfinite(made).all()
        assert made.max() > 0


def test_boundaries_that_meet_on_one_step_both_act() -> None:
    made = rates("piecewise", steps=1, epochs=4, boundaries=(0.5, 0.55))
    np.testing.assert_allclose(made, [0.5, 0.5, 0.5 * 0.49, 0.5 * 0.49], rtol=1e-6)


LOSSES = [
    1.0,
    0.9,
    0.899,
    0.95,
    0.9499,
    0.93,
    0.5,
    0.5,
    0.4985,
    0.499,
    0.3,
    math.nan,
    0.3,
    0.29999,
    0.2,
]


def after_each(rule: Any, losses: list[float]) -> list[float]:
    state, scales = rule.init({"w": jnp.ones(3)}), []
    for value in losses:
        updates, state = rule.update({"w": jnp.ones(3)}, state, value=jnp.float32(value))
        np.testing.assert_allclose(updates["w"], float(state.scale))
        scales.append(float(state.scale))
    return scales


def test_the_notebook_rule_is_the_original_loop() -> None:
    rate, history, expected = 1.0, [], []
    for value in LOSSES:
        history.append(value)
        if len(history) > 1 and history[-2] - history[-1] <= abs(history[-1]) * (0.002 * 2):
            rate *= 0.7
        expected.append(rate)
    assert 1 < len(set(expected)) < len(LOSSES)
    np.testing.assert_allclose(after_each(notebook_plateau(0.7, 0.004), LOSSES), expected)
    chosen = make(schedule="notebook").plateau
    np.testing.assert_allclose(after_each(chosen, LOSSES), expected, rtol=1e-6)


def test_a_loss_that_stands_still_gains_nothing() -> None:
    scales = after_each(notebook_plateau(0.5, 0.0), [1.0, 1.0, 1.0, 0.9])
    assert scales == [1.0, 0.5, 0.25, 0.25]


def test_plateau_is_optax() -> None:
    losses = [value for value in LOSSES if not math.isnan(value)]
    made = after_each(make(schedule="plateau").plateau, losses)
    theirs = optax.contrib.reduce_on_plateau(factor=0.7, patience=1, rtol=0.004)
    np.testing.assert_array_equal(made, after_each(theirs, losses))
    # It looks at the best epoch so far, which the notebook's rule does not.
    assert made != after_each(make(schedule="notebook").plateau, losses)


@pytest.mark.parametrize("schedule", [s for s in SCHEDULES if s not in ("plateau", "notebook")])
def test_other_schedules_pay_no_heed_to_the_loss(schedule: str) -> None:
    assert set(after_each(make(schedule=schedule).plateau, LOSSES)) == {1.0}


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"config\.optimizer\.name='adamax'.*adadelta"):
        make("adamax")
    with pytest.raises(ConfigError, match=r"config\.schedule\.name='step'.*one_cycle"):
        make(schedule="step")
    with pytest.raises(ConfigError, match=r"config\.schedule\.rtol=0\.0"):
        make(schedule="plateau", rtol=0.0)
