"""The driver: caches and what must never be stale, lanes, statuses, reports, policies, dtypes and trees."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nestor
from nestor import Status
from tests.compiles import compilations

NEWTON = nestor.Newton()
DESCENT = nestor.GradientDescent(nestor.FixedStep(0.25))


def bowl(x, a):
    return jnp.sum(jnp.cosh(x - a)) + 0.5 * jnp.sum(x**2)


def bowl_minimum(a):
    """By bisection of sinh(x - a) + x."""
    low, high = min(0.0, a) - 1.0, max(0.0, a) + 1.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if np.sinh(middle - a) + middle > 0 else (middle, high)
    return (low + high) / 2


def slope(a):
    c = np.cosh(bowl_minimum(a) - a)
    return c / (c + 1.0)


def argmin(a, x0=0.0, **options):
    """The minimizer of the bowl, through a fresh closure."""
    return nestor.argmin(lambda x: bowl(x, a), x0, **{"solver": NEWTON, "tol": 1e-10, **options})


# --- compiled once ---------------------------------------------------------------------------------

CALLS = {
    "minimize": lambda a: nestor.minimize(lambda x: bowl(x, a), jnp.zeros(2)),
    "minimize, optax": lambda a: nestor.minimize(lambda x: bowl(x, a), jnp.zeros(2), solver=optax.sgd(0.2)),
    "minimize, history": lambda a: nestor.minimize(
        lambda x: bowl(x, a), jnp.zeros(2), solver=NEWTON, history=True
    ),
    "minimize, traced rate": lambda a: nestor.minimize(
        lambda x: bowl(x, a), jnp.zeros(2), solver=nestor.GradientDescent(nestor.FixedStep(0.2 + 0.01 * a))
    ),
    "minimize, Python float x0": lambda a: nestor.minimize(lambda x: bowl(x, a), float(a), solver=NEWTON),
    "argmin": argmin,
    "minimum": lambda a: nestor.minimum(lambda x: bowl(x, a), 0.0, solver=NEWTON),
    "find_root": lambda a: nestor.find_root(lambda z: z**3 - a - 8.0, 1.0),
    "fixed_point": lambda a: nestor.fixed_point(lambda z: 0.5 * jnp.cos(z + a), 1.0),
    "least_squares": lambda a: nestor.least_squares(lambda w: jnp.exp(w) - 2.0 - a, jnp.zeros(2)),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_second_call_with_other_data_compiles_nothing(name):
    call, data = CALLS[name], [jnp.asarray(0.3), jnp.asarray(0.7)]
    call(data[0])
    with compilations() as count:
        call(data[1])
    assert count.number == 0


DERIVATIVES = {
    "grad": lambda a: jax.grad(lambda a: argmin(a))(a),
    "jvp": lambda a: jax.jvp(lambda a: argmin(a), (a,), (a,)),
    "hessian": lambda a: jax.hessian(lambda a: argmin(a))(a),
    "value_and_grad of minimum": lambda a: jax.value_and_grad(lambda a: CALLS["minimum"](a))(a),
    "vmap": lambda a: jax.vmap(lambda b: argmin(a + b))(jnp.arange(3.0)),
    "vmap of grad": lambda a: jax.vmap(jax.grad(lambda b: argmin(a * b)))(jnp.arange(3.0)),
    "grad of vmap": lambda a: jax.grad(lambda a: jnp.sum(jax.vmap(lambda b: argmin(a + b))(jnp.arange(3.0))))(
        a
    ),
    "grad, Forward": lambda a: jax.jacfwd(lambda a: argmin(a, adjoint=nestor.Forward()))(a),
    "grad, Unroll": lambda a: jax.grad(lambda a: argmin(a, adjoint=nestor.Unroll(), max_steps=8))(a),
    "grad, nested": lambda a: jax.grad(
        lambda a: nestor.argmin(lambda u: (u - a) ** 2 + argmin(u) ** 2, 0.0, solver=NEWTON)
    )(a),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_a_second_derivative_with_fresh_closures_compiles_nothing(name):
    call = DERIVATIVES[name]
    call(jnp.asarray(0.3))
    with compilations() as count:
        call(jnp.asarray(0.7))
    assert count.number == 0


def test_a_jitted_gradient_compiles_once():
    run = jax.jit(jax.grad(argmin))
    run(0.3)
    with compilations() as count:
        got = run(0.7)
    assert count.number == 0
    np.testing.assert_allclose(got, slope(0.7), rtol=1e-8)


def test_settings_that_change_the_solve_are_not_shared():
    """tol, max_steps, the solver's numbers: each has its own result."""
    loose = argmin(1.0, tol=1e-1)
    tight = argmin(1.0, tol=1e-10)
    assert loose != tight
    few = nestor.minimize(lambda x: bowl(x, 1.0), 0.0, solver=DESCENT, max_steps=2, raise_on_failure=False)
    many = nestor.minimize(lambda x: bowl(x, 1.0), 0.0, solver=DESCENT, max_steps=5, raise_on_failure=False)
    slow = nestor.minimize(
        lambda x: bowl(x, 1.0), 0.0, solver=nestor.GradientDescent(nestor.FixedStep(0.125)), max_steps=5,
        raise_on_failure=False,
    )  # fmt: skip
    assert len({float(few.x), float(many.x), float(slow.x)}) == 3


# --- never stale -----------------------------------------------------------------------------------

TARGET = 0.0
CELL = {"a": 0.0}


def uses_global(x):
    return bowl(x, TARGET)


def uses_cell(x):
    return bowl(x, CELL["a"])


def transforms():
    """Ways to run a solve of one function of the start, all of them anew at each call."""
    return {
        "eager": lambda fun: nestor.argmin(fun, 0.0, solver=NEWTON, tol=1e-10),
        "jit": lambda fun: jax.jit(lambda s: nestor.argmin(fun, s, solver=NEWTON, tol=1e-10))(0.0),
        "vmap": lambda fun: jax.vmap(lambda s: nestor.argmin(fun, s, solver=NEWTON, tol=1e-10))(jnp.zeros(2))[1],
        "grad": lambda fun: jax.value_and_grad(
            lambda s: nestor.argmin(fun, s, solver=NEWTON, tol=1e-10)
        )(0.0)[0],
        "minimum": lambda fun: nestor.minimize(fun, 0.0, solver=NEWTON, tol=1e-10).x,
    }  # fmt: skip


@pytest.mark.parametrize("how", transforms())
def test_a_rebound_global_is_seen(how):
    global TARGET
    run = transforms()[how]
    for TARGET in (0.5, 2.0, jnp.asarray(1.0), np.float64(0.25), 0.5):
        np.testing.assert_allclose(
            run(uses_global), bowl_minimum(float(TARGET)), atol=1e-8, err_msg=str(TARGET)
        )


def test_a_changed_cell_is_seen():
    for CELL["a"] in (0.5, 2.0, jnp.asarray(1.0), 0.5):
        got = nestor.argmin(uses_cell, 0.0, solver=NEWTON, tol=1e-10)
        np.testing.assert_allclose(got, bowl_minimum(float(CELL["a"])), atol=1e-8)


def test_a_numpy_array_changed_in_place_is_seen():
    a = np.array([0.5])
    fun = lambda x: bowl(x, a)  # noqa: E731
    for value in (0.5, 2.0, 0.5):
        a[:] = value
        got = nestor.argmin(fun, jnp.zeros(1), solver=NEWTON, tol=1e-10)
        np.testing.assert_allclose(got[0], bowl_minimum(value), atol=1e-8)


def test_the_same_function_object_over_rebound_tracers():
    """A closure over a variable that holds another tracer at each call: of grad, of vmap, of a scan."""
    a = 0.0
    fun = lambda x: bowl(x, a)  # noqa: E731

    def y(value):
        nonlocal a
        a = value
        return nestor.argmin(fun, 0.0, solver=NEWTON, tol=1e-10)

    np.testing.assert_allclose(y(1.0), bowl_minimum(1.0), atol=1e-8)
    for value in (0.5, 2.0):
        np.testing.assert_allclose(jax.grad(y)(value), slope(value), rtol=1e-8)
        np.testing.assert_allclose(jax.jit(jax.grad(y))(value), slope(value), rtol=1e-8)
        np.testing.assert_allclose(jax.jit(y)(value), bowl_minimum(value), atol=1e-8)
    np.testing.assert_allclose(
        jax.vmap(y)(jnp.array([0.5, 2.0])), [bowl_minimum(0.5), bowl_minimum(2.0)], atol=1e-8
    )

    def twice(value):
        return y(value) * y(2.0 * value)

    want = slope(0.5) * bowl_minimum(1.0) + bowl_minimum(0.5) * 2.0 * slope(1.0)
    np.testing.assert_allclose(jax.jit(jax.grad(twice))(0.5), want, rtol=1e-8)
    _, ys = jax.lax.scan(lambda c, value: (c, y(value)), 0.0, jnp.array([0.5, 2.0]))
    np.testing.assert_allclose(ys, [bowl_minimum(0.5), bowl_minimum(2.0)], atol=1e-8)

    def chained(start):
        return jax.lax.scan(lambda c, _: (y(c), None), start, None, length=2)[0]

    want = slope(bowl_minimum(0.5)) * slope(0.5)
    np.testing.assert_allclose(jax.grad(chained)(0.5), want, rtol=1e-8)


def test_another_start_is_seen():
    for start in (-0.5, 0.5, np.float64(-0.5), jnp.asarray(0.5)):
        got = nestor.minimize(lambda x: (x**2 - 1.0) ** 2, start, solver=NEWTON, tol=1e-10).x
        assert float(got) == pytest.approx(np.sign(float(start)))


# --- near-identical programs -----------------------------------------------------------------------


def with_slope(c):
    """The square, with c times its derivative."""

    @jax.custom_jvp
    def square(x):
        return x**2

    square.defjvps(lambda t, out, x: c * 2.0 * x * t)
    return square


def with_slope_backwards(c):
    @jax.custom_vjp
    def square(x):
        return x**2

    square.defvjp(lambda x: (x**2, x), lambda x, t: (c * 2.0 * x * t,))
    return square


def test_the_same_primal_with_another_rule_is_solved_by_its_own_rule():
    """square(x) - 2x has its stationary point, as the rule sees it, at 1/c."""
    solver = nestor.GradientDescent(nestor.FixedStep(0.2))
    for make in (with_slope, with_slope_backwards):
        for c in (1.0, 2.0, 0.5, 1.0):
            square = make(c)
            solution = nestor.minimize(
                lambda x, square=square: square(x) - 2.0 * x,
                0.0,
                solver=solver,
                tol=1e-10,
                raise_on_failure=False,
            )
            assert solution.success
            np.testing.assert_allclose(solution.x, 1.0 / c, atol=1e-8)


def test_fifty_programs_of_one_literal_each():
    """Fixed points of z = z/2 + c for fifty c written into the code, none confused with another."""
    numbers = np.linspace(0.1, 5.0, 50)
    run = jax.jit(
        lambda: [
            nestor.fixed_point(
                lambda z, c=c: 0.5 * z + c, 0.0, solver=nestor.Picard(), tol=1e-12, max_steps=60
            ).x
            for c in numbers
        ]
    )
    np.testing.assert_allclose(run(), 2 * numbers, atol=1e-11)


@pytest.mark.parametrize(
    ("one", "other", "x_one", "x_other"),
    [
        (lambda x: jnp.sum((x - 1.0) ** 2), lambda x: jnp.sum((x - 1.5) ** 2), (1.0, 1.0), (1.5, 1.5)),
        (
            lambda x: jnp.sum((jnp.cumsum(jnp.outer(x, jnp.ones(2)), 0) - 1.0) ** 2),
            lambda x: jnp.sum((jnp.cumsum(jnp.outer(x, jnp.ones(2)), 1) - 1.0) ** 2),
            (1.0, 0.0),
            (0.6, 0.6),
        ),
        (
            lambda x: jnp.sum(jnp.exp(x) - x),
            lambda x: jnp.sum(jnp.exp(x) - 2 * x),
            (0.0, 0.0),
            (np.log(2),) * 2,
        ),
        (
            lambda x: jnp.sum(jnp.cosh(x) - x),
            lambda x: jnp.sum(jnp.square(x) - x),
            (np.arcsinh(1.0),) * 2,
            (0.5, 0.5),
        ),
    ],
    ids=["literal", "axis", "factor", "primitive"],
)
def test_programs_that_differ_in_one_thing(one, other, x_one, x_other):
    for fun, want in [(one, x_one), (other, x_other), (one, x_one)]:
        got = nestor.minimize(fun, jnp.full(2, 0.1), solver=NEWTON, tol=1e-9).x
        np.testing.assert_allclose(got, want, atol=1e-7)


# --- lanes -----------------------------------------------------------------------------------------


def lane(a, **options):
    """The least a x - log x is at 1/a; for a < 0 the objective is NaN at the start."""
    return nestor.minimize(
        lambda x: a * x - jnp.log(x + 0.0 * jnp.sqrt(a)),
        1.0,
        solver=NEWTON,
        raise_on_failure=False,
        max_steps=60,
        **options,
    )


def test_every_lane_has_its_own_status_and_stops_by_itself():
    data = jnp.array([0.5, -1.0, 2.0, 0.25])
    batch = jax.vmap(lane)(data)
    singles = [lane(a) for a in data]
    assert batch.code.shape == (4,)
    np.testing.assert_array_equal(batch.code, [s.code for s in singles])
    np.testing.assert_array_equal(batch.stats.evaluations, [s.stats.evaluations for s in singles])
    np.testing.assert_allclose(batch.x, [s.x for s in singles], rtol=1e-12)
    np.testing.assert_array_equal(batch.success, [True, False, True, True])
    assert batch.code[1] == Status.NOT_FINITE
    np.testing.assert_allclose(batch.x[jnp.array([0, 2, 3])], 1 / data[jnp.array([0, 2, 3])], rtol=1e-6)
    jitted = jax.jit(jax.vmap(lane))(data)
    np.testing.assert_array_equal(jitted.code, batch.code)


def test_a_failing_lane_leaves_the_derivatives_of_others_right():
    """Implicit and Unroll, forwards and backwards: NaN only where the lane failed."""
    data = jnp.array([0.5, -1.0, 2.0])
    for adjoint in (nestor.Implicit(), nestor.Unroll()):
        y = lambda a, adjoint=adjoint: nestor.argmin(  # noqa: E731
            lambda x: a * x - jnp.log(x), 1.0, solver=NEWTON, tol=1e-10, max_steps=20, adjoint=adjoint
        )
        forward, reverse = jax.jit(
            lambda d, y=y: (jax.vmap(jax.jacfwd(y))(d), jax.grad(lambda d: jnp.sum(jax.vmap(y)(d)))(d))
        )(data)
        for got in (forward, reverse):
            np.testing.assert_allclose(got[jnp.array([0, 2])], [-4.0, -0.25], rtol=1e-6, err_msg=str(adjoint))
            assert np.isnan(got[1]), adjoint


def test_compositions_of_transformations():
    data = jnp.array([0.5, 2.0])
    want = [slope(0.5), slope(2.0)]
    for run in (
        jax.jit(jax.vmap(jax.grad(argmin))),
        jax.grad(lambda d: jnp.sum(jax.jit(jax.vmap(argmin))(d))),
        lambda d: jax.jvp(jax.jit(jax.vmap(argmin)), (d,), (jnp.ones(2),))[1],
        lambda d: jax.lax.map(jax.grad(argmin), d),
    ):
        np.testing.assert_allclose(run(data), want, rtol=1e-8)


ALL_FOUR = {
    "minimize": lambda a: nestor.minimize(lambda x: bowl(x, a), 0.0, solver=NEWTON, tol=1e-10),
    "find_root": lambda a: nestor.find_root(lambda x: jnp.sinh(x - a) + x, 0.0, tol=1e-10),
    "fixed_point": lambda a: nestor.fixed_point(
        lambda x: x - 0.4 * (jnp.sinh(x - a) + x), 0.0, solver=nestor.Picard(), tol=1e-10
    ),
    "least_squares": lambda a: nestor.least_squares(
        lambda x: jnp.stack([jnp.sinh(x - a) + x, jnp.zeros_like(x)]),
        0.0,
        solver=nestor.GaussNewton(),
        tol=1e-10,
    ),
}


@pytest.mark.parametrize("name", ALL_FOUR)
def test_all_kinds_under_all_transformations(name):
    """One equation, sinh(x - a) + x = 0, as four kinds of problem."""
    call = ALL_FOUR[name]
    x = lambda a: call(a).x  # noqa: E731
    data = jnp.array([0.5, 1.0])
    shift = jnp.sinh(bowl_minimum(0.5) - 0.5)
    c, xa = float(np.cosh(bowl_minimum(0.5) - 0.5)), slope(0.5)
    second = float(-shift * (xa - 1.0) ** 2 / (c + 1.0))
    np.testing.assert_allclose(x(0.5), bowl_minimum(0.5), atol=1e-9)
    value, grad, tangent, hessian, batch = jax.jit(
        lambda a: (x(a), jax.grad(x)(a), jax.jvp(x, (a,), (2.0,))[1], jax.hessian(x)(a), jax.vmap(x)(data))
    )(0.5)
    np.testing.assert_allclose(value, bowl_minimum(0.5), atol=1e-9)
    np.testing.assert_allclose(grad, xa, rtol=1e-8)
    np.testing.assert_allclose(tangent, 2 * xa, rtol=1e-8)
    np.testing.assert_allclose(hessian, second, rtol=1e-7)
    np.testing.assert_allclose(batch, [bowl_minimum(0.5), bowl_minimum(1.0)], atol=1e-9)


def test_the_value_is_differentiable_too():
    """Solution.fun has the derivative of the least value, status and counts have none."""
    value = lambda a: ALL_FOUR["minimize"](a).fun  # noqa: E731
    want = -np.sinh(bowl_minimum(0.5) - 0.5)
    np.testing.assert_allclose(jax.grad(value)(0.5), want, rtol=1e-8)
    np.testing.assert_allclose(jax.jacfwd(value)(0.5), want, rtol=1e-8)
    stats = lambda a: ALL_FOUR["minimize"](a).stats.optimality  # noqa: E731
    assert float(jax.grad(stats)(0.5)) == 0.0


# --- status, counts, history -----------------------------------------------------------------------


def test_status_inside_a_trace():
    def run(a):
        solution = nestor.minimize(lambda x: bowl(x, a), 0.0, solver=NEWTON)
        assert not isinstance(solution.status, Status)
        return solution.status, jnp.where(solution.success, solution.x, jnp.nan), solution

    status, x, solution = jax.jit(run)(0.5)
    assert Status(int(status)) is Status.CONVERGED
    np.testing.assert_allclose(x, bowl_minimum(0.5), atol=1e-6)
    assert solution.status is Status.CONVERGED
    assert solution.success is True
    assert status.dtype == jnp.int32


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_max_steps_counts_moves(steps):
    solution = nestor.minimize(
        lambda x: bowl(x, 3.0),
        0.0,
        solver=DESCENT,
        max_steps=steps,
        tol=0.0,
        raise_on_failure=False,
        history=True,
    )
    assert solution.status is Status.OUT_OF_STEPS
    assert int(solution.stats.steps) == steps
    assert int(solution.stats.evaluations) == steps + 1
    assert len(solution.history.value) == steps + 1
    x = 0.0
    for _ in range(steps):
        x -= 0.25 * float(jax.grad(bowl)(x, 3.0))
    np.testing.assert_allclose(solution.x, x, rtol=1e-12)
    np.testing.assert_allclose(solution.fun, bowl(x, 3.0), rtol=1e-12)


def test_max_steps_zero_at_a_solution_is_a_success():
    assert nestor.minimize(lambda x: x**2, 0.0, solver=DESCENT, max_steps=0).success


def test_history_ends_where_the_solve_ended():
    def run(a):
        return nestor.minimize(
            lambda x: bowl(x, a), 0.0, solver=DESCENT, history=True, max_steps=50, tol=1e-6
        )

    eager, traced = run(0.5), jax.jit(run)(0.5)
    count = int(eager.stats.evaluations)
    assert (
        eager.history.value.shape
        == eager.history.optimality.shape
        == eager.history.accepted.shape
        == (count,)
    )
    assert traced.history.value.shape == (51,)
    np.testing.assert_allclose(traced.history.value[:count], eager.history.value, rtol=1e-12)
    assert np.all(np.isnan(traced.history.value[count:]))
    assert np.all(np.isnan(traced.history.optimality[count:]))
    assert not np.any(traced.history.accepted[count:])
    np.testing.assert_allclose(eager.history.value[0], bowl(0.0, 0.5))
    np.testing.assert_allclose(eager.history.value[-1], eager.fun)
    assert eager.history.optimality[-1] <= 1e-6 < eager.history.optimality[-2]
    np.testing.assert_allclose(eager.history.optimality[0], abs(jax.grad(bowl)(0.0, 0.5)))
    batch = jax.vmap(run)(jnp.array([0.5, 2.0]))
    assert batch.history.value.shape == (2, 51)
    counts = batch.stats.evaluations
    np.testing.assert_array_equal(jnp.sum(~jnp.isnan(batch.history.value), axis=1), counts)


def test_nan_is_reported_where_it_appears():
    """Gradient descent walks 1, 2, 3, ... by steps of one; the objective is NaN from 3.5 on."""

    def cliff(x):
        return jnp.where(x < 3.5, -x, jnp.nan)

    solver = nestor.GradientDescent(nestor.FixedStep(1.0))
    seen = []
    solution = nestor.minimize(
        cliff, 1.0, solver=solver, raise_on_failure=False, history=True, callback=lambda r: seen.append(r.fun)
    )
    assert solution.status is Status.NOT_FINITE
    assert int(solution.stats.evaluations) == 4
    np.testing.assert_allclose(solution.history.value, [-1.0, -2.0, -3.0, np.nan])
    np.testing.assert_allclose(seen, [-1.0, -2.0, -3.0, np.nan])
    assert float(solution.x) == 3.0  # the best point seen
    assert float(solution.fun) == -3.0


def test_nan_at_the_start_is_reported_at_once():
    for call, fun in [
        (nestor.minimize, lambda x: jnp.log(x) ** 2),
        (nestor.find_root, jnp.log),
        (nestor.fixed_point, jnp.log),
        (nestor.least_squares, jnp.log),
    ]:
        solution = call(fun, -1.0, raise_on_failure=False, max_steps=50)
        assert solution.status is Status.NOT_FINITE, call.__name__
        assert int(solution.stats.evaluations) <= 2, call.__name__
        assert np.isfinite(float(solution.x)), call.__name__


# --- callbacks and progress ------------------------------------------------------------------------


def descend(callback, **options):
    return nestor.minimize(
        lambda x: jnp.sum(x["a"] ** 2) + x["b"] ** 2, {"a": jnp.ones(2), "b": 2.0}, solver=DESCENT,
        callback=callback, max_steps=30, **options,
    )  # fmt: skip


def test_a_callback_is_called_for_each_evaluation():
    seen = []
    solution = descend(seen.append, history=True)
    assert all(isinstance(report, nestor.Report) for report in seen)
    assert [report.step for report in seen] == list(range(int(solution.stats.evaluations)))
    np.testing.assert_allclose([r.fun for r in seen], solution.history.value)
    np.testing.assert_allclose([r.optimality for r in seen], solution.history.optimality)
    np.testing.assert_array_equal([r.accepted for r in seen], solution.history.accepted)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(seen[0].x))
    np.testing.assert_allclose(seen[0].x["a"], [1.0, 1.0])
    np.testing.assert_allclose(seen[-1].x["b"], solution.x["b"])
    assert isinstance(seen[0].step, int)
    assert isinstance(seen[0].fun, float)
    assert isinstance(seen[0].accepted, bool)


def _raise_stop(report):
    if report.step == 3:
        raise StopIteration


@pytest.mark.parametrize("callback", [lambda r: r.step == 3, lambda r: np.bool_(r.step == 3), _raise_stop])
def test_a_callback_stops_the_solve(callback):
    solution = descend(callback, raise_on_failure=False, tol=1e-12)
    assert solution.status is Status.STOPPED
    assert not solution.success
    assert int(solution.stats.evaluations) == 4
    with pytest.raises(nestor.SolveFailed, match="callback asked"):
        descend(callback, tol=1e-12)


def test_an_exception_in_a_callback_propagates():
    seen = []

    def fail(report):
        seen.append(report.step)
        if report.step == 2:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        descend(fail)
    assert seen == [0, 1, 2]
    assert descend(None).success  # and the next solve knows nothing of it


def test_another_callback_compiles_nothing():
    descend(lambda report: None)
    seen = []
    with compilations() as count:
        descend(seen.append)
    assert count.number == 0
    assert seen


def test_a_callback_inside_jit_vmap_and_grad():
    seen = []

    def run(a):
        return nestor.minimize(
            lambda x: bowl(x, a), 0.0, solver=NEWTON, tol=1e-10, callback=lambda r: seen.append(r.step)
        )

    jitted = jax.jit(run)
    count = int(jitted(0.5).stats.evaluations)
    jax.effects_barrier()
    assert seen == list(range(count))
    jitted(0.5)
    jax.effects_barrier()
    assert len(seen) == 2 * count
    seen.clear()
    np.testing.assert_allclose(jax.jit(jax.grad(lambda a: run(a).x))(0.5), slope(0.5), rtol=1e-8)
    jax.effects_barrier()
    assert seen == list(range(count))
    seen.clear()
    batch = jax.vmap(run)(jnp.array([0.5, 2.0]))
    jax.effects_barrier()
    assert len(seen) == int(jnp.sum(batch.stats.evaluations))


def test_progress_goes_to_stderr(capfd):
    descend(None, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "minimize" in err
    assert "optimality" in err
    seen = []
    descend(seen.append, progress=True)
    assert seen
    assert "minimize" in capfd.readouterr().err


# --- failures --------------------------------------------------------------------------------------

FEW = {"solver": DESCENT, "max_steps": 2, "tol": 1e-12}


def test_solve_failed_carries_the_solution():
    with pytest.raises(nestor.SolveFailed, match="OUT_OF_STEPS") as caught:
        nestor.minimize(lambda x: bowl(x, 1.0), 0.0, **FEW)
    solution = caught.value.solution
    kept = nestor.minimize(lambda x: bowl(x, 1.0), 0.0, raise_on_failure=False, **FEW)
    assert solution.status is kept.status is Status.OUT_OF_STEPS
    assert float(solution.x) == float(kept.x)
    assert int(solution.stats.evaluations) == 3
    assert "raise_on_failure=False" in str(caught.value)
    assert re.search("max_steps=2", str(caught.value))
    with pytest.raises(nestor.SolveFailed) as caught:
        nestor.argmin(lambda x: bowl(x, 1.0), 0.0, **FEW)
    assert float(caught.value.solution.x) == float(kept.x)


@pytest.mark.parametrize("call", [nestor.argmin, nestor.minimum])
def test_policies(call):
    run = lambda a, policy: call(lambda x: bowl(x, a), 0.0, on_failure=policy, **FEW)  # noqa: E731
    solution = nestor.minimize(lambda x: bowl(x, 1.0), 0.0, raise_on_failure=False, **FEW)
    best = float(solution.x if call is nestor.argmin else solution.fun)
    for policy in ("raise", None):
        with pytest.raises(nestor.SolveFailed):
            run(1.0, policy)
    assert np.isnan(run(1.0, "nan"))
    assert float(run(1.0, "keep")) == best
    for policy in ("nan", None):
        value, grad, tangent = jax.jit(
            lambda a, p=policy: (
                run(a, p),
                jax.grad(run)(a, p),
                jax.jvp(lambda a: run(a, p), (a,), (1.0,))[1],
            )
        )(1.0)
        assert np.isnan([value, grad, tangent]).all(), policy
    assert np.isnan(jax.grad(run)(1.0, "nan"))
    with pytest.raises(nestor.SolveFailed):  # under a plain grad the status is known
        jax.grad(run)(1.0, None)
    value, grad = jax.jit(jax.value_and_grad(lambda a: run(a, "keep")))(1.0)
    assert float(value) == pytest.approx(best)
    assert np.isfinite(grad)
    with pytest.raises(Exception, match="did not converge"):
        jax.block_until_ready(jax.jit(lambda a: run(a, "raise"))(1.0))


def test_policies_do_nothing_to_a_solution():
    options = {"solver": NEWTON, "tol": 1e-10}
    for policy in ("raise", "nan", "keep", None):
        y = lambda a, p=policy: nestor.argmin(lambda x: bowl(x, a), 0.0, on_failure=p, **options)  # noqa: E731
        np.testing.assert_allclose(y(0.5), bowl_minimum(0.5), atol=1e-9)
        np.testing.assert_allclose(jax.jit(jax.grad(y))(0.5), slope(0.5), rtol=1e-8)


def test_nan_marks_only_the_lanes_that_failed():
    run = lambda a: nestor.argmin(lambda x: bowl(x, a), 0.0, solver=DESCENT, max_steps=8, tol=1e-4)  # noqa: E731
    codes = jax.vmap(
        lambda a: nestor.minimize(lambda x: bowl(x, a), 0.0, solver=DESCENT, max_steps=8, tol=1e-4).code
    )(jnp.array([0.0, 0.1, 3.0]))
    got = jax.vmap(run)(jnp.array([0.0, 0.1, 3.0]))
    np.testing.assert_array_equal(np.isnan(got), np.asarray(codes) != 0)
    assert np.isnan(got[2])
    assert not np.isnan(got[0])


# --- dtypes and trees ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtypes_are_kept(dtype):
    x0 = jnp.zeros(2, dtype)
    for call, fun, solver in [
        (nestor.minimize, lambda x: jnp.sum(jnp.cosh(x - 1)), NEWTON),
        (nestor.find_root, lambda x: x**3 - 2 + x, None),
        (nestor.fixed_point, lambda x: 0.5 * jnp.cos(x), None),
        (nestor.least_squares, lambda x: jnp.exp(x) - 2, None),
    ]:
        solution = call(fun, x0, solver=solver)
        assert solution.x.dtype == solution.fun.dtype == solution.stats.optimality.dtype == dtype
        tol = float(jnp.finfo(dtype).eps) ** 0.5
        assert float(solution.stats.tol) == pytest.approx(tol)
        assert float(solution.stats.optimality) <= tol
    a = jnp.asarray(0.5, dtype)
    y = lambda a: nestor.argmin(lambda x: bowl(x, a), jnp.zeros((), dtype), solver=NEWTON)  # noqa: E731
    value, grad = jax.value_and_grad(y)(a)
    assert value.dtype == grad.dtype == dtype
    np.testing.assert_allclose(grad, slope(0.5), rtol=20 * float(jnp.finfo(dtype).eps) ** 0.5)


TREE = {"scalar": 0.5, "vector": jnp.zeros(2), "matrix": (jnp.ones((2, 2)),)}


def tree_objective(x, a):
    m, v, s = x["matrix"][0], x["vector"], x["scalar"]
    return (
        jnp.sum((m @ v - a["v"]) ** 2)
        + jnp.sum((m - a["m"]) ** 2)
        + (s - a["s"]) ** 2
        + jnp.sum((v - s) ** 2)
    )


DATA = {"v": jnp.array([1.0, -0.5]), "m": jnp.array([[2.0, 0.3], [-0.1, 1.5]]), "s": jnp.asarray(0.7)}


def test_trees():
    """Leaves of every rank, in x and in what is closed over; the derivative against central differences."""

    @jax.jit
    def y(a):
        return nestor.argmin(lambda x: tree_objective(x, a), TREE, solver=NEWTON, tol=1e-10)

    x = y(DATA)
    assert jax.tree.structure(x) == jax.tree.structure(TREE)
    assert jax.tree.map(jnp.shape, x) == jax.tree.map(jnp.shape, TREE)
    gradient = jax.grad(tree_objective)(x, DATA)
    assert max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(gradient)) <= 1e-10
    loss = lambda a: sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(y(a)))  # noqa: E731
    got = jax.grad(loss)(DATA)
    direction = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(1.0, leaf.size + 1)).reshape(leaf.shape), DATA)
    h = 1e-4
    ahead, behind = (loss(jax.tree.map(lambda p, q, s=s: p + s * h * q, DATA, direction)) for s in (1, -1))
    along = sum(
        float(jnp.vdot(p, q)) for p, q in zip(jax.tree.leaves(got), jax.tree.leaves(direction), strict=True)
    )
    np.testing.assert_allclose(along, (ahead - behind) / (2 * h), rtol=1e-6)


def test_a_float_as_start():
    solution = nestor.minimize(lambda x: (x - 2.0) ** 2, 5.0, solver=NEWTON)
    assert isinstance(solution.x, jax.Array)
    assert solution.x.shape == ()
    assert solution.x.dtype == jnp.float64
    assert not solution.x.aval.weak_type
    with pytest.raises(nestor.BadArgument, match=r"5\.0"):
        nestor.minimize(lambda x: (x - 2.0) ** 2, 5)
