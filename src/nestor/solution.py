"""What a solve returns: the point, its value, the status, the counts, and, on request, the history."""

from __future__ import annotations

import dataclasses
from enum import IntEnum
from typing import Any

import jax
import jax.core

__all__ = ["KKT", "History", "Solution", "Stats", "Status"]


class Status(IntEnum):
    """Why a solve or a run stopped. Every member carries its message; of a solve only `CONVERGED` is a success.

    A training run ends well with `FINISHED`, or, stopped early, with `STAGNATED` or `OVERFITTED`.

    Inside a trace a status is an int32 array of codes; `Status(int(code))` gives the member back.

    >>> import nestor
    >>> print(nestor.Status.OUT_OF_STEPS.message)
    No convergence in max_steps. Raise max_steps, loosen tol, or try another solver.
    >>> nestor.Status.CONVERGED.success, nestor.Status.NOT_FINITE.success
    (True, False)
    """

    message: str

    def __new__(cls, code: int, message: str) -> Status:
        """Attach the message to the code."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.message = message
        return member

    CONVERGED = 0, "The condition of a solution holds to tol."
    RUNNING = 1, "The solve has not ended."
    OUT_OF_STEPS = 2, ("No convergence in max_steps. Raise max_steps, loosen tol, or try another solver.")
    LINE_SEARCH_FAILED = (
        3,
        (
            "No step along the search direction lowers the objective, and the gradient is not small. "
            "Check the gradient with nestor.check_derivatives; use float64; loosen tol; rescale."
        ),
    )
    NOT_FINITE = (
        4,
        (
            "The objective or a derivative is NaN or infinite where the solver had to go. "
            "Start elsewhere, bound the step, or guard logs, roots and divisions."
        ),
    )
    NOT_DESCENT = (
        5,
        (
            "The search direction does not point downhill. "
            "Check the gradient with nestor.check_derivatives, or use a solver with restarts."
        ),
    )
    SINGULAR = (
        6,
        (
            "The linear system of a step is singular. "
            "Start elsewhere, regularise, or use a damped solver (LevenbergMarquardt, Newton)."
        ),
    )
    UNBOUNDED = (
        7,
        (
            "The objective falls without bound: there is no minimum. "
            "Check its sign, or add a regulariser or bounds."
        ),
    )
    STALLED = (
        8,
        (
            "No further progress is possible at this precision, and the condition does not hold to tol. "
            "Use float64, rescale the problem, loosen tol, or check a gradient that you wrote yourself."
        ),
    )
    SADDLE = (
        9,
        (
            "The gradient vanishes, but the curvature is negative: a saddle or a maximum. "
            "Start elsewhere (break the symmetry of x0)."
        ),
    )
    STOPPED = 10, "The callback asked to stop."
    FINISHED = 11, "Every step of the training run was made."
    STAGNATED = 12, "The training loss has not fallen for as many steps as `stagnation` allows."
    OUT_OF_RANGE = (
        14,
        (
            "A number left the range of the integers of a reversible run (positions 2^5 and velocities 2^6 in "
            "32 bits, 2^10 in 64), or a momentum is not between 1/256 and 1. "
            "Switch on 64-bit numbers, scale the loss down, clip the gradient, or use nestor.Checkpoint()."
        ),
    )
    INFEASIBLE = (
        15,
        (
            "The constraints cannot be met near the answer: no small change of x lowers their violation. "
            "Check that they can be met together, loosen them, or start elsewhere."
        ),
    )
    OUT_OF_TIME = (
        16,
        "No convergence in max_seconds. Raise it, loosen tol, or go on from the solution's x.",
    )
    OUT_OF_EVALUATIONS = (
        17,
        "No convergence in max_evaluations. Raise it, loosen tol, or try another method.",
    )
    INTERRUPTED = 18, "The solve was interrupted (Ctrl-C); x is the best point so far."
    OVERFITTED = 13, "The validation loss has not fallen for as many validations as `patience` allows."

    @property
    def success(self) -> bool:
        """True for `CONVERGED`, and for a training run that ended as it was told to."""
        return self in (Status.CONVERGED, Status.FINISHED, Status.STAGNATED, Status.OVERFITTED)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stats:
    """Counts and measures of a solve; every field is a scalar array (one per lane under `vmap`).

    Attributes:
        steps: moves made; a move is one turn of the compiled loop, so a line search makes several. Of a method of
            SciPy's its iterations (SciPy's ``nit``).
        evaluations: evaluations of the objective (with whatever derivatives the solver wants).
        accepted: moves that were kept as a new iterate (SciPy's ``nit`` of a compiled solve); of a method of SciPy's,
            evaluations that were the best so far.
        optimality: largest absolute entry of the residual that vanishes at a solution: the gradient
            for a minimization, F for a root, x - T(x) for a fixed point, J'r for least squares.
        tol: the tolerance that `optimality` was held against.

    >>> import nestor
    >>> nestor.minimize(lambda x: (x - 2.0) ** 2, 0.0).stats.evaluations < 10
    Array(True, dtype=bool)
    """

    steps: Any
    evaluations: Any
    accepted: Any
    optimality: Any
    tol: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class History:
    """What was seen at every evaluation, in order; recorded when ``history=True``.

    Outside a trace the arrays end where the solve ended. Inside a trace they have one entry for
    every evaluation that `max_steps` allows, NaN (False for `accepted`) after the end.

    Attributes:
        value: objective (½|r|² for least squares, |F| for roots and fixed points).
        optimality: largest absolute entry of the residual of the condition.
        accepted: whether the point was kept.

    >>> import nestor
    >>> run = nestor.minimize(lambda x: (x - 2.0) ** 2, 0.0, history=True)
    >>> bool(run.history.value[0] == 4.0)
    True
    """

    value: Any
    optimality: Any
    accepted: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KKT:
    """What holds at the answer of a minimization with bounds or constraints, recomputed there.

    The Lagrangian is  f(x) - lower . (x - lb) + upper . (x - ub) + sum of constraint multipliers . c(x); every
    array is zero at an exact solution but for the multipliers.

    Attributes:
        stationarity: largest absolute entry of the gradient of the Lagrangian, projected on the bounds.
        feasibility: largest violation of a constraint; bounds are never violated.
        complementarity: largest min(multiplier, slack) of an inequality.
        lower, upper: multipliers of the bounds, >= 0, trees like x; None without bounds.
        constraints: multipliers of the constraints, in their order, each a tree like the value of its function:
            positive where an upper limit is active, negative where a lower one is (SciPy's convention).
        weakly_active: how many bounds and inequalities are active with a multiplier that is zero to within the
            tolerance: there the solution has one-sided derivatives only, and those that are computed treat the
            bound as active.
        curvature: by `SQP`, the second derivative of the Lagrangian along the flattest of the directions (in the
            units of the solver) that active constraints and bounds leave. Positive: a strict minimum. About zero: a
            minimum that may not be strict, where derivatives may not exist. Negative: moves along
            that direction have led back here three times; a minimum only if something active forbids it.
            Infinite: no direction is left. None: not computed.

    >>> import nestor
    >>> solution = nestor.minimize(lambda x: (x - 2.0) ** 2, 0.0, bounds=(None, 1.0))
    >>> float(solution.kkt.upper), int(solution.kkt.weakly_active)
    (2.0, 0)
    """

    stationarity: Any
    feasibility: Any
    complementarity: Any
    lower: Any
    upper: Any
    constraints: tuple[Any, ...]
    weakly_active: Any
    curvature: Any = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Solution:
    """The outcome of a solve.

    Attributes:
        x: the answer, a tree like ``x0``; without convergence, the best point seen.
        fun: the objective there: its value for a minimization, ½|r|² for least squares, the
            Euclidean norm of F(x) or x - T(x) for a root or a fixed point.
        code: the status as an int32 array (one per lane under `vmap`).
        stats: counts and measures, see `Stats`.
        history: see `History`; None unless asked for.
        kkt: see `KKT`; None without bounds and constraints.

    >>> import nestor
    >>> solution = nestor.minimize(lambda x: (x - 2.0) ** 2, 0.0)
    >>> solution.success, solution.status.name, round(float(solution.x), 6)
    (True, 'CONVERGED', 2.0)
    """

    x: Any
    fun: Any
    code: Any
    stats: Stats
    history: History | None = None
    kkt: KKT | None = None

    @property
    def status(self) -> Any:
        """The `Status`; the array of codes inside a trace or for a batch."""
        if isinstance(self.code, jax.core.Tracer) or getattr(self.code, "ndim", 0) > 0:
            return self.code
        return Status(int(self.code))

    @property
    def success(self) -> Any:
        """Whether the solve converged: a bool, or an array of them inside a trace or for a batch."""
        status = self.status
        return status.success if isinstance(status, Status) else status == int(Status.CONVERGED)
