"""Every direction of Hype's `Optimize` with every learning rate of it: 7 x 8, and truncated Newton besides.

Hype (Baydin and Pearlmutter 2015) has GD, CG (Hestenes and Stiefel), CD (conjugate descent), NonlinearCG (Fletcher
and Reeves), DaiYuanCG, NewtonCG (which is Daniel's formula) and Newton; and Constant, Decay, ExpDecay, Schedule,
Backtrack, StrongWolfe, AdaGrad and RMSProp. A pair converges, or says truly that it did not; and the end of a few
steps has the derivative that central differences find.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nestor
from nestor import Status, schedules
from nestor.solvers import Minimization
from tests.compiles import compilations
from tests.solvers.harness import one_of

DIRECTIONS = {
    "GD": nestor.GradientDescent,
    "CG": functools.partial(nestor.NonlinearCG, "hestenes-stiefel"),
    "CD": functools.partial(nestor.NonlinearCG, "conjugate-descent"),
    "NonlinearCG": functools.partial(nestor.NonlinearCG, "fletcher-reeves"),
    "DaiYuanCG": functools.partial(nestor.NonlinearCG, "dai-yuan"),
    "NewtonCG": functools.partial(nestor.NonlinearCG, "daniel"),
    "Newton": nestor.LineSearchNewton,
    "truncated Newton": nestor.LineSearchNewtonCG,
}
RATES = {  # from one number, the first length
    "Constant": nestor.FixedStep,
    "Decay": lambda a: nestor.ScheduledStep(schedules.InverseTime(a, 1e-3)),
    "ExpDecay": lambda a: nestor.ScheduledStep(schedules.Exponential(a, np.exp(-1e-3))),
    "Schedule": lambda a: nestor.ScheduledStep(schedules.PerStep(a * jnp.linspace(1.0, 0.8, 8))),
    "Backtrack": lambda a: nestor.Backtracking(first=a),
    "StrongWolfe": lambda a: nestor.StrongWolfe(curvature=0.1, first=a),
    "AdaGrad": nestor.AdaGradStep,
    "RMSProp": nestor.RMSPropStep,
}
PAIRS = [(direction, rate) for direction in DIRECTIONS for rate in RATES]
# Every direction once and every rate once: what is tried in every run.
DIAGONAL = [*zip(DIRECTIONS, RATES, strict=True)]


def rosenbrock(x):
    return 100.0 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def beale(x):
    u, v = x
    return (1.5 - u + u * v) ** 2 + (2.25 - u + u * v**2) ** 2 + (2.625 - u + u * v**3) ** 2


def quadratic(x):
    return 0.5 * x[0] ** 2 + 5.0 * x[1] ** 2 + x[0] * x[1] - x[0]


FUNCTIONS = (rosenbrock, beale, quadratic)
STARTS = jnp.array([[-1.2, 1.0], [1.0, 1.5], [3.0, -1.0]])
MINIMIZERS = np.array([[1.0, 1.0], [3.0, 0.5], [10 / 9, -1 / 9]])

STEPS = 2000

# What must converge in that many steps: (r)osenbrock, (b)eale, (q)uadratic, with the rates of `number`. The others
# may run out of steps, or leave the range of numbers where a rate is too long for a direction that grows; they
# must say so. (AdaGrad and RMSProp scale by gradients what Newton has scaled by curvature already.)
CONVERGES = {
    # Constant, Decay, ExpDecay, Schedule, Backtrack, StrongWolfe, AdaGrad, RMSProp
    "GD": ("q", "q", "q", "q", "q", "q", "q", ""),
    "CG": ("q", "q", "q", "q", "bq", "rbq", "q", ""),
    "CD": ("q", "q", "q", "q", "bq", "rbq", "q", ""),
    "NonlinearCG": ("rbq", "rbq", "rbq", "rbq", "bq", "rbq", "q", "q"),
    "DaiYuanCG": ("bq", "bq", "bq", "bq", "bq", "rbq", "", ""),
    "NewtonCG": ("q", "q", "q", "q", "bq", "rbq", "q", ""),
    "Newton": ("rbq", "rbq", "rbq", "rbq", "rbq", "rbq", "q", ""),
    "truncated Newton": ("rbq", "rbq", "rbq", "rbq", "rbq", "rbq", "bq", ""),
}


def number(direction, rate, problem):
    """The one number of a rate: for a constant rate about the longest that a gradient can take."""
    newton = direction.endswith("Newton")
    if rate in ("Backtrack", "StrongWolfe"):
        return 1.0
    if rate == "AdaGrad":
        return 10.0 if newton else 0.5
    if rate == "RMSProp":
        return 0.1 if newton else 0.01
    return 0.5 if newton else (1e-3, 5e-3, 5e-2)[problem]


@functools.cache
def solver_of(direction):
    """One compiled program for all rates and all functions: (rate, function, number) -> solution."""

    def solve(rate, problem, a):
        fun = lambda x: jax.lax.switch(problem, FUNCTIONS, x)  # noqa: E731
        choices = [DIRECTIONS[direction](make(a)) for make in RATES.values()]
        return nestor.minimize(
            fun, STARTS[problem], solver=one_of(rate, choices), max_steps=STEPS, raise_on_failure=False
        )

    return jax.jit(solve)


def solve(direction, rate, problem):
    a = number(direction, rate, problem)
    return solver_of(direction)(jnp.int32(list(RATES).index(rate)), jnp.int32(problem), jnp.float64(a))


DAILY = ("GD", "CG", "Newton")  # each direction is a program of its own


@pytest.mark.parametrize(
    "direction",
    [pytest.param(name, marks=() if name in DAILY else pytest.mark.slow) for name in DIRECTIONS],
)
def test_every_rate_converges_or_says_truly_that_it_did_not(direction):
    for rate, must in zip(RATES, CONVERGES[direction], strict=True):
        for problem, fun in enumerate(FUNCTIONS):
            found = solve(direction, rate, problem)
            status = Status(int(found.code))
            name = f"{rate}, {fun.__name__}: {status.name}"
            assert found.fun <= fun(STARTS[problem]), name
            np.testing.assert_allclose(found.fun, fun(found.x), rtol=1e-12, atol=1e-12, err_msg=name)
            if fun.__name__[0] in must:
                assert status.success, name
            if status.success:
                assert np.abs(found.x - MINIMIZERS[problem]).max() < 1e-6, name
                assert np.abs(jax.grad(fun)(found.x)).max() <= found.stats.tol, name
            elif status is Status.OUT_OF_STEPS:
                assert int(found.stats.steps) == STEPS, name
            else:  # the values rose, step after step, or were lost
                assert rate in ("Constant", "Decay", "ExpDecay", "Schedule"), name
                assert status in (Status.NOT_FINITE, Status.LINE_SEARCH_FAILED), name


# --- derivatives ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("direction", "rate"),
    [pytest.param(*pair, marks=[] if pair in DIAGONAL else pytest.mark.slow) for pair in PAIRS],
)
def test_the_end_of_a_few_steps_has_the_derivative_of_differences(direction, rate):
    """In the number of the rate, and in the start; differences of the fourth order."""

    def end(numbers, problem):
        fun = lambda x: jax.lax.switch(problem, FUNCTIONS, x)  # noqa: E731
        x = nestor.argmin(
            fun,
            STARTS[problem] + jnp.array([1.0, 0.5]) * numbers[1],
            solver=DIRECTIONS[direction](RATES[rate](numbers[0])),
            adjoint=nestor.Unroll(),
            max_steps=12,
            on_failure="keep",
        )
        return jnp.vdot(x, jnp.array([1.0, 0.7]))

    both = jax.jit(jax.value_and_grad(end))
    for problem, fun in enumerate(FUNCTIONS):
        at = jnp.array([number(direction, rate, problem), 0.01])
        _, slope = both(at, jnp.int32(problem))
        for k in range(2):
            h = jnp.zeros(2).at[k].set(3e-6 * (at[0] if k == 0 else 1))
            ends = [both(at + n * h, jnp.int32(problem))[0] for n in (1, -1, 2, -2)]
            difference = float(8 * (ends[0] - ends[1]) - (ends[2] - ends[3])) / (12 * float(h[k]))
            assert float(slope[k]) == pytest.approx(difference, rel=1e-5, abs=1e-7), (fun.__name__, k)


# --- the steps themselves ------------------------------------------------------------------------------


def by_hand(direction, rate, fun, x, steps):
    """The points, in NumPy, by the formulas of Hype; only a negative beta of CG and NewtonCG is taken for 0."""
    gradient, hessian = jax.jit(jax.grad(fun)), jax.jit(jax.hessian(fun))
    a = number(direction, rate, 1)
    points, p, old, cache = [], None, None, 0.0
    for t in range(steps):
        points.append(x)
        g, h = np.asarray(gradient(x)), np.asarray(hessian(x))
        if direction.endswith("Newton"):
            p = -np.linalg.solve(h, g)
        elif p is None or direction == "GD":
            p = -g
        else:
            y = g - old
            betas = {
                "CG": lambda g=g, y=y, p=p: max(g @ y / (p @ y), 0),
                "CD": lambda g=g, p=p, old=old: g @ g / (-p @ old),
                "DaiYuanCG": lambda g=g, y=y, p=p: g @ g / (p @ y),
                "NonlinearCG": lambda g=g, old=old: g @ g / (old @ old),
                "NewtonCG": lambda g=g, h=h, p=p: max(g @ h @ p / (p @ h @ p), 0),
            }
            p = -g + betas[direction]() * p
            assert g @ p < 0, "Nestor would have restarted here"
        old = g
        if rate == "AdaGrad":
            cache = cache + g * g
            length = a / np.sqrt(cache + 1e-8)
        elif rate == "RMSProp":
            cache = 0.9 * cache + 0.1 * g * g
            length = a / np.sqrt(cache + 1e-6)
        else:
            table = a * np.linspace(1.0, 0.8, 8)
            lengths = {"Constant": a, "Decay": a / (1 + 1e-3 * t), "ExpDecay": a * np.exp(-1e-3 * t)}
            length = {**lengths, "Schedule": table[min(t, 7)]}[rate]
        x = x + length * p
    return np.array(points)


GIVEN = [rate for rate in RATES if rate not in ("Backtrack", "StrongWolfe")]


@pytest.mark.parametrize(
    ("direction", "rate"),
    [(direction, "Decay") for direction in DIRECTIONS] + [("NonlinearCG", rate) for rate in GIVEN],
)
def test_the_points_are_those_of_hype(direction, rate):
    x = STARTS[2] if direction.endswith("Newton") else STARTS[1]
    fun = quadratic if direction.endswith("Newton") else beale
    if direction == "truncated Newton":  # the smaller the gradient, the nearer to Newton
        fun = lambda x: 1e-20 * quadratic(x)  # noqa: E731
    solver = DIRECTIONS[direction](RATES[rate](number(direction, rate, 1)))
    problem = Minimization(fun, 0.0)

    def turn(carry, _):
        x_next, state = solver.step(problem, *carry)
        return (x_next, state), carry[0]

    found = jax.jit(lambda x: jax.lax.scan(turn, (x, solver.init(problem, x)), None, length=10)[1])(x)
    np.testing.assert_allclose(found, by_hand(direction, rate, fun, np.asarray(x), 10), rtol=1e-8, atol=1e-10)


def test_rmsprop_on_beale_gives_the_published_values():
    solver = nestor.GradientDescent(nestor.RMSPropStep(0.01))
    run = nestor.minimize(
        beale, STARTS[1], solver=solver, max_steps=3000, history=True, raise_on_failure=False
    )
    assert f"{run.history.value[10]:.4f}" == "26.5588"
    assert abs(run.fun - 8.95e-4) < 1e-5


# --- steps that are given, by themselves -----------------------------------------------------------------


def test_groups_have_their_own_steps():
    """One move along -grad of ½|x|²: every group by its own length."""
    x = {"a": jnp.ones(2), "b": {"c": jnp.ones(()), "d": jnp.ones(3)}}
    rates = {"a": schedules.InverseTime(0.5, 1.0), "b": 0.1}
    solver = nestor.GradientDescent(nestor.ScheduledStep(rates))
    half = lambda x: 0.5 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(x))  # noqa: E731
    found = nestor.minimize(half, x, solver=solver, max_steps=2, raise_on_failure=False).x
    np.testing.assert_allclose(found["a"], 0.5 * 0.75)
    np.testing.assert_allclose(found["b"]["d"], 0.81)
    with pytest.raises(nestor.BadArgument, match="groups of the unknowns"):
        nestor.minimize(half, jnp.ones(2), solver=solver)


def test_a_schedule_of_optax_and_a_number_are_schedules():
    made = nestor.ScheduledStep(optax.cosine_decay_schedule(0.1, 10))
    assert type(made.schedule) is schedules.Called
    assert type(nestor.ScheduledStep(0.1).schedule) is schedules.Constant
    assert type(nestor.AdaGradStep(jnp.array([0.1, 0.2])).rate) is schedules.PerStep
    with pytest.raises(nestor.BadArgument, match="RMSPropStep: argument 'rate' is 'fast'"):
        nestor.RMSPropStep("fast")


def test_another_rate_compiles_nothing():
    def solve(a):
        solver = nestor.GradientDescent(nestor.RMSPropStep(schedules.Exponential(a, 0.9)))
        return nestor.minimize(quadratic, STARTS[2], solver=solver, max_steps=5, raise_on_failure=False)

    solve(0.1)
    with compilations() as count:
        solve(0.2)
    assert count.number == 0


@pytest.mark.parametrize(
    ("solver", "words"),
    [
        (nestor.GradientDescent(nestor.RMSPropStep(0.1, decay=1.0)), "solver.search.decay"),
        (nestor.GradientDescent(nestor.AdaGradStep(0.1, eps=-1.0)), "solver.search.eps"),
        (nestor.GradientDescent(nestor.Backtracking(first=0.0)), "solver.search.first"),
        (nestor.LineSearchNewtonCG(max_products=0), "solver.max_products"),
        (nestor.LineSearchNewton("wolfe"), "solver.search"),
        (nestor.RMSPropStep(0.1), "GradientDescent(nestor.RMSPropStep(...))"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_setting_that_makes_no_sense_is_refused(solver, words):
    with pytest.raises(nestor.BadArgument) as caught:
        nestor.minimize(quadratic, STARTS[2], solver=solver)
    assert words in str(caught.value)


def test_newton_calls_a_saddle_a_saddle():
    saddle = lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4  # noqa: E731
    for solver in (nestor.LineSearchNewton(), nestor.LineSearchNewtonCG()):
        found = nestor.minimize(saddle, jnp.zeros(2), solver=solver, raise_on_failure=False)
        assert found.status is Status.SADDLE
