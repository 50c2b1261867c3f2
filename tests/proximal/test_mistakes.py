"""Settings of penalties and sets that cannot be, and arrays that they do not fit: said in words, never NaN."""

import jax
import jax.numpy as jnp
import pytest

import nestor
from nestor import proximal

X = jnp.zeros(3)
WRONG = {
    "a negative radius": (proximal.L2Ball(-1.0), X, r"L2Ball.*'radius' is -1\.0.*>= 0"),
    "a radius that is NaN": (proximal.L1Ball(float("nan")), X, "L1Ball.*'radius' is nan"),
    "a negative total": (proximal.Simplex(-1.0), X, "Simplex.*'total'"),
    "a count that is no integer": (proximal.SparseSimplex(2.5), X, "SparseSimplex.*'count' is 2.5"),
    "a count of none": (proximal.SparseSimplex(0), X, "SparseSimplex.*'count' is 0"),
    "a strength that is negative": (proximal.Lasso(-0.1), X, "Lasso.*'strength' is -0.1"),
    "a strength that is text": (proximal.GroupLasso("soft"), X, "GroupLasso.*'strength' is 'soft'"),
    "a knee that is negative": (proximal.Huber(1.0, -1.0), X, "Huber.*'knee'"),
    "a level above 1": (proximal.Quantile(2.0), X, "Quantile.*'level' is 2.0.*<= 1"),
    "sides crossed": (proximal.Box(1.0, 0.0), X, "Box.*'lower' is 1.0, above upper=0.0"),
    "an axis that is not there": (proximal.Simplex(axis=3), X, r"'axis' is 3, for an array of shape \(3,\)"),
    "a vector for a matrix": (proximal.NuclearBall(1.0), X, r"NuclearBall.*\(3,\).*matrices"),
    "a matrix that is not square": (proximal.PositiveSemidefinite(), jnp.ones((2, 3)), "square matrices"),
    "doubly stochastic, not square": (proximal.Birkhoff(), jnp.ones((2, 3)), "Birkhoff.*square"),
    "sums in the other order": (
        proximal.Transport(jnp.ones(2), jnp.ones(3)),
        jnp.ones((3, 2)),
        r"Transport.*\(3, 2\).*rows of shape \(2,\)",
    ),
    "sums that differ": (
        proximal.Transport(jnp.ones(2), jnp.ones(3)),
        jnp.ones((2, 3)),
        "Transport.*'rows' is of sum 2, where columns sum to 3",
    ),
    "a target of another length": (
        proximal.Affine(jnp.ones((2, 3)), jnp.ones(3)),
        X,
        r"Affine.*'matrix'.*\(m, 3\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_explained(case: str):
    term, x, words = WRONG[case]
    with pytest.raises(nestor.BadArgument, match=f"(?s){words}"):
        term.prox(x)


def test_a_solve_says_it_too():
    with pytest.raises(nestor.BadArgument, match=r"Lasso.*'strength' is -0\.1"):
        nestor.minimize(lambda x: jnp.sum((x - 1.0) ** 2), X, prox=proximal.Lasso(-0.1))


def test_numbers_that_are_traced_are_not_looked_at():
    length = jax.jit(lambda radius: jnp.sum(proximal.L2Ball(radius).project(jnp.ones(4)) ** 2))
    assert float(length(0.5)) == pytest.approx(0.25)
