"""What every solver promises, as tests."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.adjoints import Implicit, Unroll
from nestor.errors import BadArgument
from nestor.solution import Solution, Status
from nestor.solvers import Info
from nestor.testing._promises import compilations, described, distance, made, require, shapes
from nestor.testing._questions import ASKED_AS, FRONTS, QUESTIONS, RIDDLES, Question, cast, measured, solve

Tree = Any

_SEE = "nestor.solvers.Solver (the contract) and how-to/write-a-solver"
_VERBS = {"init": "(problem, x)", "step": "(problem, x, state)", "status": "(problem, x, state)"}


class SolverChecks:
    """Tests of everything that a solver promises; subclass it in a test file and name the solver.

    The kind of problem is taken from the solver's `solves`. The kit brings its own small problems: none has
    more than three unknowns or a condition number above three. A solver that fails here fails somewhere else.

    Args:
        make: a callable without arguments that makes the solver; the class itself, most often.
        max_steps: moves that are allowed for each of the small problems.
        tol_factor: how many times `tol` an answer may be off.
        evaluations: how often one step may evaluate the user's function (a compiled solve holds that many
            copies of it; nested solves multiply them).
        unrolls: whether `Unroll` can differentiate the steps; False for a step with a `while` loop inside.

    >>> import nestor
    >>> from nestor.testing import SolverChecks
    >>> class TestNewton(SolverChecks):
    ...     make = nestor.Newton
    >>> TestNewton().test_state_keeps_its_shapes()
    """

    make: ClassVar[Any]
    max_steps: ClassVar[int] = 1000
    tol_factor: ClassVar[float] = 10.0
    evaluations: ClassVar[int] = 1
    unrolls: ClassVar[bool] = True

    # --- what it is -------------------------------------------------------------------------------

    def test_has_three_verbs_and_a_kind(self) -> None:
        """A solver is a small object with `solves`, `init`, `step` and `status`."""
        solver = made(self)
        kind = getattr(getattr(solver, "solves", None), "kind", None)
        self._require(
            ASKED_AS.get(kind, kind) in FRONTS,
            "A solver says what it solves: the class attribute `solves` is one of nestor.solvers.Minimization, "
            "Composite, RootFinding, FixedPointFinding, LeastSquares.",
            f"solves = {getattr(solver, 'solves', 'missing')!r}",
        )
        for verb, signature in _VERBS.items():
            method = getattr(solver, verb, None)
            self._require(
                callable(method),
                f"A solver has the verb {verb}{signature}.",
                f"{verb} = {method!r}",
            )
            count = signature.count(",") + 1
            try:
                inspect.signature(method).bind(*range(count))  # type: ignore[arg-type]
            except TypeError as error:
                self._require(False, f"The verb is called as {verb}{signature}.", str(error))

    def test_is_frozen_and_compares_by_value(self) -> None:
        """Two solvers made alike are one compiled program; so they cannot change."""
        solver, twin = made(self), made(self)
        frozen = False
        try:
            object.__getattribute__(solver, "init")
            setattr(solver, "init", None)  # noqa: B010 (the point is that it is refused)
        except AttributeError:
            frozen = True
        promise = (
            "A solver is frozen, hashable and compares by value: decorate it with nestor.trees.record, or "
            "with dataclasses.dataclass(frozen=True)."
        )
        self._require(frozen, promise, "an attribute could be set")
        try:
            key, other = trees.split(solver)[1], trees.split(twin)[1]
            same = key == other and hash(key) == hash(other)
        except TypeError as error:
            self._require(False, promise, str(error))
            return
        self._require(same, promise, f"two of them, made alike, differ: {solver!r} and {twin!r}")

    def test_state_keeps_its_shapes(self) -> None:
        """`init` and `step` return states of the same structure, shapes and dtypes, with an `info`."""
        with jax.enable_x64(True):
            for dtype in (jnp.float32, jnp.float64):
                for question in QUESTIONS[self._kind()]:
                    self._check_shapes(question, dtype)

    def test_evaluates_once_in_a_step(self) -> None:
        """One evaluation of the user's function stands in the traced step."""
        question = QUESTIONS[self._kind()][0]
        count = 0

        def fun(x: Tree) -> Any:
            nonlocal count
            count += 1
            return question.fun(jnp.ones((), x.dtype), x)

        with jax.enable_x64(True):
            solver = made(self)
            problem, x = solver.solves(fun, 1e-6), cast(question.start, jnp.float64)
            state = jax.eval_shape(lambda x: solver.init(problem, x), x)
            count = 0
            jax.eval_shape(lambda x, s: solver.step(problem, x, s), x, state)
        self._require(
            1 <= count <= self.evaluations,
            "step evaluates the user's function once, at the x it is given (linearise it to get values and "
            "derivatives together; a line search lives in the state, one trial a step).",
            f"{count} evaluations in one step; {self.evaluations} allowed",
        )

    # --- what it finds ----------------------------------------------------------------------------

    def test_solves_in_float64(self) -> None:
        """The small problems have known answers."""
        for question in QUESTIONS[self._kind()]:
            self._check_answer(question, jnp.float64)

    def test_solves_in_float32(self) -> None:
        """A tree in single precision, with a float32 answer."""
        self._check_answer(QUESTIONS[self._kind()][1], jnp.float32)

    def test_recognises_a_solution(self) -> None:
        """Started at the answer, it stays there and says so."""
        with jax.enable_x64(True):
            for question in QUESTIONS[self._kind()]:
                t = jnp.ones((), jnp.float64)
                answer = question.answer(t)
                found = self._solve(question, t, x0=answer)
                self._require(
                    bool(found.success) and distance(found.x, answer) <= self._bar(found),
                    "Started at a solution, a solver returns it as CONVERGED.",
                    f"{question.name}: {self._outcome(found)}, {distance(found.x, answer):.3g} from the start",
                )

    def test_never_claims_what_it_has_not_found(self) -> None:
        """Where there is no solution, no status may be CONVERGED."""
        kind = self._kind()
        with jax.enable_x64(True):
            for riddle in RIDDLES[kind]:
                found = solve(
                    kind,
                    riddle.fun,
                    cast(riddle.start, jnp.float64),
                    solver=made(self),
                    max_steps=self.max_steps,
                )
                self._check_code(found)
                self._require(
                    not found.success,
                    "A solver never claims convergence without it: status is CONVERGED only where the "
                    "optimality of the point just evaluated is at most problem.tol and everything is finite "
                    "(nestor.solvers.judge says so).",
                    f"{riddle.name}: CONVERGED at {found.x}",
                )
            question = QUESTIONS[kind][0]
            found = self._solve(question, jnp.ones((), jnp.float64), max_steps=0)
            self._require(
                Status(int(found.code)) is Status.OUT_OF_STEPS,
                "With max_steps=0 only the start is evaluated; where that is no solution, status says RUNNING "
                "and the driver makes it OUT_OF_STEPS.",
                f"{question.name}: {self._outcome(found)}",
            )

    def test_info_is_about_the_point(self) -> None:
        """`state.info` holds the objective and the optimality at the point that `step` was given."""
        kind = self._kind()
        with jax.enable_x64(True):
            question, t = QUESTIONS[kind][0], jnp.ones((), jnp.float64)
            reports: list[Any] = []
            self._solve(question, t, history=True, callback=reports.append)
            self._require(reports, "A solve evaluates at least its start.", "no evaluation was reported")
            for report in [*reports[:5], reports[-1]]:
                value, optimality = measured(kind, lambda x: question.fun(t, x), report.x)
                off = max(
                    abs(report.fun - value) / max(abs(value), 1),
                    abs(report.optimality - optimality) / max(optimality, 1),
                )
                self._require(
                    off <= 1e-9,
                    "state.info is about the point that step was given: info_at(value, residual) of "
                    "nestor.solvers makes it from the objective and from what must vanish there.",
                    f"evaluation {report.step}: info says value {report.fun:.12g} and optimality "
                    f"{report.optimality:.6g}; they are {value:.12g} and {optimality:.6g}",
                )

    # --- what it composes with ----------------------------------------------------------------------

    def test_compiles_once(self) -> None:
        """A second solve with other data, by another solver made alike, compiles nothing."""
        with jax.enable_x64(True):
            question = QUESTIONS[self._kind()][0]
            first, second = jnp.asarray(1.0, jnp.float64), jnp.asarray(1.5, jnp.float64)
            for t in (first, second):  # the second call also warms what is outside the solve
                jax.block_until_ready(self._solve(question, t).x)
            with compilations() as seen:
                jax.block_until_ready(self._solve(question, second).x)
        self._require(
            not seen,
            "What is compiled for a solver is found again by its value: no state, no fresh functions and no "
            "Python randomness in it.",
            f"{len(seen)} programs compiled by a second call",
        )

    def test_batches(self) -> None:
        """Under `vmap` every lane gives what it gives alone."""
        with jax.enable_x64(True):
            question = QUESTIONS[self._kind()][1]
            ts = jnp.asarray([0.5, 1.0, 1.5], jnp.float64)
            together = jax.jit(jax.vmap(lambda t: self._solve(question, t)))(ts)
            for lane, t in enumerate(ts):
                alone = self._solve(question, t)
                x = jax.tree.map(lambda leaf, lane=lane: leaf[lane], together.x)
                gap = distance(x, alone.x)
                same = int(together.code[lane]) == int(alone.code) and gap <= self._bar(alone)
                self._require(
                    same,
                    "A solver is traceable and its lanes are independent under jax.vmap.",
                    f"{question.name}, lane {lane}: {gap:.3g} apart, status {int(together.code[lane])} in the "
                    f"batch and {int(alone.code)} alone",
                )

    def test_implicit_derivative(self) -> None:
        """Forward and reverse derivatives by `Implicit` are those of the closed form."""
        for question in QUESTIONS[self._kind()]:
            self._check_derivative(Implicit(), question, 1e-5)

    def test_unrolled_derivative(self) -> None:
        """Forward and reverse derivatives by `Unroll` are those of the closed form."""
        if self.unrolls:
            self._check_derivative(Unroll(), QUESTIONS[self._kind()][1], 1e-4)

    def test_history_and_callback(self) -> None:
        """Every evaluation is recorded and reported, and a callback can stop the solve."""
        with jax.enable_x64(True):
            question, t = QUESTIONS[self._kind()][0], jnp.ones((), jnp.float64)
            reports: list[Any] = []
            found = self._solve(question, t, history=True, callback=reports.append)
            count = int(found.stats.evaluations)
            self._require(
                found.history is not None and len(found.history.value) == count == len(reports),
                "Every evaluation is in the history and is shown to the callback.",
                f"{count} evaluations, {len(reports)} reports",
            )
            stopped = self._solve(question, t, history=True, callback=lambda report: report.step >= 1 or None)
            self._require(
                int(stopped.stats.evaluations) <= 2,
                "A callback that returns True ends the solve; status must not hide that.",
                self._outcome(stopped),
            )

    def test_is_refused_where_it_does_not_belong(self) -> None:
        """The other front functions name the solver and refuse it."""
        solver, own = made(self), self._kind()
        with jax.enable_x64(True):
            for kind, front in FRONTS.items():
                if kind == own:
                    continue
                question = QUESTIONS[kind][0]
                t = jnp.ones((), jnp.float64)
                try:
                    front(
                        lambda x, q=question, t=t: q.fun(t, x), cast(question.start, t.dtype), solver=solver
                    )
                    said = "nothing"
                except BadArgument as error:
                    said = str(error)
                self._require(
                    type(solver).__name__ in said,
                    f"nestor.{front.__name__} refuses a solver of {own} problems by name: `solves` is the exact "
                    "kind, not a wider class.",
                    f"it said: {said}",
                )

    # --- inside -------------------------------------------------------------------------------------

    def _require(self, kept: Any, promise: str, found: str) -> None:
        __tracebackhide__ = True
        require(kept, f"{type(self).__name__}: {promise}", found, _SEE)

    def _kind(self) -> str:
        kind = getattr(getattr(made(self), "solves", None), "kind", "")
        kind = ASKED_AS.get(kind, kind)
        self._require(kind in FRONTS, "A solver says what it solves.", f"a solver whose kind is {kind!r}")
        return kind

    def _solve(self, question: Question, t: Any, x0: Tree = None, **options: Any) -> Solution:
        x0 = cast(question.start, t.dtype) if x0 is None else x0
        options = {"solver": made(self), "max_steps": self.max_steps, **options}
        return solve(self._kind(), lambda x: question.fun(t, x), x0, **options)

    def _bar(self, found: Solution) -> float:
        return self.tol_factor * float(found.stats.tol)

    def _outcome(self, found: Solution) -> str:
        return (
            f"status {Status(int(found.code)).name} after {int(found.stats.evaluations)} evaluations, "
            f"optimality {float(found.stats.optimality):.3g}"
        )

    def _check_code(self, found: Solution) -> None:
        code = int(found.code)
        self._require(
            code in {int(s) for s in Status} and code != int(Status.RUNNING),
            "status is the code of a nestor.Status.",
            f"the code {code}",
        )

    def _check_answer(self, question: Question, dtype: Any) -> None:
        with jax.enable_x64(True):
            for value in (1.0, -0.6):
                t = jnp.asarray(value, dtype)
                found, answer = self._solve(question, t), question.answer(t)
                self._check_code(found)
                self._require(
                    found.success,
                    "A solver solves small, smooth, well-conditioned problems of its kind in max_steps.",
                    f"{question.name} with t={value} in {t.dtype}: {self._outcome(found)}; the contract "
                    f"allowed max_steps={self.max_steps}",
                )
                gap = distance(found.x, answer)
                self._require(
                    shapes(found.x) == shapes(answer) and gap <= self._bar(found),
                    "CONVERGED means that the answer is one, in the shapes and dtypes of the start.",
                    f"{question.name} with t={value} in {t.dtype}: {self._outcome(found)}, but x is {gap:.3g} "
                    f"from the answer ({self._bar(found):.3g} allowed); x is {described(found.x)}",
                )

    def _check_shapes(self, question: Question, dtype: Any) -> None:
        solver = made(self)
        problem = solver.solves(lambda x: question.fun(jnp.ones((), dtype), x), 1e-3)
        x = cast(question.start, dtype)
        before = jax.eval_shape(lambda x: solver.init(problem, x), x)
        self._require(
            isinstance(getattr(before, "info", None), Info),
            "The state has a field `info`, a nestor.solvers.Info; nestor.solvers.no_info(x) is that of the "
            "state that init returns.",
            f"info = {getattr(before, 'info', 'missing')!r}",
        )
        following, after = jax.eval_shape(lambda x, s: solver.step(problem, x, s), x, before)
        place = f"{question.name} in {jnp.dtype(dtype)}"
        self._require(
            shapes(following) == shapes(x) and jax.tree.structure(following) == jax.tree.structure(x),
            "step returns a next point with the structure, shapes and dtypes of x: a compiled loop carries it.",
            f"{place}: x is {described(x)}, the next is {described(following)}",
        )
        alike = jax.tree.structure(before) == jax.tree.structure(after)
        self._require(
            alike and shapes(before) == shapes(after),
            "init and step return states of the same structure, shapes and dtypes: a compiled loop carries them.",
            f"{place}: init returns {described(before)}, step returns {described(after)}",
        )
        verdict = jax.eval_shape(lambda x, s: solver.status(problem, x, s), x, after)
        self._require(
            shapes(verdict) == ((), "int32"),
            "status returns an int32 scalar: nestor.solvers.code(Status.RUNNING), or judge(problem, state.info).",
            f"{place}: it returns {described(verdict)}",
        )

    def _check_derivative(self, adjoint: Any, question: Question, accuracy: float) -> None:
        def both(t: Any) -> tuple[Tree, Any]:
            x, push = jax.linearize(lambda t: self._solve(question, t, adjoint=adjoint).x, t)
            (pulled,) = jax.linear_transpose(push, t)(jax.tree.map(jnp.ones_like, x))
            return push(jnp.ones_like(t)), pulled

        with jax.enable_x64(True):
            t = jnp.asarray(0.8, jnp.float64)
            forward, reverse = jax.jit(both)(t)
            wanted = jax.jacfwd(question.answer)(t)
            summed = sum(float(jnp.sum(leaf)) for leaf in jax.tree.leaves(wanted))
            self._require(
                max(distance(forward, wanted), abs(float(reverse) - summed)) <= accuracy,
                f"Derivatives of a converged solve by {type(adjoint).__name__}() are those of its answer: "
                "step is differentiable at the answer, or its derivative is set with nestor.trees.graft.",
                f"{question.name}: dx/dt is {forward} forwards, and {reverse} summed in reverse; it is {wanted}, "
                f"and {summed} summed",
            )
