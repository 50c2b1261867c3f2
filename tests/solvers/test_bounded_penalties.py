"""Bounds beside a penalty: against SciPy on a smooth twin, derivatives, and which penalties may not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import nestor
from nestor.proximal import ElasticNet, GroupLasso, Lasso, NonNegativeLasso

RNG = np.random.default_rng(0)
A, Y = RNG.normal(size=(30, 6)), RNG.normal(size=30)
LOW, HIGH = -0.1, 0.25


def solved(strength, high=HIGH, **options):
    return nestor.minimize(
        lambda x: jnp.sum((jnp.asarray(A) @ x - jnp.asarray(Y)) ** 2) / 2,
        jnp.ones(6),
        bounds=(LOW, high),
        prox=Lasso(strength),
        tol=1e-11,
        **options,
    )


def test_the_answer_is_that_of_a_smooth_problem_of_both_signs():
    """x = p - n with p, n >= 0 makes the lasso smooth."""
    strength = 2.0

    def both(v):
        x = v[:6] - v[6:]
        grad = A.T @ (A @ x - Y)
        return np.sum((A @ x - Y) ** 2) / 2 + strength * v.sum(), np.concatenate([grad, -grad]) + strength

    sides = [(0, HIGH)] * 6 + [(0, -LOW)] * 6
    twin = scipy.optimize.minimize(
        both, np.zeros(12), jac=True, bounds=sides, options={"ftol": 1e-15, "gtol": 1e-10}
    )
    x = solved(strength).x
    np.testing.assert_allclose(x, twin.x[:6] - twin.x[6:], atol=1e-5)
    assert float(x.min()) >= LOW
    assert float(x.max()) <= HIGH
    assert bool(jnp.any(x == 0)) or bool(jnp.any(x == HIGH))


def test_derivatives_in_strength_and_bound_agree_with_differences():
    of = lambda strength, high: jnp.sum(solved(strength, high).x ** 2)  # noqa: E731
    slopes = jax.grad(of, (0, 1))(2.0, HIGH)
    step = 1e-5
    numeric = [
        (of(2.0 + step, HIGH) - of(2.0 - step, HIGH)) / (2 * step),
        (of(2.0, HIGH + step) - of(2.0, HIGH - step)) / (2 * step),
    ]
    np.testing.assert_allclose(slopes, numeric, rtol=1e-5, atol=1e-7)


def test_a_tree_of_penalties_with_bounds():
    fun = lambda x: (x["a"] - 2.0) ** 2 + jnp.sum((x["b"] + 1.0) ** 2)  # noqa: E731
    start = {"a": 0.0, "b": jnp.zeros(2)}
    x = nestor.minimize(fun, start, bounds=(-0.5, 1.0), prox={"a": ElasticNet(0.1, 0.1), "b": None}).x
    np.testing.assert_allclose([x["a"], *x["b"]], [1.0, -0.5, -0.5])


def test_penalties_that_mix_entries_are_refused_with_a_remedy():
    for prox, match in ((GroupLasso(0.1), "GroupLasso"), ({"a": nestor.proximal.L2Ball(1.0)}, "Constraint")):
        x0 = jnp.ones(2) if isinstance(prox, GroupLasso) else {"a": jnp.ones(2)}
        with pytest.raises(nestor.BadArgument, match=match):
            nestor.minimize(lambda x: jnp.sum(jax.tree.leaves(x)[0] ** 2), x0, bounds=(0.0, 1.0), prox=prox)
    with pytest.raises(nestor.BadArgument, match="below zero"):
        nestor.minimize(jnp.sum, jnp.ones(2), bounds=(-2.0, -1.0), prox=NonNegativeLasso(0.1))
