"""A catalogue of nested-optimization test problems with known answers.

Every function is pure JAX, follows the dtype of its argument and runs under strict dtype
promotion and with rank promotion forbidden.  Data, starts and answers are float64 NumPy.
Nothing here imports the library under test.

Sources: ``MGH81 #k`` is problem k of Moré, Garbow and Hillstrom, "Testing unconstrained
optimization software", ACM TOMS 7(1), 1981.  ``SFU`` is the collection of Surjanovic and
Bingham, "Virtual library of simulation experiments".  ``made`` is made for this catalogue.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any
Array = jax.Array
NDArray = np.ndarray[Any, np.dtype[Any]]
Kind = Literal["solvable", "unbounded", "nan", "saddle", "flat"]
ParametricKind = Literal["minimization", "root", "fixed_point", "least_squares"]


def cast(tree: Tree, dtype: Any) -> Tree:
    """Return the tree as JAX arrays of one dtype."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=dtype), tree)


def as_float64(tree: Tree) -> Tree:
    """Return the tree as float64 NumPy arrays."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, dtype=np.float64), tree)


def _flat(tree: Tree) -> NDArray:
    leaves = [np.asarray(leaf, dtype=np.float64).ravel() for leaf in jax.tree.leaves(tree)]
    return np.concatenate(leaves) if leaves else np.zeros(0)


def _float64_call(fun: Callable[..., Any], *args: Tree) -> Tree:
    with jax.enable_x64(True):
        return as_float64(fun(*(cast(arg, jnp.float64) for arg in args)))


# --------------------------------------------------------------------------------------------
# Kinds of problem
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Minimization:
    """Minimize ``fun(x)``.

    ``kind`` says what an honest solver may do: ``solvable`` reach a listed minimum;
    ``unbounded`` never claim a solution; ``nan`` never claim one at a point where the function
    or gradient is not finite; ``saddle`` has minima, but a stationary non-minimum is near or at
    the start; ``flat`` starts where the gradient is tiny, or zero, far from the minimum.
    """

    name: str
    fun: Callable[[Tree], Array]
    start: Tree
    kind: Kind = "solvable"
    listed_value: float | None = None
    listed_minimizers: tuple[Tree, ...] = ()
    oracle: Callable[[], tuple[tuple[Tree, ...], float]] | None = None
    local: tuple[tuple[Tree, float], ...] | Callable[[], tuple[tuple[Tree, float], ...]] = ()
    notes: str = ""
    source: str = "made"

    def x0(self, dtype: Any = None) -> Tree:
        """Return the start as JAX arrays (default: JAX's default float dtype)."""
        return cast(self.start, float if dtype is None else dtype)

    @cached_property
    def _answer(self) -> tuple[tuple[Tree, ...], float | None]:
        if self.oracle is not None:
            return self.oracle()
        return self.listed_minimizers, self.listed_value

    @property
    def minimizers(self) -> tuple[Tree, ...]:
        """Known global minimizers, float64 NumPy; may be empty."""
        return self._answer[0]

    @property
    def minimum_value(self) -> float | None:
        """The global minimum value, or None where there is none."""
        return self._answer[1]

    @cached_property
    def local_minima(self) -> tuple[tuple[Tree, float], ...]:
        """Known ``(minimizer, value)`` of local minima that are not global."""
        return self.local() if callable(self.local) else self.local

    @cached_property
    def local_values(self) -> tuple[float, ...]:
        """Values of every known local minimum, the global one first."""
        first = () if self.minimum_value is None else (self.minimum_value,)
        return first + tuple(value for _, value in self.local_minima)

    @cached_property
    def start_gradient_norm(self) -> float:
        """Max-norm of the float64 gradient at the start (NaN where it is not finite)."""
        return _max_norm(_float64_call(jax.grad(self.fun), self.start))


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """Minimize half the squared norm of ``residual(x)``; ``value`` is that half at the answer."""

    name: str
    residual: Callable[[Tree], Array]
    start: Tree
    listed_value: float | None = None
    listed_minimizers: tuple[Tree, ...] = ()
    oracle: Callable[[], tuple[tuple[Tree, ...], float]] | None = None
    local: tuple[tuple[Tree, float], ...] = ()
    singular: bool = False
    notes: str = ""
    source: str = "made"

    def x0(self, dtype: Any = None) -> Tree:
        """Return the start as JAX arrays (default: JAX's default float dtype)."""
        return cast(self.start, float if dtype is None else dtype)

    def objective(self, x: Tree) -> Array:
        """Half the sum of squared residuals."""
        return 0.5 * jnp.sum(self.residual(x) ** 2)

    @cached_property
    def minimization(self) -> Minimization:
        """The same problem as a smooth minimization, for ``judge``."""
        return Minimization(
            name=self.name,
            fun=self.objective,
            start=self.start,
            listed_value=self.listed_value,
            listed_minimizers=self.listed_minimizers,
            oracle=self.oracle,
            local=self.local,
            notes=self.notes,
            source=self.source,
        )

    @property
    def minimizers(self) -> tuple[Tree, ...]:
        """Known global minimizers, float64 NumPy."""
        return self.minimization.minimizers

    @property
    def minimizer(self) -> Tree:
        """The first known global minimizer."""
        return self.minimizers[0]

    @property
    def value(self) -> float:
        """Half the squared residual norm at the minimizer."""
        value = self.minimization.minimum_value
        assert value is not None
        return value


@dataclass(frozen=True, eq=False)
class Root:
    """Solve ``fun(x) = 0``; ``roots`` lists the known roots."""

    name: str
    fun: Callable[[Tree], Tree]
    start: Tree
    listed: tuple[Tree, ...] | Callable[[], tuple[Tree, ...]]
    notes: str = ""
    source: str = "made"

    def x0(self, dtype: Any = None) -> Tree:
        """Return the start as JAX arrays (default: JAX's default float dtype)."""
        return cast(self.start, float if dtype is None else dtype)

    @cached_property
    def roots(self) -> tuple[Tree, ...]:
        """Known roots, float64 NumPy."""
        return self.listed() if callable(self.listed) else self.listed

    @property
    def root(self) -> Tree:
        """The first known root."""
        return self.roots[0]

    def residual_norm(self, x: Tree) -> float:
        """Max-norm of ``fun(x)`` recomputed in float64."""
        return _max_norm(_float64_call(self.fun, x))

    def error(self, x: Tree) -> float:
        """Max-norm distance to the nearest known root."""
        return min(distance(x, root) for root in self.roots)


@dataclass(frozen=True, eq=False)
class FixedPoint:
    """Solve ``fun(x) = x``; ``contracting`` says that plain iteration converges."""

    name: str
    fun: Callable[[Tree], Tree]
    start: Tree
    listed: Tree | Callable[[], Tree]
    contracting: bool = True
    rate: float | None = None
    notes: str = ""
    source: str = "made"

    def x0(self, dtype: Any = None) -> Tree:
        """Return the start as JAX arrays (default: JAX's default float dtype)."""
        return cast(self.start, float if dtype is None else dtype)

    @cached_property
    def point(self) -> Tree:
        """The fixed point, float64 NumPy."""
        return self.listed() if callable(self.listed) else self.listed

    def residual_norm(self, x: Tree) -> float:
        """Max-norm of ``fun(x) - x`` recomputed in float64."""
        return distance(_float64_call(self.fun, x), x)

    def error(self, x: Tree) -> float:
        """Max-norm distance to the fixed point."""
        return distance(x, self.point)


@dataclass(frozen=True, eq=False)
class Parametric:
    """A problem in x with a parameter: ``fun(x, theta)`` and its known solution map.

    ``fun`` is a scalar objective, a root function, a map with the fixed point sought, or a
    residual vector, by ``kind``.  ``solution(theta)`` and ``jacobian(theta)`` are float64
    NumPy; x is one array, theta may be a pytree, and ``jacobian`` has theta's structure with
    leaves of shape ``x.shape + leaf.shape``, as ``jax.jacobian`` of the solution would.
    """

    name: str
    kind: ParametricKind
    fun: Callable[[Array, Tree], Array]
    start: NDArray
    theta: Tree
    solution: Callable[[Tree], NDArray]
    jacobian: Callable[[Tree], Tree]
    notes: str = ""
    source: str = "made"

    def x0(self, dtype: Any = None) -> Array:
        """Return the start as a JAX array (default: JAX's default float dtype)."""
        return cast(self.start, float if dtype is None else dtype)

    def theta0(self, dtype: Any = None) -> Tree:
        """Return the reference parameter as JAX arrays."""
        return cast(self.theta, float if dtype is None else dtype)

    def optimality(self, x: Array, theta: Tree) -> Array:
        """The function whose zero in x defines the solution."""
        if self.kind == "root":
            return self.fun(x, theta)
        if self.kind == "fixed_point":
            return self.fun(x, theta) - x
        if self.kind == "minimization":
            return jax.grad(self.fun)(x, theta)
        return jax.grad(lambda x_: 0.5 * jnp.sum(self.fun(x_, theta) ** 2))(x)


# --------------------------------------------------------------------------------------------
# Judging
# --------------------------------------------------------------------------------------------


def _max_norm(tree: Tree) -> float:
    flat = np.abs(_flat(tree))
    if flat.size == 0:
        return 0.0
    return float(np.max(flat)) if np.all(np.isfinite(flat)) else math.nan


def distance(x: Tree, y: Tree) -> float:
    """Max-norm of ``x - y`` in float64 (NaN where either is not finite)."""
    return _max_norm(jax.tree.map(lambda a, b: np.asarray(a, float) - np.asarray(b, float), x, y))


@dataclass(frozen=True)
class Verdict:
    """What a point is worth, recomputed in float64."""

    value: float
    """The function value."""
    gap: float
    """Value minus the global minimum value; NaN where there is no minimum."""
    gradient_norm: float
    """Max-norm of the gradient; NaN where it is not finite."""
    looks_stationary: bool
    """The gradient is small relative to ``max(1, its size at the start)``."""
    is_minimum: bool
    """The value is that of a known local minimum."""

    @property
    def solved(self) -> bool:
        """Stationary, and at the value of a known local minimum."""
        return self.looks_stationary and self.is_minimum


def judge(
    problem: Minimization | LeastSquares,
    x: Tree,
    *,
    gradient_rtol: float | None = None,
    value_rtol: float | None = None,
) -> Verdict:
    """Judge ``x`` in float64, whatever dtype it came in.

    ``gradient_rtol`` is relative to ``max(1, |gradient at start|)`` and ``value_rtol`` to
    ``max(1, |minimum value|)``; both default to 1e-6, or 1e-3 if ``x`` is not float64.
    A "false converged" is a claim of success where ``solved`` is false; with
    ``looks_stationary`` true it fooled the gradient test too.
    """
    if isinstance(problem, LeastSquares):
        problem = problem.minimization
    double = all(np.asarray(leaf).dtype == np.float64 for leaf in jax.tree.leaves(x))
    default = 1e-6 if double else 1e-3
    gradient_rtol = default if gradient_rtol is None else gradient_rtol
    value_rtol = default if value_rtol is None else value_rtol

    value, gradient = _float64_call(jax.value_and_grad(problem.fun), x)
    value = float(value)
    norm = _max_norm(gradient)
    finite = bool(np.all(np.isfinite(_flat(x)))) and math.isfinite(value)
    start_norm = problem.start_gradient_norm
    scale = max(1.0, start_norm) if math.isfinite(start_norm) else 1.0
    best = problem.minimum_value
    return Verdict(
        value=value,
        gap=math.nan if best is None else value - best,
        gradient_norm=norm,
        looks_stationary=finite and norm <= gradient_rtol * scale,
        is_minimum=finite
        and any(abs(value - known) <= value_rtol * max(1.0, abs(known)) for known in problem.local_values),
    )


# --------------------------------------------------------------------------------------------
# Dense float64 NumPy solvers behind the lazily computed answers
# --------------------------------------------------------------------------------------------


def newton_minimum(
    value: Callable[[NDArray], float],
    gradient: Callable[[NDArray], NDArray],
    hessian: Callable[[NDArray], NDArray],
    x: NDArray,
) -> NDArray:
    """Minimize by dense damped Newton in float64, then polish with full steps."""
    for _ in range(200):
        g = gradient(x)
        step = -np.linalg.solve(hessian(x), g)
        slope = float(g @ step)
        if slope > 0.0:
            step, slope = -g, -float(g @ g)
        if abs(slope) <= 1e-18 * max(1.0, abs(value(x))):
            break
        t, here = 1.0, value(x)
        while t > 1e-12 and not value(x + t * step) <= here + 1e-4 * t * slope:
            t *= 0.5
        if t <= 1e-12:
            break
        x = x + t * step
    for _ in range(3):
        trial = x - np.linalg.solve(hessian(x), gradient(x))
        if not np.max(np.abs(gradient(trial))) < np.max(np.abs(gradient(x))):
            break
        x = trial
    return x


def newton_root(
    fun: Callable[[NDArray], NDArray], jacobian: Callable[[NDArray], NDArray], x: NDArray
) -> NDArray:
    """Solve a square system by dense Newton in float64, halving steps that do not help."""
    for _ in range(200):
        f = fun(x)
        norm = float(np.linalg.norm(f))
        step = -np.linalg.solve(jacobian(x), f)
        t = 1.0
        while t > 1e-10 and not float(np.linalg.norm(fun(x + t * step))) < norm:
            t *= 0.5
        if t <= 1e-10:
            break
        x = x + t * step
    return x


def _constant(array: Any, x: Array) -> Array:
    return jnp.asarray(array, dtype=x.dtype)


def _index(n: int, x: Array) -> Array:
    return jnp.arange(1, n + 1, dtype=x.dtype)


def _vec(*values: float) -> NDArray:
    return np.array(values, dtype=np.float64)


# --------------------------------------------------------------------------------------------
# Residuals shared by minimizations, least squares and roots
# --------------------------------------------------------------------------------------------


def rosenbrock_residual(x: Array) -> Array:
    """MGH81 #1."""
    return jnp.stack([10.0 * (x[1] - x[0] ** 2), 1.0 - x[0]])


def extended_rosenbrock_residual(x: Array) -> Array:
    """MGH81 #21: independent pairs."""
    odd, even = x[0::2], x[1::2]
    return jnp.concatenate([10.0 * (even - odd**2), 1.0 - odd])


def freudenstein_roth_residual(x: Array) -> Array:
    """MGH81 #2."""
    a, b = x[0], x[1]
    return jnp.stack([-13.0 + a + ((5.0 - b) * b - 2.0) * b, -29.0 + a + ((b + 1.0) * b - 14.0) * b])


def powell_badly_scaled_residual(x: Array) -> Array:
    """MGH81 #3."""
    return jnp.stack([1e4 * x[0] * x[1] - 1.0, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001])


def brown_badly_scaled_residual(x: Array) -> Array:
    """MGH81 #4."""
    return jnp.stack([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2.0])


def beale_residual(x: Array) -> Array:
    """MGH81 #5."""
    a, b = x[0], x[1]
    return jnp.stack([1.5 - a * (1.0 - b), 2.25 - a * (1.0 - b**2), 2.625 - a * (1.0 - b**3)])


def jennrich_sampson_residual(x: Array) -> Array:
    """MGH81 #6 with m = 10."""
    i = _index(10, x)
    return 2.0 + 2.0 * i - (jnp.exp(i * x[0]) + jnp.exp(i * x[1]))


def helical_valley_residual(x: Array) -> Array:
    """MGH81 #7; the angle, in turns, is cut along x0 = 0, x1 < 0 as in the original."""
    turns = jnp.arctan2(-x[0], x[1]) / (2.0 * math.pi) + 0.25
    radius = jnp.sqrt(x[0] ** 2 + x[1] ** 2)
    return jnp.stack([10.0 * (x[2] - 10.0 * turns), 10.0 * (radius - 1.0), x[2]])


_BARD = _vec(
    0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39
)  # fmt: skip


def bard_residual(x: Array) -> Array:
    """MGH81 #8."""
    u = _index(15, x)
    v = 16.0 - u
    return _constant(_BARD, x) - (x[0] + u / (v * x[1] + jnp.minimum(u, v) * x[2]))


def box_residual(x: Array) -> Array:
    """MGH81 #12 with m = 10."""
    t = 0.1 * _index(10, x)
    return jnp.exp(-t * x[0]) - jnp.exp(-t * x[1]) - x[2] * (jnp.exp(-t) - jnp.exp(-10.0 * t))


def powell_singular_residual(x: Array) -> Array:
    """MGH81 #13."""
    return jnp.stack(
        [
            x[0] + 10.0 * x[1],
            math.sqrt(5.0) * (x[2] - x[3]),
            (x[1] - 2.0 * x[2]) ** 2,
            math.sqrt(10.0) * (x[0] - x[3]) ** 2,
        ]
    )


def wood_residual(x: Array) -> Array:
    """MGH81 #14."""
    a, b, c, d = x[0], x[1], x[2], x[3]
    return jnp.stack(
        [
            10.0 * (b - a**2),
            1.0 - a,
            math.sqrt(90.0) * (d - c**2),
            1.0 - c,
            math.sqrt(10.0) * (b + d - 2.0),
            (b - d) / math.sqrt(10.0),
        ]
    )


_KOWALIK_Y = _vec(
    0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246
)  # fmt: skip
_KOWALIK_U = _vec(4.0, 2.0, 1.0, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625)


def kowalik_osborne_residual(x: Array) -> Array:
    """MGH81 #15."""
    u = _constant(_KOWALIK_U, x)
    return _constant(_KOWALIK_Y, x) - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])


def brown_dennis_residual(x: Array) -> Array:
    """MGH81 #16 with m = 20."""
    t = _index(20, x) / 5.0
    return (x[0] + t * x[1] - jnp.exp(t)) ** 2 + (x[2] + x[3] * jnp.sin(t) - jnp.cos(t)) ** 2


def variably_dimensioned_residual(x: Array) -> Array:
    """MGH81 #25."""
    total = jnp.sum(_index(x.shape[0], x) * (x - 1.0))
    return jnp.concatenate([x - 1.0, jnp.stack([total, total**2])])


def trigonometric_residual(x: Array) -> Array:
    """MGH81 #26."""
    n = x.shape[0]
    return n - jnp.sum(jnp.cos(x)) + _index(n, x) * (1.0 - jnp.cos(x)) - jnp.sin(x)


def brown_almost_linear_residual(x: Array) -> Array:
    """MGH81 #27."""
    n = x.shape[0]
    return jnp.concatenate([x[:-1] + jnp.sum(x) - (n + 1.0), jnp.prod(x)[None] - 1.0])


def boundary_value_residual(x: Array) -> Array:
    """MGH81 #28: discrete boundary value problem."""
    n = x.shape[0]
    h = 1.0 / (n + 1)
    padded = jnp.pad(x, (1, 1))
    t = h * _index(n, x)
    return 2.0 * x - padded[:-2] - padded[2:] + 0.5 * h**2 * (x + t + 1.0) ** 3


def broyden_tridiagonal_residual(x: Array) -> Array:
    """MGH81 #30."""
    padded = jnp.pad(x, (1, 1))
    return (3.0 - 2.0 * x) * x - padded[:-2] - 2.0 * padded[2:] + 1.0


def linear_full_rank_residual(x: Array) -> Array:
    """MGH81 #32 with m = 2n."""
    n = x.shape[0]
    m = 2 * n
    mean = 2.0 * jnp.sum(x) / m
    return jnp.concatenate([x - mean - 1.0, jnp.broadcast_to(-mean - 1.0, (m - n,))])


_FIT_T = np.linspace(0.0, 2.0, 12)
_FIT_Y = 2.0 * np.exp(-1.3 * _FIT_T) + 0.3 + 0.15 * np.sin(7.0 * np.arange(12))


def exponential_fit_residual(x: Array) -> Array:
    """``x0 exp(x1 t) + x2`` against noisy data: the residual does not vanish."""
    return x[0] * jnp.exp(x[1] * _constant(_FIT_T, x)) + x[2] - _constant(_FIT_Y, x)


def _exponential_residual(x: Array, y: Array) -> Array:
    return x[0] * jnp.exp(x[1] * _constant(_FIT_T, x)) + x[2] - y


def _exponential_parts(x: NDArray, y: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    t, e = _FIT_T, np.exp(x[1] * _FIT_T)
    r = x[0] * e + x[2] - y
    jac = np.stack([e, x[0] * t * e, np.ones_like(t)], axis=1)
    curved = np.zeros((3, 3))
    curved[0, 1] = curved[1, 0] = r @ (t * e)
    curved[1, 1] = r @ (x[0] * t**2 * e)
    return r, jac, jac.T @ jac + curved


def _exponential_solution(y: NDArray) -> NDArray:
    def gradient(x: NDArray) -> NDArray:
        r, jac, _ = _exponential_parts(x, y)
        return jac.T @ r

    return newton_minimum(
        lambda x: float(0.5 * np.sum(_exponential_parts(x, y)[0] ** 2)),
        gradient,
        lambda x: _exponential_parts(x, y)[2],
        _vec(2.0, -1.3, 0.3),
    )


@cache
def _exponential_fit_answer() -> tuple[tuple[NDArray, ...], float]:
    x = _exponential_solution(_FIT_Y)
    return (x,), float(0.5 * np.sum(_exponential_parts(x, _FIT_Y)[0] ** 2))


def _sum_of_squares(residual: Callable[[Array], Array]) -> Callable[[Array], Array]:
    def fun(x: Array) -> Array:
        return jnp.sum(residual(x) ** 2)

    return fun


@cache
def _brown_almost_linear_roots(n: int) -> tuple[NDArray, ...]:
    # x = (t, ..., t, t^(1-n)) with n t^n - (n + 1) t^(n-1) + 1 = 0, t = 1 among the roots.
    roots = np.roots([float(n), -(n + 1.0), *[0.0] * (n - 2), 1.0])
    real = sorted(root.real for root in roots if abs(root.imag) < 1e-9)
    points = [np.append(np.full(n - 1, t), t ** (1.0 - n)) for t in real if abs(t - 1.0) > 1e-6]
    return (np.ones(n), *points)


@cache
def _boundary_value_root(n: int) -> NDArray:
    h = 1.0 / (n + 1)
    t = h * np.arange(1, n + 1)
    lap = 2.0 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    return newton_root(
        lambda x: lap @ x + 0.5 * h**2 * (x + t + 1.0) ** 3,
        lambda x: lap + np.diag(1.5 * h**2 * (x + t + 1.0) ** 2),
        t * (t - 1.0),
    )


@cache
def _broyden_tridiagonal_root(n: int) -> NDArray:
    off = np.eye(n, k=-1) + 2.0 * np.eye(n, k=1)
    return newton_root(
        lambda x: (3.0 - 2.0 * x) * x - off @ x + 1.0,
        lambda x: np.diag(3.0 - 4.0 * x) - off,
        -np.ones(n),
    )


# --------------------------------------------------------------------------------------------
# Minimizations
# --------------------------------------------------------------------------------------------


def chained_rosenbrock(x: Array) -> Array:
    """The chained form: every neighbouring pair, not disjoint pairs."""
    return jnp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


@cache
def _chained_rosenbrock_local(n: int) -> tuple[tuple[NDArray, float], ...]:
    def value(x: NDArray) -> float:
        return float(np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2))

    def gradient(x: NDArray) -> NDArray:
        d = x[1:] - x[:-1] ** 2
        g = np.zeros(n)
        g[:-1] = -400.0 * x[:-1] * d - 2.0 * (1.0 - x[:-1])
        g[1:] += 200.0 * d
        return g

    def hessian(x: NDArray) -> NDArray:
        h = np.diag(-400.0 * x[:-1], 1) + np.diag(-400.0 * x[:-1], -1)
        h[np.arange(n - 1), np.arange(n - 1)] += -400.0 * x[1:] + 1200.0 * x[:-1] ** 2 + 2.0
        h[np.arange(1, n), np.arange(1, n)] += 200.0
        return h

    start = np.ones(n)
    start[0] = -1.0
    x = newton_minimum(value, gradient, hessian, start)
    return ((x, value(x)),)


def himmelblau(x: Array) -> Array:
    """Four global minimizers."""
    return (x[0] ** 2 + x[1] - 11.0) ** 2 + (x[0] + x[1] ** 2 - 7.0) ** 2


def booth(x: Array) -> Array:
    """A well conditioned quadratic."""
    return (x[0] + 2.0 * x[1] - 7.0) ** 2 + (2.0 * x[0] + x[1] - 5.0) ** 2


def matyas(x: Array) -> Array:
    """A narrow quadratic."""
    return 0.26 * (x[0] ** 2 + x[1] ** 2) - 0.48 * x[0] * x[1]


def branin(x: Array) -> Array:
    """Minima of equal value at every odd multiple of pi when the domain is unbounded."""
    bowl = x[1] - 5.1 / (4.0 * math.pi**2) * x[0] ** 2 + 5.0 / math.pi * x[0] - 6.0
    return bowl**2 + 10.0 * (1.0 - 1.0 / (8.0 * math.pi)) * jnp.cos(x[0]) + 10.0


def _branin_minimizer(k: int) -> NDArray:
    a = (2 * k + 1) * math.pi
    return _vec(a, 5.1 / (4.0 * math.pi**2) * a**2 - 5.0 / math.pi * a + 6.0)


def six_hump_camel(x: Array) -> Array:
    """Six local minima in three symmetric pairs."""
    a, b = x[0] ** 2, x[1] ** 2
    return (4.0 - 2.1 * a + a**2 / 3.0) * a + x[0] * x[1] + (-4.0 + 4.0 * b) * b


def penalty_one(x: Array) -> Array:
    """MGH81 #23."""
    return 1e-5 * jnp.sum((x - 1.0) ** 2) + (jnp.sum(x**2) - 0.25) ** 2


@cache
def _penalty_one_answer(n: int) -> tuple[tuple[NDArray, ...], float]:
    # Every stationary point has equal coordinates t: 2 n t^3 + (a - 1/2) t - a = 0.
    a = 1e-5
    roots = np.roots([2.0 * n, 0.0, a - 0.5, -a])
    t = max(float(root.real) for root in roots)
    return (np.full(n, t),), a * n * (t - 1.0) ** 2 + (n * t**2 - 0.25) ** 2


def dixon_price(x: Array) -> Array:
    """Has a non-global local minimum, of value 2/3, with a singular Hessian."""
    i = _index(x.shape[0], x)[1:]
    return (x[0] - 1.0) ** 2 + jnp.sum(i * (2.0 * x[1:] ** 2 - x[:-1]) ** 2)


def _dixon_price_minimizers(n: int) -> tuple[NDArray, NDArray]:
    x = 2.0 ** -((2.0 ** np.arange(1, n + 1) - 2.0) / 2.0 ** np.arange(1, n + 1))
    flipped = x.copy()
    flipped[-1] *= -1.0
    return x, flipped


def zakharov(x: Array) -> Array:
    """Convex, quartic growth in one direction."""
    s = 0.5 * jnp.sum(_index(x.shape[0], x) * x)
    return jnp.sum(x**2) + s**2 + s**4


def styblinski_tang(x: Array) -> Array:
    """Separable double wells: 2**n local minima."""
    return 0.5 * jnp.sum(x**4 - 16.0 * x**2 + 5.0 * x)


@cache
def _styblinski_tang_minima(n: int) -> tuple[tuple[NDArray, float], ...]:
    roots = np.sort(np.roots([2.0, 0.0, -16.0, 2.5]).real)
    wells = (float(roots[0]), float(roots[2]))
    points = (np.array(p) for p in itertools.product(wells, repeat=n))
    pairs = [(p, float(0.5 * np.sum(p**4 - 16.0 * p**2 + 5.0 * p))) for p in points]
    return tuple(sorted(pairs, key=lambda pair: pair[1]))


def _quadratic(condition: float, n: int = 10) -> Minimization:
    """A dense rotated quadratic with eigenvalues 1 ... condition."""
    rng = np.random.default_rng(11)
    basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
    factor = basis * np.sqrt(np.logspace(0.0, np.log10(condition), n))
    centre = np.linspace(-1.0, 1.0, n)

    def fun(x: Array) -> Array:
        return 0.5 * jnp.sum((_constant(factor.T, x) @ (x - _constant(centre, x))) ** 2) - 1.0

    return Minimization(
        name=f"quadratic_1e{round(math.log10(condition))}",
        fun=fun,
        start=np.full(n, 2.0),
        listed_value=-1.0,
        listed_minimizers=(centre,),
        notes=f"Hessian condition number {condition:g}",
    )


def _classification_data(classes: int) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(classes)
    features = np.concatenate([rng.normal(size=(60, 4)), np.ones((60, 1))], axis=1)
    weights = rng.normal(size=(5, classes))
    scores = features @ weights + rng.gumbel(size=(60, classes))
    return features, np.argmax(scores, axis=1)


_MULTI_X, _MULTI_LABEL = _classification_data(3)
_BINARY_X, _BINARY_LABEL = _classification_data(2)
_MULTI_Y = np.eye(3)[_MULTI_LABEL]
_BINARY_A = _BINARY_X * (2.0 * _BINARY_LABEL - 1.0)[:, None]
_L2 = 0.1


def multinomial_logistic(w: Array) -> Array:
    """Multinomial logistic regression with an L2 term; ``w`` is a (5, 3) matrix."""
    scores = _constant(_MULTI_X, w) @ w
    fit = jax.nn.logsumexp(scores, axis=1) - jnp.sum(_constant(_MULTI_Y, w) * scores, axis=1)
    return jnp.sum(fit) + 0.5 * _L2 * jnp.sum(w**2)


@cache
def _multinomial_answer() -> tuple[tuple[NDArray, ...], float]:
    x, y, (d, k) = _MULTI_X, _MULTI_Y, (5, 3)

    def parts(flat: NDArray) -> tuple[float, NDArray, NDArray]:
        scores = x @ flat.reshape(d, k)
        top = scores.max(axis=1, keepdims=True)
        p = np.exp(scores - top)
        z = p.sum(axis=1, keepdims=True)
        p /= z
        value = np.sum(np.log(z) + top) - np.sum(y * scores) + 0.5 * _L2 * flat @ flat
        gradient = (x.T @ (p - y)).ravel() + _L2 * flat
        inner = p[:, :, None] * np.eye(k) - p[:, :, None] * p[:, None, :]
        hessian = np.einsum("na,nkl,nb->akbl", x, inner, x).reshape(d * k, d * k)
        return float(value), gradient, hessian + _L2 * np.eye(d * k)

    w = newton_minimum(lambda z: parts(z)[0], lambda z: parts(z)[1], lambda z: parts(z)[2], np.zeros(d * k))
    return (w.reshape(d, k),), parts(w)[0]


def binary_logistic(x: Array) -> Array:
    """Binary logistic regression with an L2 term."""
    margins = _constant(_BINARY_A, x) @ x
    return jnp.sum(jnp.logaddexp(0.0, -margins)) + 0.5 * _L2 * jnp.sum(x**2)


def _binary_solve(l2: float) -> tuple[NDArray, float, NDArray]:
    a = _BINARY_A

    def value(x: NDArray) -> float:
        return float(np.sum(np.logaddexp(0.0, -a @ x)) + 0.5 * l2 * x @ x)

    def gradient(x: NDArray) -> NDArray:
        return -a.T @ (1.0 / (1.0 + np.exp(a @ x))) + l2 * x

    def hessian(x: NDArray) -> NDArray:
        p = 1.0 / (1.0 + np.exp(a @ x))
        return (a.T * (p * (1.0 - p))) @ a + l2 * np.eye(a.shape[1])

    x = newton_minimum(value, gradient, hessian, np.zeros(a.shape[1]))
    return x, value(x), hessian(x)


@cache
def _binary_answer() -> tuple[tuple[NDArray, ...], float]:
    x, value, _ = _binary_solve(_L2)
    return (x,), value


def _regression_data() -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(5)
    a = rng.normal(size=(40, 4))
    b = a @ _vec(1.0, -2.0, 0.5, 3.0) + 0.3 * rng.normal(size=40)
    b[::8] += 12.0
    return a, b


_HUBER_A, _HUBER_B = _regression_data()


def huber_regression(x: Array) -> Array:
    """Robust regression with outliers; once, not twice, continuously differentiable."""
    r = _constant(_HUBER_A, x) @ x - _constant(_HUBER_B, x)
    size = jnp.abs(r)
    return jnp.sum(jnp.where(size <= 1.0, 0.5 * r**2, size - 0.5))


@cache
def _huber_answer() -> tuple[tuple[NDArray, ...], float]:
    a, b = _HUBER_A, _HUBER_B

    def value(x: NDArray) -> float:
        r = np.abs(a @ x - b)
        return float(np.sum(np.where(r <= 1.0, 0.5 * r**2, r - 0.5)))

    def gradient(x: NDArray) -> NDArray:
        return a.T @ np.clip(a @ x - b, -1.0, 1.0)

    def hessian(x: NDArray) -> NDArray:
        inside = np.abs(a @ x - b) <= 1.0
        return (a.T * inside) @ a + 1e-12 * np.eye(4)

    x = newton_minimum(value, gradient, hessian, np.linalg.lstsq(a, b)[0])
    return (x,), value(x)


def _log_sum_exp_data() -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(17)
    a = rng.normal(size=(10, 5))
    return np.concatenate([a, -a]), rng.normal(size=20)


_LSE_A, _LSE_B = _log_sum_exp_data()


def log_sum_exp(x: Array) -> Array:
    """Log-sum-exp of affine functions whose slopes surround the origin."""
    return jax.nn.logsumexp(_constant(_LSE_A, x) @ x + _constant(_LSE_B, x))


@cache
def _log_sum_exp_answer() -> tuple[tuple[NDArray, ...], float]:
    a, b = _LSE_A, _LSE_B

    def value(x: NDArray) -> float:
        return float(np.logaddexp.reduce(a @ x + b))

    def weights(x: NDArray) -> NDArray:
        return np.exp(a @ x + b - value(x))

    def hessian(x: NDArray) -> NDArray:
        p = weights(x)
        g = a.T @ p
        return (a.T * p) @ a - np.outer(g, g)

    x = newton_minimum(value, lambda z: a.T @ weights(z), hessian, np.zeros(5))
    return (x,), value(x)


def quartic(x: Array) -> Array:
    """Zero Hessian at the minimum."""
    return jnp.sum(x**4)


_TREE_C = _vec(1.0, -2.0, 0.5)
_TREE_D = _vec(1.0, -1.0)


def pytree_quartic(x: dict[str, Array]) -> Array:
    """A chain through a scalar, a vector and a matrix leaf; zero only at one point."""
    s, v, m = x["scalar"], x["vector"], x["matrix"]
    return (
        (s - 2.0) ** 2
        + jnp.sum((v - s * _constant(_TREE_C, s)) ** 2)
        + jnp.sum((m - jnp.outer(_constant(_TREE_D, s), v)) ** 2)
        + 0.25 * jnp.sum((m - jnp.outer(_constant(_TREE_D, s), v)) ** 4)
    )


def exponential_1d(x: Array) -> Array:
    """One unknown, as a vector of length one."""
    return jnp.sum(jnp.exp(x) - 2.0 * x)


def arctan_scalar(x: Array) -> Array:
    """A zero-dimensional x with gradient arctan x: full Newton steps from 3 diverge."""
    return x * jnp.arctan(x) - 0.5 * jnp.log1p(x**2)


def dead_zone(x: Array) -> Array:
    """Minimum on a whole disk."""
    return jnp.sum(jnp.maximum(jnp.abs(x) - 1.0, 0.0) ** 2)


def double_well(x: Array) -> Array:
    """Minima at (+-1, 0), a saddle at the origin with stable manifold x0 = 0."""
    return 0.25 * x[0] ** 4 - 0.5 * x[0] ** 2 + 0.5 * x[1] ** 2


def gaussian_well(x: Array) -> Array:
    """A well in a plateau."""
    return 1.0 - jnp.exp(-jnp.sum(x**2))


def log_barrier(x: Array) -> Array:
    """NaN outside x > 0, where a full gradient or Newton step from one lands."""
    return jnp.sum(10.0 * x - jnp.log(x))


def sqrt_barrier(x: Array) -> Array:
    """NaN outside x > 0, where a full gradient or Newton step from one lands."""
    return jnp.sum(5.0 * x - 2.0 * jnp.sqrt(x))


_ISLAND = _vec(1.0, 2.0)


def nan_island(x: Array) -> Array:
    """NaN everywhere except at the start, where value and gradient are finite."""
    return jnp.where(jnp.all(x == _constant(_ISLAND, x)), jnp.sum(x**2), jnp.nan)


def _fr_local() -> tuple[NDArray, float]:
    # Eliminating x0, the local minimum is where f1 - f2 is stationary in x1.
    b = (2.0 - math.sqrt(22.0)) / 3.0
    first = -13.0 + ((5.0 - b) * b - 2.0) * b
    second = -29.0 + ((b + 1.0) * b - 14.0) * b
    return _vec(-0.5 * (first + second), b), 0.5 * (first - second) ** 2


# Polished by dense float64 Newton; the test suite checks gradient, curvature and value.
_CAMEL: tuple[tuple[NDArray, float], ...] = (
    (_vec(0.08984201310031806, -0.7126564030207396), -1.0316284534898774),
    (_vec(1.7036067149699807, -0.7960835686726251), -0.21546382438371725),
    (_vec(1.6071047529201974, 0.5686514548841313), 2.1042503103112584),
)
_TRIGONOMETRIC_LOCAL: tuple[NDArray, float] = (
    _vec(
        0.05515090398069212, 0.056840616794739396, 0.058764001762696194, 0.0609906086567616,
        0.0636262136958558, 0.06684317945276029, 0.20816151856987847, 0.16436309588564332,
        0.08500689568851058, 0.09143145071470785,
    ),
    2.795056121879309e-05,
)  # fmt: skip


def _minimizations() -> tuple[Minimization, ...]:
    m = Minimization
    alternating = np.tile(_vec(-1.2, 1.0), 50)
    trig_local, trig_value = _TRIGONOMETRIC_LOCAL
    wells = _vec(1.0, 0.0), _vec(-1.0, 0.0)
    st = _styblinski_tang_minima(3)
    c, d = _TREE_C, _TREE_D
    tree_start = {"scalar": np.array(-1.0), "vector": np.ones(3), "matrix": np.zeros((2, 3))}
    tree_answer = {"scalar": np.array(2.0), "vector": 2.0 * c, "matrix": np.outer(d, 2.0 * c)}
    camel, camel_value = _CAMEL[0]
    return (
        m("rosenbrock_2", _sum_of_squares(rosenbrock_residual), _vec(-1.2, 1.0),
          listed_value=0.0, listed_minimizers=(np.ones(2),), source="MGH81 #1"),
        m("rosenbrock_extended_100", _sum_of_squares(extended_rosenbrock_residual), alternating,
          listed_value=0.0, listed_minimizers=(np.ones(100),), source="MGH81 #21",
          notes="disjoint pairs"),
        m("rosenbrock_chained_100", chained_rosenbrock, alternating,
          listed_value=0.0, listed_minimizers=(np.ones(100),),
          local=lambda: _chained_rosenbrock_local(100),
          notes="neighbouring pairs; one more local minimum near (-1, 1, ..., 1)",
          source="Kok and Sandrock, Evolutionary Computation 17(3), 2009"),
        m("beale", _sum_of_squares(beale_residual), _vec(1.0, 1.0),
          listed_value=0.0, listed_minimizers=(_vec(3.0, 0.5),), source="MGH81 #5"),
        m("powell_singular", _sum_of_squares(powell_singular_residual), _vec(3.0, -1.0, 0.0, 1.0),
          listed_value=0.0, listed_minimizers=(np.zeros(4),), source="MGH81 #13",
          notes="singular Hessian at the minimizer"),
        m("wood", _sum_of_squares(wood_residual), _vec(-3.0, -1.0, -3.0, -1.0),
          listed_value=0.0, listed_minimizers=(np.ones(4),), source="MGH81 #14"),
        m("brown_badly_scaled", _sum_of_squares(brown_badly_scaled_residual), _vec(1.0, 1.0),
          listed_value=0.0, listed_minimizers=(_vec(1e6, 2e-6),), source="MGH81 #4"),
        m("himmelblau", himmelblau, _vec(0.0, 0.0), listed_value=0.0,
          listed_minimizers=(
              _vec(3.0, 2.0),
              _vec(-2.805118086952745, 3.131312518250573),
              _vec(-3.779310253377747, -3.283185991286170),
              _vec(3.584428340330492, -1.848126526964404),
          ), source="Himmelblau, Applied Nonlinear Programming, 1972"),
        _quadratic(1e2),
        _quadratic(1e4),
        _quadratic(1e8),
        m("multinomial_logistic", multinomial_logistic, np.zeros((5, 3)),
          oracle=_multinomial_answer, notes="x is a matrix"),
        m("binary_logistic", binary_logistic, np.zeros(5), oracle=_binary_answer),
        m("huber_regression", huber_regression, np.zeros(4), oracle=_huber_answer,
          notes="C1 only"),
        m("booth", booth, _vec(0.0, 0.0), listed_value=0.0,
          listed_minimizers=(_vec(1.0, 3.0),), source="SFU"),
        m("matyas", matyas, _vec(5.0, -7.0), listed_value=0.0,
          listed_minimizers=(np.zeros(2),), source="SFU"),
        m("branin", branin, _vec(2.5, 7.5), listed_value=5.0 / (4.0 * math.pi),
          listed_minimizers=tuple(_branin_minimizer(k) for k in (-1, 0, 1)), source="SFU"),
        m("six_hump_camel", six_hump_camel, _vec(0.5, 1.0), listed_value=camel_value,
          listed_minimizers=(camel, -camel),
          local=tuple((s * x, v) for x, v in _CAMEL[1:] for s in (1.0, -1.0)), source="SFU"),
        m("freudenstein_roth", _sum_of_squares(freudenstein_roth_residual), _vec(0.5, -2.0),
          listed_value=0.0, listed_minimizers=(_vec(5.0, 4.0),), local=(_fr_local(),),
          source="MGH81 #2", notes="descent usually ends in the local minimum, 48.9842"),
        m("helical_valley", _sum_of_squares(helical_valley_residual), _vec(-1.0, 0.0, 0.0),
          listed_value=0.0, listed_minimizers=(_vec(1.0, 0.0, 0.0),), source="MGH81 #7",
          notes="discontinuous across x0 = 0, x1 < 0; not differentiable at x0 = x1 = 0"),
        m("box_3d", _sum_of_squares(box_residual), _vec(0.0, 10.0, 20.0), listed_value=0.0,
          listed_minimizers=(_vec(1.0, 10.0, 1.0), _vec(10.0, 1.0, -1.0), _vec(2.0, 2.0, 0.0)),
          source="MGH81 #12", notes="also zero on the line (a, a, 0)"),
        m("trigonometric_10", _sum_of_squares(trigonometric_residual), np.full(10, 0.1),
          listed_value=0.0, listed_minimizers=(np.zeros(10),),
          local=((trig_local, trig_value),), source="MGH81 #26",
          notes="descent usually ends in the local minimum, 2.79506e-5"),
        m("penalty_one_10", penalty_one, np.arange(1.0, 11.0),
          oracle=lambda: _penalty_one_answer(10), source="MGH81 #23"),
        m("variably_dimensioned_10", _sum_of_squares(variably_dimensioned_residual),
          1.0 - np.arange(1.0, 11.0) / 10.0,
          listed_value=0.0, listed_minimizers=(np.ones(10),), source="MGH81 #25"),
        m("broyden_tridiagonal_30", _sum_of_squares(broyden_tridiagonal_residual), -np.ones(30),
          oracle=lambda: ((_broyden_tridiagonal_root(30),), 0.0), source="MGH81 #30"),
        m("dixon_price_10", dixon_price, np.ones(10), listed_value=0.0,
          listed_minimizers=_dixon_price_minimizers(10),
          local=((np.array([1.0 / 3.0] + [0.0] * 9), 2.0 / 3.0),), source="SFU"),
        m("zakharov_5", zakharov, np.array([1.0, -2.0, 3.0, -1.0, 2.0]), listed_value=0.0,
          listed_minimizers=(np.zeros(5),), source="SFU"),
        m("styblinski_tang_3", styblinski_tang, _vec(1.0, -1.0, 0.5), listed_value=st[0][1],
          listed_minimizers=(st[0][0],), local=st[1:], source="SFU"),
        m("log_sum_exp", log_sum_exp, np.ones(5), oracle=_log_sum_exp_answer),
        m("quartic", quartic, _vec(1.0, -2.0, 0.5), listed_value=0.0,
          listed_minimizers=(np.zeros(3),), notes="zero Hessian: Newton is only linear"),
        m("pytree_quartic", pytree_quartic, tree_start, listed_value=0.0,
          listed_minimizers=(tree_answer,), notes="dict of scalar, vector and matrix leaves"),
        m("exponential_1d", exponential_1d, _vec(3.0), listed_value=2.0 - 2.0 * math.log(2.0),
          listed_minimizers=(_vec(math.log(2.0)),)),
        m("arctan_scalar", arctan_scalar, np.array(3.0), listed_value=0.0,
          listed_minimizers=(np.array(0.0),), notes="zero-dimensional x"),
        m("at_the_minimum", _sum_of_squares(beale_residual), _vec(3.0, 0.5), listed_value=0.0,
          listed_minimizers=(_vec(3.0, 0.5),), notes="starts at the solution: zero gradient"),
        m("dead_zone", dead_zone, _vec(3.0, -4.0), listed_value=0.0,
          listed_minimizers=(_vec(0.0, 0.0), _vec(1.0, -1.0)),
          notes="every point of the box [-1, 1]^2 is a minimizer"),
        m("saddle_exact", double_well, _vec(0.0, 0.0), "saddle", -0.25, wells,
          notes="starts on the saddle: zero gradient, indefinite Hessian"),
        m("saddle_manifold", double_well, _vec(0.0, 1.0), "saddle", -0.25, wells,
          notes="starts on the stable manifold: exact gradient methods reach the saddle"),
        m("saddle_near", double_well, _vec(1e-4, 1.0), "saddle", -0.25, wells,
          notes="starts near the stable manifold: passes the saddle, gradient down to ~1e-4"),
        m("plateau_faint", gaussian_well, _vec(2.22, 2.96), "flat", 0.0, (np.zeros(2),),
          notes="start gradient 6.7e-6 in max-norm, 8.4e-6 in 2-norm; value 1 - 1.1e-6"),
        m("plateau_dead", gaussian_well, _vec(18.0, 24.0), "flat", 0.0, (np.zeros(2),),
          notes="start gradient underflows to exactly zero; value 1"),
        m("unbounded_linear", lambda x: -jnp.sum(x), _vec(0.0, 0.0), "unbounded"),
        m("unbounded_cubic", lambda x: jnp.sum(x**3), _vec(1.0), "unbounded",
          notes="x = 0 is stationary, an inflection"),
        m("unbounded_concave", lambda x: -jnp.sum(x**2), _vec(1.0, 0.5), "unbounded"),
        m("unbounded_concave_top", lambda x: -jnp.sum(x**2), _vec(0.0, 0.0), "unbounded",
          notes="starts at the maximum: zero gradient"),
        m("nan_log_barrier", log_barrier, np.ones(2), "nan", 2.0 + 2.0 * math.log(10.0),
          (np.full(2, 0.1),), notes="solvable by a solver that backs off from NaN"),
        m("nan_sqrt_barrier", sqrt_barrier, np.ones(2), "nan", -0.4, (np.full(2, 0.04),),
          notes="solvable by a solver that backs off from NaN"),
        m("nan_at_start", lambda x: jnp.sum(x - jnp.log(x)), _vec(-1.0, 1.0), "nan", 2.0,
          (np.ones(2),), notes="the value at the start is NaN, the gradient finite"),
        m("nan_gradient_at_start", lambda x: jnp.sum(x - jnp.sqrt(x)), _vec(-1.0), "nan", -0.25,
          (_vec(0.25),), notes="value and gradient at the start are NaN"),
        m("nan_island", nan_island, _ISLAND, "nan",
          notes="finite value and gradient at the start, NaN everywhere else"),
    )  # fmt: skip


MINIMIZATIONS: tuple[Minimization, ...] = _minimizations()


# --------------------------------------------------------------------------------------------
# Least squares
# --------------------------------------------------------------------------------------------


def pytree_residual(x: dict[str, Array]) -> Array:
    """Rosenbrock-like residuals of a scalar and a vector leaf."""
    s, v = x["scalar"], x["vector"]
    return jnp.concatenate([10.0 * (v - s**2), (1.0 - s)[None]])


LEAST_SQUARES: tuple[LeastSquares, ...] = (
    LeastSquares("ls_rosenbrock", rosenbrock_residual, _vec(-1.2, 1.0), 0.0, (np.ones(2),),
                 source="MGH81 #1"),
    LeastSquares("ls_beale", beale_residual, _vec(1.0, 1.0), 0.0, (_vec(3.0, 0.5),),
                 source="MGH81 #5"),
    LeastSquares("ls_freudenstein_roth", freudenstein_roth_residual, _vec(0.5, -2.0), 0.0,
                 (_vec(5.0, 4.0),), local=((_fr_local()[0], 0.5 * _fr_local()[1]),),
                 source="MGH81 #2"),
    LeastSquares("ls_bard", bard_residual, np.ones(3), 0.004107438653289491,
                 (_vec(0.08241055974978895, 1.1330360920297222, 2.3436951786425366),),
                 source="MGH81 #8", notes="published sum of squares 8.21487e-3"),
    LeastSquares("ls_kowalik_osborne", kowalik_osborne_residual, _vec(0.25, 0.39, 0.415, 0.39),
                 0.00015375280192461905,
                 (_vec(0.19280693457903791, 0.19128232873436665,
                       0.12305650692632082, 0.1360623306837947),),
                 source="MGH81 #15", notes="published sum of squares 3.07505e-4"),
    LeastSquares("ls_exponential_fit", exponential_fit_residual, _vec(1.0, -1.0, 0.0),
                 oracle=_exponential_fit_answer, notes="nonzero residual"),
    LeastSquares("ls_powell_singular", powell_singular_residual, _vec(3.0, -1.0, 0.0, 1.0), 0.0,
                 (np.zeros(4),), source="MGH81 #13", singular=True,
                 notes="rank-deficient Jacobian at the minimizer: x converges slowly"),
    LeastSquares("ls_jennrich_sampson", jennrich_sampson_residual, _vec(0.3, 0.4),
                 62.18109117780739, (_vec(0.25782521367036404, 0.25782521367036404),),
                 source="MGH81 #6", singular=True,
                 notes="published sum of squares 124.362; large residual, and the Jacobian "
                       "is rank-deficient at the minimizer (its columns coincide)"),
    LeastSquares("ls_brown_dennis", brown_dennis_residual, _vec(25.0, 5.0, -5.0, -1.0),
                 42911.10081317817,
                 (_vec(-11.594439904762163, 13.2036300512072,
                       -0.4034394881768596, 0.23677877445573633),),
                 source="MGH81 #16", notes="published sum of squares 85822.2; large residual"),
    LeastSquares("ls_linear_full_rank", linear_full_rank_residual, np.ones(5), 2.5,
                 (-np.ones(5),), source="MGH81 #32", notes="n = 5, m = 10"),
    LeastSquares("ls_helical_valley", helical_valley_residual, _vec(-1.0, 0.0, 0.0), 0.0,
                 (_vec(1.0, 0.0, 0.0),), source="MGH81 #7"),
    LeastSquares("ls_box_3d", box_residual, _vec(0.0, 10.0, 20.0), 0.0,
                 (_vec(1.0, 10.0, 1.0), _vec(10.0, 1.0, -1.0), _vec(2.0, 2.0, 0.0)),
                 source="MGH81 #12", notes="also zero on the line (a, a, 0)"),
    LeastSquares("ls_wood", wood_residual, _vec(-3.0, -1.0, -3.0, -1.0), 0.0, (np.ones(4),),
                 source="MGH81 #14"),
    LeastSquares("ls_pytree", pytree_residual, {"scalar": np.array(-1.2), "vector": np.ones(2)},
                 0.0, ({"scalar": np.array(1.0), "vector": np.ones(2)},),
                 notes="x is a dict of a scalar and a vector leaf"),
)  # fmt: skip


# --------------------------------------------------------------------------------------------
# Roots
# --------------------------------------------------------------------------------------------

_DOTTIE = 0.7390851332151607
_ROOT_A = np.array([[4.0, 2.0, -1.0], [-3.0, 5.0, 1.0], [0.5, -2.0, 3.0]])
_ROOT_X = _vec(1.0, -2.0, 0.5)


def linear_root(x: Array) -> Array:
    """A nonsymmetric linear system."""
    return _constant(_ROOT_A, x) @ x - _constant(_ROOT_A @ _ROOT_X, x)


def rotation_root(x: Array) -> Array:
    """Jacobian nearly a quarter turn: residual descent must not assume symmetry."""
    return jnp.stack([x[1] + 0.1 * x[0] ** 3, -x[0] + 0.1 * x[1] ** 3])


def pytree_root(x: dict[str, Array]) -> dict[str, Array]:
    """A scalar and a vector leaf, coupled."""
    a, b = x["a"], x["b"]
    return {"a": a**3 + jnp.sum(b) - 2.0, "b": b * (1.0 + b**2) - 0.625 * a**2}


ROOTS: tuple[Root, ...] = (
    Root("root_rosenbrock", rosenbrock_residual, _vec(-1.2, 1.0), (np.ones(2),),
         source="MGH81 #1"),
    Root("root_powell_badly_scaled", powell_badly_scaled_residual, _vec(0.0, 1.0),
         (_vec(1.0981593296998531e-05, 9.106146739866228),
          _vec(9.106146739866228, 1.0981593296998531e-05)), source="MGH81 #3"),
    Root("root_broyden_tridiagonal_30", broyden_tridiagonal_residual, -np.ones(30),
         lambda: (_broyden_tridiagonal_root(30),), source="MGH81 #30",
         notes="nonsymmetric Jacobian"),
    Root("root_boundary_value_20", boundary_value_residual,
         np.arange(1, 21) / 21.0 * (np.arange(1, 21) / 21.0 - 1.0),
         lambda: (_boundary_value_root(20),), source="MGH81 #28"),
    Root("root_helical_valley", helical_valley_residual, _vec(-1.0, 0.0, 0.0),
         (_vec(1.0, 0.0, 0.0),), source="MGH81 #7"),
    Root("root_brown_almost_linear_5", brown_almost_linear_residual, np.full(5, 0.5),
         lambda: _brown_almost_linear_roots(5), source="MGH81 #27"),
    Root("root_linear", linear_root, np.zeros(3), (_ROOT_X,)),
    Root("root_rotation", rotation_root, _vec(1.0, 0.5), (np.zeros(2),)),
    Root("root_cosine_scalar", lambda x: jnp.cos(x) - x, np.array(0.0), (np.array(_DOTTIE),),
         notes="zero-dimensional x"),
    Root("root_pytree", pytree_root, {"a": np.array(2.0), "b": _vec(1.0, -0.5)},
         ({"a": np.array(1.0), "b": _vec(0.5, 0.5)},), notes="x is a dict"),
)  # fmt: skip


# --------------------------------------------------------------------------------------------
# Fixed points
# --------------------------------------------------------------------------------------------


def _contraction(n: int, seed: int, norm: float) -> NDArray:
    w = np.random.default_rng(seed).normal(size=(n, n))
    return w * (norm / float(np.linalg.norm(w, 2)))


_TANH_W = _contraction(6, 3, 0.8)
_TANH_B = np.linspace(-0.5, 0.7, 6)
_AFFINE_A = _contraction(5, 4, 0.7)
_AFFINE_B = np.linspace(-1.0, 1.0, 5)
_TURN = 0.95 * np.array([[math.cos(1.0), -math.sin(1.0)], [math.sin(1.0), math.cos(1.0)]])
_TURN_B = _vec(1.0, -0.5)
_SLOW = _vec(0.2, 0.9, 0.99)


def _tanh_point(theta: NDArray) -> NDArray:
    return newton_root(
        lambda x: x - np.tanh(_TANH_W @ x + theta),
        lambda x: np.eye(6) - (1.0 - np.tanh(_TANH_W @ x + theta) ** 2)[:, None] * _TANH_W,
        np.zeros(6),
    )


def _kepler(eccentricity: float, anomaly: float) -> float:
    x = anomaly
    for _ in range(100):
        x -= (x - eccentricity * math.sin(x) - anomaly) / (1.0 - eccentricity * math.cos(x))
    return x


def pytree_map(x: dict[str, Array]) -> dict[str, Array]:
    """An affine contraction coupling a scalar and a vector leaf."""
    return {"a": 0.25 * jnp.sum(x["b"]) + 1.0, "b": 0.5 * x["b"] - 0.25 * x["a"] + 1.0}


FIXED_POINTS: tuple[FixedPoint, ...] = (
    FixedPoint("fixed_cosine", jnp.cos, np.array(0.0), np.array(_DOTTIE), rate=0.6737,
               notes="zero-dimensional x"),
    FixedPoint("fixed_tanh", lambda x: jnp.tanh(_constant(_TANH_W, x) @ x + _constant(_TANH_B, x)),
               np.zeros(6), lambda: _tanh_point(_TANH_B), notes="contraction factor at most 0.8"),
    FixedPoint("fixed_affine", lambda x: _constant(_AFFINE_A, x) @ x + _constant(_AFFINE_B, x),
               np.zeros(5), lambda: np.linalg.solve(np.eye(5) - _AFFINE_A, _AFFINE_B)),
    FixedPoint("fixed_spiral", lambda x: _constant(_TURN, x) @ x + _constant(_TURN_B, x),
               np.zeros(2), lambda: np.linalg.solve(np.eye(2) - _TURN, _TURN_B), rate=0.95,
               notes="complex eigenvalues of modulus 0.95"),
    FixedPoint("fixed_slow", lambda x: _constant(_SLOW, x) * x + _constant(1.0 - _SLOW, x),
               np.zeros(3), np.ones(3), rate=0.99,
               notes="rate 0.99: a small step is not a small error"),
    FixedPoint("fixed_babylonian", lambda x: 0.5 * (x + _constant(_vec(2.0, 9.0), x) / x),
               np.ones(2), _vec(math.sqrt(2.0), 3.0), rate=0.0, notes="quadratic convergence"),
    FixedPoint("fixed_kepler", lambda x: 1.0 + 0.6 * jnp.sin(x), np.array(1.0),
               lambda: np.array(_kepler(0.6, 1.0)), notes="zero-dimensional x"),
    FixedPoint("fixed_pytree", pytree_map, {"a": np.array(0.0), "b": np.zeros(2)},
               {"a": np.array(1.6), "b": np.full(2, 1.2)}, notes="x is a dict"),
    FixedPoint("fixed_expansive", lambda x: 2.0 * x - 1.0, _vec(1.5, 0.0), np.ones(2),
               contracting=False, rate=2.0, notes="plain iteration diverges"),
    FixedPoint("fixed_oscillating", lambda x: 2.0 - x, _vec(0.0, 1.5), np.ones(2),
               contracting=False, rate=1.0, notes="plain iteration cycles for ever"),
)  # fmt: skip


# --------------------------------------------------------------------------------------------
# Parametric problems
# --------------------------------------------------------------------------------------------

_rng = np.random.default_rng(2)
_RIDGE_A = _rng.normal(size=(8, 4))
_RIDGE_Y = _rng.normal(size=8)
_COUPLING = _vec(1.0, -0.5, 0.25)
_NONSYM = np.array([[3.0, 1.5, 0.0, -0.5], [-1.0, 2.5, 1.0, 0.0],
                    [0.5, -1.5, 3.0, 1.0], [0.0, 0.5, -1.0, 2.0]])  # fmt: skip
_NONSYM_B = np.array([[1.0, 0.5], [-2.0, 1.0], [0.3, -1.0], [0.0, 2.0]])
_MIX_T = np.linspace(0.0, 2.0, 9)
_MIX_Y = np.exp(-1.1 * _MIX_T) + 0.5 + 0.2 * np.cos(5.0 * np.arange(9))


def _ridge(x: Array, lam: Array, y: Array) -> Array:
    return 0.5 * jnp.sum((_constant(_RIDGE_A, x) @ x - y) ** 2) + 0.5 * lam * jnp.sum(x**2)


def _ridge_hessian(lam: Any) -> NDArray:
    return _RIDGE_A.T @ _RIDGE_A + float(lam) * np.eye(4)


def _ridge_solution(lam: Any, y: NDArray) -> NDArray:
    return np.linalg.solve(_ridge_hessian(lam), _RIDGE_A.T @ y)


def _ridge_d_lambda(lam: Any, y: NDArray) -> NDArray:
    return -np.linalg.solve(_ridge_hessian(lam), _ridge_solution(lam, y))


def _ridge_d_targets(lam: Any) -> NDArray:
    return np.linalg.solve(_ridge_hessian(lam), _RIDGE_A.T)


def _curved_quadratic(x: Array, theta: Array) -> Array:
    c = _constant(_COUPLING, x)
    bend = jnp.sum(jnp.exp(theta) * x**2) + jnp.sum(c * x) ** 2
    return 0.5 * bend - jnp.sum((jnp.sin(theta) + theta**2) * x)


def _curved_hessian(theta: NDArray) -> NDArray:
    return np.diag(np.exp(theta)) + np.outer(_COUPLING, _COUPLING)


def _curved_solution(theta: NDArray) -> NDArray:
    return np.linalg.solve(_curved_hessian(theta), np.sin(theta) + theta**2)


def _curved_jacobian(theta: NDArray) -> NDArray:
    x = _curved_solution(theta)
    right = np.diag(np.cos(theta) + 2.0 * theta - np.exp(theta) * x)
    return np.linalg.solve(_curved_hessian(theta), right)


def _nested_scalar(y: Array, x: Array) -> Array:
    return 0.5 * (1.0 + x**2) * y**2 - jnp.sin(x) * y


def _cosh_chain(x: Array, theta: Array) -> Array:
    links = jnp.sum((x[1:] - x[:-1]) ** 2)
    return jnp.sum(jnp.cosh(x - theta)) + 0.5 * links + 0.1 * jnp.sum(x**4)


def _cosh_hessian(x: NDArray, theta: NDArray) -> NDArray:
    d = np.diff(np.eye(theta.size), axis=0)
    return np.diag(np.cosh(x - theta) + 1.2 * x**2) + d.T @ d


def _cosh_solution(theta: NDArray) -> NDArray:
    d = np.diff(np.eye(theta.size), axis=0)
    links = d.T @ d
    return newton_minimum(
        lambda x: float(np.sum(np.cosh(x - theta)) + 0.5 * x @ links @ x + 0.1 * np.sum(x**4)),
        lambda x: np.sinh(x - theta) + links @ x + 0.4 * x**3,
        lambda x: _cosh_hessian(x, theta),
        np.zeros_like(theta),
    )


def _cosh_jacobian(theta: NDArray) -> NDArray:
    x = _cosh_solution(theta)
    return np.linalg.solve(_cosh_hessian(x, theta), np.diag(np.cosh(x - theta)))


def _logistic_log_l2(x: Array, theta: Array) -> Array:
    margins = _constant(_BINARY_A, x) @ x
    return jnp.sum(jnp.logaddexp(0.0, -margins)) + 0.5 * jnp.exp(theta) * jnp.sum(x**2)


def _logistic_log_l2_jacobian(theta: NDArray) -> NDArray:
    l2 = math.exp(float(theta))
    x, _, hessian = _binary_solve(l2)
    return -l2 * np.linalg.solve(hessian, x)


def _shifted_linear(x: Array, theta: Array) -> Array:
    return _constant(_ROOT_A, x) @ x + theta * x - jnp.cos(theta)


def _shifted_linear_solution(theta: NDArray) -> NDArray:
    return np.linalg.solve(_ROOT_A + np.diag(theta), np.cos(theta))


def _shifted_linear_jacobian(theta: NDArray) -> NDArray:
    x = _shifted_linear_solution(theta)
    return np.linalg.solve(_ROOT_A + np.diag(theta), np.diag(-np.sin(theta) - x))


def _nonsymmetric(x: Array, theta: Array) -> Array:
    return _constant(_NONSYM, x) @ x + x**3 - _constant(_NONSYM_B, x) @ theta


def _nonsymmetric_solution(theta: NDArray) -> NDArray:
    return newton_root(
        lambda x: _NONSYM @ x + x**3 - _NONSYM_B @ theta,
        lambda x: _NONSYM + np.diag(3.0 * x**2),
        np.zeros(4),
    )


def _nonsymmetric_jacobian(theta: NDArray) -> NDArray:
    x = _nonsymmetric_solution(theta)
    return np.linalg.solve(_NONSYM + np.diag(3.0 * x**2), _NONSYM_B)


def _kepler_root(x: Array, theta: Array) -> Array:
    return x - theta[0] * jnp.sin(x) - theta[1]


def _kepler_solution(theta: NDArray) -> NDArray:
    return np.array(_kepler(float(theta[0]), float(theta[1])))


def _kepler_jacobian(theta: NDArray) -> NDArray:
    x = float(_kepler_solution(theta))
    return _vec(math.sin(x), 1.0) / (1.0 - float(theta[0]) * math.cos(x))


def _scaled_cosine_solution(theta: NDArray) -> NDArray:
    x, t = 0.7, float(theta)
    for _ in range(100):
        x -= (x - math.cos(t * x)) / (1.0 + t * math.sin(t * x))
    return np.array(x)


def _scaled_cosine_jacobian(theta: NDArray) -> NDArray:
    x, t = float(_scaled_cosine_solution(theta)), float(theta)
    return np.array(-x * math.sin(t * x) / (1.0 + t * math.sin(t * x)))


def _tanh_jacobian(theta: NDArray) -> NDArray:
    d = np.diag(1.0 - np.tanh(_TANH_W @ _tanh_point(theta) + theta) ** 2)
    return np.linalg.solve(np.eye(6) - d @ _TANH_W, d)


def _exponential_jacobian(y: NDArray) -> NDArray:
    _, jac, hessian = _exponential_parts(_exponential_solution(y), y)
    return np.linalg.solve(hessian, jac.T)


def _tikhonov_residual(x: Array, lam: Array) -> Array:
    fit = _constant(_RIDGE_A, x) @ x - _constant(_RIDGE_Y, x)
    return jnp.concatenate([fit, jnp.sqrt(lam) * x])


def _mixture_residual(x: Array, theta: Array) -> Array:
    t = _constant(_MIX_T, x)
    return x[0] * jnp.exp(-theta * t) + x[1] - _constant(_MIX_Y, x)


def _mixture_solution(theta: NDArray) -> NDArray:
    a = np.stack([np.exp(-theta * _MIX_T), np.ones_like(_MIX_T)], axis=1)
    return np.linalg.solve(a.T @ a, a.T @ _MIX_Y)


def _mixture_jacobian(theta: NDArray) -> NDArray:
    e = np.exp(-theta * _MIX_T)
    a = np.stack([e, np.ones_like(e)], axis=1)
    da = np.stack([-_MIX_T * e, np.zeros_like(e)], axis=1)
    x = _mixture_solution(theta)
    return np.linalg.solve(a.T @ a, da.T @ (_MIX_Y - a @ x) - a.T @ (da @ x))


PARAMETRICS: tuple[Parametric, ...] = (
    Parametric(
        "ridge_lambda", "minimization",
        lambda x, lam: _ridge(x, lam, _constant(_RIDGE_Y, x)), np.zeros(4), np.array(0.3),
        lambda lam: _ridge_solution(lam, _RIDGE_Y),
        lambda lam: _ridge_d_lambda(lam, _RIDGE_Y), notes="scalar theta, closed form"),
    Parametric(
        "ridge_targets", "minimization",
        lambda x, y: 0.5 * jnp.sum((_constant(_RIDGE_A, x) @ x - y) ** 2)
        + 0.15 * jnp.sum(x**2), np.zeros(4), _RIDGE_Y,
        lambda y: _ridge_solution(0.3, y), lambda y: _ridge_d_targets(0.3),
        notes="more parameters than unknowns, closed form"),
    Parametric(
        "ridge_pytree", "minimization",
        lambda x, theta: _ridge(x, theta["lam"], theta["y"]), np.zeros(4),
        {"lam": np.array(0.3), "y": _RIDGE_Y},
        lambda theta: _ridge_solution(theta["lam"], theta["y"]),
        lambda theta: {"lam": _ridge_d_lambda(theta["lam"], theta["y"]),
                       "y": _ridge_d_targets(theta["lam"])},
        notes="theta is a dict, closed form"),
    Parametric(
        "curved_quadratic", "minimization", _curved_quadratic, np.zeros(3),
        _vec(0.4, -0.3, 0.8), _curved_solution, _curved_jacobian,
        notes="quadratic in x, theta enters nonlinearly, closed form"),
    Parametric(
        "nested_scalar", "minimization", _nested_scalar, np.array(0.0), np.array(0.7),
        lambda t: np.sin(t) / (1.0 + t**2),
        lambda t: (np.cos(t) * (1.0 + t**2) - 2.0 * t * np.sin(t)) / (1.0 + t**2) ** 2,
        notes="zero-dimensional x and theta, closed form"),
    Parametric(
        "cosh_chain", "minimization", _cosh_chain, np.zeros(5),
        _vec(1.0, -1.5, 0.5, 2.0, -0.7), _cosh_solution, _cosh_jacobian,
        notes="not quadratic; dense Newton oracle"),
    Parametric(
        "logistic_log_l2", "minimization", _logistic_log_l2, np.zeros(5), np.array(-1.0),
        lambda t: _binary_solve(math.exp(float(t)))[0], _logistic_log_l2_jacobian,
        notes="hyperparameter of a binary logistic regression; dense Newton oracle"),
    Parametric(
        "cube_root", "root", lambda x, theta: x**3 - theta, np.ones(3), _vec(2.0, 0.5, 8.0),
        np.cbrt, lambda theta: np.diag(1.0 / (3.0 * np.cbrt(theta) ** 2)), notes="closed form"),
    Parametric(
        "shifted_linear", "root", _shifted_linear, np.zeros(3), _vec(0.5, -0.2, 1.0),
        _shifted_linear_solution, _shifted_linear_jacobian,
        notes="nonsymmetric Jacobian, closed form"),
    Parametric(
        "nonsymmetric_cubic", "root", _nonsymmetric, np.zeros(4), _vec(1.0, 2.0),
        _nonsymmetric_solution, _nonsymmetric_jacobian,
        notes="nonsymmetric Jacobian, 4 unknowns, 2 parameters; dense Newton oracle"),
    Parametric(
        "kepler_root", "root", _kepler_root, np.array(1.0), _vec(0.6, 1.0),
        _kepler_solution, _kepler_jacobian, notes="zero-dimensional x, vector theta"),
    Parametric(
        "scaled_cosine", "fixed_point", lambda x, theta: jnp.cos(theta * x), np.array(0.5),
        np.array(1.1), _scaled_cosine_solution, _scaled_cosine_jacobian,
        notes="zero-dimensional x and theta"),
    Parametric(
        "tanh_layer", "fixed_point",
        lambda x, theta: jnp.tanh(_constant(_TANH_W, x) @ x + theta), np.zeros(6), _TANH_B,
        _tanh_point, _tanh_jacobian, notes="nonsymmetric contraction; dense Newton oracle"),
    Parametric(
        "affine_map", "fixed_point", lambda x, theta: _constant(_AFFINE_A, x) @ x + theta,
        np.zeros(5), _AFFINE_B, lambda theta: np.linalg.solve(np.eye(5) - _AFFINE_A, theta),
        lambda theta: np.linalg.inv(np.eye(5) - _AFFINE_A), notes="closed form"),
    Parametric(
        "babylonian", "fixed_point", lambda x, theta: 0.5 * (x + theta / x), np.ones(2),
        _vec(2.0, 9.0), np.sqrt, lambda theta: np.diag(0.5 / np.sqrt(theta)),
        notes="the map's own Jacobian vanishes at the fixed point; closed form"),
    Parametric(
        "exponential_targets", "least_squares", _exponential_residual, _vec(1.0, -1.0, 0.0),
        _FIT_Y, _exponential_solution, _exponential_jacobian,
        notes="nonzero residual: dropping its curvature gives a wrong Jacobian"),
    Parametric(
        "tikhonov", "least_squares", _tikhonov_residual, np.zeros(4), np.array(0.3),
        lambda lam: _ridge_solution(lam, _RIDGE_Y), lambda lam: _ridge_d_lambda(lam, _RIDGE_Y),
        notes="ridge as residuals, closed form"),
    Parametric(
        "mixture_rate", "least_squares", _mixture_residual, np.zeros(2), np.array(1.4),
        _mixture_solution, _mixture_jacobian,
        notes="linear in x, nonzero residual multiplying a residual cross term; closed form"),
)  # fmt: skip


# --------------------------------------------------------------------------------------------
# Lookup
# --------------------------------------------------------------------------------------------

Problem = Minimization | LeastSquares | Root | FixedPoint | Parametric
EVERYTHING: tuple[Problem, ...] = (
    *MINIMIZATIONS, *LEAST_SQUARES, *ROOTS, *FIXED_POINTS, *PARAMETRICS
)  # fmt: skip


def of_kind(*kinds: Kind) -> tuple[Minimization, ...]:
    """Minimizations of the given kinds."""
    return tuple(problem for problem in MINIMIZATIONS if problem.kind in kinds)


def parametric(*kinds: ParametricKind) -> tuple[Parametric, ...]:
    """Parametric problems of the given kinds."""
    return tuple(problem for problem in PARAMETRICS if problem.kind in kinds)


def by_name(name: str) -> Any:
    """Find any problem by its unique name."""
    return next(problem for problem in EVERYTHING if problem.name == name)
