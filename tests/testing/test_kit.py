"""Our own solvers and adjoints pass the kits, and what is broken on purpose does not."""

import dataclasses
import subprocess
import sys
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import pytest

import nestor
import nestor.testing
from nestor import adjoints, solvers, trees
from nestor.testing import AdjointChecks, SolverChecks

# --- ours ------------------------------------------------------------------------------------------
# One solver a kind (the minimizer is that of the how-to page), and two adjoints; all others meet all problems
# in tests/solvers and tests/adjoints.


class TestNewtonRoot(SolverChecks):
    make = nestor.NewtonRoot


class TestAnderson(SolverChecks):
    make = staticmethod(lambda: nestor.Anderson(memory=2))


class TestLevenbergMarquardt(SolverChecks):
    def make(self):
        return nestor.LevenbergMarquardt()


class TestImplicit(AdjointChecks):
    make = nestor.Implicit


class TestForward(AdjointChecks):
    make = nestor.Forward
    reverse = False


CHEAP = (
    "test_has_three_verbs_and_a_kind",
    "test_is_frozen_and_compares_by_value",
    "test_state_keeps_its_shapes",
    "test_evaluates_once_in_a_step",
    "test_is_refused_where_it_does_not_belong",
)
OTHERS = (
    *(
        nestor.GradientDescent,
        nestor.BFGS,
        nestor.Newton,
        nestor.NewtonCG,
        nestor.NonlinearCG,
        nestor.LineSearchNewton,
        nestor.LineSearchNewtonCG,
        nestor.Broyden,
        nestor.Picard,
    ),
    *(nestor.LBFGS, nestor.GaussNewton, nestor.Dogleg),
)


@pytest.mark.parametrize("solver", OTHERS, ids=lambda solver: solver.__name__)
@pytest.mark.parametrize("check", CHEAP)
def test_the_form_of_every_solver(check: str, solver: Any):
    sites = 2 if solver is nestor.Broyden else 1  # its Jacobian, made anew when it is stuck, is a second one
    getattr(kit_of(solver, evaluations=sites), check)()


@pytest.mark.parametrize("adjoint", [lambda: nestor.Truncate(last=3), nestor.Checkpoint, nestor.OneStep])
def test_the_form_of_every_adjoint(adjoint: Any):
    kit_of(adjoint, AdjointChecks).test_is_frozen_and_compares_by_value()


@pytest.mark.parametrize(
    "check",
    ["test_derivative_of_least_squares", "test_second_derivatives", "test_batches_and_keeps_lanes_apart"],
)
def test_unroll(check: str):
    getattr(kit_of(nestor.Unroll, AdjointChecks), check)()


@pytest.mark.parametrize("check", ["test_solves_in_float64", "test_unrolled_derivative"])
def test_gradient_descent(check: str):
    getattr(kit_of(nestor.GradientDescent), check)()


@pytest.mark.parametrize(
    "check", ["test_derivative_of_a_fixed_point", "test_batches_and_keeps_lanes_apart", "test_failure_is_nan"]
)
def test_finite_differences(check: str):
    getattr(kit_of(nestor.FiniteDifference, AdjointChecks), check)()


def test_nothing_of_pytest_and_nothing_at_import():
    probe = (
        "import sys, nestor; assert 'nestor.testing' not in sys.modules; "
        "import nestor.testing; assert 'pytest' not in sys.modules; "
        "assert nestor.testing.__all__ == ['AdjointChecks', 'SolverChecks']"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- broken ----------------------------------------------------------------------------------------


def kit_of(make: Any, base: Any = SolverChecks, **settings: Any) -> Any:
    """A kit for one thing, as a user's subclass would be."""
    return type("TestIt", (base,), {"make": staticmethod(make), **settings})()


class State(NamedTuple):
    info: solvers.Info


@trees.record
class Descent:
    """A right solver, to break in one place at a time."""

    solves: ClassVar[Any] = solvers.Minimization

    def init(self, problem, x):
        return State(solvers.no_info(x))

    def step(self, problem, x, state):
        value, grad = problem.value_and_grad(x)
        return trees.add_scaled(x, -0.5, grad), State(solvers.info_at(value, grad))

    def status(self, problem, x, state):
        return solvers.judge(problem, state.info)


@trees.record
class ClaimsAlways(Descent):
    def status(self, problem, x, state):
        return solvers.code(nestor.Status.CONVERGED)


@trees.record
class ClaimsOnNaN(Descent):
    def status(self, problem, x, state):
        good = ~(state.info.optimality > problem.tol)  # true for NaN
        return jnp.where(good, solvers.code(nestor.Status.CONVERGED), solvers.code(nestor.Status.RUNNING))


@trees.record
class FlattersItself(Descent):
    def step(self, problem, x, state):
        x_next, (info,) = super().step(problem, x, state)
        return x_next, State(info._replace(optimality=info.optimality / 1000))


@trees.record
class ReportsTheNextPoint(Descent):
    def step(self, problem, x, state):
        value, grad = problem.value_and_grad(x)
        x_next = trees.add_scaled(x, -0.5, grad)
        value, grad = problem.value_and_grad(x_next)
        return x_next, State(solvers.info_at(value, grad))


@trees.record
class NoCode(Descent):
    def status(self, problem, x, state):
        return state.info.optimality <= problem.tol


class OtherState(NamedTuple):
    info: solvers.Info
    seen: Any


@trees.record
class Grows(Descent):
    def init(self, problem, x):
        return OtherState(solvers.no_info(x), jnp.zeros(1))

    def step(self, problem, x, state):
        x_next, (info,) = Descent.step(self, problem, x, state)
        return x_next, OtherState(info, jnp.zeros(2))


@trees.record
class Doubles(Descent):
    def step(self, problem, x, state):
        x_next, state = super().step(problem, x, state)
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), x_next), state


@trees.record
class NoInfo(Descent):
    def init(self, problem, x):
        return ()


@trees.record
class NoKind(Descent):
    solves: ClassVar[Any] = solvers.Problem


@trees.record
class NoStatus:
    solves: ClassVar[Any] = solvers.Minimization
    init, step = Descent.init, Descent.step


@trees.record
class StepOfTwo(Descent):
    def step(self, problem, x):
        raise NotImplementedError("never called")


@dataclasses.dataclass(frozen=True, eq=False)
class ByIdentity(Descent):
    __eq__, __hash__ = object.__eq__, object.__hash__


class Loose(Descent):
    __setattr__ = object.__setattr__


@trees.record
class Unhashable(Descent):
    options: Any = dataclasses.field(default_factory=lambda: {1, 2})


@trees.record
class TooSlow(Descent):
    def step(self, problem, x, state):
        value, grad = problem.value_and_grad(x)
        return trees.add_scaled(x, -1e-6, grad), State(solvers.info_at(value, grad))


@trees.record
class WrongSlope(Descent):
    def step(self, problem, x, state):
        x_next, state = super().step(problem, x, state)
        return trees.stop_gradient(x_next), state


BROKEN = [
    (NoKind, "test_has_three_verbs_and_a_kind", "says what it solves"),
    (NoStatus, "test_has_three_verbs_and_a_kind", "has the verb status"),
    (StepOfTwo, "test_has_three_verbs_and_a_kind", "called as step"),
    (Loose, "test_is_frozen_and_compares_by_value", "is frozen"),
    (ByIdentity, "test_is_frozen_and_compares_by_value", "made alike"),
    (Unhashable, "test_is_frozen_and_compares_by_value", "hashable"),
    (ByIdentity, "test_compiles_once", "found again"),
    (Grows, "test_state_keeps_its_shapes", "states of the same"),
    (Doubles, "test_state_keeps_its_shapes", "dtypes of x"),
    (NoInfo, "test_state_keeps_its_shapes", "field `info`"),
    (NoCode, "test_state_keeps_its_shapes", "int32 scalar"),
    (ReportsTheNextPoint, "test_evaluates_once_in_a_step", "2 evaluations"),
    (ReportsTheNextPoint, "test_info_is_about_the_point", "info says"),
    (FlattersItself, "test_info_is_about_the_point", "info says"),
    (FlattersItself, "test_solves_in_float64", "CONVERGED means"),
    (ClaimsAlways, "test_solves_in_float64", "CONVERGED means"),
    (ClaimsAlways, "test_never_claims_what_it_has_not_found", "never claims"),
    (ClaimsOnNaN, "test_never_claims_what_it_has_not_found", "never claims"),
    (TooSlow, "test_solves_in_float64", "OUT_OF_STEPS"),
    (WrongSlope, "test_unrolled_derivative", "by Unroll"),
]


@pytest.mark.parametrize(
    ("solver", "check", "words"), BROKEN, ids=[f"{solver.__name__}-{check}" for solver, check, _ in BROKEN]
)
def test_a_broken_solver_is_caught(solver: Any, check: str, words: str):
    with pytest.raises(AssertionError, match=words) as caught:
        getattr(kit_of(solver), check)()
    assert "nestor.solvers.Solver" in str(caught.value), "the message says where the contract is written"


@pytest.mark.parametrize("check", sorted({check for _, check, _ in BROKEN}))
def test_the_unbroken_one_is_not(check: str):
    getattr(kit_of(Descent), check)()


def test_a_kit_without_a_make_says_so():
    class TestIt(SolverChecks):
        pass

    with pytest.raises(AssertionError, match="make = MySolver"):
        TestIt().test_state_keeps_its_shapes()


@trees.record
class Scaled:
    """`Implicit`, with derivatives off by a factor."""

    factor: float = 1.1

    def attach(self, loop, read, condition):
        right = adjoints.Implicit().attach(loop, read, condition)

        @jax.custom_jvp
        def scaled(x):
            return x

        scaled.defjvps(lambda t, out, x: self.factor * t)
        return lambda inputs: (lambda a: a._replace(x=jax.tree.map(scaled, a.x)))(right(inputs))


@trees.record
class NoValueSlope:
    """`Implicit` for x, but the objective of the answer held constant: harmless for `minimum`."""

    def attach(self, loop, read, condition):
        right = adjoints.Implicit().attach(loop, read, condition)
        return lambda inputs: (lambda a: a._replace(x=jax.lax.stop_gradient(a.x)))(right(inputs))


@trees.record
class WhileLoop:
    """Forward mode by JAX alone: reverse mode fails with JAX's own words."""

    def attach(self, loop, read, condition):
        forward = adjoints.Forward().attach(loop, read, condition)

        @jax.custom_jvp
        def refuse(x):
            return x

        @refuse.defjvp
        def rule(primals, tangents):
            raise ValueError("not this way")

        return lambda inputs: (lambda a: a._replace(x=jax.tree.map(refuse, a.x)))(forward(inputs))


@dataclasses.dataclass(frozen=True, eq=False)
class IdentityAdjoint:
    def attach(self, loop, read, condition):
        return adjoints.Implicit().attach(loop, read, condition)


@trees.record
class HidesFailure:
    """Zero derivative where the solve failed, instead of NaN."""

    def attach(self, loop, read, condition):
        right = adjoints.Implicit().attach(loop, read, condition)

        def solve(inputs):
            answer = right(inputs)
            record = answer.record._replace(code=jnp.zeros_like(answer.record.code))
            return answer._replace(record=record)

        return solve


BROKEN_ADJOINTS = [
    (Scaled, "test_derivative_of_a_minimizer", "that of the answer", {}),
    (Scaled, "test_second_derivatives", "Second derivatives", {}),
    (NoValueSlope, "test_derivative_of_a_root", "that of the answer", {}),
    (NoValueSlope, "test_integers_and_random_keys", "do no harm", {}),
    (WhileLoop, "test_says_so_where_it_cannot", "ValueError", {"forward": False}),
    (adjoints.Implicit, "test_says_so_where_it_cannot", "no error", {"reverse": False}),
    (IdentityAdjoint, "test_is_frozen_and_compares_by_value", "made alike", {}),
    (lambda: adjoints.Implicit({}), "test_is_frozen_and_compares_by_value", "hashable", {}),
    (lambda: Scaled(jnp.ones(2)), "test_is_frozen_and_compares_by_value", "hashable", {}),
    (lambda: 3, "test_is_frozen_and_compares_by_value", "attach", {}),
    (HidesFailure, "test_failure_is_nan", "is NaN", {}),
    (Scaled, "test_batches_and_keeps_lanes_apart", "jit and vmap", {}),
]


@pytest.mark.parametrize(("adjoint", "check", "words", "settings"), BROKEN_ADJOINTS)
def test_a_broken_adjoint_is_caught(adjoint: Any, check: str, words: str, settings: Any):
    with pytest.raises(AssertionError, match=words) as caught:
        getattr(kit_of(adjoint, AdjointChecks, **settings), check)()
    assert "nestor.adjoints.Adjoint" in str(caught.value), "the message says where the contract is written"


def test_the_envelope_is_checked():
    @trees.record
    class WrongPoint:
        def attach(self, loop, read, condition):
            right = adjoints.Implicit().attach(loop, read, condition)
            return lambda inputs: (lambda a: a._replace(x=a.x + 0.1))(right(inputs))

    with pytest.raises(AssertionError, match="partial derivative"):
        kit_of(WrongPoint, AdjointChecks).test_obeys_the_envelope_theorem()
