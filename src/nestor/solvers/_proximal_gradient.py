"""Proximal gradient: a gradient step on the smooth part, then the proximal operator of the other.

Momentum (FISTA) extrapolates beyond the image of the operator, and that is where the gradient is taken; the
length of a step is judged by the curvature met between two such points, so that one evaluation does for both.
Spectral steps (Barzilai and Borwein) evaluate at images of the operator alone.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.solution import Status
from nestor.solvers import _progress
from nestor.solvers._contract import (
    Composite,
    Info,
    Problem,
    code,
    converged_at_precision,
    info_at,
    judge,
    no_info,
)

Tree = Any
Acceleration = Literal["momentum", "spectral", "none"]

_REMEMBERED = 10  # values that the next one of a spectral method may not be above
_DECREASE = 1e-4
_PATIENCE = 50  # accepted steps in a row without a gain; values may rise for a while


class ProximalState(NamedTuple):
    """Attributes as named; `base`, `grad` and `value` are of the last accepted point."""

    info: Info
    base: Tree
    value: jax.Array
    grad: Tree
    image: Tree  # of the last step: the point to be evaluated, before extrapolation
    before: Tree  # the image before that one
    length: jax.Array
    weight: jax.Array  # the t of FISTA
    inside: jax.Array  # whether the point to be evaluated is the image itself
    was_inside: jax.Array  # whether the point just evaluated was
    recent: jax.Array  # the last accepted values
    first: jax.Array
    final: jax.Array  # the next point is the last
    verdict: jax.Array  # RUNNING, or how the solve ends if the point just evaluated is no solution
    progress: _progress.Progress


class Geometry(Protocol):
    """How far is far: what a step along a gradient is, and what curvature is measured against."""

    def move(self, term: Any, x: Tree, grad: Tree, length: jax.Array) -> Tree:
        """The step from x along -grad, of that length, with the term."""
        ...

    def square(self, x: Tree, base: Tree) -> jax.Array:
        """The squared distance, as the curvature <change of the gradient, x - base> is bounded by it."""
        ...


class Euclidean:
    """Straight lines and squared norms."""

    def move(self, term: Any, x: Tree, grad: Tree, length: jax.Array) -> Tree:
        """prox(x - length grad, length)."""
        return term.prox(trees.add_scaled(x, -length, grad), length)

    def square(self, x: Tree, base: Tree) -> jax.Array:
        """|x - base|²."""
        return trees.squared_norm(trees.subtract(x, base))


_EUCLIDEAN = Euclidean()


def init(x: Tree) -> ProximalState:
    """The state before the first turn; nothing is evaluated."""
    zero = jnp.zeros((), trees.float_dtype(x))
    yes, no = jnp.ones((), bool), jnp.zeros((), bool)
    return ProximalState(
        info=no_info(x),
        base=x,
        value=zero,
        grad=trees.zeros_like(x),
        image=x,
        before=x,
        length=zero,
        weight=zero + 1,
        inside=no,
        was_inside=no,
        recent=jnp.full((_REMEMBERED,), -jnp.inf, zero.dtype),
        first=yes,
        final=no,
        verdict=code(Status.RUNNING),
        progress=_progress.begin(zero),
    )


def step(
    problem: Composite,
    x: Tree,
    state: ProximalState,
    acceleration: Acceleration,
    first_length: Any,
    geometry: Geometry = _EUCLIDEAN,
) -> tuple[Tree, ProximalState]:
    """Evaluate at x; accept it or not; step from the last accepted point."""
    smooth, grad = problem.value_and_grad(x)
    info = info_at(smooth + problem.term.value(x).astype(smooth.dtype), problem.residual(x, grad))
    finite = jnp.isfinite(info.value) & jnp.isfinite(info.optimality)
    grad = trees.select(finite, grad, trees.zeros_like(grad))
    here, slope, was = trees.stop_gradient((x, grad, state))
    good, wanted, moved = _judged(info, here, slope, was, acceleration, first_length, geometry)
    accepted = state.first | state.final | (finite & good)
    info = info._replace(accepted=accepted)
    progress = _progress.advance(
        state.progress, info, merit=info.value, first=state.first, against=state.value
    )
    length = jnp.where(
        accepted, wanted, jnp.where(finite, jnp.minimum(wanted, state.length / 2), state.length / 4)
    )
    base, value, base_grad, before = trees.select(
        accepted, (x, info.value, grad, state.image), (state.base, state.value, state.grad, state.before)
    )
    image = geometry.move(problem.term, base, base_grad, length)
    sound = trees.all_finite(trees.stop_gradient(image))
    solved = accepted & (info.optimality <= problem.tol)
    cautious = solved | ~finite  # go on from the image itself
    weight, onward = _momentum(state, accepted, cautious, base, image, before, acceleration)
    tiny = 4 * float(jnp.finfo(value.dtype).eps)
    stuck = ~accepted & (moved <= tiny * jnp.maximum(trees.norm(here), tiny**0.5))
    idle = accepted & (progress.idle >= _PATIENCE)
    final = ~state.final & (stuck | ~sound | idle)
    straight = cautious | final
    onward = jnp.where(straight, jnp.zeros_like(onward), onward)
    ending = jnp.where(finite, code(Status.STALLED), code(Status.NOT_FINITE))
    new_state = ProximalState(
        info=info,
        base=base,
        value=value,
        grad=base_grad,
        image=image,
        before=before,
        length=length,
        weight=weight,
        inside=onward == 0,
        was_inside=state.inside,
        recent=jnp.where(accepted, jnp.roll(state.recent, 1).at[0].set(info.value), state.recent),
        first=jnp.zeros((), bool),
        final=final,
        verdict=jnp.where(state.final, ending, code(Status.RUNNING)),
        progress=progress,
    )
    extrapolated = trees.add_scaled(image, onward, trees.subtract(image, before))
    return trees.select(onward > 0, extrapolated, image), new_state


def _judged(
    info: Info,
    x: Tree,
    grad: Tree,
    state: ProximalState,
    acceleration: Acceleration,
    first_length: Any,
    geometry: Geometry,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Whether the step to x was short enough, the length of the next one, and how far it went."""
    eps = float(jnp.finfo(state.value.dtype).eps)
    change = trees.subtract(x, state.base)
    square, far = geometry.square(x, state.base), trees.norm(change)
    turned = trees.subtract(grad, state.grad)
    curvature = trees.dot(turned, change)
    noise = 10 * eps * (trees.norm(grad) + trees.norm(state.grad)) * far
    bent = curvature > noise
    own = jnp.where(bent, square / jnp.where(bent, curvature, 1), jnp.inf)  # 1 / the curvature met
    size = trees.norm(grad)
    start = jnp.minimum(1, 1 / jnp.where(size > 0, size, 1))
    if first_length is not None:
        start = jnp.asarray(first_length).astype(start.dtype)
    if acceleration == "spectral":
        ceiling = jnp.where(state.first, jnp.inf, jnp.max(state.recent))
        slack = 10 * eps * jnp.abs(ceiling)
        good = (
            info.value <= ceiling - _DECREASE * square / (2 * jnp.where(state.first, 1, state.length)) + slack
        )
        wanted = jnp.where(bent, own, 10 * state.length)
        wanted = jnp.clip(wanted, 1e-3 * state.length, 1e3 * state.length)
    else:
        good = own >= state.length
        wanted = jnp.where(own >= 2 * state.length, 1.1 * state.length, state.length)
        wanted = jnp.where(good, wanted, 0.9 * own)
    return good, jnp.where(state.first, start, wanted), far


def _momentum(
    state: ProximalState,
    accepted: jax.Array,
    cautious: jax.Array,
    base: Tree,
    image: Tree,
    before: Tree,
    acceleration: Acceleration,
) -> tuple[jax.Array, jax.Array]:
    """The weight of FISTA, begun again where the momentum points uphill, and how far to extrapolate."""
    if acceleration != "momentum":
        return state.weight, jnp.zeros_like(state.weight)
    back, ahead = trees.stop_gradient((trees.subtract(base, image), trees.subtract(image, before)))
    restart = (trees.dot(back, ahead) > 0) | cautious | state.first
    old = jnp.where(restart, jnp.ones_like(state.weight), state.weight)
    new = (1 + jnp.sqrt(1 + 4 * old**2)) / 2
    kept = jnp.where(accepted, new, state.weight)
    return jnp.where(restart, jnp.ones_like(kept), kept), jnp.where(restart, 0, (old - 1) / new)


def status(problem: Problem, state: ProximalState) -> jax.Array:
    """The verdict on the point just evaluated: a solution must be an image of the proximal operator."""
    running, converged = code(Status.RUNNING), code(Status.CONVERGED)
    verdict = judge(problem, state.info)
    lost = (verdict == int(Status.NOT_FINITE)) & (state.info.accepted | ~jnp.isfinite(state.value))
    counts = (state.info.accepted & state.was_inside) | (verdict == int(Status.UNBOUNDED)) | lost
    verdict = jnp.where(counts, verdict, running)
    precise = converged_at_precision(problem, state.info, state.progress.first_optimality)
    ended = (state.verdict != int(Status.RUNNING)) & (verdict == int(Status.RUNNING))
    return jnp.where(ended, jnp.where(precise, converged, state.verdict), verdict)


@trees.record
class ProximalGradient:
    """Proximal gradient for fun + g: x <- prox(y - a grad fun(y), a), the default where there is a `prox`.

    Args:
        acceleration: "momentum" (the default; FISTA: y is extrapolated, and that begins again where it points
            uphill),
            "spectral" (the length a is that of Barzilai and Borwein, and no value is above the largest of the
            last ten; fun is evaluated nowhere but at images of prox; often faster where the condition is mild)
            or "none".
        first: the length of the first step; None is 1 / |grad|, at most 1.

    The length a is found from the curvature that is met. Converges linearly where fun is strongly convex,
    else like 1/k² (momentum). Cost: one gradient and two proximal operators a step, memory of a few x.
    Source: Beck and Teboulle 2009; O'Donoghue and Candès 2015, equation 12; Wright, Nowak, Figueiredo 2009.

    >>> import jax.numpy as jnp, nestor
    >>> fun = lambda x: jnp.sum((x - jnp.array([3.0, 0.2])) ** 2) / 2
    >>> solver = nestor.ProximalGradient("spectral")
    >>> fit = nestor.minimize(fun, jnp.zeros(2), prox=nestor.proximal.Lasso(1.0), solver=solver)
    >>> fit.x.round(3).tolist()
    [2.0, 0.0]
    """

    acceleration: Acceleration = "momentum"
    first: Any = None
    solves: ClassVar[type[Problem]] = Composite

    def init(self, problem: Composite, x: Tree) -> ProximalState:
        """See `Solver.init`."""
        return init(x)

    def step(self, problem: Composite, x: Tree, state: ProximalState) -> tuple[Tree, ProximalState]:
        """See `Solver.step`."""
        return step(problem, x, state, self.acceleration, self.first)

    def status(self, problem: Composite, x: Tree, state: ProximalState) -> jax.Array:
        """See `Solver.status`."""
        return status(problem, state)


@trees.record
class ProjectedGradient:
    """The spectral projected gradient method: x <- the nearest point of the set to x - a grad fun(x).

    The length a is that of Barzilai and Borwein; no value is above the largest of the last ten. `fun` is evaluated
    at points of the set alone. For a `prox` that is a set (or a tree of sets), and for `bounds`.

    Args:
        first: the length of the first step; None is 1 / |grad|, at most 1.

    Cost: one gradient and two projections a step, memory of a few x.
    Source: Birgin, Martínez, Raydan 2000, algorithm 2.1.

    >>> import jax.numpy as jnp, nestor
    >>> fun = lambda x: jnp.sum((x - jnp.array([3.0, 0.2])) ** 2) / 2
    >>> solver = nestor.ProjectedGradient()
    >>> nestor.minimize(fun, jnp.zeros(2), prox=nestor.proximal.Simplex(), solver=solver).x.round(3).tolist()
    [1.0, 0.0]
    """

    first: Any = None
    solves: ClassVar[type[Problem]] = Composite
    needs: ClassVar[str] = "project"

    def init(self, problem: Composite, x: Tree) -> ProximalState:
        """See `Solver.init`."""
        return init(x)

    def step(self, problem: Composite, x: Tree, state: ProximalState) -> tuple[Tree, ProximalState]:
        """See `Solver.step`."""
        return step(problem, x, state, "spectral", self.first)

    def status(self, problem: Composite, x: Tree, state: ProximalState) -> jax.Array:
        """See `Solver.status`."""
        return status(problem, state)
