"""What a solver is given and what it must say: problems, the info of a turn, and the three verbs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, Self, runtime_checkable

import jax
import jax.numpy as jnp

from nestor import linear, trees
from nestor.solution import Status
from nestor.solvers._bounds import Box

Tree = Any


class Info(NamedTuple):
    """What a turn found at the point it evaluated; every solver state has one as its field ``info``.

    Attributes:
        value: the objective there (½|r|² for least squares, |F| for roots and fixed points).
        optimality: the largest absolute entry of the residual that vanishes at a solution.
        accepted: whether the point was kept as a new iterate (a line search rejects some).
    """

    value: jax.Array
    optimality: jax.Array
    accepted: jax.Array


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is to be solved. A final class for each kind says what `fun` means.

    Attributes:
        fun: the user's function of one tree; the driver's is a `Bound`, which lists what it captured.
        tol: a point is a solution when the optimality there is at most this.
        box: bounds on the unknowns, or None; only a solver that says ``bounds = True`` is given any.
        scale: how large the residual was at the start, where another solve began what this one goes on with.
    """

    fun: Callable[[Tree], Any]
    tol: float
    box: Box | None = None
    scale: Any = None
    kind: ClassVar[str] = ""

    def evaluate(self, transform: Callable[[Callable[[Tree], Any]], Callable[[Tree], Any]], x: Tree) -> Any:
        """``transform(fun)(x)``, a constant for every derivative where that is not finite.

        With it, steps can be differentiated in reverse although the solver met NaN or infinity on its way.
        """
        fun = self.fun
        if not isinstance(fun, Bound):
            return transform(fun)(x)

        def at(inputs: tuple[list[Any], Tree]) -> Any:
            captured, point = inputs
            return transform(dataclasses.replace(fun, captured=captured))(point)

        return trees.guarded(at)((fun.captured, x))

    def raveled(self, x: Tree) -> tuple[Self, jax.Array, Callable[[jax.Array], Tree]]:
        """The same problem of one flat vector, x as that vector, and the way back; see `trees.ravel`."""
        vector, back = trees.ravel(x)
        fun = self.fun
        if isinstance(fun, Bound):
            program = fun.program
            flat: Any = dataclasses.replace(fun, program=lambda captured, v: program(captured, back(v)))
        else:
            flat = lambda v: fun(back(v))  # noqa: E731
        box = None if self.box is None else Box(*(trees.ravel(side)[0] for side in self.box))
        return dataclasses.replace(self, fun=flat, box=box), vector, back


@dataclasses.dataclass(frozen=True)
class Bound:
    """A program with the values for what it captured: a function of one tree.

    Attributes:
        program: a function of (captured, x).
        captured: the values, traced ones among them.
    """

    program: Callable[[list[Any], Tree], Any]
    captured: list[Any]

    def __call__(self, x: Tree) -> Any:
        """The program at x."""
        return self.program(self.captured, x)


@dataclasses.dataclass(frozen=True)
class Minimization(Problem):
    """Find x that minimizes fun(x), a scalar; the gradient vanishes there."""

    kind: ClassVar[str] = "minimization"

    def value_and_grad(self, x: Tree) -> tuple[jax.Array, Tree]:
        """The objective and its gradient at x, the value in the dtype of x."""
        value, grad = self.evaluate(jax.value_and_grad, x)
        return value.astype(trees.float_dtype(x)), grad

    def value_grad_and_hessian(self, x: Tree) -> tuple[jax.Array, Tree, jax.Array]:
        """The objective, its gradient, and the dense Hessian, shape (n, n), of the raveled x."""

        def transform(fun: Callable[[Tree], Any]) -> Callable[[Tree], Any]:
            def at(x: Tree) -> tuple[jax.Array, Tree, jax.Array]:
                (value, grad), push = jax.linearize(jax.value_and_grad(fun), x)
                product = lambda v: push(v)[1]  # noqa: E731
                return value, grad, linear.Operator(product, grad, symmetric=True).dense()

            return at

        value, grad, hessian = self.evaluate(transform, x)
        return value.astype(trees.float_dtype(x)), grad, (hessian + hessian.T) / 2

    def value_grad_and_hvp(self, x: Tree) -> tuple[jax.Array, Tree, Callable[[Tree], Tree]]:
        """The objective, its gradient, and the map v -> (Hessian at x) v, linearised once."""
        (value, grad), push = jax.linearize(jax.value_and_grad(self.fun), x)
        return value.astype(trees.float_dtype(x)), grad, lambda v: push(v)[1]


def _free() -> Any:
    from nestor import proximal  # imported where there is such a problem: a room of forty classes

    return proximal.Free()


@dataclasses.dataclass(frozen=True)
class Composite(Minimization):
    """Find x that minimizes fun(x) + g(x), with fun smooth and g known by its proximal operator.

    A solution is x = prox(x - grad fun(x)), the fixed point of a step of length one.

    Attributes:
        term: g, a penalty or a set of `nestor.proximal`.
    """

    term: Any = dataclasses.field(default_factory=_free)
    kind: ClassVar[str] = "composite minimization"

    def residual(self, x: Tree, grad: Tree) -> Tree:
        """x - prox(x - grad): what vanishes at a solution; and what of grad the rounding of x - grad has lost."""
        ahead = trees.subtract(x, grad)
        lost = trees.stop_gradient(
            trees.subtract(grad, trees.subtract(x, ahead))
        )  # else a large x looks solved
        return trees.add(trees.subtract(x, self.term.prox(ahead)), lost)


class Point(NamedTuple):
    """Where a solver for constrained problems stands: the unknowns and the multipliers.

    Attributes:
        x: the unknowns, a tree.
        equal: a multiplier for each equality, a vector.
        inequal: a multiplier >= 0 for each inequality, a vector.
    """

    x: Tree
    equal: jax.Array
    inequal: jax.Array


@dataclasses.dataclass(frozen=True)
class Constrained(Problem):
    """Find x that minimizes f(x) where h(x) = 0 and g(x) >= 0, in a box.

    `fun` returns the triple (f, h, g), a scalar and two vectors. The points of a solver are `Point`, and the
    Lagrangian is f + equal . h - inequal . g.
    """

    kind: ClassVar[str] = "constrained minimization"

    def lagrangian(self, point: Point) -> jax.Array:
        """f + equal . h - inequal . g at a point."""
        value, h, g = self.fun(point.x)
        product = functools.partial(jnp.vdot, precision="highest")
        return value.astype(h.dtype) + product(point.equal, h) - product(point.inequal, g)

    def all_derivatives(
        self, point: Point
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], jax.Array, jax.Array]:
        """(f, h, g); their dense Jacobian, shape (1 + k + m, n); the Hessian of the Lagrangian, shape (n, n)."""

        def transform(fun: Callable[[Tree], Any]) -> Callable[[Point], Any]:
            def at(point: Point) -> Any:
                vector, back = trees.ravel(point.x)
                weights = (jnp.ones((), vector.dtype), point.equal, -point.inequal)

                def first(v: jax.Array) -> tuple[jax.Array, Any]:
                    (value, h, g), pull = jax.vjp(lambda w: fun(back(w)), v)
                    return pull((weights[0].astype(value.dtype), *weights[1:]))[0], (value, h, g)

                (_, values), push = jax.linearize(first, vector)
                hessian, (grad, *rows) = jax.vmap(push)(jnp.eye(vector.size, dtype=vector.dtype))
                jacobian = jnp.concatenate([grad[None, :], rows[0].T, rows[1].T]).astype(vector.dtype)
                return values, jacobian, (hessian + hessian.T) / 2

            return at

        (value, h, g), jacobian, hessian = self.evaluate(transform, point)
        return (value.astype(h.dtype), h, g), jacobian, hessian


@dataclasses.dataclass(frozen=True)
class RootFinding(Problem):
    """Find z with fun(z) = 0, fun returning a tree like z."""

    kind: ClassVar[str] = "root finding"


@dataclasses.dataclass(frozen=True)
class FixedPointFinding(Problem):
    """Find z with fun(z) = z, fun returning a tree like z."""

    kind: ClassVar[str] = "fixed point"


@dataclasses.dataclass(frozen=True)
class LeastSquares(Problem):
    """Find w that minimizes ½|fun(w)|², or a robust loss of it, fun returning a tree of residuals.

    Attributes:
        loss: a `Loss`, or None for squares.
    """

    loss: Any = None
    kind: ClassVar[str] = "least squares"

    def cost(self, residual: Tree) -> jax.Array:
        """The objective, from the residuals."""
        return trees.squared_norm(residual) / 2 if self.loss is None else self.loss.cost(residual)


@runtime_checkable
class Solver(Protocol):
    """A method: three verbs and no loop.

    In every turn the driver calls `step` with the point `x` to be evaluated; `step` evaluates the objective
    there, once, and returns the point to be evaluated next. `status` then judges `x`, the point just
    evaluated, from the new state. The state is any tree with a field ``info`` of type `Info` about `x`.
    Class attribute `solves` names the problem class, so that a solver of the wrong kind is refused; one with
    ``bounds = True`` keeps every point it proposes inside ``problem.box``, and judges by the projected gradient.
    One with ``in_one_vector = True`` is given a problem of one vector, shape (n,), whatever the user's tree.
    """

    solves: ClassVar[type[Problem]]

    def init(self, problem: Any, x: Tree) -> Any:
        """The state before the first turn; evaluates nothing if it can be helped."""
        ...

    def step(self, problem: Any, x: Tree, state: Any) -> tuple[Tree, Any]:
        """Evaluate at x; return the next point and the new state."""
        ...

    def status(self, problem: Any, x: Tree, state: Any) -> jax.Array:
        """An int32 `Status` code for the point x that was just evaluated."""
        ...


def no_info(x: Tree) -> Info:
    """The info of a point that has not been evaluated."""
    infinite = jnp.full((), jnp.inf, trees.float_dtype(x))
    return Info(infinite, infinite, jnp.zeros((), bool))


def info_at(value: jax.Array, residual: Tree, accepted: Any = True) -> Info:
    """The info of a point, from the objective and the residual of the condition there."""
    dtype = trees.float_dtype(residual)
    return Info(
        value.astype(dtype),
        jax.lax.stop_gradient(trees.max_norm(trees.stop_gradient(residual))),
        jnp.asarray(accepted, bool),
    )


def code(status: Status) -> jax.Array:
    """The int32 code of a status."""
    return jnp.int32(int(status))


def judge(problem: Problem, info: Info) -> jax.Array:
    """The status that a point deserves by its info alone: converged, not finite, unbounded, or running."""
    eps = float(jnp.finfo(info.value.dtype).eps)
    finite = jnp.isfinite(info.value) & jnp.isfinite(info.optimality)
    bottomless = (info.value < -(eps**-1.5)) & isinstance(problem, Minimization)
    return jnp.where(
        bottomless,
        code(Status.UNBOUNDED),
        jnp.where(
            ~finite,
            code(Status.NOT_FINITE),
            jnp.where(info.optimality <= problem.tol, code(Status.CONVERGED), code(Status.RUNNING)),
        ),
    )


def converged_at_precision(
    problem: Problem, info: Info, first_optimality: jax.Array, stuck: Any = False
) -> jax.Array:
    """Whether a point from which the solve goes no further is a solution as far as the dtype can tell.

    The residual must have come down to 100 eps of what it was at the start, and near the tolerance. In double
    precision the gradient of a minimization, however large it was, may end at 10 eps^(2/3) of that; and where a
    minimization is `stuck`, for the value does not change any more but by rounding, at ten times the tolerance
    times what it was, as far as that is 10 eps^(1/2) at most, and 1e-6. (In single precision 10 eps^(2/3) would be
    2e-4 of the first gradient, where a slow method on an ill-conditioned problem is far from any answer.)
    """
    eps = float(jnp.finfo(info.value.dtype).eps)
    first = jnp.maximum(first_optimality if problem.scale is None else problem.scale, 1)
    first = jnp.where(jnp.isfinite(first), first, 1)
    near = 2 * max(problem.tol, eps**0.5)
    bar = jnp.minimum(100 * eps * first, near)
    if problem.kind == Minimization.kind and eps < 1e-12:
        least = 10 * eps ** (2 / 3)
        most = max(least, min(10 * problem.tol, 10 * eps**0.5, 1e-6))
        bar = jnp.maximum(bar, jnp.where(stuck, most, least) * first)
    return (info.optimality <= jnp.maximum(bar, problem.tol)) & jnp.isfinite(info.value)
