"""Trees of every framework come back as they were, bounds hold at every evaluation, answers are SciPy's."""

import collections
import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import nestor

START = {"a": [-1.2, 1.0], "b": [[2.0]]}


def value(x, cat):
    x = cat([x["a"].reshape(-1), x["b"].reshape(-1)])
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def in_numpy():
    return np, lambda v: np.array(v), lambda p: value(p, np.concatenate)


def in_jax():
    return jnp, lambda v: jnp.array(v), lambda p: value(p, jnp.concatenate)


def in_torch():
    torch = pytest.importorskip("torch")
    return torch, lambda v: torch.tensor(v, dtype=torch.float64), lambda p: value(p, torch.cat)


def in_tensorflow():
    tf = pytest.importorskip("tensorflow")

    def fun(p):
        x = tf.concat([tf.reshape(p["a"], [-1]), tf.reshape(p["b"], [-1])], 0)
        return tf.reduce_sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    return tf, lambda v: tf.constant(v, dtype=tf.float64), fun


FRAMEWORKS = {"numpy": in_numpy, "jax": in_jax, "torch": in_torch, "tensorflow": in_tensorflow}


@pytest.fixture(params=FRAMEWORKS)
def framework(request):
    return FRAMEWORKS[request.param]()


def flat(tree):
    return np.concatenate([np.asarray(leaf).reshape(-1) for leaf in tree.values()])


@pytest.mark.parametrize("method", ["L-BFGS-B", "bfgs", "trust-exact", "Nelder-Mead"])
def test_a_dictionary_is_solved_in_every_framework(framework, method):
    _, array, fun = framework
    if array([1.0]).__class__ is np.ndarray and method == "trust-exact":
        pytest.skip("NumPy has no second derivatives")
    start = {name: array(entry) for name, entry in START.items()}
    solution = nestor.minimize(fun, start, method=method)
    assert solution.status == nestor.Status.CONVERGED
    assert list(solution.x) == ["a", "b"]
    for name in START:
        assert type(solution.x[name]) is type(start[name])
        assert solution.x[name].dtype == start[name].dtype
        assert tuple(solution.x[name].shape) == tuple(start[name].shape)
    np.testing.assert_allclose(flat(solution.x), 1.0, atol=2e-2)
    assert solution.kkt.stationarity <= solution.stats.tol


@pytest.mark.parametrize(
    "method", ["L-BFGS-B", "BFGS", "CG", "SLSQP", "Newton-CG", "trust-krylov", "trust-ncg"]
)
def test_the_points_are_scipys(method):
    torch = pytest.importorskip("torch")
    start = {name: torch.tensor(entry, dtype=torch.float64) for name, entry in START.items()}
    solution = nestor.minimize(lambda p: value(p, torch.cat), start, method=method)
    vector = flat({name: np.array(entry) for name, entry in START.items()})
    second = {"hess": scipy.optimize.rosen_hess} if "rust" in method or "Newton" in method else {}
    peer = scipy.optimize.minimize(
        scipy.optimize.rosen, vector, jac=scipy.optimize.rosen_der, method=method, **second
    )
    assert int(solution.stats.evaluations) <= peer.nfev
    np.testing.assert_allclose(flat(solution.x), peer.x, atol=1e-5)


@dataclasses.dataclass
class Model:
    weights: Any
    rest: Any
    name: str = dataclasses.field(default="m", metadata={"static": True})


Pair = collections.namedtuple("Pair", "u v")


def test_structures_dtypes_and_scalars_come_back():
    torch = pytest.importorskip("torch")
    start = Model(
        collections.OrderedDict(z=torch.zeros(2), a=torch.ones(1, 3, dtype=torch.float64)),
        [Pair(torch.tensor(0.5), (1.5,)), None],
        name="mine",
    )

    def fun(m):
        wide = ((m.weights["z"] - 1) ** 2).sum() + ((m.weights["a"] - 2) ** 2).sum()
        return wide + (m.rest[0].u - 3) ** 2 + (m.rest[0].v[0] - 4) ** 2

    x = nestor.minimize(fun, start, method="L-BFGS-B").x
    assert type(x) is Model
    assert x.name == "mine"
    assert type(x.weights) is collections.OrderedDict
    assert list(x.weights) == ["z", "a"]
    assert x.weights["z"].dtype == torch.float32
    assert x.weights["a"].dtype == torch.float64
    assert type(x.rest[0]) is Pair
    assert type(x.rest[0].v) is tuple
    assert type(x.rest[0].v[0]) is float
    assert x.rest[1] is None
    assert not x.weights["z"].requires_grad
    np.testing.assert_allclose(x.weights["a"], 2.0, atol=1e-4)
    assert abs(x.rest[0].v[0] - 4) < 1e-4


def test_numpy_scalars_and_float32_come_back():
    start = {"s": np.float32(0.0), "v": np.zeros(2, np.float32), "d": 1.0}
    fun = lambda p: (p["s"] - 1) ** 2 + np.sum((p["v"] - 2) ** 2) + (p["d"] + 1) ** 2  # noqa: E731
    x = nestor.minimize(fun, start).x
    assert type(x["s"]) is np.float32
    assert x["v"].dtype == np.float32
    assert type(x["d"]) is float
    np.testing.assert_allclose(x["v"], 2.0, atol=1e-3)


def test_a_dataclass_that_jax_does_not_know_is_compiled():
    start = Model(jnp.zeros(2), 0.5)
    solution = nestor.minimize(lambda m: jnp.sum((m.weights - 1) ** 2) + (m.rest - 2) ** 2, start)
    assert type(solution.x) is Model
    np.testing.assert_allclose(solution.x.weights, 1.0, atol=1e-6)


def test_a_numpy_start_of_a_jax_function_is_jaxs():
    for method in (None, "bfgs"):
        solution = nestor.minimize(lambda x: jnp.sum((x - 2.0) ** 2), np.zeros(2), method=method)
        np.testing.assert_allclose(solution.x, 2.0, atol=1e-6)
        assert int(solution.stats.evaluations) < 10  # gradients, not differences


BOUNDED = ["L-BFGS-B", "TNC", "SLSQP", "trust-constr", "COBYLA", "COBYQA", "Nelder-Mead", "Powell"]


@pytest.mark.parametrize("method", BOUNDED)
def test_bounds_hold_at_every_evaluation(method):
    seen = []

    def fun(p):
        seen.append(np.concatenate([p["a"], p["b"]]))
        return np.sum((p["a"] - 3.0) ** 2) + np.sum((p["b"] + p["a"] - 1.0) ** 2)

    start = {"a": np.full(2, 0.1, np.float32), "b": np.zeros(2)}
    solution = nestor.minimize(
        fun, start, method=method, bounds=({"a": None, "b": -0.3}, {"a": 0.7, "b": 2.0})
    )
    seen = np.array(seen)
    assert (seen[:, :2].astype(np.float64) <= 0.7).all()
    assert (seen[:, 2:] >= -0.3).all()
    assert (seen[:, 2:] <= 2.0).all()
    assert solution.status == nestor.Status.CONVERGED
    np.testing.assert_allclose(solution.x["a"], 0.7, atol=1e-4)
    np.testing.assert_allclose(solution.x["b"], 0.3, atol=1e-3)
    assert (solution.kkt.upper["a"] > 0).all() or method == "trust-constr"


def test_one_sided_scalar_and_scipys_bounds():
    fun = lambda x: np.sum((x - 3.0) ** 2)  # noqa: E731
    start = np.ones(2)
    for bounds in (
        (None, 2.0),
        [(0, 2), (None, 2)],
        scipy.optimize.Bounds(-np.inf, 2.0),
        (None, np.full(2, 2.0)),
    ):
        np.testing.assert_array_equal(nestor.minimize(fun, start, bounds=bounds).x, 2.0)
    fixed = nestor.minimize(fun, start, bounds=([0.5, -1.0], [0.5, 9.0]))
    np.testing.assert_allclose(fixed.x, [0.5, 3.0], atol=1e-4)
    all_fixed = nestor.minimize(fun, start, bounds=(0.5, 0.5))
    assert all_fixed.status == nestor.Status.CONVERGED
    np.testing.assert_array_equal(all_fixed.x, 0.5)


def test_bounds_between_two_float32_numbers_are_not_passed():
    torch = pytest.importorskip("torch")
    seen = []

    def fun(x):
        seen.append(float(x.detach().max()))
        return ((x - 3) ** 2).sum()

    solution = nestor.minimize(fun, torch.zeros(3), bounds=(-0.1, 0.1))
    assert max(seen) <= 0.1
    assert solution.x.double().max() <= 0.1
    assert solution.x.dtype == torch.float32


def hs71(x):
    return x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2]


HS71 = [1.0, 4.742999, 3.821150, 1.379408]  # Hock and Schittkowski 1981, problem 71


@pytest.mark.parametrize("method", ["SLSQP", pytest.param("trust-constr", marks=pytest.mark.slow), "COBYQA"])
def test_constraints(method):
    if method == "SLSQP":
        torch = pytest.importorskip("torch")
        start, prod = torch.tensor([1.0, 5, 5, 1], dtype=torch.float64), torch.prod
    else:
        start, prod = np.array([1.0, 5, 5, 1]), np.prod
    product = {"type": "ineq", "fun": lambda x: prod(x) - 25.0}
    sphere = scipy.optimize.NonlinearConstraint(lambda x: (x**2).sum(), 40.0, 40.0)
    solution = nestor.minimize(hs71, start, method=method, bounds=(1, 5), constraints=[product, sphere])
    assert solution.status == nestor.Status.CONVERGED
    np.testing.assert_allclose(solution.x, HS71, atol=1e-3)
    assert solution.kkt.feasibility <= 1e-4
    np.testing.assert_allclose([float(m) for m in solution.kkt.constraints], [-0.5523, 0.1615], atol=1e-3)


def test_a_linear_constraint_takes_the_vector_of_the_tree():
    torch = pytest.importorskip("torch")
    start = {"a": torch.zeros(2, dtype=torch.float64), "b": 1.0}
    fun = lambda p: ((p["a"] - 1) ** 2).sum() + p["b"] ** 2  # noqa: E731
    rule = scipy.optimize.LinearConstraint([[1, 1, 1]], 3, 3)
    solution = nestor.minimize(fun, start, constraints=rule)
    np.testing.assert_allclose(solution.x["a"], 4 / 3, atol=1e-6)
    assert abs(solution.x["b"] - 1 / 3) < 1e-6


def test_users_derivatives():
    start = np.array([-1.2, 1.0])
    rosen, der, hess = scipy.optimize.rosen, scipy.optimize.rosen_der, scipy.optimize.rosen_hess
    hessp = scipy.optimize.rosen_hess_prod
    for extra in (
        {"jac": der, "hess": hess, "method": "trust-exact"},
        {"jac": der, "method": "trust-exact"},  # differences of gradients
        {"jac": der, "hessp": hessp, "method": "trust-krylov"},
        {"jac": der, "method": "CG"},
        {"jac": "3-point", "method": "BFGS"},
    ):
        solution = nestor.minimize(rosen, start, **extra)
        np.testing.assert_allclose(solution.x, 1.0, atol=1e-3)
    pair = nestor.minimize(lambda x: (rosen(x), der(x)), start, jac=True, tol=1e-9)
    np.testing.assert_allclose(pair.x, 1.0, atol=1e-6)
    shifted = nestor.minimize(
        lambda x, s, t: rosen(x - s) + t, start, (0.5, 2.0), jac=lambda x, s, t: der(x - s)
    )
    np.testing.assert_allclose(shifted.x, 1.5, atol=1e-2)


def test_a_hessian_as_a_tree_of_trees():
    x0 = {"a": np.zeros(2), "b": np.zeros(1)}
    H = np.array([[3.0, 1, 0], [1, 2, 0.5], [0, 0.5, 4]])
    flat = lambda p: np.concatenate([p["a"], p["b"]])  # noqa: E731
    fun = lambda p: flat(p) @ H @ flat(p) / 2 - flat(p).sum()  # noqa: E731
    grad = lambda p: {"a": (H @ flat(p) - 1)[:2], "b": (H @ flat(p) - 1)[2:]}  # noqa: E731
    blocks = {"a": {"a": H[:2, :2], "b": H[:2, 2:]}, "b": {"a": H[2:, :2], "b": H[2:, 2:]}}
    solution = nestor.minimize(fun, x0, jac=grad, hess=lambda p: blocks, method="trust-exact")
    np.testing.assert_allclose(flat(solution.x), np.linalg.solve(H, np.ones(3)), atol=1e-8)
