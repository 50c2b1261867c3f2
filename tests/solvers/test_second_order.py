"""SQP looks at curvature: saddles and maxima along the constraints are left, and what is not strict is said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nestor
from nestor import Constraint

CIRCLE = Constraint(lambda x: jnp.sum(x**2), equal=2.0)


def test_a_maximum_along_the_constraint_is_left_for_the_minimum():
    solution = nestor.minimize(jnp.sum, jnp.ones(2), constraints=CIRCLE)
    np.testing.assert_allclose(solution.x, [-1, -1], atol=1e-7)
    assert float(solution.kkt.curvature) == pytest.approx(1.0, abs=1e-6)  # the Lagrangian is sum x + ½|x|²


def test_a_saddle_between_two_bounds_is_left():
    solution = nestor.minimize(
        lambda x: x[0] ** 2 - x[1] ** 2,
        jnp.zeros(2),
        bounds=(-1.0, 2.0),
        constraints=Constraint(jnp.sum, upper=9.0),
    )
    assert abs(float(solution.x[1])) in (1.0, 2.0)
    np.testing.assert_allclose(solution.x[0], 0, atol=1e-7)
    assert float(solution.kkt.curvature) == pytest.approx(2.0)


def test_a_minimum_that_is_not_strict_has_no_curvature():
    flat = nestor.minimize(
        lambda x: jnp.sum(x) ** 2, jnp.array([1.0, 2.0]), constraints=Constraint(jnp.sum, lower=-5.0)
    )
    assert abs(float(flat.kkt.curvature)) < 1e-9
    corner = nestor.minimize(
        jnp.sum,
        jnp.ones(2),
        constraints=[Constraint(lambda x: x[0], lower=0.0), Constraint(lambda x: x[1], lower=0.0)],
    )
    assert np.isinf(corner.kkt.curvature)


def test_a_weakly_active_inequality_is_counted():
    solution = nestor.minimize(
        lambda x: jnp.sum(x**2), jnp.ones(2), constraints=Constraint(lambda x: x[1], lower=0.0)
    )
    np.testing.assert_allclose(solution.x, 0, atol=1e-7)
    assert int(solution.kkt.weakly_active) == 1


@pytest.mark.slow
def test_quadratic_programs_that_are_not_convex_end_at_a_minimum():
    P = jnp.diag(jnp.array([1.0, -1.0]))
    solution = jax.jit(lambda q: nestor.solve_qp(P, q, bounds=(-1.0, 1.0)).x)(jnp.zeros(2))
    np.testing.assert_allclose(jnp.abs(solution), [0, 1], atol=1e-7)
