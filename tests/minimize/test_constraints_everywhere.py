"""`nestor.Constraint` on the host, in every framework: limits of all kinds, multipliers, verdicts, bad input."""

import jax.numpy as jnp
import numpy as np
import pytest

import nestor
from nestor import Constraint

METHODS = ["SLSQP", pytest.param("trust-constr", marks=pytest.mark.slow), "COBYQA"]


def in_numpy():
    return lambda v: np.array(v), np.sum


def in_jax():
    return lambda v: jnp.array(v), jnp.sum


def in_torch():
    torch = pytest.importorskip("torch")
    return lambda v: torch.tensor(v, dtype=torch.float64), torch.sum


def in_tensorflow():
    tf = pytest.importorskip("tensorflow")
    return lambda v: tf.constant(v, dtype=tf.float64), tf.reduce_sum


@pytest.fixture(params=[in_numpy, in_jax, in_torch, in_tensorflow], ids=lambda make: make.__name__)
def framework(request):
    return request.param()


def posed(framework):
    """The nearest point to (2, 2, 1), as a tree, and its sum."""
    array, total = framework
    start = {"a": array([0.0, 0.0]), "b": array(0.0)}
    return start, lambda x: total((x["a"] - 2.0) ** 2) + (x["b"] - 1.0) ** 2, total


def numbers(tree):
    return np.concatenate([np.ravel(np.asarray(tree[name])) for name in "ab"])


@pytest.mark.parametrize("method", METHODS)
def test_an_equality(framework, method):
    start, fun, total = posed(framework)
    rule = Constraint(lambda x: total(x["a"]) + x["b"], equal=1.0)
    solution = nestor.minimize(fun, start, method=method, constraints=rule)
    assert solution.status == nestor.Status.CONVERGED
    assert type(solution.x["a"]) is type(start["a"])
    np.testing.assert_allclose(numbers(solution.x), [2 / 3, 2 / 3, -1 / 3], atol=2e-3)
    np.testing.assert_allclose(solution.kkt.constraints[0], 8 / 3, atol=1e-2)
    assert solution.kkt.feasibility <= 1e-4


def test_one_sided_and_two_sided_limits_of_a_tree(framework):
    start, fun, total = posed(framework)
    rules = [
        Constraint(lambda x: x["a"], upper=0.5),
        Constraint(lambda x: {"sum": total(x["a"]) - x["b"]}, lower=0.2, upper={"sum": 0.3}),
    ]
    solution = nestor.minimize(fun, start, method="SLSQP", constraints=rules)
    np.testing.assert_allclose(numbers(solution.x), [0.5, 0.5, 0.8], atol=1e-5)
    np.testing.assert_allclose(solution.kkt.constraints[0], [3.4, 3.4], atol=1e-3)
    np.testing.assert_allclose(solution.kkt.constraints[1]["sum"], -0.4, atol=1e-3)  # a lower limit: negative


def test_what_cannot_be_met_is_infeasible(framework):
    start, fun, _ = posed(framework)
    rules = [Constraint(lambda x: x["b"], lower=1.0), Constraint(lambda x: x["b"], upper=0.0)]
    solution = nestor.minimize(fun, start, method="SLSQP", constraints=rules, raise_on_failure=False)
    assert solution.status == nestor.Status.INFEASIBLE
    assert solution.kkt.feasibility >= 0.4


def test_a_jacobian_is_used_where_it_is_given():
    calls = []

    def jac(x):
        calls.append(x)
        return np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])

    rule = {"type": "eq", "fun": lambda x: np.array([x[0] + x[1] - 1, x[1] + x[2] - 1]), "jac": jac}
    with_it = nestor.minimize(lambda x: np.sum(x**2), np.ones(3), constraints=rule)
    without = nestor.minimize(lambda x: np.sum(x**2), np.ones(3), constraints={**rule, "jac": None})
    assert calls
    np.testing.assert_allclose(with_it.x, [1 / 3, 2 / 3, 1 / 3], atol=1e-6)
    np.testing.assert_allclose(without.x, with_it.x, atol=1e-5)


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        (Constraint(lambda x: x["a"], upper=[1.0, 2.0, 3.0]), "does not fit"),
        (Constraint(lambda x: x["a"], upper=float("nan")), "lower <= upper"),
        (Constraint(lambda x: x["a"], lower=1.0, upper=0.0), "lower <= upper"),
        (Constraint(lambda x: x["a"]), "without a limit"),
        (Constraint(lambda x: x["a"], equal=1.0, lower=0.0), "equal and a limit"),
        (Constraint(lambda x: x["a"], equal=float("inf")), "infinite"),
        (Constraint(3.0, lower=0.0), "the function itself"),
        (Constraint(lambda x: None, lower=0.0), "returns None"),
        (Constraint(lambda x: "no", lower=0.0), "returns 'no'"),
        ({"type": "eq", "fun": lambda x: x["a"], "jac": lambda x: np.ones((3, 3))}, "jac"),
    ],
)
def test_what_is_wrong_is_said(rule, match):
    start, fun, _ = posed(in_numpy())
    with pytest.raises(nestor.BadArgument, match=match):
        nestor.minimize(fun, start, method="SLSQP", constraints=rule)


def test_methods_that_cannot_honour_it_refuse(framework):
    start, fun, _ = posed(framework)
    rule = Constraint(lambda x: x["a"], lower=1.0)
    for method in ("L-BFGS-B", "BFGS", "Nelder-Mead"):
        with pytest.raises(nestor.BadArgument, match="SLSQP"):
            nestor.minimize(fun, start, method=method, constraints=rule)


def test_limits_are_arrays():
    limits = np.array([0.5, 0.0, -0.5])
    above = nestor.Constraint(lambda x: x, lower=limits)
    solution = nestor.minimize(lambda x: np.sum((x + 1.0) ** 2), np.ones(3), constraints=above)
    np.testing.assert_allclose(solution.x, limits, atol=1e-6)
    within = nestor.Constraint(lambda x: x, lower=limits, upper=limits + 1.0)
    solution = nestor.minimize(lambda x: np.sum((x - 9.0) ** 2), np.ones(3), constraints=within)
    np.testing.assert_allclose(solution.x, limits + 1.0, atol=1e-6)
    with pytest.raises(nestor.BadArgument, match="one limit for each entry"):
        nestor.minimize(
            lambda x: np.sum(x**2), np.ones(3), constraints=nestor.Constraint(lambda x: x, lower=np.zeros(2))
        )
