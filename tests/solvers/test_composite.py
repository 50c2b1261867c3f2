"""Composite problems, fun + g: against closed forms on the support, dense KKT systems, SciPy, differences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import nestor
from nestor import proximal
from tests.compiles import compilations

RNG = np.random.default_rng(0)
M, N = 30, 8
A = RNG.normal(size=(M, N))
B = A @ np.array([2.0, -1.5, 1.0, 0, 0, 0, 0, 0.5]) + 0.3 * RNG.normal(size=M)
START = jnp.full(N, 1 / N)
TIGHT = {"tol": 1e-11, "max_steps": 3000}


def misfit(x, b=None):
    return jnp.sum((jnp.asarray(A) @ x - (jnp.asarray(B) if b is None else b)) ** 2) / 2


def lasso(strength, b=None, **options):
    return nestor.argmin(lambda x: misfit(x, b), START, prox=proximal.Lasso(strength), **(TIGHT | options))


def lasso_by_hand(x, strength):
    """The answer and its derivatives in the strength and in b, on the support of x."""
    on = np.asarray(x) != 0
    sign, part = np.sign(np.asarray(x))[on], A[:, on]
    gram = part.T @ part
    answer, slope, in_b = np.zeros(N), np.zeros(N), np.zeros((N, M))
    answer[on] = np.linalg.solve(gram, part.T @ B - strength * sign)
    slope[on] = -np.linalg.solve(gram, sign)
    in_b[on] = np.linalg.solve(gram, part.T)
    return answer, slope, in_b


def test_lasso_on_its_support():
    x, (slope, in_b) = jax.jit(lambda s, b: (lasso(s, b), jax.jacfwd(lasso, argnums=(0, 1))(s, b)))(
        6.0, jnp.asarray(B)
    )
    assert 0 < np.count_nonzero(x) < N
    for found, wanted in zip((x, slope, in_b), lasso_by_hand(x, 6.0), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_lasso_hypergradient_against_differences():
    def loss(strength):
        return jnp.sum((lasso(strength) - 1.0) ** 2)

    h = 1e-5
    difference = (loss(6.0 + h) - loss(6.0 - h)) / (2 * h)
    np.testing.assert_allclose(jax.grad(loss)(6.0), difference, rtol=1e-8)


def test_many_strengths_at_once_and_one_after_the_other():
    strengths = jnp.array([0.5, 3.0, 9.0])
    together = jax.vmap(lasso)(strengths)
    for strength, x in zip(strengths, together, strict=True):
        np.testing.assert_allclose(x, lasso(strength), atol=1e-9)
        np.testing.assert_allclose(x, lasso_by_hand(x, float(strength))[0], atol=1e-9)


def test_a_sweep_over_python_numbers_compiles_once():
    for strength in (1.0, 2.0):
        nestor.minimize(misfit, START, prox=proximal.Lasso(strength))
    with compilations() as count:
        nestor.minimize(misfit, START, prox=proximal.Lasso(3.0))
    assert count.number == 0


def simplex_by_hand(x, b):
    """The derivative in b of the least misfit on the simplex: a dense KKT system on the support."""
    on = np.asarray(x) > 0
    part = A[:, on]
    size = part.shape[1]
    kkt = np.block([[part.T @ part, np.ones((size, 1))], [np.ones((1, size)), np.zeros((1, 1))]])
    out = np.zeros((N, M))
    out[on] = np.linalg.solve(kkt, np.vstack([part.T, np.zeros((1, M))]))[:size]
    return out


def test_simplex_against_kkt_and_scipy():
    solve = lambda b: nestor.argmin(lambda x: misfit(x, b), START, prox=proximal.Simplex(), **TIGHT)  # noqa: E731
    x, jacobian = jax.jit(lambda b: (solve(b), jax.jacfwd(solve)(b)))(jnp.asarray(B))
    other = scipy.optimize.minimize(
        lambda x: float(np.sum((A @ x - B) ** 2) / 2),
        np.asarray(START),
        jac=lambda x: A.T @ (A @ x - B),
        bounds=[(0, None)] * N,
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1},
        method="SLSQP",
        tol=1e-14,
    )
    assert 1 < np.count_nonzero(x) < N
    np.testing.assert_allclose(x, other.x, atol=1e-7)
    np.testing.assert_allclose(jacobian, simplex_by_hand(x, B), atol=1e-9)


def test_least_value_in_a_ball_has_the_multiplier_for_a_derivative():
    def least(radius):
        return nestor.minimum(misfit, START, prox=proximal.L1Ball(radius), **TIGHT)

    first = jax.grad(least)
    x = nestor.argmin(misfit, START, prox=proximal.L1Ball(2.0), **TIGHT)
    np.testing.assert_allclose(first(2.0), -np.max(np.abs(A.T @ (A @ x - B))), rtol=1e-9)
    on = np.asarray(x) != 0
    sign, gram = np.sign(np.asarray(x))[on], A[:, on].T @ A[:, on]
    np.testing.assert_allclose(jax.grad(first)(2.0), 1 / (sign @ np.linalg.solve(gram, sign)), rtol=1e-8)


LASSO, SIMPLEX = proximal.Lasso(jnp.asarray(2.0)), proximal.Simplex()


@pytest.mark.parametrize(
    ("solver", "term", "tol"),
    [
        (nestor.ProximalGradient("spectral"), LASSO, 1e-9),
        (nestor.BlockCoordinateDescent("rows"), LASSO, 1e-9),
        pytest.param(nestor.ProximalGradient("none"), LASSO, 1e-9, marks=pytest.mark.slow),
        pytest.param(nestor.BlockCoordinateDescent("rows", "cyclic"), LASSO, 1e-9, marks=pytest.mark.slow),
        (nestor.ProjectedGradient(), SIMPLEX, 1e-9),
        (nestor.MirrorDescent(), SIMPLEX, 1e-8),
        (nestor.FrankWolfe(), proximal.L2Ball(1.5), 1e-4),
        pytest.param(nestor.FrankWolfe(), SIMPLEX, 1e-2, marks=pytest.mark.slow),
        pytest.param(nestor.ProjectedGradient(), proximal.Box(-0.1, 0.2), 1e-9, marks=pytest.mark.slow),
        pytest.param(nestor.MirrorDescent(), proximal.NonNegative(), 1e-8, marks=pytest.mark.slow),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_every_solver_finds_it(solver, term, tol):
    found = nestor.minimize(misfit, START, prox=term, solver=solver, tol=tol, max_steps=5000)
    best = nestor.minimize(misfit, START, prox=term, **TIGHT)
    assert float(found.fun) - float(best.fun) <= 10 * tol
    np.testing.assert_allclose(found.x, best.x, atol=1e-7 if tol < 1e-7 else tol**0.5)


def test_a_penalty_for_each_branch():
    fun = lambda t: misfit(jnp.concatenate([t["a"], t["b"]]))  # noqa: E731
    start = {"a": jnp.zeros(3), "b": jnp.zeros(5)}
    x = nestor.argmin(fun, start, prox={"a": proximal.Lasso(1.0), "b": proximal.NonNegative()}, **TIGHT)
    flat = np.concatenate([x["a"], x["b"]])
    slope = A.T @ (A @ flat - B)
    np.testing.assert_allclose(slope[:3], -np.sign(flat[:3]), atol=1e-8)
    assert (flat[3:] >= 0).all()
    np.testing.assert_allclose(np.where(flat[3:] > 0, slope[3:], np.minimum(slope[3:], 0)), 0, atol=1e-8)


def test_every_evaluation_of_a_projected_method_is_in_the_set():
    seen = []
    box = proximal.Box(0.0, 0.2)
    nestor.minimize(
        misfit,
        jnp.ones(N),
        prox=box,
        solver=nestor.ProjectedGradient(),
        callback=lambda r: seen.append(np.asarray(r.x)),
    )
    assert len(seen) > 2
    assert all((x >= 0).all() and (x <= 0.2).all() for x in seen)


@pytest.mark.slow
def test_float32_and_trees_of_two_dtypes():
    fun = lambda t: jnp.sum((t["a"] - 2.0) ** 2) + jnp.sum((t["b"] + 1.0) ** 2).astype(jnp.float32)  # noqa: E731
    start = {"a": jnp.zeros(2, jnp.float32), "b": jnp.zeros(2)}
    found = nestor.minimize(fun, start, prox=proximal.Lasso(1.0), tol=1e-5)
    assert found.x["a"].dtype == jnp.float32
    np.testing.assert_allclose(found.x["a"], 1.5, atol=1e-4)
    np.testing.assert_allclose(found.x["b"], -0.5, atol=1e-4)


@pytest.mark.slow
def test_unrolled_and_implicit_derivatives_agree():
    loss = lambda s, **o: jnp.sum(lasso(s, **o) ** 2)  # noqa: E731
    unrolled = jax.grad(lambda s: loss(s, adjoint=nestor.Unroll(), max_steps=200))(6.0)
    np.testing.assert_allclose(unrolled, jax.grad(loss)(6.0), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prox": proximal.Lasso}, "class Lasso"),
        ({"prox": 0.1}, "penalty or a set"),
        ({"prox": LASSO, "solver": nestor.BFGS()}, "composite"),
        ({"prox": LASSO, "solver": nestor.FrankWolfe()}, "lowest"),
        ({"prox": nestor.proximal.Simplex(), "bounds": (0.0, 1.0)}, "no sum over entries"),
        ({"prox": proximal.Lasso(jnp.ones(3))}, "strength"),
        ({"prox": {"a": LASSO}}, "tree"),
        ({"prox": LASSO, "solver": nestor.ProximalGradient("fista")}, "momentum"),
    ],
)
def test_refusals(options, said):
    with pytest.raises(nestor.BadArgument, match=said):
        nestor.minimize(misfit, START, **options)


def test_two_sets_with_the_same_settings_are_two_programs():
    found = [nestor.argmin(misfit, START, prox=kind(2.0)) for kind in (proximal.Simplex, proximal.L1Ball)]
    assert (found[0] >= 0).all()
    assert (found[1] < 0).any()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Distance:
    """A penalty of one's own: strength times |x - centre|₁."""

    strength: jax.Array
    centre: jax.Array

    def value(self, x):
        return self.strength * jnp.sum(jnp.abs(x - self.centre))

    def prox(self, x, step=1.0):
        return self.centre + proximal.Lasso(self.strength).prox(x - self.centre, step)


@pytest.mark.slow
def test_a_penalty_of_ones_own():
    centre = jnp.linspace(-1.0, 1.0, N)
    shifted = jnp.asarray(B - A @ np.asarray(centre))
    found = lambda s: nestor.argmin(misfit, START, prox=Distance(s, centre), **TIGHT)  # noqa: E731
    np.testing.assert_allclose(found(6.0 * jnp.ones(())), centre + lasso(6.0, shifted), atol=1e-9)
    slope, wanted = jax.jacfwd(found)(6.0), jax.jacfwd(lambda s: lasso(s, shifted))(6.0)
    np.testing.assert_allclose(slope, wanted, atol=1e-9)


@pytest.mark.slow
def test_seven_nestings_agree_with_the_closed_form():
    """Second derivatives of |x(s)|² in the strength: the support is fixed, so x is linear in s."""
    x, slope, _ = lasso_by_hand(lasso(6.0), 6.0)
    f = lambda s: jnp.sum(lasso(s) ** 2)  # noqa: E731
    first, second = 2 * x @ slope, 2 * slope @ slope
    two = jnp.array([6.0, 6.0])
    np.testing.assert_allclose(jax.grad(f)(6.0), first, rtol=1e-8)
    np.testing.assert_allclose(jax.jacfwd(f)(6.0), first, rtol=1e-8)
    np.testing.assert_allclose(jax.jacrev(f)(6.0), first, rtol=1e-8)
    np.testing.assert_allclose(jax.vmap(jax.grad(f))(two), [first] * 2, rtol=1e-8)
    np.testing.assert_allclose(jax.grad(lambda s: jnp.sum(jax.vmap(f)(s)))(two), [first] * 2, rtol=1e-8)
    np.testing.assert_allclose(jax.jacfwd(jax.grad(f))(6.0), second, rtol=1e-8)
    np.testing.assert_allclose(jax.jacrev(jax.jacfwd(f))(6.0), second, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("acceleration", ["momentum", "spectral", "none"])
def test_a_smooth_part_that_is_not_convex_or_not_finite_everywhere(acceleration):
    solver = nestor.ProximalGradient(acceleration)
    wavy = lambda x: jnp.sum(jnp.cos(3 * x) + x**2 / 2)  # noqa: E731
    found = nestor.minimize(wavy, jnp.linspace(-2.0, 2.0, 7), prox=proximal.Lasso(0.2), solver=solver)
    slope = found.x - 3 * jnp.sin(3 * found.x)
    np.testing.assert_allclose(found.x, proximal.Lasso(0.2).prox(found.x - slope), atol=1e-6)
    barrier = lambda x: -jnp.sum(jnp.log(x)) + jnp.sum(jnp.arange(1.0, 5.0) * x)  # noqa: E731
    inside = nestor.minimize(barrier, jnp.full(4, 0.25), prox=proximal.Simplex(2.0), solver=solver)
    t = scipy.optimize.brentq(lambda t: np.sum(1 / (np.arange(1, 5) + t)) - 2, -0.9, 10)
    np.testing.assert_allclose(inside.x, 1 / (np.arange(1, 5) + t), atol=1e-6)


@pytest.mark.slow
def test_many_unknowns_are_differentiated_without_a_dense_hessian():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(150, 600)) / 12, rng.normal(size=150)

    def solve(strength):
        fun = lambda x: jnp.sum((jnp.asarray(a) @ x - jnp.asarray(b)) ** 2) / 2  # noqa: E731
        return nestor.argmin(fun, jnp.zeros(600), prox=proximal.Lasso(strength), tol=1e-10, max_steps=5000)

    x, slope = solve(0.5), jax.jacfwd(solve)(0.5)
    on = np.asarray(x) != 0
    wanted = -np.linalg.solve(a[:, on].T @ a[:, on], np.sign(np.asarray(x))[on])
    np.testing.assert_allclose(slope[on], wanted, rtol=1e-7)
    assert (slope[~on] == 0).all()


def test_what_has_no_least_value_ends_far_down_and_an_empty_set_is_no_success():
    options = {"raise_on_failure": False, "solver": nestor.ProximalGradient("spectral")}
    falling = nestor.minimize(lambda x: -jnp.sum(x**2), jnp.ones(3), prox=proximal.Lasso(1.0), **options)
    assert falling.status == nestor.Status.UNBOUNDED
    assert falling.fun < -1e20
    empty = proximal.BoxSection(0.0, 1.0, 1.0, 9.0)
    nowhere = nestor.minimize(lambda x: jnp.sum(x**2), jnp.ones(3), prox=empty, **options)
    assert nowhere.status == nestor.Status.NOT_FINITE
    with pytest.raises(nestor.BadArgument, match="radius"):
        nestor.minimize(lambda x: jnp.sum(x**2), jnp.ones(3), prox=proximal.L1Ball(-1.0))
