"""Every solver times every adjoint, against the catalogue's closed forms; and nothing is compiled twice.

Each pair is solved at two parameters, outside any jit, with fresh closures: forward mode and reverse mode at
both. The second parameter must not compile anything.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nestor
from tests.compiles import compilations
from tests.oracles import tree_matrix
from tests.problems import by_name

SOLVERS = {
    "BFGS": ("cosh_chain", nestor.BFGS(), 40),
    "LBFGS": ("cosh_chain", nestor.LBFGS(memory=4), 60),
    "Newton": ("cosh_chain", nestor.Newton(), 20),
    "NewtonCG": ("cosh_chain", nestor.NewtonCG(), 20),
    "NonlinearCG": ("cosh_chain", nestor.NonlinearCG(), 100),
    "GradientDescent": ("cosh_chain", nestor.GradientDescent(), 200),
    "FixedStep": ("cosh_chain", nestor.GradientDescent(nestor.FixedStep(0.2)), 200),
    "optax.sgd": ("cosh_chain", optax.sgd(0.2), 200),
    "optax.adam": ("nested_scalar", optax.adam(0.1), 600),
    "NewtonRoot": ("nonsymmetric_cubic", nestor.NewtonRoot(), 20),
    "Broyden": ("nonsymmetric_cubic", nestor.Broyden(), 40),
    "Picard": ("tanh_layer", nestor.Picard(), 200),
    "Anderson": ("tanh_layer", nestor.Anderson(), 60),
    "LevenbergMarquardt": ("exponential_targets", nestor.LevenbergMarquardt(), 60),
    "GaussNewton": ("exponential_targets", nestor.GaussNewton(), 60),
    "Dogleg": ("exponential_targets", nestor.Dogleg(), 60),
}
# First-order methods and Gauss-Newton forget the past geometrically; the others are done in a few turns.
ADJOINTS = {
    "Implicit": nestor.Implicit(),
    "Unroll": nestor.Unroll(),
    "Checkpoint": nestor.Checkpoint(),
    "Forward": nestor.Forward(),
    "Truncate": nestor.Truncate(last=60),
    "OneStep": nestor.OneStep(),
    "FiniteDifference": nestor.FiniteDifference(),
}
# Methods whose one step at the answer has the exact derivative: Newton's.
ONE_STEP_IS_EXACT = {"Newton", "NewtonCG", "NewtonRoot"}
# How far from the closed form a pair may be, relative to the largest entry of the Jacobian; else 1e-6.
ACCURACY = {
    # tol times the condition number over the difference step
    ("GradientDescent", "FiniteDifference"): 1e-5,
    # Adam's second moments remember 1000 steps; 60 of them are differentiated
    ("optax.adam", "Truncate"): 0.05,
    # One step of a memory of past gradients says little of the Hessian: documented as a rough guess
    ("LBFGS", "OneStep"): 10.0,
    ("NonlinearCG", "OneStep"): 10.0,
}
# Every day: `Implicit` for all, and every adjoint for some; the rest of the table is slow to compile.
QUICK = {
    "Implicit": set(SOLVERS),
    "Unroll": {"FixedStep"},  # of every solver by `Forward`: test_unrolled_numbers
    "Checkpoint": {"Picard"},
    "Forward": {"Picard"},
    "Truncate": {"Picard"},
    "OneStep": {"Newton"},
    "FiniteDifference": {"Picard"},
}
PAIRS = [
    pytest.param(s, a, marks=() if s in QUICK[a] else pytest.mark.slow) for s in SOLVERS for a in ADJOINTS
]


def solve(problem, solver, adjoint, max_steps, theta, x0):
    """The solution, through a fresh closure over theta."""
    fun = lambda x: problem.fun(x, theta)  # noqa: E731
    options = {"solver": solver, "adjoint": adjoint, "tol": 1e-11, "max_steps": max_steps}
    if problem.kind == "minimization":
        return nestor.argmin(fun, x0, **options)
    call = {
        "root": nestor.find_root,
        "fixed_point": nestor.fixed_point,
        "least_squares": nestor.least_squares,
    }
    return call[problem.kind](fun, x0, **options).x


@functools.cache
def truth(name, shift):
    problem = by_name(name)
    theta = jax.tree.map(lambda leaf: np.asarray(leaf) + shift, problem.theta)
    return theta, problem.solution(theta), tree_matrix(problem.jacobian(theta), problem.start.size)


def derivatives(problem, solver, adjoint, max_steps, theta, v, w, reverse):
    """The solution, J v and w'J."""
    x0 = problem.x0()
    run = lambda t: solve(problem, solver, adjoint, max_steps, t, x0)  # noqa: E731
    x, push = jax.linearize(run, theta)
    forward = push(v)
    if not reverse:
        return x, forward, None
    return x, forward, jax.vjp(run, theta)[1](w)[0]


@pytest.mark.parametrize(("solver_name", "adjoint_name"), PAIRS)
def test_the_derivative_is_the_closed_form(solver_name, adjoint_name):
    name, solver, max_steps = SOLVERS[solver_name]
    adjoint, problem, draw = ADJOINTS[adjoint_name], by_name(name), np.random.default_rng(0)
    v = jnp.asarray(draw.normal(size=np.shape(problem.theta)))
    w = jnp.asarray(draw.normal(size=problem.start.shape))
    for shift in (0.0, 0.05):
        theta, solution, jacobian = truth(name, shift)
        with compilations() as count:
            x, forward, reverse = derivatives(
                problem, solver, adjoint, max_steps, jnp.asarray(theta), v, w, adjoint_name != "Forward"
            )
        if shift:
            assert count.number == 0, "compiled again for other data"
        want_forward = (jacobian @ np.ravel(v)).reshape(np.shape(x))
        want_reverse = (np.ravel(w) @ jacobian).reshape(np.shape(theta))
        np.testing.assert_allclose(x, solution, atol=1e-9)
        accuracy = ACCURACY.get((solver_name, adjoint_name), 1e-6)
        if adjoint_name == "OneStep" and solver_name not in ONE_STEP_IS_EXACT:  # biased
            accuracy = max(accuracy, 2.0)
            # ... but the two modes are one derivative
            np.testing.assert_allclose(np.vdot(w, forward), np.vdot(v, reverse), rtol=1e-8)
        scale = np.max(np.abs(jacobian))
        np.testing.assert_allclose(forward, want_forward, atol=accuracy * scale, rtol=0)
        if reverse is not None:
            np.testing.assert_allclose(reverse, want_reverse, atol=accuracy * scale, rtol=0)
        else:
            with pytest.raises(nestor.CannotDifferentiate, match="Forward"):
                jax.eval_shape(
                    jax.grad(lambda t: jnp.sum(solve(problem, solver, adjoint, max_steps, t, problem.x0()))),
                    theta,
                )
