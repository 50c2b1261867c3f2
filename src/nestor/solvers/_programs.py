"""Linear, quadratic and cone programs: their data are matrices instead of functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp

from nestor import linear, trees
from nestor.adjoints import Implicit
from nestor.errors import BadArgument
from nestor.proximal import NonNegative
from nestor.solution import Solution
from nestor.solvers import _checks, _drive
from nestor.solvers._bounds import check_bounds, clip
from nestor.solvers._cone_programs import CONE_PROGRAM, ConePoint, Data, give, product
from nestor.solvers._constraints import Constraint
from nestor.solvers._delivery import run
from nestor.solvers._host_solvers import Clarabel, HiGHS
from nestor.solvers._posing import Options, Posed, pose_minimization
from nestor.solvers._program_data import Given, as_array, check_convex, check_solver, fitting, with_blocks
from nestor.solvers._sqp import SQP

_RADIUS = 1e6  # the model is exact, so a first step may go far
_TURNS = 20  # the start, the host's answer, a few Newton steps


def solve_lp(
    c: Any,
    A: Any = None,
    b: Any = None,
    G: Any = None,
    h: Any = None,
    *,
    bounds: Any = None,
    solver: Any = None,
    adjoint: Any = None,
    tol: float | None = None,
    raise_on_failure: bool = True,
) -> Solution:
    """Minimize  c'x  where  A x = b  and  G x <= h, in bounds.

    Args:
        c: shape (n,).
        A, b: shapes (k, n) and (k,), or None for no equalities.
        G, h: shapes (m, n) and (m,), or None for no inequalities.
        bounds: None (x is free; SciPy's `linprog` has x >= 0), or a pair (lower, upper) as in `minimize`.
        solver: `HiGHS()` (the default), `Clarabel()`, or `SQP()`, which is compiled.
        adjoint, tol, raise_on_failure: as in `solve_cone`.

    Returns:
        A `Solution`, as of `solve_cone`; in `.kkt.constraints` the multipliers of A x = b and of G x <= h.

    Raises:
        BadArgument, SolveFailed: as `solve_cone`.

    Cost: the simplex method on the host, in float64; a derivative is one dense linear solve with n + k + m unknowns.
    The derivative in c is zero wherever it exists, for x is a vertex. Where the best x are several,
    `.kkt.weakly_active` is not zero, and derivatives are those of the corner that was found.

    >>> import jax.numpy as jnp, nestor
    >>> solution = nestor.solve_lp(jnp.array([-1.0, -2.0]), G=jnp.ones((1, 2)), h=jnp.ones(1), bounds=(0.0, None))
    >>> solution.x.tolist(), solution.kkt.constraints[0].tolist()
    ([0.0, 1.0], [2.0])
    """
    where = "solve_lp"
    solver = HiGHS() if solver is None else solver
    given = Given.of(where, None, c, A, b, G, h, "c")
    if isinstance(solver, SQP):
        return _by_sqp(where, given, bounds, None, solver, adjoint, tol, 100, raise_on_failure)
    cones = () if G is None else (NonNegative(),)
    return _on_the_host(where, given, cones, bounds, solver, adjoint, tol, raise_on_failure)


def solve_qp(
    P: Any,
    q: Any,
    A: Any = None,
    b: Any = None,
    G: Any = None,
    h: Any = None,
    *,
    bounds: Any = None,
    x0: Any = None,
    solver: Any = None,
    adjoint: Any = None,
    tol: float | None = None,
    max_steps: int = 100,
    raise_on_failure: bool = True,
) -> Solution:
    """Minimize  ½ x'P x + q'x  where  A x = b  and  G x <= h, in bounds.

    Args:
        P: shape (n, n), positive semidefinite (of one that is not, the symmetric part counts, and the answer is a
            stationary point); None for a linear program.
        q: shape (n,).
        A, b: shapes (k, n) and (k,), or None for no equalities.
        G, h: shapes (m, n) and (m,), or None for no inequalities.
        bounds: as in `minimize`: None, or a pair (lower, upper).
        x0: the start of `SQP`, shape (n,); None is zero.
        solver: `SQP()` (the default), which is compiled, or `Clarabel()`, better for more than some 300 unknowns
            and constraints together, or for data of very different sizes.
        adjoint, tol, max_steps, raise_on_failure: as in `minimize`; steps are few, for the model of `SQP()` is exact.

    Returns:
        A `Solution`, differentiable in all of the data by the conditions that hold at the answer; in `.kkt` the
        multipliers of A x = b (any sign) and of G x <= h (>= 0), in this order.

    Raises:
        BadArgument: shapes that do not fit, or half of a pair.
        MissingExtra: `Clarabel()` without ``pip install 'nestor[cones]'``.
        SolveFailed: as `minimize`; INFEASIBLE where no x meets the constraints, UNBOUNDED where the value has no
            least one.

    Cost: two or three steps of `SQP`, each about 15 factorisations of a dense matrix of n + k + m rows. Other data
    of the same shapes compile nothing.
    Source: Mehrotra 1992; Amos and Kolter 2017 (derivatives).

    >>> import jax.numpy as jnp, nestor
    >>> solution = nestor.solve_qp(2 * jnp.eye(2), jnp.zeros(2), A=jnp.ones((1, 2)), b=jnp.ones(1))
    >>> solution.x.round(4).tolist(), solution.kkt.constraints[0].round(4).tolist()
    ([0.5, 0.5], [-1.0])
    """
    where = "solve_qp"
    given = Given.of(where, P, q, A, b, G, h, "q")
    if solver is None or isinstance(solver, SQP):
        own = SQP(radius=_RADIUS) if solver is None else solver
        return _by_sqp(where, given, bounds, x0, own, adjoint, tol, max_steps, raise_on_failure)
    cones = () if G is None else (NonNegative(),)
    return _on_the_host(where, given, cones, bounds, solver, adjoint, tol, raise_on_failure)


def solve_cone(
    P: Any,
    q: Any,
    A: Any = None,
    b: Any = None,
    G: Sequence[Any] = (),
    h: Sequence[Any] = (),
    cones: Sequence[Any] = (),
    *,
    bounds: Any = None,
    solver: Any = None,
    adjoint: Any = None,
    tol: float | None = None,
    raise_on_failure: bool = True,
) -> Solution:
    """Minimize  ½ x'P x + q'x  where  A x = b  and every  h[i] - G[i] x  lies in the cone  cones[i], in bounds.

    Args:
        P: shape (n, n), positive semidefinite (its symmetric part counts), or None for zero.
        q: shape (n,).
        A, b: shapes (k, n) and (k,), or None for no equalities.
        G, h: for every cone an array of shape (..., n) and one of shape (...); G x is summed over the last axis.
        cones: for every block one of `nestor.proximal`: ``NonNegative()``, h of any shape;
            ``SecondOrderCone()``, h a vector whose first entry is at least the length of the rest, or with
            ``axis=`` many of them; ``PositiveSemidefinite()``, h of shape (..., d, d), whose symmetric part counts.
        bounds: None, or a pair (lower, upper) as in `minimize`, which x is never beyond.
        solver: `Clarabel()` (the default; needs ``pip install 'nestor[cones]'``), or, where all cones are
            `NonNegative` and P is None, `HiGHS()`.
        adjoint: how derivatives cross the solution, one that needs only what holds there; None is
            ``Implicit(nestor.linear.LeastNorm())``, which does not mind equalities that follow from others.
        tol: converged when every entry of the three conditions is at most this, each divided by the largest of
            its terms, or by 1 if that is more: x - clip(x - gradient of the Lagrangian), A x - b, and
            y - projection(y - slack). None is the root of the precision.
        raise_on_failure: as in `minimize`.

    Returns:
        A `Solution`, differentiable in all of the data (P, q, A, b, G, h and the bounds), forwards and backwards,
        also under `jit` and `vmap`. In `.kkt.constraints` the multipliers of A x = b (if there are any), then of
        each block, in its shape and in its cone. `.stats.evaluations` counts the points that were judged.

    Raises:
        BadArgument: shapes that do not fit, an unknown cone, a P that is not positive semidefinite (where its
            numbers are known; inside a trace the status is then STALLED).
        MissingExtra: Clarabel is not installed.
        SolveFailed: INFEASIBLE or UNBOUNDED, each with a proof that was checked; STALLED where the conditions do
            not hold to tol.

    Cost: one call of the host, also for a whole `vmap`; of a derivative, a dense system of all unknowns and
    multipliers. Other data of the same shapes compile nothing.
    Source: Goulart and Chen 2024; Agrawal, Barratt, Boyd, Busseti and Moursi 2019 (derivatives).

    >>> import jax.numpy as jnp, nestor                       # the point of a disc nearest to (3, 4)
    >>> from nestor.proximal import SecondOrderCone
    >>> G, h = jnp.array([[0.0, 0.0], [-1.0, 0.0], [0.0, -1.0]]), jnp.array([1.0, 0.0, 0.0])
    >>> solution = nestor.solve_cone(                         # doctest: +SKIP
    ...     jnp.eye(2), -jnp.array([3.0, 4.0]), G=[G], h=[h], cones=[SecondOrderCone()]
    ... )
    >>> solution.x.round(3).tolist()                          # doctest: +SKIP
    [0.6, 0.8]
    """
    where = "solve_cone"
    given = Given.of(where, P, q, A, b, None, None, "q")
    blocks = with_blocks(where, G, h, cones, given)
    solver = Clarabel() if solver is None else solver
    return _on_the_host(where, blocks, tuple(cones), bounds, solver, adjoint, tol, raise_on_failure)


# --- how they are solved -----------------------------------------------------------------------------


def _by_sqp(
    where: str,
    given: Given,
    bounds: Any,
    x0: Any,
    solver: SQP,
    adjoint: Any,
    tol: Any,
    max_steps: int,
    raise_on_failure: bool,
) -> Solution:
    n, dtype = given.q.size, given.q.dtype
    constraints = []
    if given.A is not None:
        constraints.append(Constraint(_times(given.A), equal=given.b))
    if given.G is not None:
        constraints.append(Constraint(_times(given.G), upper=given.h))

    def objective(x: jax.Array) -> jax.Array:
        value = jnp.vdot(given.q, x, precision="highest")
        return value if given.P is None else value + jnp.vdot(x, product(given.P, x), precision="highest") / 2

    start = jnp.zeros((n,), dtype)
    begin = start if x0 is None else fitting(where, "x0", as_array(where, "x0", x0, dtype), (n,), "q")
    options = Options(
        where,
        solver,
        adjoint,
        tol,
        max_steps,
        raise_on_failure=raise_on_failure,
        bounds=bounds,
        constraints=constraints,
    )
    return run(pose_minimization(objective, begin, options), options)


def _times(rows: jax.Array) -> Any:
    return lambda x: product(rows, x)


class _Multipliers:
    """What stands in the place of the rows of constraints: the multipliers are in their shapes already."""

    def multipliers(self, equal: Any, inequal: tuple[jax.Array, ...]) -> tuple[Any, ...]:
        """Of the equalities, if there are any, and of every block."""
        return (*jax.tree.leaves(equal), *inequal)


def _on_the_host(
    where: str,
    given: Given,
    cones: tuple[Any, ...],
    bounds: Any,
    solver: Any,
    adjoint: Any,
    tol: Any,
    raise_on_failure: bool,
) -> Solution:
    n, dtype = given.q.size, given.q.dtype
    P = None if given.P is None else (given.P + given.P.T) / 2
    check_convex(where, P)
    check_solver(where, solver, given, cones)
    adjoint = Implicit(linear.LeastNorm()) if adjoint is None else adjoint
    _checks.check_adjoint(where, adjoint)
    if not getattr(adjoint, "at_answer", False):
        raise BadArgument(
            where,
            "adjoint",
            got=adjoint,
            want="one that needs only what holds at the answer: the host's steps cannot be differentiated",
            do="leave adjoint out, or pass nestor.Implicit()",
        )
    start = jnp.zeros((n,), dtype)
    box = check_bounds(where, bounds, start)
    A, b = (None, None) if given.A is None or not given.b.size else (given.A, given.b)
    if given.h is not None and not isinstance(given.h, tuple) and not given.h.size:
        given, cones = given._replace(G=None, h=None), ()
    G = given.G if isinstance(given.G, tuple) else () if given.G is None else (given.G,)
    h = given.h if isinstance(given.h, tuple) else () if given.h is None else (given.h,)
    point = ConePoint(
        clip(start, box), () if b is None else jnp.zeros_like(b), tuple(jnp.zeros_like(side) for side in h)
    )
    arrays, rest = trees.split(solver)
    program, rows = cast(Any, give), cast(Any, _Multipliers())
    plan = _drive.Plan(
        kind=CONE_PROGRAM,
        program=program,
        solver=rest,
        adjoint=adjoint,
        tol=_checks.check_tol(where, tol, dtype),
        max_steps=_TURNS,
        history=False,
        watch="",
    )
    inputs = _drive.Inputs(
        list(Data(P, given.q, A, b, G, h)), point, arrays, jnp.int32(0), box, _drive.beside(cones)
    )
    options = Options(where, solver, adjoint, tol, _TURNS, raise_on_failure=raise_on_failure)
    return run(Posed(plan, inputs, rows), options)
