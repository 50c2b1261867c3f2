"""How far a point with its multipliers is from a solution with constraints."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.solvers._bounds import Box, pinned, projected_gradient, tied
from nestor.solvers._contract import Constrained, Point

Tree = Any
_USUAL = 100.0  # multipliers up to this size do not loosen the test of stationarity
_LARGEST = 100.0  # and none loosen it by more: where there are no multipliers at all, they grow without bound


class Residuals(NamedTuple):
    """The three conditions, each the largest absolute entry of what vanishes at a solution."""

    stationarity: jax.Array
    feasibility: jax.Array
    complementarity: jax.Array
    size: jax.Array  # of the multipliers: `optimality` divides the stationarity by it

    @property
    def optimality(self) -> jax.Array:
        """The largest of the three, the stationarity measured against large multipliers."""
        largest = jnp.maximum(self.feasibility, self.complementarity)
        return jnp.maximum(largest, self.stationarity / self.size)


def residuals(point: Point, grad: Tree, h: jax.Array, g: jax.Array, box: Box | None) -> Residuals:
    """The conditions at a point, from the gradient of the Lagrangian and the constraints there.

    The size is max(1, mean of the absolute multipliers / 100), those of the bounds among them, and at most 100.

    Source: Wächter and Biegler 2006, equations 5 and 6.
    """
    cut = projected_gradient(point.x, grad, box)
    dtype = trees.float_dtype(point.x)
    held = jax.tree.map(lambda a, b: jnp.sum(jnp.abs(a - b)).astype(dtype), grad, cut)
    count = h.size + g.size + (0 if box is None else trees.size(point.x))
    total = jnp.sum(jnp.abs(point.equal)) + jnp.sum(jnp.abs(point.inequal)) + sum(jax.tree.leaves(held))
    broken = jnp.max(jnp.abs(h), initial=0.0), jnp.max(-g, initial=0.0)
    found = Residuals(
        trees.max_norm(cut),
        jnp.maximum(*broken),
        jnp.max(jnp.abs(jnp.minimum(point.inequal, jnp.maximum(g, 0))), initial=0.0),
        jnp.clip(total / (max(count, 1) * _USUAL), 1, _LARGEST),
    )
    return jax.tree.map(jax.lax.stop_gradient, found)


# --- what holds at the answer ------------------------------------------------------------------------


def condition(problem: Constrained, point: Point) -> Point:
    """What vanishes at a solution with its active set; its derivative is symmetric.

    Rows of x: the gradient of the Lagrangian, or x - bound; of equalities: h; of inequalities: -g where they are
    active, their multiplier elsewhere.
    """
    active, mu, pull, h, g = _at(problem, point)
    grad = pull(mu)
    return Point(tied(point.x, grad, problem.box), h, jnp.where(active, -g, point.inequal))


def value(problem: Constrained, point: Point) -> jax.Array:
    """The Lagrangian at a solution: as a function of the inputs it changes as the least value does."""
    f, h, g = problem.fun(pinned(point.x, problem.box))
    active = jax.lax.stop_gradient(point.inequal > g)
    product = functools.partial(jnp.vdot, precision="highest")
    return f.astype(h.dtype) + product(point.equal, h) - product(jnp.where(active, point.inequal, 0.0), g)


def _at(problem: Constrained, point: Point) -> Any:
    (f, h, g), back = jax.vjp(problem.fun, pinned(point.x, problem.box))
    active = jax.lax.stop_gradient(point.inequal > g)
    mu = jnp.where(active, point.inequal, 0.0)
    return active, mu, lambda mu: back((jnp.ones_like(f), point.equal, -mu))[0], h, g


class Report(NamedTuple):
    """The conditions at the answer, and the multipliers of the bounds."""

    residuals: Residuals
    lower: Tree
    upper: Tree
    weakly_active: jax.Array
    curvature: Any = None


def report(problem: Constrained, point: Point, state: Any, there: jax.Array) -> Report:
    """The conditions at a point, from one more evaluation.

    Args:
        problem: what was solved.
        point: the best point.
        state: the solver's, which may know the curvature along the constraints at the last point that it kept.
        there: whether that is this point.
    """
    known = getattr(state, "curvature", None)
    curvature = None if known is None else jnp.where(there, known, jnp.nan)
    _, _, pull, h, g = _at(problem, point)
    grad = pull(point.inequal)
    found = residuals(point, grad, h, g, problem.box)
    tol = problem.tol
    weak = jnp.sum((jnp.abs(g) <= tol) & (point.inequal <= tol))
    if problem.box is None:
        return Report(found, None, None, weak, curvature)
    low, high = _of_bounds(point.x, grad, problem.box)
    return Report(found, low, high, weak + _weak_bounds(point.x, grad, problem.box, tol), curvature)


def _weak_bounds(x: Tree, grad: Tree, box: Box, tol: float) -> jax.Array:
    """How many entries are at one of their bounds with a multiplier of zero; fixed ones cannot leave theirs."""
    weak = jax.tree.map(
        lambda v, d, low, up: jnp.sum(((v <= low) != (v >= up)) & (jnp.abs(d) <= tol)), x, grad, *box
    )
    return sum(jax.tree.leaves(weak), jnp.zeros((), int))


def _of_bounds(x: Tree, grad: Tree, box: Box) -> tuple[Tree, Tree]:
    """The multipliers of the lower and the upper bounds, zero where x is inside."""
    low = jax.tree.map(lambda v, low, d: jnp.where(v <= low, jnp.maximum(d, 0), 0), x, box.lower, grad)
    high = jax.tree.map(lambda v, up, d: jnp.where(v >= up, jnp.maximum(-d, 0), 0), x, box.upper, grad)
    return low, high


# --- bounds alone ------------------------------------------------------------------------------------


def snapped(x: Tree, grad: Tree, box: Box) -> Tree:
    """x, with the entries at their bound that a gradient step would take there.

    A solution within the tolerance may be a rounding away from a bound, which for derivatives is another place.
    """
    return jax.tree.map(
        lambda v, d, low, up: jnp.where(
            (d > 0) & (v - low <= d), low, jnp.where((d < 0) & (up - v <= -d), up, v)
        ),
        x,
        jax.lax.stop_gradient(grad),
        *box,
    )


class Settled(NamedTuple):
    """What was found out about an answer in a box.

    Attributes:
        stationarity: the largest entry of the projected gradient.
        finish: whether it is a solution -> (x, which of a solution is `snapped`; the report on that x).
    """

    stationarity: jax.Array
    finish: Callable[[jax.Array], tuple[Tree, Report]]


def report_in_a_box(of: Callable[[Any, Tree], jax.Array]) -> Callable[[Any, Tree], Settled | None]:
    """What holds at a minimum of `of` in a box, as a function of (problem, x); None without a box."""

    def report(problem: Any, x: Tree) -> Settled | None:
        box = problem.box
        if box is None:
            return None
        grad = jax.grad(lambda z: of(problem, z))(jax.lax.stop_gradient(x))
        cut = projected_gradient(x, grad, box)
        zero = jnp.zeros((), trees.float_dtype(x))
        residuals = Residuals(trees.max_norm(cut), zero, zero, zero + 1)

        def finish(solved: jax.Array) -> tuple[Tree, Report]:
            point = trees.select(solved, snapped(x, grad, box), x)
            low, high = _of_bounds(point, grad, box)
            return point, Report(residuals, low, high, _weak_bounds(point, grad, box, problem.tol))

        return Settled(residuals.stationarity, finish)

    return report
