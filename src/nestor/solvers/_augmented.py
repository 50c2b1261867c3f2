"""The augmented Lagrangian: constraints for many variables, around any solver that keeps bounds."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.solution import Status
from nestor.solvers._bfgs import LBFGS
from nestor.solvers._contract import Constrained, Info, Minimization, Point, Problem, code, judge
from nestor.solvers._kkt import residuals

Tree = Any

_LEAST, _MOST = 1e-2, 10.0  # the first weight of the violation
_HIGHEST = 1e10


class _Weights(NamedTuple):
    """What makes the augmented Lagrangian of (f, h, g) a function of x."""

    equal: jax.Array
    inequal: jax.Array
    weight: jax.Array
    plain: jax.Array  # whether it is the Lagrangian itself, at these multipliers

    def next(self, h: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The multipliers that the gradient is made with, and those of the next round."""
        equal = jnp.where(self.plain, self.equal, self.equal + self.weight * h)
        moved = jnp.maximum(self.inequal - self.weight * g, 0)
        return equal, jnp.where(self.plain, self.inequal, moved)

    def value(self, f: jax.Array, h: jax.Array, g: jax.Array) -> jax.Array:
        """f + equal.h + ½ w |h|² + (|max(inequal - w g, 0)|² - |inequal|²) / 2w, by Powell, Hestenes, Rockafellar."""
        _, moved = self.next(h, g)
        dot = functools.partial(jnp.vdot, precision="highest")
        squares = (dot(moved, moved) - dot(self.inequal, self.inequal)) / (2 * self.weight)
        return f + dot(self.equal, h) + self.weight / 2 * dot(h, h) + squares


@dataclasses.dataclass(frozen=True)
class _Inner(Minimization):
    """Minimize the augmented Lagrangian; `seen` gets what the one evaluation found besides."""

    weights: Any = None
    seen: list[Any] = dataclasses.field(default_factory=list, compare=False)

    def _evaluate(self, transform: Callable[[Any], Any], x: Tree) -> Any:
        return self.evaluate(lambda fun: transform(_with_gradient(fun)), (x, self.weights))

    def value_and_grad(self, x: Tree) -> tuple[jax.Array, Tree]:
        (value, grad), found = self._evaluate(lambda both: both, x)
        self.seen.append((*found, grad))
        return value, grad

    def value_grad_and_hvp(self, x: Tree) -> tuple[jax.Array, Tree, Callable[[Tree], Tree]]:
        both = _with_gradient(self.fun)
        ((value, grad), found), push = jax.linearize(lambda z: both((z, self.weights)), x)
        self.seen.append((*found, grad))
        return value, grad, lambda v: push(v)[0][1]


def _with_gradient(fun: Callable[[Tree], Any]) -> Callable[[Any], Any]:
    """(x, weights) -> the augmented Lagrangian with its gradient, and (f, h, g): one forward and one backward pass."""

    def both(at: tuple[Tree, _Weights]) -> Any:
        x, weights = at
        (f, h, g), back = jax.vjp(fun, x)
        equal, inequal = weights.next(h, g)
        grad = back((jnp.ones_like(f), equal, -inequal))[0]
        f = f.astype(h.dtype)
        return (weights.value(f, h, g), grad), (f, h, g)

    return both


class AugmentedState(NamedTuple):
    """The state of `AugmentedLagrangian`.

    Attributes:
        info: about the point just evaluated.
        inner: the state of the inner solver.
        weights: the multipliers and the weight of the round; `plain` where the next evaluation is the last.
        x: where the round began.
        goal: how small the inner gradient has to be for the round to end.
        broken: the violation at the end of the last round.
        verdict: RUNNING; at the last evaluation, what it says.
        rounds, fruitless: how many there were; how many in a row brought neither feasibility nor stationarity.
        best: the least optimality at the end of a round.
        first: whether nothing has been evaluated.
    """

    info: Info
    inner: Any
    weights: _Weights
    x: Tree
    goal: jax.Array
    broken: jax.Array
    verdict: jax.Array
    rounds: jax.Array
    fruitless: jax.Array
    best: jax.Array
    first: jax.Array


@trees.record
class AugmentedLagrangian:
    """The augmented Lagrangian method: the default with constraints, for many variables.

    Rounds of minimizing  f + equal.h + ½ w |h|² + ...  by the inner solver, in the bounds; after each the
    multipliers follow the constraints, and the weight w grows where the violation did not fall to a quarter.
    Nothing dense is made: memory is a few x and a few vectors of the constraints.

    Args:
        inner: a solver that minimizes and keeps bounds: `LBFGS()` (the default), `NewtonCG()`, `BFGS()`, ...

    Linear convergence of the rounds. Bounds are kept at every evaluation. Cost a step: one gradient of the
    objective with all constraints, and the inner solver's own; a round begins with one evaluation more.
    Source: Hestenes 1969; Powell 1969; Rockafellar 1973; Andreani, Birgin, Martínez and Schuverdt 2008.

    >>> import jax.numpy as jnp, nestor
    >>> sums = nestor.Constraint(jnp.sum, equal=1.0)
    >>> solver = nestor.AugmentedLagrangian()
    >>> x = nestor.minimize(lambda x: jnp.sum(x**2), jnp.zeros(4), constraints=sums, solver=solver).x
    >>> x.round(3).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """

    inner: Any = dataclasses.field(default_factory=LBFGS)
    solves: ClassVar[type[Problem]] = Constrained
    bounds: ClassVar[bool] = True

    def init(self, problem: Constrained, point: Point) -> AugmentedState:
        """See `Solver.init`."""
        dtype = trees.float_dtype(point.x)
        no, one = jnp.zeros((), bool), jnp.ones((), dtype)
        weights = _Weights(point.equal, point.inequal, one, no)
        infinite = jnp.full((), jnp.inf, dtype)
        return AugmentedState(
            info=Info(infinite, infinite, no),
            inner=self.inner.init(self._round(problem, weights), point.x),
            weights=weights,
            x=point.x,
            goal=jnp.asarray(max(problem.tol, problem.tol**0.5), dtype),
            broken=infinite,
            verdict=code(Status.RUNNING),
            rounds=jnp.int32(0),
            fruitless=jnp.int32(0),
            best=infinite,
            first=jnp.ones((), bool),
        )

    def _round(self, problem: Constrained, weights: _Weights) -> _Inner:
        return _Inner(problem.fun, problem.tol, box=problem.box, weights=weights)

    def step(self, problem: Constrained, point: Point, state: AugmentedState) -> tuple[Point, AugmentedState]:
        """See `Solver.step`."""
        inner_problem = self._round(problem, state.weights)
        x_next, inner = self.inner.step(inner_problem, point.x, state.inner)
        f, h, g, grad = inner_problem.seen[0]
        grad = trees.ravel(point.x)[1](trees.ravel(grad)[0])  # the inner solver may work on one vector
        equal, inequal = state.weights.next(h, g)
        at = Point(point.x, equal, inequal)
        found = residuals(at, grad, h, g, problem.box)
        verdict = self.inner.status(inner_problem, point.x, inner)
        ended = _Ended(
            done=found.stationarity <= state.goal * found.size,
            failed=verdict != int(Status.RUNNING),
            bottomless=verdict == int(Status.UNBOUNDED),
            blind=verdict == int(Status.NOT_FINITE),
            solved=found.optimality <= problem.tol,
        )
        new, over = _after(problem, state, point, (f, h, g), at, found, ended)
        fresh = self.inner.init(self._round(problem, new.weights), new.x)
        new = new._replace(
            inner=trees.select(over, fresh, inner),
            info=Info(f, found.optimality, inner.info.accepted | state.weights.plain),
        )
        x_next = trees.select(over, new.x, x_next)
        kept = over | ~trees.all_finite((equal, inequal))  # where a trial met NaN, the next one may not
        multipliers = trees.select(kept, (new.weights.equal, new.weights.inequal), (equal, inequal))
        return Point(x_next, *multipliers), new

    def status(self, problem: Constrained, point: Point, state: AugmentedState) -> jax.Array:
        """See `Solver.status`."""
        judged = judge(problem, state.info)
        return jnp.where(state.verdict == int(Status.FINISHED), judged, state.verdict)


class _Ended(NamedTuple):
    """Why a round may be over.

    Attributes:
        done: its goal is met.
        failed: the inner solver cannot go on.
        bottomless, blind: because values fall without end, or are no numbers.
        solved: all is solved.
    """

    done: jax.Array
    failed: jax.Array
    bottomless: jax.Array
    blind: jax.Array
    solved: jax.Array

    @property
    def lost(self) -> jax.Array:
        """Whether the inner solver went astray."""
        return self.bottomless | self.blind


def _after(
    problem: Constrained,
    state: AugmentedState,
    point: Point,
    values: tuple[jax.Array, jax.Array, jax.Array],
    at: Point,
    found: Any,
    ended: _Ended,
) -> tuple[AugmentedState, jax.Array]:
    """The state after an evaluation, but for the inner one, and whether a round is over."""
    f, h, g = values
    old = state.weights
    weight = old.weight
    finite = jnp.isfinite(found.optimality) & jnp.isfinite(f)
    last = old.plain
    over = state.first | last | ended.done | ended.failed | ended.solved
    sizes = jnp.maximum(1, (jnp.sum(h**2) + jnp.sum(jnp.minimum(g, 0) ** 2)) / 2)
    begin = jnp.clip(10 * jnp.maximum(1, jnp.abs(f)) / sizes, _LEAST, _MOST)
    broken = jnp.maximum(
        jnp.max(jnp.abs(h), initial=0.0), jnp.max(jnp.abs(jnp.minimum(g, old.inequal / weight)), initial=0.0)
    )
    slow = (broken > 0.25 * state.broken) & (broken > problem.tol)
    higher = jnp.where(ended.lost, 100 * weight, jnp.where(slow, 10 * weight, weight))
    astray = (ended.lost | ~finite) & ~state.first
    keep = state.first | last | astray  # the multipliers
    equal, inequal = trees.select(keep, (old.equal, old.inequal), (at.equal, at.inequal))
    plain = ended.solved & ~last & ~state.first & finite
    round_over = over & ~state.first & ~last
    better = found.optimality < 0.9 * state.best
    fruitless = jnp.where(round_over, jnp.where(better, 0, state.fruitless + 1), state.fruitless)
    highest = weight > _HIGHEST
    hopeless = highest & jnp.isfinite(state.broken) & (state.broken > 2 * max(problem.tol, 1e-4))
    verdict = jnp.where(
        hopeless,
        code(Status.INFEASIBLE),
        jnp.where(fruitless >= 12, code(Status.STALLED), code(Status.RUNNING)),
    )
    nowhere = jnp.where(ended.bottomless, code(Status.UNBOUNDED), code(Status.NOT_FINITE))
    verdict = jnp.where(highest & ended.lost, nowhere, verdict)  # at any price of the violation
    verdict = jnp.where(last & ended.solved, code(Status.FINISHED), verdict)
    verdict = jnp.where(state.first & ~finite, code(Status.NOT_FINITE), verdict)
    weights = _Weights(
        equal,
        inequal,
        jnp.where(state.first, begin, jnp.where(last, weight, higher)),
        plain,
    )
    goal = jnp.where(ended.done, jnp.maximum(0.1 * state.goal, 0.5 * problem.tol), state.goal)
    new = state._replace(
        weights=trees.select(over, weights, old),
        x=trees.select(over & ~astray, point.x, state.x),
        goal=jnp.where(round_over & finite, goal, state.goal),
        broken=jnp.where(round_over & ~astray, broken, state.broken),
        verdict=verdict,
        rounds=state.rounds + round_over.astype(jnp.int32),
        fruitless=fruitless,
        best=jnp.where(round_over & better, found.optimality, state.best),
        first=jnp.zeros((), bool),
    )
    return new, over
