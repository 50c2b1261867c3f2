"""Every linear solver against NumPy's, its derivatives against the closed form, and what it does when it fails."""

import functools
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from nestor import linear, trees

N = 4
quick = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 2**32 - 1)

POSITIVE = {
    "Cholesky": linear.Cholesky(),
    "CG": linear.CG(),
    "Nystrom": linear.Nystrom(rank=N),
    "Neumann": linear.Neumann(terms=400),
}
GENERAL = {
    "LU": linear.LU(),
    "GMRES": linear.GMRES(),
    "BiCGStab": linear.BiCGStab(),
    "Auto": linear.Auto(),
    "None": None,
}
SOLVERS = POSITIVE | GENERAL


def positive(rng: np.random.Generator, n: int = N, condition: float = 20.0) -> np.ndarray:
    """A random symmetric positive definite matrix of that condition number."""
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return (q * np.geomspace(1.0, 1 / condition, n)) @ q.T


def general(rng: np.random.Generator, n: int = N) -> np.ndarray:
    """A random nonsymmetric matrix, well conditioned."""
    return 1.5 * np.eye(n) + 0.8 * rng.normal(size=(n, n)) / np.sqrt(n)


def matrix_for(name: str, rng: np.random.Generator) -> np.ndarray:
    return positive(rng) if name in POSITIVE else general(rng)


def of_matrix(a: jax.Array, spd: bool, like: Any = None) -> linear.Operator:
    """The operator of a matrix, on vectors or on trees that ravel to them."""
    like = jnp.zeros(a.shape[0], a.dtype) if like is None else like
    _, back = trees.ravel(like)

    def matvec(v: Any) -> Any:
        return back(jnp.matmul(a, trees.ravel(v)[0], precision="highest"))

    return linear.Operator(matvec, like, symmetric=spd, positive=spd)


@functools.cache
def solve_by(name: str) -> Any:
    """Solve with a matrix; compiled once for a dtype."""
    return jax.jit(lambda a, b: linear.solve(of_matrix(a, name in POSITIVE), b, SOLVERS[name]))


# --- answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOLVERS)
@quick
@given(seeds)
def test_answers_are_those_of_numpy(name: str, seed: int):
    rng = np.random.default_rng(seed)
    a, b = matrix_for(name, rng), rng.normal(size=N)
    x = solve_by(name)(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_allclose(x, np.linalg.solve(a, b), rtol=0, atol=1e-7 * np.linalg.cond(a))


@pytest.mark.parametrize("name", ["Cholesky", "CG", "LU", "GMRES", "Nystrom"])
def test_answers_in_float32(name: str):
    rng = np.random.default_rng(7)
    a, b = matrix_for(name, rng), rng.normal(size=N)
    x = solve_by(name)(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x, np.linalg.solve(a, b), rtol=0, atol=2e-3)


TREE = {"w": jnp.zeros((1, 2)), "b": jnp.zeros(()), "c": [jnp.zeros(1)]}


@pytest.mark.parametrize("name", ["Cholesky", "CG", "LU", "BiCGStab", "Nystrom"])
def test_the_right_hand_side_may_be_a_tree(name: str):
    rng = np.random.default_rng(3)
    a, b = matrix_for(name, rng), rng.normal(size=N)
    _, back = trees.ravel(TREE)
    operator = of_matrix(jnp.asarray(a), name in POSITIVE, TREE)
    x = jax.jit(lambda b: linear.solve(operator, back(b), SOLVERS[name]))(jnp.asarray(b))
    assert jax.tree.map(jnp.shape, x) == jax.tree.map(jnp.shape, TREE)
    np.testing.assert_allclose(trees.ravel(x)[0], np.linalg.solve(a, b), atol=1e-7)


def test_one_unknown_and_a_scalar():
    for solver in (linear.Cholesky(), linear.LU(), linear.CG(), linear.GMRES(), linear.BiCGStab()):
        operator = linear.Operator(lambda v: 4.0 * v, jnp.zeros(()), symmetric=True, positive=True)
        assert linear.solve(operator, jnp.asarray(2.0), solver) == pytest.approx(0.5)


def test_the_dense_matrix_of_an_operator():
    a = jnp.asarray(general(np.random.default_rng(0)))
    np.testing.assert_array_equal(of_matrix(a, False).dense(), a)
    np.testing.assert_array_equal(of_matrix(a, False, TREE).dense(), a)
    assert of_matrix(a, False, TREE).size == N


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_is_a_linear_solver(name: str):
    solver = linear.Auto() if SOLVERS[name] is None else SOLVERS[name]
    assert isinstance(solver, linear.LinearSolver)
    assert hash(solver) == hash(type(solver)(**vars(solver)))


# --- derivatives -------------------------------------------------------------------------------------


def family(name: str) -> tuple[Any, Any, jax.Array]:
    """A and b as functions of two parameters, and where to look."""
    rng = np.random.default_rng(11)
    a0, a1 = jnp.asarray(matrix_for(name, rng)), jnp.asarray(positive(rng))
    b0, b1 = jnp.asarray(rng.normal(size=(2, N)))
    return (
        lambda p: a0 + p[0] ** 2 * a1,
        lambda p: b0 + jnp.sin(p[1]) * b1 + p[0] * b0,
        jnp.asarray([0.4, 0.7]),
    )


@pytest.mark.parametrize("name", ["Cholesky", "CG", "LU", "GMRES", "BiCGStab", "Nystrom"])
def test_derivatives_are_those_of_the_dense_solve(name: str):
    a, b, at = family(name)
    mine = lambda p: linear.solve(of_matrix(a(p), name in POSITIVE), b(p), SOLVERS[name])  # noqa: E731
    dense = lambda p: jnp.linalg.solve(a(p), b(p))  # noqa: E731
    wanted = jax.jacfwd(dense)(at)
    forward, reverse = jax.jit(lambda p: (jax.jacfwd(mine)(p), jax.jacrev(mine)(p)))(at)
    np.testing.assert_allclose(forward, wanted, atol=1e-6)
    np.testing.assert_allclose(reverse, wanted, atol=1e-6)


@pytest.mark.parametrize("name", ["Cholesky", "CG", "LU"])
def test_second_derivatives(name: str):
    a, b, at = family(name)
    mine = lambda p: jnp.sum(linear.solve(of_matrix(a(p), name in POSITIVE), b(p), SOLVERS[name]) ** 2)  # noqa: E731
    dense = lambda p: jnp.sum(jnp.linalg.solve(a(p), b(p)) ** 2)  # noqa: E731
    wanted = jax.hessian(dense)(at)
    forward, reverse = jax.jit(lambda p: (jax.jacfwd(jax.grad(mine))(p), jax.jacrev(jax.grad(mine))(p)))(at)
    np.testing.assert_allclose(forward, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(reverse, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("solver", [linear.LU(), linear.CG()])
def test_reverse_mode_where_only_some_leaves_are_perturbed(solver: Any):
    a = jnp.asarray(positive(np.random.default_rng(5)))

    def total(t: jax.Array) -> jax.Array:
        b = {"w": jnp.ones((1, 2)), "b": t, "c": [jnp.ones(1)]}
        return jnp.sum(trees.ravel(linear.solve(of_matrix(a, False, TREE), b, solver))[0])

    wanted = jnp.sum(jnp.linalg.inv(a)[:, 0])  # "b" comes first
    np.testing.assert_allclose(jax.jit(jax.grad(total))(jnp.asarray(2.0)), wanted, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(total))(jnp.asarray(2.0)), wanted, rtol=1e-6)


@pytest.mark.parametrize("name", ["Cholesky", "CG", "LU", "BiCGStab", "Nystrom"])
def test_a_batch_is_solved_lane_by_lane(name: str):
    rng = np.random.default_rng(2)
    a = np.stack([matrix_for(name, rng) for _ in range(3)])
    b = rng.normal(size=(3, N))
    b[1] = 0.0
    x = jax.vmap(solve_by(name))(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_allclose(x, np.linalg.solve(a, b[..., None])[..., 0], atol=1e-6)
    shared = jax.vmap(solve_by(name), in_axes=(None, 0))(jnp.asarray(a[0]), jnp.asarray(b))
    np.testing.assert_allclose(shared, np.linalg.solve(a[0], b.T).T, atol=1e-6)


# --- nothing on the right ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Cholesky", "CG", "LU", "GMRES", "BiCGStab", "Neumann"])
def test_a_zero_right_hand_side_gives_zero_with_its_derivatives(name: str):
    a, _, at = family(name)
    direction = jnp.asarray([1.0, -2.0, 0.5, 1.0])

    def total(p: jax.Array) -> jax.Array:
        x = linear.solve(of_matrix(a(p), name in POSITIVE), p[1] * direction, SOLVERS[name])
        return jnp.vdot(x, jnp.arange(1.0, 5.0))

    at = at.at[1].set(0.0)
    value, slope = jax.jit(jax.value_and_grad(total))(at)
    assert value == 0
    wanted = jnp.vdot(jnp.linalg.solve(a(at), direction), jnp.arange(1.0, 5.0))
    np.testing.assert_allclose(slope, [0.0, wanted], atol=1e-5)


@pytest.mark.parametrize("name", ["CG", "BiCGStab"])
def test_a_zero_cotangent_gives_zero(name: str):
    a, b, at = family(name)
    pulled = jax.jit(lambda p: jax.vjp(lambda p: solve_by(name)(a(p), b(p)), p)[1](jnp.zeros(N))[0])
    np.testing.assert_array_equal(pulled(at), jnp.zeros(2))


# --- failures are NaN --------------------------------------------------------------------------------

SINGULAR = np.diag([1.0, 2.0, 0.0, 3.0])
INDEFINITE = np.diag([1.0, 2.0, -1.0, 3.0])


@pytest.mark.parametrize(
    ("name", "matrix"),
    [
        ("LU", SINGULAR),
        ("Cholesky", SINGULAR),
        ("Cholesky", INDEFINITE),
        ("CG", SINGULAR),
        ("CG", INDEFINITE),
        ("GMRES", SINGULAR),
        ("BiCGStab", SINGULAR),
    ],
)
def test_what_cannot_be_solved_is_nan(name: str, matrix: np.ndarray):
    x = solve_by(name)(jnp.asarray(matrix), jnp.ones(N))
    assert jnp.all(jnp.isnan(x)), x


def test_a_nan_in_the_matrix_is_nan_everywhere():
    for name in SOLVERS:
        x = solve_by(name)(jnp.eye(N).at[2, 1].set(jnp.nan), jnp.ones(N))
        assert jnp.any(jnp.isnan(x)), name


@pytest.mark.parametrize(
    "solver", [linear.CG(max_steps=2), linear.GMRES(restart=2, max_steps=1), linear.BiCGStab(max_steps=1)]
)
def test_too_few_steps_are_nan_and_in_the_derivative_too(solver: Any):
    a = jnp.asarray(positive(np.random.default_rng(1), condition=1e4))
    total = lambda b: jnp.sum(linear.solve(of_matrix(a, True), b, solver))  # noqa: E731
    value, slope = jax.jit(jax.value_and_grad(total))(jnp.ones(N))
    assert jnp.isnan(value)
    assert jnp.all(jnp.isnan(slope))


def test_cg_of_a_fixed_length_is_taken_as_it_is():
    a, b = positive(np.random.default_rng(1), condition=1e4), np.ones(N)
    errors = []
    for steps in (1, 2, N + 1):
        x = linear.solve(of_matrix(jnp.asarray(a), True), jnp.asarray(b), linear.CG(tol=0.0, max_steps=steps))
        gap = np.asarray(x) - np.linalg.solve(a, b)
        errors.append(np.sqrt(gap @ a @ gap))
    assert errors[0] > errors[1] > errors[2], "the error falls in the norm of A"
    assert errors[2] < 1e-8


# --- approximations ----------------------------------------------------------------------------------


def test_the_neumann_series_converges_at_its_rate():
    rng = np.random.default_rng(4)
    shrink = 0.5 * np.linalg.qr(rng.normal(size=(N, N)))[0]  # |I - A| = 1/2, exactly, in every direction
    a, b = np.eye(N) - shrink, rng.normal(size=N)
    exact = np.linalg.solve(a, b)
    for terms in (1, 3, 8):
        x = linear.solve(of_matrix(jnp.asarray(a), False), jnp.asarray(b), linear.Neumann(terms))
        error = np.linalg.norm(np.asarray(x) - exact)
        assert error == pytest.approx(0.5**terms * np.linalg.norm(exact), rel=1e-9)


def test_the_scale_of_the_neumann_series():
    a = positive(np.random.default_rng(6), condition=3.0) * 50.0
    exact = np.linalg.solve(a, np.ones(N))
    for solver in (linear.Neumann(60), linear.Neumann(60, scale=1 / 50)):
        x = linear.solve(of_matrix(jnp.asarray(a), True), jnp.ones(N), solver)
        np.testing.assert_allclose(x, exact, rtol=1e-6)
    unscaled = linear.solve(of_matrix(jnp.asarray(a), True), jnp.ones(N), linear.Neumann(60, scale=1.0))
    assert not np.allclose(unscaled, exact), "without a scale the series diverges"


def test_nystrom_is_exact_at_full_rank_and_better_with_more():
    n = 12
    rng = np.random.default_rng(8)
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    values = 2.0 ** -np.arange(n) + 1e-3
    a, b = (q * values) @ q.T, rng.normal(size=n)
    exact = np.linalg.solve(a, b)
    errors = []
    for rank in (2, 6, n):
        solver = linear.Nystrom(rank)
        x = jax.jit(lambda a, b, s=solver: linear.solve(of_matrix(a, True), b, s))(a, b)
        errors.append(np.linalg.norm(np.asarray(x) - exact))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-8 * np.linalg.norm(exact)


def test_nystrom_with_a_shift():
    low_rank = np.diag([4.0, 2.0, 0.0, 0.0])
    solver = linear.Nystrom(rank=3, shift=10.0)
    x = jax.jit(lambda a, b: linear.solve(of_matrix(a, True), b, solver))(low_rank, np.ones(N))
    np.testing.assert_allclose(x, [0.25, 0.5, 0.1, 0.1], rtol=1e-6)


# --- the choice --------------------------------------------------------------------------------------


def primitives(n: int, spd: bool) -> str:
    operator = linear.Operator(lambda v: 2.0 * v, jnp.zeros(n), symmetric=spd, positive=spd)
    return str(jax.make_jaxpr(lambda b: linear.solve(operator, b))(jnp.ones(n)))


def test_the_choice_goes_by_the_facts():
    assert "cholesky" in primitives(10, spd=True)
    assert " lu" in primitives(10, spd=False)
    for spd in (True, False):
        large = primitives(300, spd)
        assert "while" in large
        assert "300,300]" not in large, "no dense matrix above 256 unknowns"


MEDIUM = 130


def eigenvalues(condition: float, few: int | None = None) -> np.ndarray:
    """A spectrum: geometric, or ones with a few small eigenvalues."""
    if few is None:
        return np.geomspace(1.0, 1 / condition, MEDIUM)
    return np.r_[np.ones(MEDIUM - few), np.full(few, 1 / condition)]


def with_eigenvalues(values: np.ndarray, seed: int = 0) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(MEDIUM, MEDIUM)))
    return (q * values) @ q.T


@functools.cache
def automatic(dtype: Any = jnp.float64) -> Any:
    """The default with a matrix of `MEDIUM` unknowns."""
    like = jnp.zeros(MEDIUM, dtype)
    return jax.jit(lambda a, b: linear.solve(of_matrix(a, True, like), b))


@pytest.mark.parametrize(
    ("values", "dense"),
    [
        (eigenvalues(2.0), False),
        (eigenvalues(1e6, few=1), False),
        (eigenvalues(1e10, few=1), True),
        (eigenvalues(1e3), True),
        (eigenvalues(1e10), True),
    ],
    ids=["well conditioned", "one small", "one tiny", "ill", "very ill"],
)
def test_a_medium_system_is_iterated_where_that_is_soon_done_and_else_factorised(
    values: np.ndarray, dense: bool
):
    a, b = with_eigenvalues(values), np.random.default_rng(1).normal(size=MEDIUM)
    x = np.asarray(automatic()(jnp.asarray(a), jnp.asarray(b)))
    factorised = np.asarray(linear.solve(of_matrix(jnp.asarray(a), True), jnp.asarray(b), linear.Cholesky()))
    assert np.array_equal(x, factorised) == dense
    assert np.linalg.norm(a @ x - b) <= (1e-15 * np.linalg.norm(x) if dense else 2.1e-9 * np.linalg.norm(b))
    gap = np.linalg.norm(x - np.linalg.solve(a, b)) / np.linalg.norm(x)
    assert gap <= (1e-8 if not dense else 1e-15 * np.linalg.cond(a))


def test_a_medium_system_in_float32():
    a, b = with_eigenvalues(eigenvalues(2.0)), np.random.default_rng(1).normal(size=MEDIUM)
    x = automatic(jnp.float32)(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x, np.linalg.solve(a, b), atol=2e-5)


@pytest.mark.parametrize("least", [0.0, -1e-3, np.nan])
def test_a_medium_system_that_cannot_be_solved_is_nan(least: float):
    a = with_eigenvalues(np.r_[np.ones(MEDIUM - 1), least])
    assert np.all(np.isnan(automatic()(jnp.asarray(a), jnp.ones(MEDIUM))))


def test_nothing_on_the_right_of_a_medium_system():
    assert not np.any(automatic()(jnp.asarray(with_eigenvalues(eigenvalues(2.0))), jnp.zeros(MEDIUM)))


def test_medium_systems_in_a_batch_are_factorised():
    a = np.stack([with_eigenvalues(eigenvalues(c), seed=3) for c in (2.0, 1e4)])
    b = np.random.default_rng(1).normal(size=(2, MEDIUM))
    both = jax.vmap(automatic())(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_allclose(both, np.linalg.solve(a, b[..., None])[..., 0], rtol=0, atol=1e-9)
    shared = jax.vmap(automatic(), in_axes=(None, 0))
    np.testing.assert_allclose(shared(a[0], b), np.linalg.solve(a[0], b.T).T, rtol=0, atol=1e-13)
    assert "while" not in str(jax.make_jaxpr(shared)(a[0], b)).replace("while_loop", "")


def test_derivatives_across_a_medium_system():
    a0, a1 = (jnp.asarray(with_eigenvalues(eigenvalues(2.0), seed)) for seed in (0, 1))
    b = jnp.asarray(np.random.default_rng(1).normal(size=MEDIUM))
    by = lambda solve: lambda p: jnp.sum(solve(a0 + p[0] * a1, b * p[1]) ** 2)  # noqa: E731
    at = jnp.asarray([0.4, 0.7])
    mine, wanted = by(automatic()), by(jnp.linalg.solve)
    for derivative in (jax.grad, lambda f: jax.jacfwd(jax.grad(f))):
        np.testing.assert_allclose(jax.jit(derivative(mine))(at), derivative(wanted)(at), rtol=3e-8)


def test_a_collective_inside_a_medium_system():
    def total(part: jax.Array) -> jax.Array:
        matvec = lambda v: v + jax.lax.psum(part, "lanes") * v  # noqa: E731
        operator = linear.Operator(matvec, jnp.zeros(MEDIUM), symmetric=True, positive=True)
        return linear.solve(operator, jnp.ones(MEDIUM))

    x = jax.vmap(total, axis_name="lanes")(jnp.asarray([1.0, 2.0]))
    np.testing.assert_allclose(x, 0.25)


def test_many_unknowns_without_a_matrix():
    n = 100_000
    diagonal = jnp.linspace(1.0, 3.0, n)
    operator = linear.Operator(lambda v: diagonal * v, jnp.zeros(n), symmetric=True, positive=True)
    x = linear.solve(operator, jnp.ones(n))
    np.testing.assert_allclose(x, 1 / diagonal, rtol=1e-8)
