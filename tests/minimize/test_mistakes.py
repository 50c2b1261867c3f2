"""What a user may get wrong, and the words that say so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nestor

ONES = np.ones(3)
TREE = {"w": np.ones((2, 2)), "b": np.zeros(2)}


def square(x):
    return np.sum(x**2)


def of_tree(p):
    return np.sum(p["w"] ** 2) + np.sum(p["b"] ** 2)


NAN = float("nan")
FUNNY = lambda x: ONES  # noqa: E731
WRONG = {
    "bounds crossed": ({"bounds": (np.array([0, 2, 0.0]), 1.0)}, "lower 2.0, upper 1.0 at x0.1."),
    "bounds NaN": ({"bounds": (NAN, 1.0)}, "lower nan"),
    "bounds of the wrong shape": ({"bounds": (np.zeros(4), 1.0)}, r"shape \(4,\)"),
    "bounds that are no pair": ({"bounds": (0.0, 1.0, 2.0)}, "a pair"),
    "bounds with a missing key": ({"fun": of_tree, "x0": TREE, "bounds": ({"w": 0.0}, None)}, "'b'"),
    "integers": ({"x0": np.arange(3)}, "int64.*floating-point"),
    "an integer in a tree": ({"x0": {"w": ONES, "n": 3}}, r"x0\['n'\].*integer 3"),
    "nothing to move": ({"x0": {}}, "at least one array"),
    "a vector objective": ({"fun": lambda x: x**2}, r"shape \(3,\).*scalar-valued"),
    "a complex objective": ({"fun": lambda x: 1j * np.sum(x)}, "complex.*scalar-valued"),
    "no objective": ({"fun": 3.0}, "'fun'"),
    "nothing returned": ({"fun": lambda x: None}, "'fun'"),
    "three things returned": ({"fun": lambda x: (1.0, x, x)}, "3 things"),
    "a gradient of another shape": ({"fun": lambda x: (square(x), x[:2])}, r"shape \(2,\)"),
    "a gradient with other keys": ({"fun": lambda p: (of_tree(p), {"w": p["w"]}), "x0": TREE}, "'b'"),
    "a gradient missing": ({"jac": True}, "a pair"),
    "a method misspelt": ({"method": "LBFGS-B"}, 'method="L-BFGS-B"'),
    "a method with an underscore": ({"method": "trust_ncg"}, 'method="trust-ncg"'),
    "a method that is none": ({"method": 3.0}, "'method'"),
    "bounds for BFGS": ({"method": "BFGS", "bounds": (0, 1)}, "BFGS, which cannot.*\n.*L-BFGS-B, TNC"),
    "constraints for TNC": (
        {"method": "tnc", "constraints": {"type": "eq", "fun": square}},
        "TNC, which cannot.*\n.*COBYLA, COBYQA, SLSQP, trust-constr",
    ),
    "hess for BFGS": ({"method": "bfgs", "hess": FUNNY}, "'hess'.*BFGS.*\n.*trust-exact"),
    "hessp for CG": ({"method": "CG", "hessp": FUNNY}, "'hessp'.*CG.*\n.*trust-krylov"),
    "jac for Powell": ({"method": "Powell", "jac": FUNNY}, "'jac'.*Powell"),
    "an unknown option": ({"method": "L-BFGS-B", "options": {"maxcorr": 3}}, "maxcorr.*\n.*'maxcor'"),
    "an option of another": ({"method": "BFGS", "options": {"ftol": 3}}, "'ftol', which BFGS does not know"),
    "Hessians of NumPy": ({"method": "trust-exact"}, "NumPy has none"),
    "a constraint of no kind": ({"constraints": {"type": "inequality", "fun": square}}, "'inequality'"),
    "a constraint that is a number": ({"constraints": 3.0}, "constraints.0."),
    "a negative tolerance": ({"tol": -1.0}, "'tol'"),
    "no time": ({"max_seconds": 0}, "'max_seconds'"),
    "no evaluations": ({"max_evaluations": 0}, "'max_evaluations'"),
    "a Hessian of another shape": (
        {"method": "trust-exact", "jac": lambda x: 2 * x, "hess": lambda x: np.eye(2)},
        r"'hess'.*\(2, 2\).*\(3, 3\)",
    ),
    "an option that is text": ({"options": {"gtol": "a"}}, "options.'gtol'.*'a'.*a number"),
    "an option that counts nothing": ({"options": {"maxiter": 2.5}}, "options.'maxiter'.*whole number"),
    "maxiter for TNC": ({"method": "TNC", "options": {"maxiter": 3}}, "write max_steps="),
    "steps that are no integer": ({"max_steps": 1e3}, "'max_steps'.*Python integer"),
    "arguments that fun does not take": ({"args": (1.0,)}, r"'args'.*fun\(x\).*take 2 arguments"),
    "a folder for a checkpoint": ({"checkpoint": "."}, "'checkpoint'.*a folder"),
    "a number for a checkpoint": ({"checkpoint": 3}, "'checkpoint'"),
    "a solver for NumPy's function": ({"solver": nestor.LBFGS(), "method": "BFGS"}, "beside solver"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_explained(case: str):
    arguments, words = WRONG[case]
    with pytest.raises(nestor.BadArgument, match=f"(?s){words}"):
        nestor.minimize(**({"fun": square, "x0": ONES} | arguments))


def test_frameworks_do_not_mix():
    with pytest.raises(nestor.BadArgument, match=r"two frameworks, NumPy at x0.'a'. and JAX at x0.'b'."):
        nestor.minimize(lambda p: 0.0, {"a": ONES, "b": jnp.ones(2)}, method="BFGS")
    torch = pytest.importorskip("torch")
    with pytest.raises(nestor.BadArgument, match=r"PyTorch at x0.'a'. and NumPy"):
        nestor.minimize(lambda p: 0.0, {"a": torch.ones(2), "b": ONES})
    with pytest.raises(nestor.BadArgument, match="compiled solvers run programs of JAX"):
        nestor.minimize(lambda p: (p**2).sum(), torch.ones(2), solver=nestor.LBFGS())
    with pytest.raises(nestor.BadArgument, match="autograd cannot follow"):
        nestor.minimize(lambda p: (p.detach() ** 2).sum(), torch.ones(2))
    with pytest.raises(nestor.BadArgument, match="int64"):
        nestor.minimize(lambda p: (p**2).sum(), torch.arange(3))
    with pytest.raises(nestor.BadArgument, match=r"shape \(2,\)"):
        nestor.minimize(lambda p: p**2, torch.ones(2))


def test_scipys_methods_do_not_run_in_a_trace():
    inner = lambda a: nestor.minimize(lambda x: jnp.sum((x - a) ** 2), jnp.zeros(2), method="BFGS").x  # noqa: E731
    with pytest.raises(nestor.BadArgument, match="inside a traced function"):
        jax.jit(inner)(1.0)


@pytest.mark.parametrize("method", [None, "BFGS"])
def test_numbers_alone_and_a_function_of_numpy(method):
    with pytest.raises(nestor.BadArgument, match=r"write x0 = np\.asarray"):
        nestor.minimize(lambda x: np.sum(np.asarray(x) ** 2), [1.3, 0.7], method=method)
    with pytest.raises(nestor.BadArgument) as caught:
        nestor.minimize(lambda x: np.sum(np.asarray(x) ** 2), jnp.ones(2), method=method)
    assert "np.asarray" not in str(caught.value)
