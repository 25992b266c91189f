"""Seconds in which strengths are chosen and linear heads solved, without images.

    python scripts/solver_speed.py [--rows 1000] [--labels 80]

Features are drawn with the spectrum of real ones (1,280 channels, variance falling as 1 / rank),
labels are noisy thresholds of random directions with 2 to 50 % positives, a tenth of the cells is
blank, five folds. The second of two runs has its programs compiled already.
"""

import argparse
import os
import time

import jax
import numpy as np

from mlc_jax.data.folds import rotations
from mlc_jax.training.linear_crossfit import fitted_rows
from mlc_jax.training.linear_heads import PathStep, Progress, empty_heads, fit_linear, follow_path
from mlc_jax.training.linear_solver import LinearSolver, Targets
from mlc_jax.training.parallel import Devices
from mlc_jax.training.strengths import inner_folds

CHANNELS, FOLDS, DIRECTIONS = 1280, 5, 60


def drawn(rows: int, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [rows, CHANNELS] and values int8 [rows, labels], -1 where blank."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(rows, CHANNELS)) / np.sqrt(np.arange(1, CHANNELS + 1))
    mixing, _ = np.linalg.qr(rng.normal(size=(CHANNELS, CHANNELS)))
    signal = factors[:, :DIRECTIONS] @ rng.normal(size=(DIRECTIONS, labels))
    noise = rng.normal(size=signal.shape) * rng.uniform(0.3, 2.0, labels)
    scores = signal / signal.std(axis=0) + noise
    cuts = np.diagonal(np.quantile(scores, 1 - rng.uniform(0.02, 0.5, labels), axis=0))
    known = rng.random(scores.shape) < 0.9
    values = np.where(known, scores > cuts, -1).astype(np.int8)
    return (factors @ mixing).astype(np.float32), values


def solve_once(features: np.ndarray, values: np.ndarray) -> tuple[float, float, list[PathStep]]:
    """Seconds of the path and of the heads that are kept, and the steps of the path."""
    count, labels = values.shape
    splits = rotations(np.arange(count) % FOLDS, FOLDS)
    devices = Devices("jit", jax.devices()[:1])
    started = time.perf_counter()
    names = [str(row) for row in range(count)]
    solver = LinearSolver(features, devices, round(0.5 * devices.memory()), FOLDS, labels, names)
    known = (values >= 0).astype(np.float64)
    targets = Targets(np.maximum(values, 0.0)[None], known[None], np.zeros((1, count, 0)))
    empty = empty_heads(FOLDS, labels, features.shape[1], 0)
    progress = Progress(None, empty, empty, print)
    steps: list[PathStep] = []
    inner = inner_folds(splits, count)
    chosen = follow_path(solver, lambda _: targets, values, inner, progress, steps.append)
    between = time.perf_counter()
    rows = fitted_rows(splits, count)
    fit_linear(solver, lambda _: targets, rows, chosen.of_split, progress)
    return between - started, time.perf_counter() - between, steps


def main() -> None:
    """Prints both runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--labels", type=int, default=80)
    given = parser.parse_args()
    features, values = drawn(given.rows, given.labels)
    for name in ("compiling", "compiled"):
        path, final, steps = solve_once(features, values)
        load, iterations = os.getloadavg()[0], sum(int(step.iterations.max()) for step in steps)
        heads = f"{given.labels} labels x {FOLDS} folds x {len(steps)} strengths"
        print(
            f"{name}: {heads} on {given.rows} images {path:.1f} s, {iterations} iterations; "
            f"heads that are kept {final:.1f} s; load {load:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
