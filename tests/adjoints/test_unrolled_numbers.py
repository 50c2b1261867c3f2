"""Derivatives through the steps are those of the truncated computation itself, early stopping included."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nestor
from tests.oracles import fd_jacobian

SLOW = pytest.mark.slow
P = np.array([0.5, -0.4, 1.2, 0.7, 0.15])  # x0 (2), theta (2), learning rate


def bowl(x, theta):
    return jnp.sum(theta * x**2) + 0.5 * jnp.sum(jnp.cosh(x - theta)) + 0.1 * x[0] * x[1]


def descend(p, steps, adjoint, solver=None):
    """`steps` moves of gradient descent with everything in p."""
    solver = nestor.GradientDescent(nestor.FixedStep(p[4])) if solver is None else solver(p[4])
    return nestor.argmin(
        lambda x: bowl(x, p[2:4]),
        p[:2],
        solver=solver,
        adjoint=adjoint,
        max_steps=steps,
        on_failure="keep",
        tol=0.0,
    )


def by_hand(p, steps):
    x = p[:2]
    for _ in range(steps):
        x = x - p[4] * jax.grad(bowl)(x, p[2:4])
    return x


@pytest.mark.parametrize(
    "adjoint",
    [nestor.Unroll(), nestor.Forward(),
     *(pytest.param(nestor.Checkpoint(**how), marks=SLOW) for how in ({}, {"levels": 1}, {"levels": 3}, {"slots": 2})),
     pytest.param(nestor.Truncate(last=6), marks=SLOW)],
    ids=repr,
)  # fmt: skip
def test_gradient_descent_with_its_start_and_its_learning_rate(adjoint):
    """All derivatives of five plain steps: in the start, in the objective's data, in the learning rate."""

    def run(p):
        return descend(p, 5, adjoint)

    def everything(p):
        x, push = jax.linearize(run, p)
        forward = jax.vmap(push, out_axes=1)(jnp.eye(5))
        if isinstance(adjoint, nestor.Forward):
            return x, forward, forward
        pull = jax.linear_transpose(push, p)
        return x, forward, jax.vmap(lambda w: pull(w)[0])(jnp.eye(2))

    x, forward, reverse = jax.jit(everything)(jnp.asarray(P))
    moves = 5
    if isinstance(
        adjoint, nestor.Truncate
    ):  # each of its six turns is an evaluation and the move it proposes
        moves = 6
    want = jax.jit(jax.jacobian(lambda p: by_hand(p, moves)))(jnp.asarray(P))
    if isinstance(adjoint, nestor.Truncate):  # ... from a start that is a constant
        want = want.at[:, :2].set(0.0)
    np.testing.assert_allclose(x, by_hand(jnp.asarray(P), 5), rtol=1e-12)
    np.testing.assert_allclose(forward, want, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(reverse, want, rtol=1e-9, atol=1e-12)


def test_an_optax_solver_with_a_traced_learning_rate():
    def run(p):
        return descend(p, 4, nestor.Unroll(), lambda rate: optax.sgd(rate, momentum=0.0))

    got = jax.jit(jax.jacrev(run))(jnp.asarray(P))
    want = jax.jacobian(lambda p: by_hand(p, 4))(jnp.asarray(P))
    np.testing.assert_allclose(got, want, rtol=1e-9)


def test_an_optax_solver_with_momentum_forwards():
    def run(p):
        return descend(p, 4, nestor.Forward(), lambda rate: optax.sgd(rate, momentum=0.5))

    got = jax.jit(lambda p: (run(p), jax.jacfwd(run)(p)))
    want = fd_jacobian(lambda p: np.asarray(got(jnp.asarray(p))[0]), P)
    np.testing.assert_allclose(got(jnp.asarray(P))[1], want, rtol=1e-7, atol=1e-9)


def residuals(x, theta):
    return jnp.concatenate([jnp.sin(x) * theta + x - 1.0, 0.3 * x**2, theta[:1] * x[:1] * x[1:]])


_TRUNCATED = {
    # (with Backtracking, gradient descent counts the first trial of a search as a constant)
    "GradientDescent": ("minimization", nestor.GradientDescent(nestor.FixedStep(0.05)), 6),
    "BFGS": ("minimization", nestor.BFGS(), 4),
    "LBFGS": ("minimization", nestor.LBFGS(memory=3), 4),
    "NonlinearCG": ("minimization", nestor.NonlinearCG(), 4),
    "Newton": ("minimization", nestor.Newton(), 2),
    "NewtonRoot": ("root", nestor.NewtonRoot(), 2),
    "Broyden": ("root", nestor.Broyden(), 3),
    "Picard": ("fixed_point", nestor.Picard(damping=0.8), 4),
    "Anderson": ("fixed_point", nestor.Anderson(memory=2), 3),
    "GaussNewton": ("least_squares", nestor.GaussNewton(), 2),
    "Dogleg": ("least_squares", nestor.Dogleg(), 2),
}


@pytest.mark.parametrize("name", _TRUNCATED)
def test_every_solver_is_differentiated_step_by_step(name):
    """An interrupted solve has the derivative of what was computed, in the data and in the start."""
    kind, solver, steps = _TRUNCATED[name]
    options = {"solver": solver, "adjoint": nestor.Forward(), "max_steps": steps, "tol": 0.0}

    def run(p):
        x0, theta = p[:2], p[2:4]
        if kind == "minimization":
            return nestor.argmin(lambda x: bowl(x, theta), x0, on_failure="keep", **options)
        call, fun = {
            "root": (nestor.find_root, lambda x: theta * jnp.sinh(x) + jnp.flip(x) - 0.3),
            "fixed_point": (nestor.fixed_point, lambda x: 0.7 * jnp.cos(theta * x) + 0.2 * jnp.flip(x)),
            "least_squares": (nestor.least_squares, lambda x: residuals(x, theta)),
        }[kind]
        return call(fun, x0, raise_on_failure=False, **options).x

    compiled = jax.jit(lambda p: (run(p), jax.jacfwd(run)(p)))
    p = P[:4]
    want = fd_jacobian(lambda q: np.asarray(compiled(jnp.asarray(q))[0]), p, step=1e-3)
    np.testing.assert_allclose(compiled(jnp.asarray(p))[1], want, rtol=1e-6, atol=1e-8)


def test_early_stopping_is_differentiated_as_run():
    """More steps allowed than taken: the loop stops at the same place and has the same derivative."""

    def run(theta, max_steps):
        return nestor.argmin(
            lambda x: (x - theta) ** 2 * theta, 0.0, solver=nestor.GradientDescent(nestor.FixedStep(0.2)),
            adjoint=nestor.Unroll(), tol=1e-3, max_steps=max_steps,
        )  # fmt: skip

    got = [jax.jit(jax.value_and_grad(lambda t, n=n: run(t, n)))(1.1) for n in (40, 200)]
    assert got[0] == got[1]
    np.testing.assert_allclose(got[0][1], 1.0, atol=5e-3)


def test_truncation_bias_shrinks_with_the_number_of_steps():
    """Picard on a linear contraction: the bias of k turns is rate^k of the derivative, exactly."""
    rate, errors = 0.5, []
    for k in (1, 4):

        def y(b, k=k):
            options = {"solver": nestor.Picard(), "adjoint": nestor.Truncate(last=k), "tol": 1e-12}
            return nestor.fixed_point(lambda x: rate * x + b, 0.0, **options).x

        forward, reverse = jax.jit(lambda b, y=y: (jax.jacfwd(y)(b), jax.grad(y)(b)))(1.0)
        np.testing.assert_allclose(forward, reverse, rtol=1e-12)
        errors.append(abs(float(reverse) - 2.0) / 2.0)
    np.testing.assert_allclose(errors, [rate**k for k in (1, 4)], rtol=1e-6)


def test_one_step_is_the_partial_derivative_of_the_step():
    """For Picard T_b, for gradient descent -a f_xb: what the formula of the paper says, to the digit."""
    b = 1.3
    x = float(nestor.fixed_point(lambda x: jnp.cos(b * x), 0.5, tol=1e-12).x)

    def picard(b):
        options = {"solver": nestor.Picard(0.7), "adjoint": nestor.OneStep(), "tol": 1e-12}
        return nestor.fixed_point(lambda x: jnp.cos(b * x), 0.5, **options).x

    np.testing.assert_allclose(jax.jit(jax.grad(picard))(b), -0.7 * x * np.sin(b * x), rtol=1e-8)
    descent = lambda b: nestor.argmin(  # noqa: E731
        lambda x: 0.5 * (x - b**2) ** 2, 0.0, adjoint=nestor.OneStep(),
        solver=nestor.GradientDescent(nestor.FixedStep(0.3)), tol=1e-12,
    )  # fmt: skip
    np.testing.assert_allclose(jax.jit(jax.grad(descent))(b), 0.3 * 2 * b, rtol=1e-8)


@pytest.mark.parametrize("adjoint", [nestor.Implicit(), nestor.OneStep(), nestor.Truncate(last=2)], ids=repr)
def test_the_start_is_a_constant_for_those_who_forget_it(adjoint):
    def y(x0):
        return nestor.fixed_point(
            lambda x: 0.5 * jnp.cos(x), x0, adjoint=adjoint, solver=nestor.Picard(), max_steps=60
        ).x

    forward, reverse = jax.jit(lambda x0: (jax.jacfwd(y)(x0), jax.grad(y)(x0)))(0.4)
    assert float(forward) == 0.0
    assert float(reverse) == 0.0


def temporary_memory(adjoint, max_steps):
    """Bytes of temporaries of a compiled reverse pass over a state of 4000 numbers."""

    def loss(b):
        x = nestor.fixed_point(
            lambda x: 0.9 * jnp.sin(x) + b, jnp.zeros(4000), solver=nestor.Picard(), adjoint=adjoint,
            max_steps=max_steps,
        ).x  # fmt: skip
        return jnp.sum(x**2)

    compiled = jax.jit(jax.grad(loss)).lower(jnp.zeros(4000)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_of_a_reverse_pass():
    implicit = [temporary_memory(nestor.Implicit(nestor.Neumann(terms=5)), n) for n in (10, 400)]
    unroll = [temporary_memory(nestor.Unroll(), n) for n in (100, 400)]
    checkpoint = [temporary_memory(nestor.Checkpoint(), n) for n in (100, 400)]
    state = 4000 * 8
    assert implicit[0] == implicit[1]
    assert 3.5 < unroll[1] / unroll[0] < 4.5  # linear in max_steps
    assert unroll[1] > 400 * state
    assert checkpoint[1] < 0.5 * unroll[1]
    assert checkpoint[1] < 3 * checkpoint[0]  # about the root of max_steps
