"""g(x, y) = (1 + x²) y²/2 - sin(x) y has min_y g = -sin²x / (2 (1 + x²)): all orders, all modes, all adjoints."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nestor

X = 0.7
PUBLISHED = (-0.139267, -0.199833, 0.448389, 0.863533)


def g(x, y):
    return 0.5 * (1.0 + x**2) * y**2 - jnp.sin(x) * y


def value(x):
    return -(jnp.sin(x) ** 2) / (2.0 * (1.0 + x**2))


def point(x):
    return jnp.sin(x) / (1.0 + x**2)


def towers(f):
    """f and its first three derivatives, by forward mode on a closed form."""
    return [f, jax.jacfwd(f), jax.jacfwd(jax.jacfwd(f)), jax.jacfwd(jax.jacfwd(jax.jacfwd(f)))]


VALUE = [float(f(X)) for f in towers(value)]
POINT = [float(f(X)) for f in towers(point)]
SLOW = pytest.mark.slow
OPTIONS = {"solver": nestor.Newton(), "tol": 1e-10, "max_steps": 20}


def functions(adjoint, **options):
    """The least value three ways: by `minimum`, by `argmin` and g; and the minimizer."""
    options = {**OPTIONS, **options, "adjoint": adjoint}

    def by_minimum(x):
        return nestor.minimum(lambda y: g(x, y), 0.0, **options)

    def by_argmin(x):  # [value, minimizer]
        y = nestor.argmin(lambda y: g(x, y), 0.0, **options)
        return jnp.stack([g(x, y), y])

    return by_minimum, by_argmin


def orders(f, modes):
    """f and its derivatives at X from one solve; modes from the inside out: "rf" is forward over reverse."""

    def differentiate(h, mode):
        def higher(x):
            top, lower = {"f": jax.jacfwd, "r": jax.jacrev}[mode](h, has_aux=True)(x)
            return top, [*lower, top]

        return higher

    def start(x):
        value = f(x)
        return value, [value]

    return jax.jit(functools.reduce(differentiate, modes, start))(X)[1]


def check(f, modes, accuracy=1e-6):
    got = orders(f, modes)
    for order, derivative in enumerate(got):
        want = [VALUE[order], POINT[order]] if derivative.shape == (2,) else VALUE[order]
        np.testing.assert_allclose(derivative, want, atol=accuracy, rtol=0, err_msg=f"{modes}, order {order}")


def test_the_closed_form_is_the_published_one():
    np.testing.assert_allclose(VALUE, PUBLISHED, atol=6e-7)


@pytest.mark.parametrize(
    "modes", ["fff", "rff", "rrr", "frf", *(pytest.param(m, marks=SLOW) for m in ("rrf", "ffr"))]
)
def test_every_mode_to_the_third_order(modes):
    by_minimum, by_argmin = functions(nestor.Implicit())
    check(by_argmin, modes)
    if modes in ("fff", "rrr", "rff"):
        check(by_minimum, modes)


@pytest.mark.parametrize(
    "linear_solver",
    [
        nestor.Cholesky(),
        nestor.CG(),
        nestor.Neumann(terms=40),
        # The others cross at the same place, `custom_linear_solve`, and have first derivatives daily elsewhere.
        *(
            pytest.param(solver, marks=SLOW)
            for solver in (
                nestor.LU(),
                nestor.GMRES(),
                nestor.BiCGStab(),
                nestor.Neumann(terms=40, scale=0.5),
                nestor.Nystrom(rank=1),
            )
        ),
    ],
    ids=repr,
)
def test_every_linear_solver_to_the_third_order(linear_solver):
    by_minimum, by_argmin = functions(nestor.Implicit(linear_solver))
    check(by_argmin, "rff")
    check(by_minimum, "rrr")


@pytest.mark.parametrize(
    "adjoint",
    [
        nestor.Unroll(),
        *(
            pytest.param(a, marks=pytest.mark.slow)
            for a in (nestor.Checkpoint(), nestor.Checkpoint(levels=1))
        ),
    ],
    ids=repr,
)
def test_through_the_steps_to_the_third_order(adjoint):
    by_minimum, by_argmin = functions(adjoint, max_steps=4)
    check(by_argmin, "rff")
    check(by_minimum, "rr")


@pytest.mark.slow
@pytest.mark.parametrize("modes", ["rr", "frf", "rrf"])
@pytest.mark.parametrize(
    "adjoint", [nestor.Unroll(), nestor.Checkpoint(), nestor.Checkpoint(levels=1)], ids=repr
)
def test_every_mode_through_the_steps(adjoint, modes):
    check(functions(adjoint, max_steps=4)[1], modes)


def test_forward_has_every_forward_order():
    by_minimum, by_argmin = functions(nestor.Forward())
    check(by_argmin, "fff")
    check(by_minimum, "rff")  # the envelope theorem asks no reverse mode of the steps


REVERSE = {
    "eager": jax.grad,
    "jit": lambda y: jax.jit(jax.grad(y)),
    "vmap": lambda y: lambda x: jax.vmap(jax.grad(y))(jnp.stack([x, x])),
    "forward over reverse": lambda y: jax.jacfwd(jax.grad(y)),
    "reverse over forward": lambda y: jax.grad(jax.jacfwd(y)),
}


@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=SLOW if how in ("jit", "vmap") else ()) for how in REVERSE]
)
def test_forward_refuses_reverse_while_tracing(how):
    _, by_argmin = functions(nestor.Forward())
    y = lambda x: by_argmin(x)[1]  # noqa: E731
    with pytest.raises(nestor.CannotDifferentiate, match="forward"):
        jax.eval_shape(REVERSE[how](y), X)
    with pytest.raises(nestor.CannotDifferentiate, match="forward"):
        REVERSE[how](y)(jnp.asarray(X))


def test_finite_difference_to_its_accuracy():
    """First order to h⁴ + tol/h; the envelope theorem makes the first derivative of the value exact."""
    by_minimum, by_argmin = functions(nestor.FiniteDifference(), tol=1e-13)
    check(by_argmin, "f", 1e-9)
    check(by_argmin, "r", 1e-9)
    check(by_minimum, "rf", 1e-9)


@pytest.mark.parametrize(
    "adjoint", [nestor.OneStep(), pytest.param(nestor.Truncate(last=2), marks=SLOW)], ids=repr
)
def test_the_last_steps_of_newton_are_nearly_exact(adjoint):
    """One Newton step at the answer has the exact first derivative, in either mode."""
    by_minimum, by_argmin = functions(adjoint)
    check(by_argmin, "f")
    check(by_argmin, "r")
    check(by_minimum, "rf")  # its second derivative needs dy/dx alone


@pytest.mark.parametrize(
    "solver",
    [nestor.BFGS(), *(pytest.param(s, marks=SLOW) for s in (nestor.GradientDescent(), nestor.NewtonCG()))],
    ids=repr,
)
def test_the_implicit_derivative_does_not_know_the_solver(solver):
    _, by_argmin = functions(nestor.Implicit(), solver=solver, max_steps=300)
    check(by_argmin, "rff")


def test_the_value_does_not_need_the_adjoint_at_first_order():
    """By the envelope theorem: even one step of a bad solver's derivative is not asked for."""
    by_minimum, _ = functions(
        nestor.OneStep(), solver=nestor.GradientDescent(nestor.FixedStep(0.3)), max_steps=300
    )
    np.testing.assert_allclose(jax.jit(jax.grad(by_minimum))(X), VALUE[1], atol=1e-9)
