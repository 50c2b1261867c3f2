"""The default goes on with Newton's method where its first one ends without an answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nestor
from nestor import Status

WEIGHTS = jnp.logspace(-7.0, 0.0, 30)
START = jnp.zeros(30)


def bowl(x, shift):
    """Least at `shift`; its curvatures differ by ten million, which is many steps for BFGS and few for Newton."""
    return jnp.sum(WEIGHTS * (jnp.cosh(x - shift) + 0.1 * jnp.cos(jnp.roll(x, 1) - shift) ** 2))


def solve(**options):
    return nestor.minimize(lambda x: bowl(x, SHIFT), START, raise_on_failure=False, tol=1e-11, **options)


SHIFT = jnp.asarray(1.5)


def test_a_solver_that_was_asked_for_is_the_only_one():
    alone = solve(solver=nestor.BFGS(), max_steps=50)
    assert alone.status is Status.OUT_OF_STEPS
    assert int(alone.stats.evaluations) == 51


def test_the_default_leaves_half_of_the_steps_to_newton_and_counts_them_all():
    seen = []
    both = solve(max_steps=100, history=True, callback=lambda report: seen.append((report.step, report.fun)))
    assert both.status is Status.CONVERGED
    gradient = jax.grad(lambda x: bowl(x, SHIFT))(both.x)
    assert float(jnp.max(jnp.abs(gradient))) <= 2e-11
    evaluations = int(both.stats.evaluations)
    assert 51 < evaluations <= 101
    assert both.history.value.shape == (evaluations,)
    assert [step for step, _ in seen] == list(range(evaluations))
    np.testing.assert_array_equal(np.array([fun for _, fun in seen]), both.history.value)
    assert int(both.stats.accepted) == int(both.history.accepted.sum()) - 2  # both starts were evaluated


def test_steps_that_are_few_are_not_shared():
    few = solve(max_steps=50)
    assert few.status is Status.OUT_OF_STEPS
    assert int(few.stats.evaluations) == 51


def test_inside_a_trace_there_is_one_solver_with_all_the_steps():
    inside = jax.jit(lambda: solve(max_steps=100))()
    assert Status(int(inside.code)) is Status.OUT_OF_STEPS
    assert int(inside.stats.evaluations) == 101


def test_a_wrong_gradient_is_no_answer_for_either():
    @jax.custom_jvp
    def wrong(x):
        return jnp.sum((x - 1.0) ** 2)

    @wrong.defjvp
    def _(primals, tangents):
        return wrong(*primals), -2 * jnp.vdot(primals[0] - 1.0, tangents[0])

    solution = nestor.minimize(wrong, jnp.zeros(3), raise_on_failure=False)
    assert not solution.success


@pytest.mark.slow
def test_answers_and_least_values_go_on_too():
    fun = lambda shift: lambda x: bowl(x, shift)  # noqa: E731
    options = {"tol": 1e-11, "max_steps": 100}
    x = nestor.argmin(fun(SHIFT), START, **options)
    newton = nestor.argmin(fun(SHIFT), START, solver=nestor.Newton(), **options)
    np.testing.assert_allclose(x, newton, atol=1e-3)  # the flattest curvature is 1e-7
    value = nestor.minimum(fun(SHIFT), START, **options)
    np.testing.assert_allclose(value, bowl(newton, SHIFT), rtol=1e-13)
