"""What a user may get wrong in the compiled calls: the words name the argument, its value and the remedy."""

import jax.numpy as jnp
import pytest

import nestor

X = jnp.zeros(3)
BOWL = lambda x: jnp.sum(x**2)  # noqa: E731
T = jnp.linspace(0.0, 1.0, 5)
LINE = lambda t, a, b: a + b * t  # noqa: E731
PAIRS = r"\(lower, upper\); pairs by unknown are SciPy's"
WRONG = {
    "bounds crossed": (
        lambda: nestor.argmin(BOWL, X, bounds=(1.0, 0.0)),
        r"'bounds'.*lower 1.0, upper 0.0 at x0.0.",
    ),
    "bounds with other keys": (
        lambda: nestor.argmin(lambda p: BOWL(p["a"]), {"a": X}, bounds=({"b": 0.0}, None)),
        r"structure {'b': \*}.*like x0, {'a': \*}",
    ),
    "a list of pairs": (lambda: nestor.argmin(BOWL, X, bounds=[(0, 1)] * 3), PAIRS),
    "two pairs": (lambda: nestor.solve_lp(jnp.ones(2), bounds=[(0, None), (0, 1)]), PAIRS),
    "penalties with other keys": (
        lambda: nestor.argmin(lambda p: BOWL(p["a"]), {"a": X}, prox={"b": nestor.proximal.Lasso(0.1)}),
        r"'prox'.*{'b': \*}.*{'a': \*}",
    ),
    "a model of SciPy's form": (
        lambda: nestor.curve_fit(LINE, T, T, (1.0, 1.0)),
        r"'f' is a function with signature f\(t, a, b\).*lambda x, p: f\(x, \*p\)",
    ),
    "integers for a start of a fit": (
        lambda: nestor.curve_fit(lambda t, p: LINE(t, *p), T, T, (1, 1)),
        r"curve_fit: argument 'p0\[0\]' is 1",
    ),
    "a deviation of zero": (
        lambda: nestor.curve_fit(lambda t, p: LINE(t, *p), T, T, jnp.ones(2), sigma=jnp.zeros(5)),
        "'sigma'.*> 0",
    ),
    "a covariance that is none": (
        lambda: nestor.curve_fit(lambda t, p: LINE(t, *p), T, T, jnp.ones(2), sigma=-jnp.eye(5)),
        "'sigma'.*not positive definite",
    ),
    "no data": (
        lambda: nestor.minimize_batch(lambda x, d: BOWL(x - d), jnp.zeros((4, 3))),
        "one argument, x, for no data is given",
    ),
    "data that is not taken": (
        lambda: nestor.minimize_batch(BOWL, jnp.zeros((4, 3)), jnp.zeros((4, 3))),
        "two arguments, x and its data",
    ),
    "a matrix for an operator": (
        lambda: nestor.linear.solve(jnp.eye(3), X),
        r"linear.solve.*Operator\(lambda v",
    ),
    "a name for a linear solver": (
        lambda: nestor.linear.solve(nestor.linear.Operator(lambda v: v, X), X, "cg"),
        r"'solver' is 'cg'.*nestor.CG\(\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_explained(case: str):
    call, words = WRONG[case]
    with pytest.raises(nestor.BadArgument, match=f"(?s){words}") as caught:
        call()
    assert "PyTreeDef" not in str(caught.value)


def test_a_quadratic_program_speaks_in_its_own_name():
    with pytest.raises(nestor.SolveFailed, match=r"^solve_qp: "):
        nestor.solve_qp(-jnp.eye(2), jnp.ones(2))
