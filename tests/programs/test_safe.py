"""`safe_roots`: the same values to the last bit, and derivatives that are finite where optax alone has NaN."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nestor
from nestor.programs import hoist, safe_roots

OPTIMIZERS = {
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
    "nesterov": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
    "adam": optax.adam,
    "adamw": optax.adamw,
    "nadam": optax.nadam,
    "adamax": optax.adamax,
    "amsgrad": optax.amsgrad,
    "adabelief": optax.adabelief,
    "yogi": optax.yogi,
    "radam": optax.radam,
    "rmsprop": optax.rmsprop,
    "rmsprop as in torch": lambda rate: optax.rmsprop(rate, eps_in_sqrt=False, centered=True),
    "adagrad": optax.adagrad,
    "adadelta": optax.adadelta,
    "lamb": optax.lamb,
    "lars": optax.lars,
    "lion": optax.lion,
    "novograd": optax.novograd,
    "clipped": lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate)),
    "clipped leaf by leaf": lambda rate: optax.chain(
        optax.masked(optax.clip_by_global_norm(1.0), {"w": False, "b": False, "idle": True}), optax.sgd(rate)
    ),
}
# Those whose derivatives are NaN without the treatment: a root of zero, a norm of a leaf without a gradient, a
# branch that was not taken.
NAN_ALONE = {"adam", "adamw", "nadam", "amsgrad", "radam", "rmsprop as in torch", "lamb", "novograd"}
NAN_ALONE |= {"clipped leaf by leaf"}
QUICK = NAN_ALONE - {"adamw", "nadam"} | {"sgd", "rmsprop", "lion", "yogi"}  # every day
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in OPTIMIZERS]

FEATURES = np.random.default_rng(0).normal(size=(12, 5)) * [1.0, 1.0, 0.0, 0.0, 0.0]  # three are always zero
LABELS = np.where(FEATURES[:, 0] + 0.3 * FEATURES[:, 1] > 0, 1.0, 0.0)
START = {"w": jnp.array([0.3, -0.2, 0.0]), "b": jnp.array(0.1), "idle": jnp.zeros(2)}
HYPER = jnp.array([0.05, 0.1])  # the learning rate, and the strength of a penalty


def loss(params, strength):
    scores = FEATURES @ jnp.concatenate([params["w"], params["idle"]]) + params["b"]
    return jnp.mean(jnp.logaddexp(0.0, scores) - LABELS * scores) + strength * jnp.sum(params["w"] ** 2)


def update_program(make, rate):
    """The update of a transformation as a program, what it captured, and the state at the start."""
    transformation = make(rate)
    state = jax.tree.map(jnp.asarray, transformation.init(START))

    def update(gradient, state, params):
        with jax.numpy_dtype_promotion("standard"):
            moves, after = transformation.update(gradient, state, params)
        return moves, jax.tree.map(lambda new, old: new.astype(old.dtype), after, state)

    return *hoist(update, START, state, START), state


def trained(make, treatment):
    """The mean loss of twenty steps, a function of the learning rate and the strength."""

    def run(hyper):
        program, captured, state = update_program(make, hyper[0])
        program = treatment(program)

        def step(carry, _):
            params, state = carry
            moves, state = program(captured, jax.grad(loss)(params, hyper[1]), state, params)
            params = jax.tree.map(jnp.add, params, moves)
            return (params, state), loss(params, hyper[1])

        return jnp.mean(jax.lax.scan(step, (START, state), None, length=20)[1])

    return run


def difference(f, x, h=1e-5):
    """Central differences of fourth order."""
    near = [f(x + h * e) - f(x - h * e) for e in jnp.eye(x.size)]
    far = [f(x + 2 * h * e) - f(x - 2 * h * e) for e in jnp.eye(x.size)]
    return (8 * np.asarray(near) - np.asarray(far)) / (12 * h)


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_through_twenty_steps(name):
    make = OPTIMIZERS[name]

    @jax.jit
    def derivatives(hyper):
        value, push = jax.linearize(trained(make, safe_roots), hyper)
        (reverse,) = jax.linear_transpose(push, hyper)(jnp.ones(()))
        return value, jax.vmap(push)(jnp.eye(2)), reverse

    value, forward, reverse = derivatives(HYPER)
    assert np.all(np.isfinite(reverse))
    np.testing.assert_allclose(reverse, difference(jax.jit(trained(make, safe_roots)), HYPER), rtol=1e-6)
    np.testing.assert_allclose(forward, reverse, rtol=1e-10)
    value_alone, reverse_alone = jax.jit(jax.value_and_grad(trained(make, lambda program: program)))(HYPER)
    assert value_alone == value, "the run is not the same"
    if name in NAN_ALONE:
        assert np.any(np.isnan(reverse_alone)), "optax has cured it: say so here"
    else:
        np.testing.assert_allclose(reverse_alone, reverse, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_values_are_the_same_to_the_last_bit(name):
    program, captured, state = update_program(OPTIMIZERS[name], HYPER[0])
    safe, params = safe_roots(program), START
    step, safe_step = jax.jit(program), jax.jit(safe)
    for _ in range(4):
        gradient = jax.grad(loss)(params, HYPER[1])
        moves, after = step(captured, gradient, state, params)
        for got, want in zip(
            jax.tree.leaves(safe_step(captured, gradient, state, params)),
            jax.tree.leaves((moves, after)),
            strict=True,
        ):
            assert got.dtype == want.dtype
            np.testing.assert_array_equal(got, want)
        params, state = jax.tree.map(jnp.add, params, moves), after


def test_through_the_front_door():
    """An unrolled solve with plain `optax.adam`, one unknown of which never has a gradient."""

    def end(rate):
        x = nestor.argmin(
            lambda x: (x[0] - 1.0) ** 2 * (1.0 + x[0] ** 2),
            jnp.array([0.2, 0.0]),
            solver=optax.adam(rate),
            adjoint=nestor.Unroll(),
            max_steps=20,
            tol=0.0,
            on_failure="keep",
        )
        return x[0]

    value, slope = jax.jit(jax.value_and_grad(end))(0.01)
    run = jax.jit(end)
    np.testing.assert_allclose(slope, (run(0.01 + 1e-6) - run(0.01 - 1e-6)) / 2e-6, rtol=1e-6)
    assert value != 0.2


# --- the treatment itself ------------------------------------------------------------------------------


def safe_of(fun, *args):
    program, captured = hoist(fun, *args)
    return functools.partial(safe_roots(program), captured)


X = jnp.array([0.0, 0.5, 2.0])


def looped(body):
    """Places where a root may stand: each computes `body` of a vector."""
    return {
        "plain": body,
        "jit": jax.jit(body),
        "jit in jit": jax.jit(lambda x: jax.jit(body)(x)),
        "scan": lambda x: jax.lax.scan(lambda c, _: (c, body(x) + 0 * c), 0 * x, None, length=2)[1][1],
        "while": lambda x: jax.lax.while_loop(lambda s: s[0] < 1, lambda s: (s[0] + 1, body(x)), (0, x))[1],
        "cond": lambda x: jax.lax.cond(jnp.sum(x) > 0, body, lambda x: x, x),
        "switch": lambda x: jax.lax.switch(1, [jnp.sin, body], x),
        "checkpoint": jax.checkpoint(body),
        "vmap": jax.vmap(body),
    }


@pytest.mark.parametrize("place", looped(jnp.sqrt))
def test_it_reaches_into(place):
    safe = safe_of(looped(lambda x: jnp.sqrt(x**2) + x)[place], X)
    value, tangent = jax.jit(lambda x: jax.jvp(safe, (x,), (jnp.ones(3),)))(X)
    np.testing.assert_array_equal(value, jnp.sqrt(X**2) + X)
    np.testing.assert_allclose(tangent, [1.0, 2.0, 2.0])
    if place != "while":
        slope = jax.jit(jax.grad(lambda x: jnp.sum(safe(x))))(X)
        np.testing.assert_allclose(slope, [1.0, 2.0, 2.0])


ROOTS = {
    "sqrt": (jnp.sqrt, lambda x: 0.5 * x**-0.5),
    "rsqrt": (jax.lax.rsqrt, lambda x: -0.5 * x**-1.5),
    "cbrt": (jnp.cbrt, lambda x: x ** (-2 / 3) / 3),
    "power": (lambda x: x**0.3, lambda x: 0.3 * x**-0.7),
    "reciprocal": (lambda x: x**-2, lambda x: -2 * x**-3),
    "quotient": (lambda x: 2.0 / x, lambda x: -2 / x**2),
    "traced power": (lambda x: x ** (0.0 * x + 0.5), lambda x: 0.5 * x**-0.5),
}


@pytest.mark.parametrize("name", ROOTS)
def test_the_slope_is_zero_at_zero_and_the_usual_one_elsewhere(name):
    root, slope = ROOTS[name]
    safe = safe_of(root, X)
    want = np.append(0.0, slope(np.asarray(X)[1:]))
    np.testing.assert_array_equal(safe(X), root(X))
    for derivative in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(np.diag(jax.jit(derivative(safe))(X)), want, rtol=1e-12)
    second = jax.jit(jax.jacrev(jax.jacfwd(lambda x: jnp.sum(safe(x)))))(X)
    away = jax.hessian(lambda x: jnp.sum(root(x)))(X[1:])
    np.testing.assert_allclose(np.diag(second), np.append(0.0, np.diag(away)), rtol=1e-9)


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0), (1, 0)])
def test_lanes_of_operands_of_different_shapes(axes):
    f = lambda a, b: jnp.sum(a * b / jnp.sqrt(b) + b**a)  # noqa: E731
    a, b = jnp.arange(1.0, 10.0).reshape(3, 3), jnp.linspace(0.5, 2.0, 9).reshape(3, 3)
    lane = [x if axis is not None else x[0] for x, axis in zip((a, b), axes, strict=True)]
    safe = safe_of(f, a[0], b[0])
    got = jax.jit(jax.vmap(jax.grad(safe, argnums=(0, 1)), axes))(*lane)
    want = jax.vmap(jax.grad(f, argnums=(0, 1)), axes)(*lane)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    inside = jax.jit(jax.grad(lambda a, b: jnp.sum(jax.vmap(safe, axes)(a, b)), argnums=(0, 1)))(*lane)
    wanted = jax.grad(lambda a, b: jnp.sum(jax.vmap(f, axes)(a, b)), argnums=(0, 1))(*lane)
    for left, right in zip(inside, wanted, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-12)


def test_a_weight_that_happens_to_be_zero_still_has_a_derivative():
    """d(x y)/dx at a point where its weight is zero: zero now, but its own derivative is not."""
    safe = safe_of(lambda x, y: (x * y) ** 2 / (1.0 + y), 0.0 * X, X + 1)
    f = lambda x, y: jnp.sum(safe(x, y))  # noqa: E731
    plain = lambda x, y: jnp.sum((x * y) ** 2 / (1.0 + y))  # noqa: E731
    for outer, inner in ((jax.jacfwd, jax.jacrev), (jax.jacrev, jax.jacrev), (jax.jacrev, jax.jacfwd)):
        got = jax.jit(outer(inner(f, argnums=(0, 1)), argnums=(0, 1)))(0.0 * X, X + 1)
        want = jax.hessian(plain, argnums=(0, 1))(0.0 * X, X + 1)
        for left, right in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-12)


def test_a_branch_that_is_not_taken_does_no_harm():
    def branched(x):
        factor = jnp.sqrt(jnp.sum(x) - 10.0)  # NaN
        return jnp.where(jnp.sum(x) > 10.0, factor * x / (1.0 + x), x)

    slope = lambda f: jax.jit(jax.grad(lambda x: jnp.sum(f(x))))(X)  # noqa: E731
    assert np.all(np.isnan(slope(branched)))
    np.testing.assert_array_equal(slope(safe_of(branched, X)), np.ones(3))


def test_nan_from_outside_stays_nan():
    safe = safe_of(lambda x: jnp.sqrt(x) * x / (x + 1.0), X)
    slope = jax.grad(lambda x: jnp.sum(safe(x)))(X.at[1].set(jnp.nan))
    np.testing.assert_array_equal(np.isnan(slope), [False, True, False])


def test_a_rule_of_its_own_is_kept():
    @jax.custom_jvp
    def root(x):
        return jnp.sqrt(x)

    root.defjvps(lambda t, out, x: 7.0 * t)
    np.testing.assert_array_equal(jax.grad(safe_of(lambda x: jnp.sum(root(x)), X))(X), np.full(3, 7.0))


def test_one_program_has_one_safe_program():
    programs = [hoist(lambda x, a=a: jnp.sqrt(a * x), X)[0] for a in (X, 2 * X)]
    assert programs[0] is programs[1]
    safe = safe_roots(programs[0])
    assert safe is safe_roots(programs[1])
    assert safe is not programs[0]
    assert safe_roots(safe) is safe
    assert safe.out_shape == programs[0].out_shape
    harmless = hoist(lambda x: jnp.sin(x) + 2.0 * x, X)[0]
    assert safe_roots(harmless) is harmless


def test_a_treated_solve_is_found_again():
    """Two optax solvers made alike are one program, treated or not, for everything that is compiled."""
    from nestor.solvers._optax import as_solver

    first, second = (as_solver("minimize", optax.adam(jnp.asarray(rate)), X) for rate in (0.1, 0.2))
    assert first.update is second.update
    assert safe_roots(first.update) is first.update
