"""Equality and inequality constraints: answers, multipliers, derivatives, statuses, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import nestor
from nestor import Constraint, Status

AUGMENTED = nestor.AugmentedLagrangian()
SOLVERS = {"default": None, "augmented": AUGMENTED}


def hs71(x):
    return x["a"] * x["d"] * (x["a"] + jnp.sum(x["bc"])) + x["bc"][1]


HS71 = [
    Constraint(lambda x: x["a"] * jnp.prod(x["bc"]) * x["d"], lower=25.0),
    Constraint(lambda x: x["a"] ** 2 + jnp.sum(x["bc"] ** 2) + x["d"] ** 2, equal=40.0),
]
START = {"a": 1.0, "bc": jnp.array([5.0, 5.0]), "d": 1.0}


def project(y, solver=None, **constraints):
    """The nearest point to y."""
    return nestor.minimize(
        lambda x: jnp.sum((x - y) ** 2) / 2, jnp.ones(y.shape) / 3, solver=solver, tol=1e-10, **constraints
    )


def on_simplex(y):
    """The nearest point of the simplex to y, by sorting."""
    ordered = np.sort(y)[::-1]
    sums = (np.cumsum(ordered) - 1) / np.arange(1, y.size + 1)
    return np.maximum(y - sums[np.max(np.flatnonzero(ordered > sums))], 0)


# --- answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOLVERS)
def test_a_tree_with_bounds_an_equality_and_an_inequality(name):
    solution = nestor.minimize(hs71, START, bounds=(1.0, 5.0), constraints=HS71, solver=SOLVERS[name])
    assert solution.success
    np.testing.assert_allclose(solution.fun, 17.0140172891, atol=1e-7)
    assert solution.x["a"] == 1.0  # at its bound, exactly
    kkt = solution.kkt
    assert max(float(kkt.stationarity), float(kkt.feasibility), float(kkt.complementarity)) < 3e-8
    np.testing.assert_allclose(kkt.lower["a"], 1.0878712, atol=1e-6)
    np.testing.assert_allclose(kkt.constraints, (-0.5522937, 0.1614686), atol=1e-6)
    assert int(kkt.weakly_active) == 0


def test_the_simplex_and_the_multiplier_of_its_sum():
    y = np.array([0.9, 0.3, -0.5, 0.4])
    solution = project(jnp.asarray(y), bounds=(0.0, None), constraints=Constraint(jnp.sum, equal=1.0))
    np.testing.assert_allclose(solution.x, on_simplex(y), atol=1e-10)
    np.testing.assert_allclose(solution.kkt.constraints[0], 0.2, atol=1e-9)
    assert solution.x[2] == 0.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("turned", [0.0, 0.7])
def test_constraints_that_say_something_twice(dtype, turned):
    """In single precision noise is no third direction, and the square of next to nothing no zero."""
    along = jnp.array([np.cos(turned), np.sin(turned), 0.1 * turned], dtype)

    def twice(x):
        return jnp.stack([along @ x, 2 * along @ x, 3 * along @ x])

    limits = jnp.array([1, 2, 3], dtype)
    solution = nestor.minimize(
        lambda x: jnp.sum((x - 1) ** 2), jnp.zeros(3, dtype), constraints=Constraint(twice, equal=limits)
    )
    a = np.asarray(along, float)
    np.testing.assert_allclose(
        solution.x, np.ones(3) - a * (a.sum() - 1) / (a @ a), atol=3e-4 if dtype == np.float32 else 1e-8
    )


def test_two_sided_limits_some_infinite_some_equal_on_a_tree():
    limited = Constraint(
        lambda x: {"sum": jnp.sum(x), "all": x},
        lower={"sum": -1.0, "all": jnp.array([0.5, -jnp.inf, 0.25])},
        upper={"sum": None, "all": np.array([np.inf, -0.5, 0.25])},
    )
    solution = project(jnp.array([0.0, 0.0, 1.0]), constraints=limited)
    np.testing.assert_allclose(solution.x, [0.5, -0.5, 0.25], atol=1e-10)
    np.testing.assert_allclose(solution.kkt.constraints[0]["all"], [-0.5, 0.5, 0.75], atol=1e-9)
    np.testing.assert_allclose(solution.kkt.constraints[0]["sum"], 0.0, atol=1e-9)


def test_the_kinds_of_constraints_that_scipy_has():
    y = jnp.array([2.0, 1.0])
    ours = project(
        y, constraints=[Constraint(lambda x: x[0] - x[1], equal=0.5), Constraint(jnp.sum, upper=1.0)]
    )
    theirs = project(
        y,
        constraints=[
            {"type": "eq", "fun": lambda x, a: x[0] - x[1] - a, "args": (0.5,)},
            scipy.optimize.LinearConstraint(np.ones((1, 2)), -np.inf, 1.0),
            {"type": "ineq", "fun": lambda x: 2.0 - jnp.sum(x)},
        ],
    )
    np.testing.assert_allclose(ours.x, [0.75, 0.25], atol=1e-10)
    np.testing.assert_allclose(theirs.x, ours.x, atol=1e-10)
    assert [np.shape(m) for m in theirs.kkt.constraints] == [(), (1,), ()]
    np.testing.assert_allclose(float(theirs.kkt.constraints[1][0]), float(ours.kkt.constraints[1]), atol=1e-9)


# --- derivatives -------------------------------------------------------------------------------------


def nearest_on_sphere(y, radius=1.0):
    shell = Constraint(lambda x: jnp.sum(x**2), equal=radius**2)
    return nestor.argmin(
        lambda x: jnp.sum((x - y) ** 2), jnp.array([0.5, 0.5, 0.5]), constraints=shell, tol=1e-11
    )


def sphere_jacobian(y):
    size = np.linalg.norm(y)
    return (np.eye(3) - np.outer(y, y) / size**2) / size


def _grad_of_vmap(y, i):
    return jax.grad(lambda y: jnp.sum(jax.vmap(nearest_on_sphere)(jnp.stack([y, y])), axis=0)[i] / 2)(y)


Y = jnp.array([1.0, 2.0, -0.5])
NESTINGS = {
    "jacrev": jax.jacrev(nearest_on_sphere),
    "jacfwd": jax.jacfwd(nearest_on_sphere),
    "jit of jacrev": jax.jit(jax.jacrev(nearest_on_sphere)),
    "vmap of grad": lambda y: jax.vmap(lambda i: jax.grad(lambda y: nearest_on_sphere(y)[i])(y))(
        jnp.arange(3)
    ),
    "grad of vmap": lambda y: jnp.stack([_grad_of_vmap(y, i) for i in range(3)]),
    "jacfwd of minimum": lambda y: jax.hessian(_sphere_value)(y),
}


def _sphere_value(y):
    """½(|y| - 1)², whose Hessian is I - (I - y y'/|y|²)/|y|."""
    shell = Constraint(lambda x: jnp.sum(x**2), equal=1.0)
    return nestor.minimum(
        lambda x: jnp.sum((x - y) ** 2) / 2, jnp.array([0.5, 0.5, 0.5]), constraints=shell, tol=1e-11
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NESTINGS)
def test_the_projection_on_a_sphere_has_its_derivative_in_every_nesting(name):
    wanted = sphere_jacobian(np.asarray(Y))
    if name == "jacfwd of minimum":
        wanted = np.eye(3) - wanted
    np.testing.assert_allclose(NESTINGS[name](Y), wanted, atol=1e-8)


@pytest.mark.slow
def test_second_derivatives_of_a_projection():
    step = 1e-5
    jacobian = jax.jacfwd(jax.jacrev(nearest_on_sphere))(Y)
    for i in range(3):
        e = np.eye(3)[i] * step
        slope = (sphere_jacobian(np.asarray(Y) + e) - sphere_jacobian(np.asarray(Y) - e)) / (2 * step)
        np.testing.assert_allclose(jacobian[..., i], slope, atol=1e-7)


def test_the_derivatives_of_a_quadratic_program_are_those_of_its_linear_system():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 4))
    hessian, rows = root @ root.T + np.eye(4), rng.normal(size=(2, 4))

    def answer(linear, right):
        equal = Constraint(lambda x: jnp.asarray(rows) @ x, equal=right)
        return nestor.argmin(
            lambda x: x @ jnp.asarray(hessian) @ x / 2 + linear @ x, jnp.zeros(4), constraints=equal
        )

    both = np.linalg.inv(np.block([[hessian, rows.T], [rows, np.zeros((2, 2))]]))
    by_linear, by_right = jax.jacrev(answer, argnums=(0, 1))(jnp.ones(4), jnp.array([1.0, -1.0]))
    np.testing.assert_allclose(by_linear, -both[:4, :4], atol=1e-8)
    np.testing.assert_allclose(by_right, both[:4, 4:], atol=1e-8)


def value_and_answer(data):
    """A problem with every kind of thing in it, all of them moving with the data."""
    constraints = [
        Constraint(lambda x: x[0] * x[1] + jnp.exp(data[0] * x[2]), equal=2.0 + data[1]),
        Constraint(lambda x: jnp.sum(x**2), upper=4.0 + data[2], lower=0.1),
    ]
    bounds = (jnp.array([-jnp.inf, -jnp.inf, 0.3]) + data[3], None)
    options = {"bounds": bounds, "constraints": constraints, "tol": 1e-11}
    objective = lambda x: x[0] + 2.0 * x[1] ** 2 + x[2] ** 2 + 0.1 * data[4] * jnp.sum(x)  # noqa: E731
    start = jnp.array([1.0, 1.0, 1.0])
    return nestor.minimum(objective, start, **options), nestor.argmin(objective, start, **options)


@pytest.mark.slow
def test_derivatives_agree_with_finite_differences():
    data, step = jnp.array([0.5, 0.2, -0.3, 0.1, 1.0]), 1e-6
    slopes = jax.jacrev(value_and_answer)(data)
    forward = jax.jacfwd(value_and_answer)(data)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), slopes, forward)
    solve = jax.jit(value_and_answer)
    for i in range(5):
        e = jnp.zeros(5).at[i].set(step)
        ahead, back = solve(data + e), solve(data - e)
        for got, a, b in zip(slopes, ahead, back, strict=True):
            np.testing.assert_allclose(got[..., i], (a - b) / (2 * step), atol=1e-6)


def test_the_derivative_of_the_least_value_in_a_limit_is_the_multiplier():
    def least(limits):
        equal = Constraint(lambda x: x[0] + 2.0 * x[1], equal=limits[0])
        below = Constraint(lambda x: x[0] - x[2], upper=limits[1])
        return nestor.minimize(
            lambda x: jnp.sum((x - 1.0) ** 2), jnp.zeros(3), constraints=[equal, below], tol=1e-10
        )

    limits = jnp.array([1.0, -0.5])
    multipliers = jnp.stack(least(limits).kkt.constraints)
    slopes = jax.grad(lambda limits: least(limits).fun)(limits)
    np.testing.assert_allclose(slopes, -multipliers, atol=1e-9)
    assert multipliers[1] > 0.1  # the upper limit is active


def test_lanes_have_their_own_answers_and_statuses():
    radii = jnp.array([1.0, 4.0, -1.0])

    def solve(square):
        return nestor.minimize(jnp.sum, -jnp.ones(2), constraints=Constraint(lambda x: x @ x, equal=square))

    solutions = jax.vmap(solve)(radii)
    assert [Status(int(code)).name for code in solutions.code] == ["CONVERGED", "CONVERGED", "INFEASIBLE"]
    np.testing.assert_allclose(solutions.fun[:2], [-np.sqrt(2), -2 * np.sqrt(2)], atol=1e-7)


@pytest.mark.slow
def test_a_traced_limit_may_be_infinite():
    def answer(upper):
        return nestor.argmin(
            lambda x: jnp.sum((x - 2.0) ** 2), jnp.zeros(2), constraints=Constraint(lambda x: x, upper=upper)
        )

    np.testing.assert_allclose(jax.jit(answer)(jnp.array([1.0, jnp.inf])), [1.0, 2.0], atol=1e-8)


# --- statuses ----------------------------------------------------------------------------------------

CIRCLE = Constraint(lambda x: jnp.sum(x**2), equal=-1.0)


@pytest.mark.parametrize("name", SOLVERS)
def test_constraints_that_cannot_be_met_are_no_success(name):
    options = {"constraints": CIRCLE, "solver": SOLVERS[name]}
    with pytest.raises(nestor.SolveFailed, match="cannot be met") as failure:
        nestor.minimize(jnp.sum, jnp.array([-1.0, 0.5]), **options)
    assert failure.value.solution.status is Status.INFEASIBLE


def test_a_start_where_the_constraint_is_stationary_is_left():
    circle = Constraint(lambda x: jnp.sum(x**2), equal=1.0)
    solution = nestor.minimize(jnp.sum, jnp.zeros(2), constraints=circle)
    np.testing.assert_allclose(solution.fun, -np.sqrt(2), atol=1e-7)


def test_a_callback_is_shown_the_unknowns_alone():
    seen = []
    nestor.minimize(
        jnp.sum, -jnp.ones(2), constraints=Constraint(lambda x: x @ x, equal=2.0), callback=seen.append
    )
    assert {report.x.shape for report in seen} == {(2,)}


# --- bad input ---------------------------------------------------------------------------------------

BAD = {
    "a function": (jnp.sum, "nestor.Constraint"),
    "no limit": (Constraint(jnp.sum), "no limit"),
    "both": (Constraint(jnp.sum, equal=1.0, lower=0.0), "equal= and a limit"),
    "crossed": (Constraint(jnp.sum, lower=1.0, upper=0.0), "lower 1.0, upper 0.0"),
    "NaN": (Constraint(jnp.sum, lower=np.nan), "nan"),
    "NaN equal": (Constraint(jnp.sum, equal=np.nan), "NaN"),
    "integers": (Constraint(lambda x: (x > 0).astype(int), lower=0.0), "real floating"),
    "not callable": (Constraint(3.0, lower=0.0), "function"),
    "another structure": (Constraint(lambda x: x, lower={"a": 1.0}), "tree"),
    "another shape": (Constraint(lambda x: x, lower=np.zeros(3)), "broadcasts"),
    "a comparison": (Constraint(lambda x: x > 0, equal=0.0), "comparison"),
    "two arguments": (Constraint(lambda x, y: x, equal=0.0), "signature"),
    "a dictionary of another type": ({"type": "le", "fun": jnp.sum}, "'eq'"),
    "a dictionary with another key": ({"type": "eq", "fun": jnp.sum, "lower": 1}, "lower"),
    "keep_feasible": (
        scipy.optimize.NonlinearConstraint(jnp.sum, 0.0, 1.0, keep_feasible=True),
        "keep_feasible",
    ),
    "a matrix of another width": (scipy.optimize.LinearConstraint(np.ones((1, 3)), 0.0, 1.0), "column"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_a_constraint_is_said(name):
    constraint, said = BAD[name]
    with pytest.raises(nestor.BadArgument, match=said):
        nestor.minimize(jnp.sum, jnp.zeros(2), constraints=constraint)


def test_solvers_and_constraints_that_do_not_go_together():
    with pytest.raises(nestor.BadArgument, match="SQP"):
        nestor.minimize(jnp.sum, jnp.zeros(2), constraints=CIRCLE, solver=nestor.LBFGS())
    with pytest.raises(nestor.BadArgument, match="constraints="):
        nestor.minimize(jnp.sum, jnp.zeros(2), solver=nestor.SQP())
    with pytest.raises(nestor.BadArgument, match="inner"):
        nestor.minimize(jnp.sum, jnp.zeros(2), constraints=CIRCLE, solver=nestor.AugmentedLagrangian(3.0))


# --- linear and quadratic programs -------------------------------------------------------------------


def test_quadratic_programs_are_solved_and_differentiated():
    rng = np.random.default_rng(1)
    n, k, m = 6, 2, 4
    root, q = rng.normal(size=(n, n)), rng.normal(size=n)
    A, G = rng.normal(size=(k, n)), rng.normal(size=(m, n))
    inside = rng.normal(size=n)
    data = {"P": root @ root.T, "q": q, "A": A, "b": A @ inside, "G": G, "h": G @ inside + 0.1}
    data = {name: jnp.asarray(value) for name, value in data.items()}
    solution = nestor.solve_qp(**data)
    y, z = solution.kkt.constraints
    assert float(jnp.min(z)) >= 0
    assert float(jnp.max(z)) > 0.01
    P, h = np.asarray(data["P"]), np.asarray(data["h"])
    np.testing.assert_allclose(P @ solution.x + q + A.T @ y + G.T @ z, 0, atol=1e-8)
    np.testing.assert_allclose(A @ solution.x, data["b"], atol=1e-8)
    np.testing.assert_allclose(np.minimum(z, h - G @ solution.x), 0, atol=1e-8)
    slopes = jax.grad(lambda data: jnp.sum(nestor.solve_qp(**data).x))(data)
    on = np.asarray(z) > 1e-6  # with the active rows as equalities it is one linear system
    rows = np.vstack([A, G[on]])
    system = np.block([[P, rows.T], [rows, np.zeros((len(rows), len(rows)))]])
    right = np.linalg.solve(system, np.concatenate([np.ones(n), np.zeros(len(rows))]))
    np.testing.assert_allclose(slopes["q"], -right[:n], atol=1e-8)
    np.testing.assert_allclose(slopes["b"], right[n : n + k], atol=1e-8)
    np.testing.assert_allclose(np.asarray(slopes["h"])[on], right[n + k :], atol=1e-8)


def test_linear_programs_agree_with_scipy():
    rng = np.random.default_rng(2)
    n, m = 5, 6
    c, G = rng.normal(size=n), rng.normal(size=(m, n))
    h = np.abs(rng.normal(size=m)) + 0.1
    theirs = scipy.optimize.linprog(c, A_ub=G, b_ub=h, bounds=(-1, 2))
    ours = nestor.solve_qp(None, c, G=G, h=h, bounds=(-1.0, 2.0))
    np.testing.assert_allclose(ours.x, theirs.x, atol=1e-9)
    np.testing.assert_allclose(ours.kkt.constraints[0], -theirs.ineqlin.marginals, atol=1e-8)
    with pytest.raises(nestor.BadArgument, match="together"):
        nestor.solve_qp(None, c, G=G)
    with pytest.raises(nestor.BadArgument, match="shape"):
        nestor.solve_qp(None, c, A=G[:, :2], b=h)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["INFEASIBLE", "UNBOUNDED"])
def test_linear_programs_without_an_answer_say_so(name):
    G, h = jnp.array([[1.0, 0.0], [-1.0, 0.0]]), jnp.array([-1.0, -1.0 if name == "INFEASIBLE" else 3.0])
    solution = nestor.solve_qp(None, jnp.array([0.0, 1.0]), G=G, h=h, raise_on_failure=False)
    assert solution.status.name == name
