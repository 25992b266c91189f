"""L2-penalised logistic regressions that share a design matrix, all solved at once.

Head (s, l) belongs to split s and label l and minimises the convex function

    sum_n a[n] (softplus(z[n]) − y[n] z[n]) + strength / 2 · (‖kernel‖² + ‖context‖²)
    z[n] = ((x[n] − mean[s]) / std[s]) · kernel + c[n] · context + bias

over its training rows, with targets y in [0, 1] and cell weights a ≥ 0. `strength` is 1/C of
scikit-learn: the penalty is set against the sum over known cells, so a head that knows little stays
near the share of its label. The bias is not penalised.

The method is L-BFGS (Liu and Nocedal, 1989), preconditioned by the features' own `Spectrum`. One
product with the design matrix and one with its transpose per iteration serve every head, whatever
its split, because the standardisation of a split is folded into the kernels. The line search needs
no product: logits are linear in the step size.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from mlc_jax.interrupt import check
from mlc_jax.training.parallel import AXIS, HEADS, Devices, leaders
from mlc_jax.training.spectrum import ROWS, Spectrum, leading_spectrum

MEMORY = 6
"""Pairs of steps and gradient changes that a direction is made from."""

MOST_ITERATIONS = 1000

CURVATURE = 0.25
"""A step is accepted when the slope along it has fallen to this share of the slope at its start."""

_SEARCHES = 12
_LEAST_CURVATURE = 1e-6  # of a head, by the sum of its cell weights
_HIGHEST = jax.lax.Precision.HIGHEST


class Problem(NamedTuple):
    """What the heads of S splits and L labels are fitted to; G and K' are 1 or S.

    Attributes:
      targets: float32 [N, G, L] in [0, 1]; any value where the weight is 0.
      weights: float32 [N, G, L], of each cell in the loss.
      rows: float32 [N, S], 1 where a split trains on the row, else 0; the padding of N is 0.
      usable: float32 [S, L], 0 for a head without a finite minimum, which stays at zero, else 1.
      context: float32 [N, K', K], columns beside the features; K may be 0.
      own: float32 [L, K], 0 where a label must not see a context column, else 1.
      mean, std: float32 [S, C], the standardisation of each split.
      strength: float32 [S, L], positive.
    """

    targets: jax.Array
    weights: jax.Array
    rows: jax.Array
    usable: jax.Array
    context: jax.Array
    own: jax.Array
    mean: jax.Array
    std: jax.Array
    strength: jax.Array


PROBLEM_AXES = {
    "targets": PartitionSpec(AXIS, None, HEADS),
    "weights": PartitionSpec(AXIS, None, HEADS),
    "rows": PartitionSpec(AXIS),
    "usable": PartitionSpec(None, HEADS),
    "context": PartitionSpec(AXIS),
    "own": PartitionSpec(HEADS),
    "mean": PartitionSpec(),
    "std": PartitionSpec(),
    "strength": PartitionSpec(None, HEADS),
}
"""How devices cut a `Problem`: rows over the data axis, labels over the axis of heads."""


class Heads(NamedTuple):
    """Solved heads, host arrays.

    Attributes:
      kernel: float32 [S, L, C], in units of the standardised features.
      context: float32 [S, L, K].
      bias: float32 [S, L].
    """

    kernel: np.ndarray
    context: np.ndarray
    bias: np.ndarray


class Solution(NamedTuple):
    """What `solve` found.

    Attributes:
      heads: the minimisers.
      logits: float32 [N, S, L], of every row, trained on or not.
      gradient: float32 [S, L], the norm of the gradient over the sum of the cell weights.
      iterations: int [S, L], how many each head took.
      loss: float32 [S, L], the mean loss of the training cells, without the penalty.
    """

    heads: Heads
    logits: np.ndarray
    gradient: np.ndarray
    iterations: np.ndarray
    loss: np.ndarray


class _State(NamedTuple):
    """The search. P stands for [S, L]; D is C + K + 1, in the order of `Heads`."""

    point: jax.Array  # [P, D]
    logits: jax.Array  # [N, P]
    gradient: jax.Array  # [P, D]
    steps: jax.Array  # [MEMORY, P, D], the latest first
    changes: jax.Array  # [MEMORY, P, D]
    inverse: jax.Array  # [MEMORY, P], 1 / (step · change), or 0 where there is none
    active: jax.Array  # bool [P]


Times = Callable[[jax.Array], jax.Array]


class Design:
    """The design matrix, on the devices or in blocks of rows.

    Args:
      features: float [N, C], host array; a memory map is read block by block.
      devices: what holds it; rows are cut over their data axis.
      labels: the number of labels, which decides how devices are grouped.
      limit: bytes that a float32 copy may take on the devices. A larger matrix stays where it is,
        and each product reads it once.
      centre, scale: float64 [C]; rows become (x − centre) / scale. A change of coordinates that
        keeps float32 exact enough, and no part of any solution.

    Attributes:
      spectrum: of the rows; it decides how fast heads converge, and no part of any solution.
    """

    def __init__(
        self,
        features: np.ndarray,
        devices: Devices,
        labels: int,
        limit: int,
        centre: np.ndarray,
        scale: np.ndarray,
    ) -> None:
        self.count, self.channels = features.shape
        self.mesh = devices.mesh_of(labels)
        parts = self.mesh.shape[AXIS]
        self.padded = -(-self.count // parts) * parts
        self._features, self._centre, self._scale = features, centre, scale
        self.whole: jax.Array | None = None
        sampled = np.unique(np.linspace(0, self.count - 1, ROWS).astype(np.int64))
        sample = self._converted(sampled)
        # Of the leader, whose last digits all processes must share.
        self.spectrum: Spectrum = leaders(leading_spectrum(sample))
        self._block = max(1, limit // (8 * self.channels))
        if 4 * self.padded * self.channels <= limit:
            host = np.zeros((self.padded, self.channels), np.float32)
            host[: self.count] = self._converted(slice(0, self.count))
            self.whole = self.place(host, PartitionSpec(AXIS))

    def place(self, array: np.ndarray, axes: PartitionSpec) -> jax.Array:
        """A host array over the devices, in the parts that `axes` names."""
        sharding = NamedSharding(self.mesh, axes)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    def fetch(self, tree: Any) -> Any:
        """Device arrays as host arrays, also where their parts lie with other processes."""
        whole = NamedSharding(self.mesh, PartitionSpec())
        return jax.tree.map(np.asarray, jax.jit(_same, out_shardings=whole)(tree))

    def times(self, kernel: jax.Array) -> jax.Array:
        """Rows · kernel, block by block; float32 [S, L, C] to [N, S, L]."""
        return jnp.concatenate([_times(part, kernel) for _, part in self._parts()])

    def transpose_times(self, residual: jax.Array) -> jax.Array:
        """Rowsᵀ · residual, block by block; float32 [N, S, L] to [S, L, C]."""
        shape = (*residual.shape[1:], self.channels)
        return sum(
            (_transpose_times(part, residual[rows]) for rows, part in self._parts()),
            start=jnp.zeros(shape),
        )

    def _converted(self, rows: slice | np.ndarray) -> np.ndarray:
        return ((self._features[rows] - self._centre) / self._scale).astype(np.float32)

    def _parts(self) -> Any:
        for start in range(0, self.count, self._block):
            rows = slice(start, min(start + self._block, self.count))
            part = self._converted(rows)
            if rows.stop == self.count:
                part = np.pad(part, ((0, self.padded - self.count), (0, 0)))
                rows = slice(start, self.padded)
            yield rows, jnp.asarray(part)


def _same(tree: Any) -> Any:
    return tree


@jax.jit
def _times(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.einsum("nc,slc->nsl", x, kernel, precision=_HIGHEST)


@jax.jit
def _transpose_times(x: jax.Array, residual: jax.Array) -> jax.Array:
    return jnp.einsum("nsl,nc->slc", residual, x, precision=_HIGHEST)


def solve(design: Design, problem: Problem, start: Heads | None, tolerance: float) -> Solution:
    """Solves all heads.

    A head has converged when the norm of its gradient is at most `tolerance` times the sum of its
    cell weights: the gradient of its mean loss is that small. By strong convexity its kernel and
    context then lie within tolerance · sum / strength of the minimiser, and in practice far nearer.
    A head stays as it is from there on. A head without weights stays at zero.

    Args:
      design: the features.
      problem: what is fitted, on the devices, see `PROBLEM_AXES`.
      start: heads to start from, such as those of a neighbouring strength; None for zeros.
      tolerance: of the gradient, positive.

    Raises:
      Interrupted: a signal, heard between iterations of a matrix that is read in blocks.
    """
    size = *problem.strength.shape, design.channels + problem.context.shape[-1] + 1
    if start is None:
        begin = np.zeros(size, np.float32)
    else:
        begin = np.concatenate([start.kernel, start.context, start.bias[..., None]], axis=-1)
    point = design.place(begin, PartitionSpec(None, HEADS))
    if design.whole is not None:
        point, logits, norm, iterations, loss = _solve_whole(
            design.whole, design.spectrum, problem, point, jnp.float32(tolerance)
        )
    else:
        products = design.times, design.transpose_times
        state = _start(products, problem, point, tolerance)
        iterations = jnp.zeros(size[:2], jnp.int32)
        for _ in range(MOST_ITERATIONS):
            check()
            if not state.active.any():
                break
            iterations = iterations + state.active
            state = _iterate(products, design.spectrum, problem, tolerance, state)
        point, logits = state.point, state.logits
        norm, loss = _norm(problem, state.gradient), _mean_loss(problem, logits)
    point, logits, norm, iterations, loss = design.fetch((point, logits, norm, iterations, loss))
    channels = design.channels
    heads = Heads(point[..., :channels], point[..., channels:-1], point[..., -1])
    return Solution(heads, logits[: design.count], norm, iterations, loss)


def logits_of(design: Design, problem: Problem, heads: Heads) -> np.ndarray:
    """Logits of every row, float32 [N, S, L], by given heads; the same for the same heads."""
    leaves = heads.kernel, heads.context, heads.bias[..., None]
    point = design.place(np.concatenate(leaves, axis=-1), PartitionSpec(None, HEADS))
    if design.whole is not None:
        logits = _logits_whole(design.whole, problem, point)
    else:
        logits = _apply(design.times, problem, point)
    return np.asarray(design.fetch(logits))[: design.count]


@jax.jit
def _logits_whole(x: jax.Array, problem: Problem, point: jax.Array) -> jax.Array:
    return _apply(partial(_times, x), problem, point)


@jax.jit
def _solve_whole(
    x: jax.Array, spectrum: Spectrum, problem: Problem, point: jax.Array, tolerance: jax.Array
) -> tuple[jax.Array, ...]:
    products = partial(_times, x), partial(_transpose_times, x)

    def go_on(carry: tuple[_State, jax.Array, jax.Array]) -> jax.Array:
        state, _, number = carry
        return state.active.any() & (number < MOST_ITERATIONS)

    def one(
        carry: tuple[_State, jax.Array, jax.Array],
    ) -> tuple[_State, jax.Array, jax.Array]:
        state, iterations, number = carry
        return (
            _iterate(products, spectrum, problem, tolerance, state),
            iterations + state.active,
            number + 1,
        )

    state = _start(products, problem, point, tolerance)
    none = jnp.zeros(problem.strength.shape, jnp.int32)
    state, iterations, _ = jax.lax.while_loop(go_on, one, (state, none, jnp.int32(0)))
    norm, loss = _norm(problem, state.gradient), _mean_loss(problem, state.logits)
    return state.point, state.logits, norm, iterations, loss


def _cell_weights(problem: Problem) -> jax.Array:
    """float32 [N, S, L], 0 outside a split's training rows."""
    return problem.weights * problem.rows[:, :, None] * problem.usable


def _sums(problem: Problem) -> jax.Array:
    """The sum of each head's cell weights, [S, L]; 1 for a head without any."""
    total = _cell_weights(problem).sum(axis=0)
    return jnp.where(total > 0, total, 1.0)


def _apply(times: Times, problem: Problem, point: jax.Array) -> jax.Array:
    """The linear map from parameters [S, L, D] to logits [N, S, L]."""
    return _with_offsets(problem, point, times(_kernels(problem, point)))


@jax.jit
def _kernels(problem: Problem, point: jax.Array) -> jax.Array:
    """The kernels [S, L, C] of a point, in units of the design matrix."""
    return point[..., : problem.mean.shape[-1]] / problem.std[:, None, :]


@jax.jit
def _with_offsets(problem: Problem, point: jax.Array, products: jax.Array) -> jax.Array:
    """Products of the design matrix [N, S, L] with what does not depend on it: logits."""
    channels = problem.mean.shape[-1]
    moved = jnp.einsum("slc,sc->sl", _kernels(problem, point), problem.mean, precision=_HIGHEST)
    logits = products + (point[..., -1] - moved)
    if problem.context.shape[-1]:
        context = point[..., channels:-1]
        shape = (problem.context.shape[0], context.shape[0], problem.context.shape[-1])
        columns = jnp.broadcast_to(problem.context, shape)
        logits = logits + jnp.einsum("nsk,slk->nsl", columns, context, precision=_HIGHEST)
    return logits


@jax.jit
def _residual(problem: Problem, logits: jax.Array) -> jax.Array:
    """The derivative of each cell's loss by its logit, [N, S, L]."""
    return _cell_weights(problem) * (jax.nn.sigmoid(logits) - problem.targets)


@jax.jit
def _gradient(
    problem: Problem, point: jax.Array, residual: jax.Array, products: jax.Array
) -> jax.Array:
    """The gradient [S, L, D] at a point, 0 at the columns that a label must not see.

    Args:
      problem, point: where.
      residual: there.
      products: float32 [S, L, C], the transposed design matrix times the residual.
    """
    total = residual.sum(axis=0)
    kernel = (products - total[..., None] * problem.mean[:, None, :]) / problem.std[:, None, :]
    parts = [kernel]
    if problem.context.shape[-1]:
        shape = (*residual.shape[:2], problem.context.shape[-1])
        columns = jnp.broadcast_to(problem.context, shape)
        context = jnp.einsum("nsl,nsk->slk", residual, columns, precision=_HIGHEST)
        parts.append(context * problem.own)
    return jnp.concatenate([*parts, total[..., None]], axis=-1) + _penalty(problem, point)


def _penalty(problem: Problem, point: jax.Array) -> jax.Array:
    """The gradient of the penalty at a point [S, L, D]; linear, and 0 at the bias."""
    return (problem.strength[..., None] * point).at[..., -1].set(0.0)


def _norm(problem: Problem, gradient: jax.Array) -> jax.Array:
    return jnp.linalg.norm(gradient, axis=-1) / _sums(problem)


def _mean_loss(problem: Problem, logits: jax.Array) -> jax.Array:
    losses = jax.nn.softplus(logits) - problem.targets * logits
    return (_cell_weights(problem) * losses).sum(axis=0) / _sums(problem)


def _start(
    products: tuple[Times, Times], problem: Problem, point: jax.Array, tolerance: Any
) -> _State:
    logits = _apply(products[0], problem, point)
    residual = _residual(problem, logits)
    gradient = _gradient(problem, point, residual, products[1](residual))
    none = jnp.zeros((MEMORY, *point.shape))
    active = _norm(problem, gradient) > tolerance
    return _State(point, logits, gradient, none, none, none[..., 0], active)


def _iterate(
    products: tuple[Times, Times],
    spectrum: Spectrum,
    problem: Problem,
    tolerance: Any,
    state: _State,
) -> _State:
    """One iteration of every head that has not converged."""
    direction = _direction(problem, spectrum, state)
    change = _apply(products[0], problem, direction)
    point, logits, residual = _move(problem, state, direction, change)
    return _remember(problem, state, point, logits, residual, products[1](residual), tolerance)


@jax.jit
def _move(
    problem: Problem, state: _State, direction: jax.Array, change: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Goes along a direction, whose logits are `change`: (point, logits, residual)."""
    length = _line_search(problem, state, direction, change)
    point, logits = state.point + length[..., None] * direction, state.logits + length * change
    return point, logits, _residual(problem, logits)


@jax.jit
def _remember(
    problem: Problem,
    state: _State,
    point: jax.Array,
    logits: jax.Array,
    residual: jax.Array,
    products: jax.Array,
    tolerance: Any,
) -> _State:
    """The state at a new point; see `_gradient`."""
    gradient = _gradient(problem, point, residual, products)
    gradient = jnp.where(state.active[..., None], gradient, state.gradient)
    step, difference = point - state.point, gradient - state.gradient
    product = jnp.sum(step * difference, axis=-1)
    inverse = jnp.where(product > 0, 1.0 / jnp.where(product > 0, product, 1.0), 0.0)
    return _State(
        point,
        logits,
        gradient,
        jnp.concatenate([step[None], state.steps[:-1]]),
        jnp.concatenate([difference[None], state.changes[:-1]]),
        jnp.concatenate([inverse[None], state.inverse[:-1]]),
        state.active & (_norm(problem, gradient) > tolerance),
    )


def _preconditioned(
    problem: Problem, spectrum: Spectrum, curvature: jax.Array, vector: jax.Array
) -> jax.Array:
    """A vector [S, L, D] times an approximate inverse of the Hessian.

    Args:
      problem, spectrum: what is solved.
      curvature: float32 [S, L], the sum of each head's second derivatives by its logits.
      vector: such as a gradient.
    """
    channels = problem.mean.shape[-1]
    kernel, strength = vector[..., :channels], problem.strength[..., None]
    lead = 1 / (curvature[..., None] * spectrum.values + strength)
    rest = 1 / (curvature[..., None] * spectrum.rest + strength)
    along = (lead - rest) * jnp.einsum("slc,cr->slr", kernel, spectrum.basis)
    parts = [rest * kernel + jnp.einsum("slr,cr->slc", along, spectrum.basis)]
    if problem.context.shape[-1]:
        shape = (*problem.context.shape[:1], *curvature.shape[:1], problem.context.shape[-1])
        squares = jnp.broadcast_to(problem.context**2, shape)
        share = curvature / _sums(problem)
        context = share[..., None] * jnp.einsum("nsl,nsk->slk", _cell_weights(problem), squares)
        parts.append(vector[..., channels:-1] / (context + strength))
    parts.append(vector[..., -1:] / curvature[..., None])
    return jnp.concatenate(parts, axis=-1)


@jax.jit
def _direction(problem: Problem, spectrum: Spectrum, state: _State) -> jax.Array:
    """The two loops of L-BFGS (Nocedal and Wright, algorithm 7.4), for all heads; 0 once solved."""
    p = jax.nn.sigmoid(state.logits)
    curvature = jnp.sum(_cell_weights(problem) * p * (1 - p), axis=0)
    # Where all cells are told apart there is hardly any left.
    curvature = jnp.maximum(curvature, _LEAST_CURVATURE * _sums(problem))
    inverse_hessian = partial(_preconditioned, problem, spectrum, curvature)
    pairs = state.steps, state.changes, state.inverse

    def back(q: jax.Array, pair: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        step, change, inverse = pair
        alpha = inverse * jnp.sum(step * q, axis=-1)
        return q - alpha[..., None] * change, alpha

    def forth(r: jax.Array, pair: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        step, change, inverse, alpha = pair
        beta = inverse * jnp.sum(change * r, axis=-1)
        return r + step * (alpha - beta)[..., None], None

    q, alphas = jax.lax.scan(back, state.gradient, pairs)
    # The latest pair scales the metric (equation 7.20); before there is one, it stands.
    latest, inverse = state.changes[0], state.inverse[0]
    against = jnp.sum(latest * inverse_hessian(latest), axis=-1)
    scale = jnp.where(inverse > 0, 1 / jnp.where(inverse > 0, inverse * against, 1.0), 1.0)
    r = scale[..., None] * inverse_hessian(q)
    r, _ = jax.lax.scan(forth, r, (*pairs, alphas), reverse=True)
    # Rounding can spoil the stored pairs close to the minimum; the gradient itself never fails.
    failed = jnp.sum(state.gradient * r, axis=-1) <= 0
    r = jnp.where(failed[..., None], inverse_hessian(state.gradient), r)
    return jnp.where(state.active[..., None], -r, 0.0)


def _line_search(
    problem: Problem, state: _State, direction: jax.Array, change: jax.Array
) -> jax.Array:
    """Step sizes [S, L] at which the slope along the direction has all but gone.

    Newton's method on the slope, kept inside a bracket. The slope of a convex function only grows,
    so a negative one says that the minimum lies beyond. Slopes are compared, not losses, whose
    differences drown in float32 near the minimum.
    """
    weights = _cell_weights(problem)
    straight = jnp.sum(_penalty(problem, state.point) * direction, axis=-1)
    curved = jnp.sum(_penalty(problem, direction) * direction, axis=-1)
    slope = jnp.sum(state.gradient * direction, axis=-1)

    def at(length: jax.Array) -> tuple[jax.Array, jax.Array]:
        p = jax.nn.sigmoid(state.logits + length * change)
        first = jnp.sum(weights * (p - problem.targets) * change, axis=0)
        second = jnp.sum(weights * p * (1 - p) * change**2, axis=0)
        return first + straight + length * curved, second + curved

    def go_on(carry: tuple[Any, ...]) -> jax.Array:
        *_, good, number = carry
        return (number < _SEARCHES) & ~good.all()

    def one(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        length, low, high, good, number = carry
        first, second = at(length)
        good = good | (jnp.abs(first) <= CURVATURE * jnp.abs(slope))
        low, high = jnp.where(first < 0, length, low), jnp.where(first > 0, length, high)
        newton = length - first / jnp.where(second > 0, second, 1.0)
        between = jnp.where(jnp.isinf(high), 2 * length, (low + high) / 2)
        outside = (newton <= low) | (newton >= high) | (second <= 0)
        after = jnp.where(outside, between, newton)
        return jnp.where(good, length, after), low, high, good, number + 1

    zero = jnp.zeros_like(slope)
    begin = (
        zero + 1.0,
        zero,
        zero + jnp.inf,
        ~state.active | (slope == 0),
        jnp.int32(0),
    )
    length, low, _, good, _ = jax.lax.while_loop(go_on, one, begin)
    # Where the search ran out of turns: the longest step that is known to go down.
    return jnp.where(good, length, low)
