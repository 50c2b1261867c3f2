"""`check_derivatives` says yes to right derivatives and names what is wrong with others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nestor

POINT = {"rate": jnp.asarray([0.3, -0.7]), "scale": jnp.asarray(1.2)}


def right(x):
    return {"out": jnp.sin(x["rate"]) * x["scale"] ** 2, "sum": jnp.sum(x["rate"])}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_right_function_passes(dtype):
    report = nestor.check_derivatives(right, jax.tree.map(lambda leaf: leaf.astype(dtype), POINT))
    assert report, str(report)
    assert report.ok
    assert [row[0] for row in report.rows] == ["x['rate']", "x['scale']"]
    assert "All derivatives agree" in str(report)
    for _, difference, forward, reverse, verdict in report.rows:
        assert verdict == "agree"
        assert difference == pytest.approx(forward, rel=10 * report.tol)
        assert forward == pytest.approx(reverse, rel=10 * report.tol)


def test_a_solve_passes():
    def answer(c):
        return nestor.find_root(lambda z: z + z**3 - c, jnp.zeros(2), tol=1e-10).x

    report = nestor.check_derivatives(answer, jnp.asarray([0.3, -0.4]))
    assert report, str(report)


def test_a_wrong_jvp_is_named():
    @jax.custom_jvp
    def power(x):
        return x**2

    power.defjvps(lambda t, out, x: 2.2 * x * t)
    report = nestor.check_derivatives(lambda x: power(x["scale"]) + jnp.sum(x["rate"]), POINT)
    verdicts = {row[0]: row[-1] for row in report.rows}
    assert not report
    assert verdicts["x['rate']"] == "agree"
    assert verdicts["x['scale']"].startswith("forward and reverse are off by 9.09%")
    assert "DISAGREE" in str(report)
    assert "x['scale']" in str(report)


def test_a_wrong_vjp_is_named_and_the_missing_forward_mode_too():
    @jax.custom_vjp
    def power(x):
        return x**2

    power.defvjp(lambda x: (x**2, x), lambda x, ct: (3.0 * x * ct,))
    (row,) = nestor.check_derivatives(power, jnp.asarray(2.0)).rows
    assert "forward mode failed: can't apply forward-mode" in row[-1]
    assert "reverse is off by 33.3%" in row[-1]
    assert np.isnan(row[2])


def test_a_right_vjp_alone_still_says_that_forward_mode_failed():
    @jax.custom_vjp
    def power(x):
        return x**2

    power.defvjp(lambda x: (x**2, x), lambda x, ct: (2.0 * x * ct,))
    report = nestor.check_derivatives(power, jnp.asarray(2.0))
    assert not report
    assert report.rows[0][-1].startswith("forward mode failed")
    assert "reverse is off" not in report.rows[0][-1]


def test_forward_mode_alone():
    def answer(c):
        return nestor.fixed_point(
            lambda z: z / 2 + c, 0.0, solver=nestor.Picard(), adjoint=nestor.Forward()
        ).x

    (row,) = nestor.check_derivatives(answer, jnp.asarray(0.4)).rows
    assert row[-1].startswith("reverse mode failed: Forward() only has forward-mode derivatives")
    assert row[2] == pytest.approx(row[1], rel=1e-6)


def test_a_kink_is_seen():
    (row,) = nestor.check_derivatives(lambda x: jnp.sum(jnp.maximum(x, 0.0)), jnp.asarray([1e-4])).rows
    assert row[-1].startswith("forward and reverse are off by"), (
        "the difference reaches over the kink at zero"
    )


def test_a_stopped_gradient_is_seen():
    (row,) = nestor.check_derivatives(
        lambda x: jnp.sum(x * jax.lax.stop_gradient(x)), jnp.asarray([0.5, 1.0])
    ).rows
    assert row[-1].startswith("forward and reverse are off by 50%")


def test_a_nan_value_is_said():
    (row,) = nestor.check_derivatives(lambda x: jnp.sum(jnp.log(x)), jnp.asarray([-1.0])).rows
    assert "the function itself is not finite near x" in row[-1]


def test_a_nan_derivative_is_no_agreement():
    @jax.custom_jvp
    def square(x):
        return x**2

    square.defjvps(lambda t, out, x: jnp.nan * t)
    report = nestor.check_derivatives(square, jnp.asarray(0.5))
    assert not report
    assert "off by nan%" in report.rows[0][-1]


def test_a_zero_derivative_agrees():
    assert nestor.check_derivatives(lambda x: jnp.ones(()) + 0.0 * x, jnp.asarray(0.5))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        ({"n": jnp.arange(2), "w": jnp.ones(1)}, "x\\['n'\\] of dtype int"),
        (jnp.asarray(1j), "of dtype complex128"),
        ((1, 2.0), "x\\[0\\] of dtype int"),
    ],
)
def test_leaves_that_are_no_floats_are_refused(x, words):
    with pytest.raises(nestor.BadArgument, match=words):
        nestor.check_derivatives(lambda x: x, x)


def test_tolerance_step_and_directions_are_used():
    def nearly(x):
        return jnp.sum(x**2)

    assert nestor.check_derivatives(nearly, jnp.asarray([1.0, 2.0]), directions=1, seed=3, step=1e-3)
    loose = nestor.check_derivatives(nearly, jnp.asarray([1.0, 2.0]), tol=0.5)
    assert loose.tol == 0.5
    assert loose
