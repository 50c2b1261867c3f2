"""Cone programs: what they are, what holds at a solution, and the solvers that ask a package of the host.

    minimize  ½ x'P x + q'x   where  A x = b,  h_i - G_i x in K_i,  low <= x <= high

with multipliers u of the equalities and y_i of the cones. A solution is where these vanish:

    x - clip(x - (P x + q + A'u + sum of G_i'y_i)),   A x - b,   y_i - Proj_i(y_i - (h_i - G_i x))

with the projections on the cones, which are their own duals. Derivatives of solutions are those of this system.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from nestor import linear, trees
from nestor.proximal import PositiveSemidefinite, SecondOrderCone
from nestor.solution import Status
from nestor.solvers import _drive
from nestor.solvers._bounds import Box
from nestor.solvers._contract import Info, Problem, code, converged_at_precision, judge
from nestor.solvers._kkt import Report, Residuals

Tree = Any

_POLISHED = 6  # Newton steps at most, after the host's answer

product = functools.partial(jnp.matmul, precision="highest")


class Data(NamedTuple):
    """The data of a cone program.

    Attributes:
        P: shape (n, n), symmetric, or None for zero.
        q: shape (n,).
        A, b: shapes (k, n) and (k,), or None: with arrays without entries beside a callback XLA does not compile
            (JAX 0.10.2), so then `ConePoint.equal` is an empty tuple.
        G, h: for every cone the shapes (..., n) and (...).
    """

    P: jax.Array | None
    q: jax.Array
    A: jax.Array | None
    b: jax.Array | None
    G: tuple[jax.Array, ...]
    h: tuple[jax.Array, ...]


class ConePoint(NamedTuple):
    """The unknowns and the multipliers.

    Attributes:
        x: shape (n,).
        equal: of A x = b, shape (k,); () without equalities.
        inequal: of every cone, in the shape of its h.
    """

    x: jax.Array
    equal: Any
    inequal: tuple[jax.Array, ...]


def give(captured: list[Any], x: Any) -> Data:
    """The program of a cone problem, which is its data."""
    return Data(*captured)


class Terms(NamedTuple):
    """The parts of the conditions at a point.

    Attributes:
        grad: the gradient of the Lagrangian, (n,).
        size: the largest entry of its terms.
        equal: A x - b, (k,), or ().
        slack: h_i - G_i x for every cone.
    """

    grad: jax.Array
    size: jax.Array
    equal: Any
    slack: tuple[jax.Array, ...]


@dataclasses.dataclass(frozen=True)
class ConeProgram(Problem):
    """Minimize ½ x'P x + q'x where A x = b and h_i - G_i x lies in cone i, in a box; `fun` returns the `Data`.

    Attributes:
        cones: of `nestor.proximal`: `NonNegative`, `SecondOrderCone`, `PositiveSemidefinite`.
    """

    cones: tuple[Any, ...] = ()
    kind: ClassVar[str] = "cone program"

    def terms(self, point: ConePoint) -> Terms:
        """What the conditions at a point are made of."""
        data: Data = self.fun(point.x)
        flat = [matrix.reshape(-1, point.x.size) for matrix in data.G]
        parts, equal = [data.q], ()
        if data.A is not None and data.b is not None:
            parts.append(product(data.A.T, point.equal))
            equal = product(data.A, point.x) - data.b
        parts += [product(rows.T, y.reshape(-1)) for rows, y in zip(flat, point.inequal, strict=True)]
        if data.P is not None:
            parts.append(product(data.P, point.x))
        slack = tuple(
            h - product(rows, point.x).reshape(h.shape) for rows, h in zip(flat, data.h, strict=True)
        )
        size = jnp.max(jnp.abs(jnp.stack(parts)))
        return Terms(sum(parts[1:], parts[0]), size, equal, slack)


def residual(problem: ConeProgram, point: ConePoint) -> ConePoint:
    """What vanishes at a solution."""
    at = problem.terms(point)
    return ConePoint(
        _along(point.x, at.grad, problem.box),
        at.equal,
        tuple(
            y - cone.project(y - s) for cone, y, s in zip(problem.cones, point.inequal, at.slack, strict=True)
        ),
    )


def _along(x: jax.Array, grad: jax.Array, box: Box | None) -> jax.Array:
    """x - clip(x - grad), without what the rounding of x - grad would lose."""
    if box is None:
        return grad
    ahead = x - grad
    return jnp.where(ahead <= box.lower, x - box.lower, jnp.where(ahead >= box.upper, x - box.upper, grad))


def value(problem: ConeProgram, point: ConePoint) -> jax.Array:
    """The Lagrangian at a solution, with entries at a bound tied to it: it changes as the least value does."""
    at = problem.terms(point)
    x = point.x
    if problem.box is not None:
        ahead = jax.lax.stop_gradient(x - at.grad)
        low, high = problem.box
        x = jnp.where(ahead <= low, low, jnp.where(ahead >= high, high, x))
    moved = problem.terms(point._replace(x=x))
    total = objective(problem, x)
    if jax.tree.leaves(point.equal):
        total = total + jnp.vdot(point.equal, moved.equal, precision="highest")
    for y, s in zip(point.inequal, moved.slack, strict=True):
        total = total - jnp.vdot(y, s, precision="highest")
    return total


def objective(problem: ConeProgram, x: jax.Array) -> jax.Array:
    """½ x'P x + q'x."""
    data: Data = problem.fun(x)
    value = jnp.vdot(data.q, x, precision="highest")
    return value if data.P is None else value + jnp.vdot(x, product(data.P, x), precision="highest") / 2


def report(problem: ConeProgram, point: ConePoint) -> Report:
    """The conditions at a point, the multipliers of the bounds, and how many multipliers are zero that need not be."""
    at, off = problem.terms(point), residual(problem, point)
    outside = [
        jnp.max(jnp.abs(s - cone.project(s)), initial=0.0)
        for cone, s in zip(problem.cones, at.slack, strict=True)
    ]
    outside += [jnp.max(jnp.abs(part)) for part in jax.tree.leaves(at.equal)]
    broken = functools.reduce(jnp.maximum, outside, jnp.zeros((), point.x.dtype))
    found = Residuals(
        jnp.max(jnp.abs(off.x)),
        broken,
        trees.max_norm(off.inequal) if off.inequal else 0 * broken,
        0 * broken + 1,
    )
    weak = jnp.zeros((), int)
    for cone, y, s in zip(problem.cones, point.inequal, at.slack, strict=True):
        weak = weak + jnp.sum(jnp.abs(_spectrum(cone, y - s)) <= problem.tol)
    if problem.box is None:
        return Report(found, None, None, weak)
    low, high = problem.box
    below = _reached(point.x - low, low, at.grad, problem.tol)
    above = _reached(high - point.x, high, -at.grad, problem.tol)
    loose = (below != above) & (jnp.abs(at.grad) <= problem.tol)
    return Report(
        found,
        jnp.where(below, jnp.maximum(at.grad, 0), 0.0),
        jnp.where(above, jnp.maximum(-at.grad, 0), 0.0),
        weak + jnp.sum(loose),
    )


def _reached(room: jax.Array, bound: jax.Array, push: jax.Array, tol: float) -> jax.Array:
    """Whether x is at its bound, or as far from it as an interior-point method stays from one that pushes back."""
    size = jnp.maximum(jnp.where(jnp.isfinite(bound), jnp.abs(bound), 1), 1)
    return (room <= 0) | ((room <= push) & (room <= tol * size))


def _spectrum(cone: Any, v: jax.Array) -> jax.Array:
    """The numbers whose signs say on which side of a cone a point is."""
    if isinstance(cone, PositiveSemidefinite):
        return jnp.linalg.eigvalsh((v + v.mT) / 2)
    if isinstance(cone, SecondOrderCone):
        rows = v.reshape(1, -1) if cone.axis is None else jnp.moveaxis(v, cone.axis, -1)
        length = jnp.linalg.norm(rows[..., 1:], axis=-1)
        return jnp.stack([rows[..., 0] - length, rows[..., 0] + length])
    return v


CONE_PROGRAM = _drive.Kind(
    ConeProgram,
    residual,
    value,
    symmetric=False,
    positive=False,
    by_value=False,
    report=lambda problem, point, state, there: report(problem, point),
)


class HostState(NamedTuple):
    """The state of a solver that asks the host once.

    Attributes:
        info: about the point just evaluated.
        proposed: the host's answer.
        said: what the host has proved: INFEASIBLE, UNBOUNDED, or RUNNING for nothing.
        turn: how many points were evaluated.
        first: the optimality at the start.
    """

    info: Info
    proposed: ConePoint
    said: jax.Array
    turn: jax.Array
    first: jax.Array


class AsksHost:
    """The three verbs of a solver whose work is done by a package on the host, in float64.

    The answer is judged here, by the conditions at it, and made more exact by Newton's method on them where
    they do not hold to tol. Under `vmap` the host is called once for all lanes.
    """

    solves: ClassVar[type[Problem]] = ConeProgram
    bounds: ClassVar[bool] = True

    def answers(self, cones: tuple[Any, ...], data: Data, box: Any) -> Any:
        """(x, u, y, code) in NumPy arrays, lanes first; see `_host_programs`."""
        raise NotImplementedError("a solver that asks the host says how")

    def init(self, problem: ConeProgram, point: ConePoint) -> HostState:
        """Ask the host."""
        data, box = trees.stop_gradient((problem.fun(point.x), problem.box))
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), point)
        ask = functools.partial(self.answers, problem.cones)
        proposed, said = jax.pure_callback(
            ask, (like, jax.ShapeDtypeStruct((), jnp.int32)), data, box, vmap_method="expand_dims"
        )
        infinite = jnp.full((), jnp.inf, point.x.dtype)
        nothing = Info(infinite, infinite, jnp.zeros((), bool))
        return HostState(nothing, proposed, said, jnp.int32(0), infinite)

    def step(self, problem: ConeProgram, point: ConePoint, state: HostState) -> tuple[ConePoint, HostState]:
        """Judge the point; propose the host's answer, or a Newton step from it."""
        off, at = residual(problem, point), problem.terms(point)
        data: Data = problem.fun(point.x)
        sizes = (
            jnp.maximum(at.size, 1),
            jnp.maximum(trees.max_norm(data.b), 1) if data.b is not None else 1.0,
            jnp.maximum(trees.max_norm((point.inequal, at.slack)) if at.slack else 0.0, 1),
        )
        found = [
            trees.max_norm(part) / size
            for part, size in zip(off, sizes, strict=True)
            if jax.tree.leaves(part)
        ]
        optimality = jax.lax.stop_gradient(functools.reduce(jnp.maximum, found)).astype(point.x.dtype)
        first = state.turn == 0
        again = ~first & (optimality > problem.tol) & jnp.isfinite(optimality)
        newton = jax.lax.cond(again, lambda: _newton(problem, point, off), lambda: point)
        info = Info(objective(problem, point.x), optimality, ~first)
        return trees.select(first, state.proposed, newton), state._replace(
            info=info, turn=state.turn + 1, first=jnp.where(first, optimality, state.first)
        )

    def status(self, problem: ConeProgram, point: ConePoint, state: HostState) -> jax.Array:
        """Converged where the conditions hold; else what the host has proved; else stalled, after a few steps."""
        judged = judge(problem, state.info)
        running = judged == int(Status.RUNNING)
        near = converged_at_precision(problem, state.info, state.first)
        over = state.turn > _POLISHED
        end = jnp.where(near, code(Status.CONVERGED), code(Status.STALLED))
        status = jnp.where(running & over, end, judged)
        proved = (state.said != int(Status.RUNNING)) & (judged != int(Status.CONVERGED))
        return jnp.where(proved, state.said, status)


def _newton(problem: ConeProgram, point: ConePoint, off: ConePoint) -> ConePoint:
    """The point after one Newton step on the conditions."""
    _, push = jax.linearize(lambda z: residual(problem, z), point)
    step = linear.solve(linear.Operator(push, point), trees.negative(off), linear.LeastNorm())
    step = jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0), step)
    x, equal, inequal = trees.add(point, step)
    return ConePoint(x if problem.box is None else jnp.clip(x, *problem.box), equal, inequal)
