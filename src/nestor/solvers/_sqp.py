"""Sequential quadratic programming with exact Hessians, in a trust region, for few variables."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.solution import Status
from nestor.solvers import _quadratic
from nestor.solvers._contract import Constrained, Info, Point, Problem, code, converged_at_precision, judge
from nestor.solvers._convexify import convexify
from nestor.solvers._kkt import residuals
from nestor.solvers._quadratic import Answer, Quadratic, Rough

Tree = Any

_MEMORY = 4  # the merit has to fall below the highest of so many
_CHANCES = 3  # random moves away from where the constraints cannot be met to first order; and from saddles


class _Seen(NamedTuple):
    """What an evaluation found: the point x, (f, h, g), their Jacobian, the Hessian of the Lagrangian."""

    x: jax.Array
    value: jax.Array
    h: jax.Array
    g: jax.Array
    jacobian: jax.Array
    hessian: jax.Array

    @property
    def violation(self) -> jax.Array:
        """The sum of all that the constraints are broken by."""
        return _broken(self.at, self.h.size)

    @property
    def at(self) -> jax.Array:
        """What may be broken: h either way, -g above zero."""
        return jnp.concatenate([self.h, -self.g])

    @property
    def rows(self) -> jax.Array:
        """Its Jacobian."""
        k = self.h.size
        return jnp.concatenate([self.jacobian[1 : 1 + k], -self.jacobian[1 + k :]])


def _broken(at: jax.Array, equalities: int) -> jax.Array:
    return jnp.sum(jnp.abs(at[:equalities])) + jnp.sum(jnp.maximum(at[equalities:], 0))


class SQPState(NamedTuple):
    """The state of `SQP`.

    Attributes:
        info: about the point just evaluated.
        base: what was found at the last point that was kept.
        answer: of the quadratic program that proposed the point to be evaluated next.
        recent: value and violation of the last points that were kept, shape (memory, 2).
        promised: how much the merit is to fall there by the quadratic model.
        price: the weight of the violation in the merit.
        radius: of the trust region.
        correcting: whether that point is a second-order correction.
        turn, idle: evaluations; how many in a row promised nothing more.
        first: the optimality at the start.
        hopeless: at how many bases no direction lowered the violation, to first order.
        forced: whether that point is a small random move away from such a base, or from a saddle, to be kept
            whatever is found.
        curvature: the second derivative of the Lagrangian at the base, along the flattest of the directions that
            active constraints leave; infinite where these leave none.
        escapes: how many moves away from saddles there were.
        bent: whether the point just evaluated is solved but for its curvature.
    """

    info: Info
    base: _Seen
    answer: Answer
    recent: jax.Array
    promised: jax.Array
    price: jax.Array
    radius: jax.Array
    correcting: jax.Array
    turn: jax.Array
    idle: jax.Array
    first: jax.Array
    hopeless: jax.Array
    forced: jax.Array
    curvature: jax.Array
    escapes: jax.Array
    bent: jax.Array


@trees.record
class SQP:
    """Sequential quadratic programming: the default with constraints, for few variables.

    Every turn solves one convex quadratic program, in which constraints may be broken at a price, and in a trust
    region, so that it always has a solution; the price rises as far as it takes to make constraints hold. The
    exact Hessian of the Lagrangian is used, changed only where it is not positive on the directions that the
    active constraints leave. A rejected step is tried once more with a second-order correction. Where the
    conditions of first order hold at a point that is a saddle or a maximum along the constraints, it moves on
    along a direction of negative curvature, three times at most; coming back each time, it stays.
    `.kkt.curvature` says how strict a minimum is.

    Args:
        radius: the first trust radius, for variables of size 1 (in proportion for larger ones); None is 1.

    Quadratic convergence. Bounds are kept at every evaluation. Where the constraints cannot be met near the
    answer the status is INFEASIBLE. Cost a step: f, the constraints, n products with the Hessian of the
    Lagrangian, some 15 factorisations of a matrix with a row for each variable and each constraint.
    Source: Fletcher 1987, section 14.4; Byrd, Nocedal and Waltz 2008 (the price).

    >>> import jax.numpy as jnp, nestor
    >>> on_circle = nestor.Constraint(lambda x: jnp.sum(x**2), equal=2.0)
    >>> far = lambda x: jnp.sum((x - 3.0) ** 2)
    >>> solution = nestor.minimize(far, jnp.array([1.0, 0.0]), constraints=on_circle, solver=nestor.SQP())
    >>> solution.x.round(2).tolist()
    [1.0, 1.0]
    """

    radius: float | None = None
    solves: ClassVar[type[Problem]] = Constrained
    bounds: ClassVar[bool] = True

    def init(self, problem: Constrained, point: Point) -> SQPState:
        """See `Solver.init`."""
        x, _ = trees.ravel(point.x)
        n, k, m = x.size, point.equal.size, point.inequal.size
        zero, no = jnp.zeros((), x.dtype), jnp.zeros((), bool)
        infinite = jnp.full((), jnp.inf, x.dtype)
        base = _Seen(
            x,
            infinite,
            jnp.zeros_like(point.equal),
            jnp.zeros_like(point.inequal),
            jnp.zeros((1 + k + m, n), x.dtype),
            jnp.eye(n, dtype=x.dtype),
        )
        nowhere = jnp.zeros((n,), bool)
        answer = Answer(jnp.zeros_like(x), jnp.concatenate([point.equal, point.inequal]), nowhere, nowhere)
        radius = jnp.asarray(1.0 if self.radius is None else self.radius, x.dtype)
        return SQPState(
            info=Info(infinite, infinite, no),
            base=base,
            answer=answer,
            recent=jnp.full((_MEMORY, 2), -jnp.inf, x.dtype),
            promised=zero,
            price=zero,
            radius=radius,
            correcting=no,
            turn=jnp.int32(0),
            idle=jnp.int32(0),
            first=infinite,
            hopeless=jnp.int32(0),
            forced=no,
            curvature=infinite,
            escapes=jnp.int32(0),
            bent=no,
        )

    def step(self, problem: Constrained, point: Point, state: SQPState) -> tuple[Point, SQPState]:
        """See `Solver.step`."""
        x, back = trees.ravel(point.x)
        (value, h, g), jacobian, hessian = problem.all_derivatives(point)
        trial = _Seen(x, value, h, g, jacobian, hessian)
        grad = back(jacobian.T @ jnp.concatenate([jnp.ones(1, x.dtype), point.equal, -point.inequal]))
        found = residuals(point, grad, h, g, problem.box)
        base, state = _judged(trial, state)
        walls = _walls(problem, base.x)
        state = state._replace(bent=state.info.accepted & (found.optimality <= problem.tol))
        state = _propose(base, trial, state, walls, problem.tol)
        answer = state.answer
        onto = jnp.where(answer.at_low & (answer.d <= walls.down), walls.lower, base.x + answer.d)
        onto = jnp.where(answer.at_high & (answer.d >= walls.up), walls.upper, onto)
        state = state._replace(
            base=base,
            info=state.info._replace(value=value, optimality=found.optimality),
            first=jnp.where(state.turn == 0, found.optimality, state.first),
            turn=state.turn + 1,
        )
        k = point.equal.size
        return Point(back(onto), answer.multipliers[:k], answer.multipliers[k:]), state

    def status(self, problem: Constrained, point: Point, state: SQPState) -> jax.Array:
        """See `Solver.status`."""
        judged = judge(problem, state.info)
        more = state.bent & (state.escapes <= _CHANCES)
        judged = jnp.where(more & (judged == int(Status.CONVERGED)), code(Status.RUNNING), judged)
        running = (judged == int(Status.RUNNING)) | ((judged == int(Status.NOT_FINITE)) & (state.turn > 1))
        eps = float(jnp.finfo(state.base.x.dtype).eps)
        feasible = state.base.violation <= 2 * max(problem.tol, eps**0.5)
        stuck = (state.radius < eps) | (state.idle >= 5)
        steep = jnp.max(jnp.abs(state.base.jacobian[0]))
        fine = state.info.optimality <= min(problem.tol, eps**0.5) * jnp.maximum(steep, 1)
        at_rest = (converged_at_precision(problem, state.info, state.first) | fine) & stuck
        bottomless = feasible & (state.base.value < -(eps**-1.5))
        hopeless = ~feasible & (state.hopeless > _CHANCES)
        broken = state.base.violation > 1e-4  # and no trust region is small enough to change that
        stopped = jnp.where(
            at_rest,
            code(Status.CONVERGED),
            jnp.where(hopeless | broken, code(Status.INFEASIBLE), code(Status.STALLED)),
        )
        end = jnp.where(bottomless, code(Status.UNBOUNDED), stopped)
        ended = running & (stuck | bottomless | hopeless) & ~state.bent
        return jnp.where(ended, end, jnp.where(running, code(Status.RUNNING), judged))


class _Walls(NamedTuple):
    """The bounds, as vectors, and the steps that lead to them."""

    lower: jax.Array
    upper: jax.Array
    down: jax.Array
    up: jax.Array


def _walls(problem: Constrained, x: jax.Array) -> _Walls:
    if problem.box is None:
        none = jnp.full_like(x, jnp.inf)
        return _Walls(-none, none, -none, none)
    lower, upper = trees.ravel(problem.box.lower)[0], trees.ravel(problem.box.upper)[0]
    return _Walls(lower, upper, lower - x, upper - x)


def _judged(trial: _Seen, state: SQPState) -> tuple[_Seen, SQPState]:
    """Keep the point or reject it, and set the radius."""
    base, d = state.base, state.answer.d
    eps = float(jnp.finfo(trial.x.dtype).eps)
    first = state.turn == 0
    finite = trees.all_finite(trial)
    before = base.value + state.price * base.violation
    fell = before - (trial.value + state.price * trial.violation)
    noise = 10 * eps * jnp.maximum(jnp.abs(before), 1)
    quiet = state.promised <= noise
    ratio = fell / jnp.maximum(state.promised, noise)
    highest = jnp.maximum(jnp.max(state.recent[:, 0] + state.price * state.recent[:, 1]), before)
    patient = (highest - before + fell) / jnp.maximum(highest - before + state.promised, noise)
    ratio = jnp.maximum(ratio, patient)
    good = finite & (state.forced | (ratio > 1e-4) | (quiet & (fell >= -noise)))
    size = jnp.max(jnp.abs(d) / _sizes(base.x))
    missed = state.promised - fell
    curved = finite & (state.price * trial.violation > 0.1 * missed)
    correct = ~good & ~first & ~state.correcting & curved
    less = jnp.where(finite, 0.5, 0.1) * jnp.minimum(size, state.radius)
    grown = jnp.where((ratio > 0.75) & (size > 0.8 * state.radius), 2.5 * state.radius, state.radius)
    kept = jnp.where((ratio < 0.25) & ~quiet, less, grown)
    radius = jnp.where(first | correct, state.radius, jnp.where(good, kept, less))
    found = jnp.stack([trial.value, trial.violation])
    return trees.select(good | first, trial, base), state._replace(
        recent=jnp.where(good | first, jnp.roll(state.recent, 1, axis=0).at[0].set(found), state.recent),
        info=state.info._replace(accepted=good | first),
        radius=radius,
        correcting=correct,
        idle=jnp.where(quiet & ~first, state.idle + 1, 0),
    )


def _sizes(x: jax.Array) -> jax.Array:
    return jnp.maximum(jnp.abs(jax.lax.stop_gradient(x)), 1)


def _propose(base: _Seen, trial: _Seen, state: SQPState, walls: _Walls, tol: float) -> SQPState:
    """Solve the quadratic program at the base (of the corrected constraints, if it is to be corrected)."""
    before = state.answer
    scale = _scale(base)
    grad, rows = scale * base.jacobian[0], base.rows * scale[None, :]
    own = base.hessian * jnp.outer(scale, scale)
    held, targets = _expected(base, rows, before, walls, state.turn == 0)
    # A constant for derivatives: where d vanishes, at a solution, they are right all the same.
    hessian, linear, least, way = trees.stop_gradient(convexify(*trees.stop_gradient((own, held, targets))))
    units = jnp.maximum(jnp.max(jnp.abs(own)), jnp.max(jnp.abs(grad)))
    saddle = state.bent & (least < -(1e-8 if own.dtype == jnp.float64 else 1e-4) * units)
    escape = saddle & (state.escapes < _CHANCES)
    wide = state.radius * _sizes(base.x)
    program = Quadratic(
        hessian,
        grad + linear,
        rows,
        jnp.where(state.correcting, trial.at - base.rows @ before.d, base.at),
        jnp.maximum(walls.down, -wide) / scale,
        jnp.minimum(walls.up, wide) / scale,
        up=jnp.ones_like(base.at),
        down=jnp.concatenate([jnp.ones_like(base.h), jnp.zeros_like(base.g)]),
    )
    price = _first_price(base, state)
    eps = float(jnp.finfo(price.dtype).eps)
    rounding = 10 * eps * jnp.max(jnp.abs(base.rows) @ jnp.abs(base.x) + jnp.abs(base.at), initial=0.0)
    enough = jnp.maximum(0.01 * tol, rounding)
    most = (1e8 if eps < 1e-10 else 1e4) * jnp.maximum(jnp.max(jnp.abs(base.jacobian[0])), 1)
    answer, price, left, hopeless = _steered(
        program, price, state.correcting, base.h.size, enough, wide / scale, most
    )
    met = ~state.correcting & ~hopeless & (left <= enough)
    price = jnp.where(met, _eased(price, base, answer.multipliers), price)
    d = answer.d
    curve = jnp.vdot(d, own @ d)
    bent = jnp.vdot(linear, d) + jnp.vdot(d, hessian @ d) / 2
    worth = price * (base.violation - left)
    promised = -jnp.vdot(grad, d) + worth - jnp.where(curve > 0, curve / 2, 0.0)
    promised = jnp.where(promised > 0, promised, -jnp.vdot(grad, d) - bent + worth)
    lost = hopeless & (state.radius > 1e-2)
    forced = (lost & (state.hopeless < _CHANCES)) | escape
    noise = jax.random.uniform(jax.random.key(0), base.x.shape, base.x.dtype, -0.01, 0.01)
    away = jnp.where(escape, _downhill(base, rows, walls, scale, way), noise * wide / scale)
    away = jnp.minimum(jnp.maximum(away, program.low), program.high)
    answer = answer._replace(
        d=scale * jnp.where(forced, away, d),
        at_low=answer.at_low & ~forced,
        at_high=answer.at_high & ~forced,
    )
    return state._replace(
        answer=answer,
        price=price,
        promised=jnp.where(state.correcting, state.promised, promised),
        hopeless=state.hopeless + lost.astype(jnp.int32),
        forced=forced,
        radius=jnp.where(escape, jnp.maximum(state.radius, 0.1), state.radius),
        curvature=least / jnp.maximum(jnp.sum((scale * way) ** 2), 1e-30),
        escapes=state.escapes + saddle.astype(jnp.int32),
        bent=saddle,
    )


def _downhill(base: _Seen, rows: jax.Array, walls: _Walls, scale: jax.Array, way: jax.Array) -> jax.Array:
    """A step along a way of negative curvature, to the side that breaks less."""
    step = 0.1 * way / jnp.maximum(jnp.max(jnp.abs(scale * way) / _sizes(base.x)), 1e-30)

    def worse(d: jax.Array) -> jax.Array:
        moved = scale * d
        outside = jnp.maximum(walls.down - moved, 0) + jnp.maximum(moved - walls.up, 0)
        return _broken(base.at + rows @ d, base.h.size) + jnp.sum(outside)

    return jnp.where(worse(step) > worse(-step), -step, step)


def _scale(base: _Seen) -> jax.Array:
    """The units in which the steps of all variables matter alike: by size, and by curvature where there is any."""
    sizes = _sizes(base.x)
    bent = jnp.abs(jnp.diagonal(base.hessian)) * sizes**2
    most = jnp.max(bent)
    share = jnp.where(most > 0, bent / jnp.where(most > 0, most, 1.0), 1.0)
    return jax.lax.stop_gradient(sizes / jnp.sqrt(jnp.maximum(share, 1e-8)))


def _first_price(base: _Seen, state: SQPState) -> jax.Array:
    """The price that is tried first."""
    return jnp.where(state.turn == 0, jnp.maximum(jnp.max(jnp.abs(base.jacobian[0])), 1), state.price)


def _eased(price: jax.Array, base: _Seen, multipliers: jax.Array) -> jax.Array:
    """A price not far above the multipliers: a higher one lets the merit follow curved constraints too closely."""
    usual = 1e-3 * jnp.max(jnp.abs(base.jacobian[0]))
    wanted = 3 * jnp.maximum(jnp.max(jnp.abs(multipliers), initial=0.0), usual)
    return jnp.minimum(price, jnp.maximum(wanted, 0.1 * price))


def _expected(
    base: _Seen, rows: jax.Array, answer: Answer, walls: _Walls, first: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The rows that are expected to hold with equality, zero for others, and what d has to bring them to."""
    n, dtype = base.x.size, base.x.dtype
    broken = jnp.concatenate([jnp.ones_like(base.h, bool), base.g <= 0])
    priced = jnp.concatenate([jnp.ones_like(base.h, bool), answer.multipliers[base.h.size :] > 0])
    active = jnp.where(first, broken, priced).astype(dtype)
    low = answer.at_low & (base.x <= walls.lower)
    high = answer.at_high & (base.x >= walls.upper)
    grad = base.jacobian[0]
    low = jnp.where(first, (base.x <= walls.lower) & (grad > 0), low)
    high = jnp.where(first, (base.x >= walls.upper) & (grad < 0), high)
    held = jnp.concatenate([active[:, None] * rows, jnp.diag((low | high).astype(dtype))])
    return held, jnp.concatenate([-active * base.at, jnp.zeros((n,), dtype)])


class _Steering(NamedTuple):
    turn: jax.Array
    price: jax.Array  # that of the next program
    answer: Rough
    paid: jax.Array  # the price of `answer`
    left: jax.Array  # the violation that `answer` leaves, to first order
    goal: jax.Array  # what it may leave
    least: jax.Array  # what the highest price leaves
    done: jax.Array


def _steered(
    program: Quadratic,
    price: jax.Array,
    once: jax.Array,
    k: int,
    enough: jax.Array,
    wide: jax.Array,
    most: jax.Array,
) -> tuple[Answer, jax.Array, jax.Array, jax.Array]:
    """The solution at the lowest price, of those tried, that makes it care enough about the constraints.

    It is enough where it meets them, to first order; where only steps to the edge of the trust region do, nine
    tenths of the way; where none does, a tenth of the progress that is possible. The price at hand comes first,
    then the highest, then tenfold ones.

    Returns:
        The answer, its price, the violation that it leaves, and whether none can be less than at d = 0.
    """
    own, (price, enough, wide, most) = trees.stop_gradient((program, (price, enough, wide, most)))
    now = _broken(own.at, k)
    tiny = 1e-6 * now + enough
    highest = jnp.maximum(most, price)

    def turn(w: _Steering) -> _Steering:
        found = _quadratic.rough(_priced(own, w.price))
        capped = jnp.abs(found.answer.multipliers) > 0.99 * w.price  # only then it is broken on purpose
        left = _broken(jnp.where(capped, own.at + own.rows @ found.answer.d, 0.0), k)
        probing = w.turn == 1
        least = jnp.where(probing, left, w.least)
        inside = jnp.all(jnp.abs(found.answer.d) < 0.99 * wide)
        nearly = now - jnp.where(left <= tiny, 0.9, 0.1) * (now - left)
        goal = jnp.where(probing, jnp.where((left <= tiny) & inside, tiny, nearly), w.goal)
        cheap = probing & (w.left <= goal)  # the price at hand was enough after all
        hopeless = probing & (left >= (1 - 1e-6) * now)
        keep = cheap | (probing & ~hopeless)
        done = jnp.where(probing, cheap | hopeless, (left <= goal) | once | (w.price >= highest))
        return _Steering(
            w.turn + 1,
            jnp.where(w.turn == 0, highest, 10 * w.paid),
            trees.select(keep, w.answer, found),
            jnp.where(keep, w.paid, w.price),
            jnp.where(keep, w.left, left),
            goal,
            least,
            done,
        )

    start = _Steering(
        jnp.int32(0),
        price,
        _quadratic.nothing(own),
        price,
        now,
        tiny,
        jnp.zeros_like(now),
        jnp.zeros((), bool),
    )
    end = jax.lax.while_loop(lambda w: ~w.done, turn, start)
    hopeless = (end.turn > 1) & (end.least >= (1 - 1e-6) * now) & (now > 1e2 * enough)
    answer = _quadratic.refined(_priced(program, end.paid), end.answer)
    return answer, jnp.where(hopeless, price, end.paid), end.left, hopeless


def _priced(program: Quadratic, price: jax.Array) -> Quadratic:
    return program._replace(up=price * program.up, down=price * program.down)
