"""Projections and proximal operators: nearest points by their own definition, derivatives by differences.

Sets are judged by the variational inequality <x - p, z - p> <= 0 for points z of the set (which are other
projections, and are members by a check that knows nothing of projections), penalties by the value of
g(z) + |z - x|²/2 at many z around p.
"""

import doctest
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from nestor import proximal

RNG = np.random.default_rng(0)
N = 6
NORMAL, MATRIX = RNG.normal(size=N), RNG.normal(size=(2, N))
ROWS, COLUMNS = np.array([0.3, 0.7, 1.0]), np.array([1.0, 0.4, 0.6])

VECTOR_SETS = [
    (proximal.NonNegative(), lambda p: p.min()),
    (proximal.Box(-0.5, 0.7), lambda p: min(p.min() + 0.5, 0.7 - p.max())),
    (proximal.Simplex(1.5), lambda p: min(p.min(), -abs(p.sum() - 1.5))),
    (proximal.L1Ball(1.2), lambda p: 1.2 - abs(p).sum()),
    (proximal.L2Ball(0.8), lambda p: 0.8 - np.linalg.norm(p)),
    (proximal.LInfBall(0.4), lambda p: 0.4 - abs(p).max()),
    (proximal.Hyperplane(NORMAL, 0.3), lambda p: -abs(NORMAL @ p - 0.3)),
    (proximal.Halfspace(NORMAL, -2.0), lambda p: -2.0 - NORMAL @ p),
    (proximal.Affine(MATRIX, np.ones(2)), lambda p: -abs(MATRIX @ p - 1).max()),
    (
        proximal.BoxSection(-0.5, 1.0, NORMAL, 0.2),
        lambda p: min(p.min() + 0.5, 1 - p.max(), -abs(NORMAL @ p - 0.2)),
    ),
    (proximal.BoxSection(-np.inf, 0.3, NORMAL, 0.2), lambda p: min(0.3 - p.max(), -abs(NORMAL @ p - 0.2))),
    (proximal.SecondOrderCone(), lambda p: p[0] - np.linalg.norm(p[1:])),
    (proximal.Monotone(), lambda p: np.diff(p).min()),
    (proximal.Monotone(falling=True), lambda p: -np.diff(p).max()),
]
MATRIX_SETS = [
    (proximal.PositiveSemidefinite(), lambda p: np.linalg.eigvalsh(p).min()),
    (proximal.NuclearBall(1.3), lambda p: 1.3 - np.linalg.svd(p)[1].sum()),
    (
        proximal.Transport(ROWS, COLUMNS),
        lambda p: min(p.min(), -abs(p.sum(1) - ROWS).max(), -abs(p.sum(0) - COLUMNS).max()),
    ),
    (proximal.Birkhoff(), lambda p: min(p.min(), -abs(p.sum(0) - 1).max(), -abs(p.sum(1) - 1).max())),
]
NOT_CONVEX = [
    (proximal.SparseSimplex(3), lambda p: min(p.min(), -abs(p.sum() - 1), 3 - np.count_nonzero(p))),
    (proximal.L1Sphere(1.2), lambda p: -abs(abs(p).sum() - 1.2)),
    (proximal.L2Sphere(2.0), lambda p: -abs(np.linalg.norm(p) - 2)),
]
SETS = [(term, member, (N,)) for term, member in VECTOR_SETS] + [
    (term, member, (3, 3)) for term, member in MATRIX_SETS
]
PENALTIES = [
    (proximal.Lasso(0.3), (N,)),
    (proximal.Lasso(np.arange(N) / 10), (N,)),
    (proximal.NonNegativeLasso(0.2), (N,)),
    (proximal.Ridge(0.5), (N,)),
    (proximal.NonNegativeRidge(0.5), (N,)),
    (proximal.ElasticNet(0.2, 0.3), (N,)),
    (proximal.GroupLasso(0.7), (N,)),
    (proximal.GroupLasso(0.7, axis=0), (3, 3)),
    (proximal.Logarithm(0.4), (N,)),
    (proximal.Huber(0.5, 0.4), (N,)),
    (proximal.Quantile(0.3, 0.6), (N,)),
    (proximal.NuclearNorm(0.8), (3, 3)),
    (proximal.Free(), (N,)),
]


def name(thing):
    return type(thing).__name__ if hasattr(thing, "prox") else ""


def derivatives_agree(function, x):
    """Forward and reverse mode against a central difference along a random direction."""
    along, back = RNG.normal(size=x.shape), RNG.normal(size=x.shape)
    made, push = jax.jvp(function, (x,), (jnp.asarray(along),))
    h = 1e-6
    difference = (function(x + h * along) - function(x - h * along)) / (2 * h)
    np.testing.assert_allclose(push, difference, atol=2e-8)
    (pull,) = jax.vjp(function, x)[1](jnp.asarray(back))
    np.testing.assert_allclose(np.vdot(pull, along), np.vdot(back, push), rtol=1e-9, atol=1e-12)
    return np.asarray(made)


def some_slow(cases, slow):
    return [
        pytest.param(*case, marks=pytest.mark.slow) if i in slow else case for i, case in enumerate(cases)
    ]


@pytest.mark.parametrize(("term", "member", "shape"), some_slow(SETS, {10, 13, 16, 17}), ids=name)
def test_sets(term, member, shape):
    project = jax.jit(term.project)
    x = 1.5 * RNG.normal(size=shape)
    p = derivatives_agree(project, jnp.asarray(x))
    assert member(p) >= -1e-12
    others = jax.vmap(project)(
        jnp.asarray(p + RNG.normal(size=(50, *shape)) * np.logspace(-3, 1, 50).reshape(-1, *[1] * len(shape)))
    )
    assert min(member(np.asarray(z)) for z in others) >= -1e-10
    inside = (x + x.T) / 2 if isinstance(term, proximal.PositiveSemidefinite) else x
    assert max(np.vdot(inside - p, np.asarray(z) - p) for z in others) <= 1e-10
    np.testing.assert_allclose(project(jnp.asarray(p)), p, atol=1e-10)
    if hasattr(term, "lowest"):
        best = np.asarray(term.lowest(jnp.asarray(x)))
        assert member(best) >= -1e-12
        assert min(np.vdot(x, np.asarray(z) - best) for z in others) >= -1e-10


@pytest.mark.parametrize(("term", "member"), NOT_CONVEX, ids=name)
def test_sets_that_are_not_convex(term, member):
    x = 1.5 * RNG.normal(size=N)
    project = jax.jit(term.project)
    p = derivatives_agree(project, jnp.asarray(x))
    assert member(p) >= -1e-12
    others = jax.vmap(project)(jnp.asarray(RNG.normal(size=(200, N))))
    assert np.linalg.norm(p - x) <= min(np.linalg.norm(np.asarray(z) - x) for z in others) + 1e-12


@pytest.mark.parametrize(("term", "shape"), PENALTIES, ids=name)
def test_penalties(term, shape):
    x, step = 1.5 * RNG.normal(size=shape), 0.6
    prox = jax.jit(lambda z: term.prox(z, step))
    p = derivatives_agree(prox, jnp.asarray(x))
    around = p + RNG.normal(size=(200, *shape)) * np.logspace(-5, 0, 200).reshape(-1, *[1] * len(shape))
    if name(term).startswith("NonNegative"):
        around = np.abs(around)
    merit = jax.jit(jax.vmap(lambda z: step * term.value(z) + jnp.sum((z - x) ** 2) / 2))
    assert merit(p[None])[0] <= jnp.min(merit(around)) + 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(("term", "member", "shape"), SETS, ids=name)
def test_sets_against_scipy(term, member, shape):
    """SLSQP on the constraints that membership is made of, where they are smooth."""
    if not isinstance(
        term, (proximal.Simplex, proximal.BoxSection, proximal.Affine, proximal.Monotone, proximal.Box)
    ):
        pytest.skip("not a smooth or linear set")
    x = 1.5 * RNG.normal(size=shape)
    equalities = {
        "Simplex": lambda z: z.sum() - 1.5,
        "Affine": lambda z: MATRIX @ z - 1,
        "BoxSection": lambda z: NORMAL @ z - 0.2,
    }
    constraints = []
    if name(term) in equalities:
        constraints.append({"type": "eq", "fun": equalities[name(term)]})
    if isinstance(term, proximal.Monotone):
        sign = -1 if term.falling else 1
        constraints.append({"type": "ineq", "fun": lambda z: sign * np.diff(z)})
    low = {"Simplex": 0.0}.get(name(term), float(getattr(term, "lower", -np.inf)))
    found = scipy.optimize.minimize(
        lambda z: np.sum((z - x) ** 2) / 2,
        np.asarray(term.project(jnp.asarray(x))) + 0.01,
        jac=lambda z: z - x,
        bounds=[(low, float(getattr(term, "upper", np.inf)))] * N,
        constraints=constraints,
        method="SLSQP",
        tol=1e-14,
    )
    np.testing.assert_allclose(term.project(jnp.asarray(x)), found.x, atol=1e-6)


@pytest.mark.slow
def test_repeated_eigenvalues_and_singular_values_have_derivatives():
    symmetric = jnp.diag(jnp.array([2.0, 2.0, -1.0, -1.0]))
    wide = jnp.concatenate([symmetric[:2], symmetric[:2]], axis=1)
    shrink = jax.jit(proximal.NuclearNorm(1.5).prox)
    derivatives_agree(jax.jit(proximal.PositiveSemidefinite().project), symmetric)
    for x in (symmetric, wide, wide.T, jnp.zeros((2, 3))):
        derivatives_agree(shrink, x)


@pytest.mark.slow
def test_transport_in_relative_entropy():
    plans = proximal.Transport(ROWS, COLUMNS)
    x = RNG.normal(size=(3, 3))
    p = derivatives_agree(jax.jit(plans.project_kl), jnp.asarray(x))
    np.testing.assert_allclose(p.sum(0), COLUMNS, rtol=1e-12)
    np.testing.assert_allclose(p.sum(1), ROWS, rtol=1e-12)
    ratio = np.log(p) - x  # r_i + c_j
    np.testing.assert_allclose(ratio - ratio[:1] - ratio[:, :1] + ratio[0, 0], 0, atol=1e-10)


@pytest.mark.parametrize(
    "kind",
    [proximal.L1Ball, *(pytest.param(k, marks=pytest.mark.slow) for k in (proximal.L2Ball, proximal.Lasso))],
)
def test_settings_are_differentiable_and_batched(kind):
    x = jnp.asarray(RNG.normal(size=N))
    at = jax.jit(jax.vmap(lambda s: kind(s).prox(x)))
    slope = jax.jit(jax.vmap(jax.jacfwd(lambda s: kind(s).prox(x))))(jnp.array([0.5, 0.7]))
    up, down = (at(jnp.array([0.5, 0.7]) + h) for h in (1e-6, -1e-6))
    np.testing.assert_allclose(slope, (up - down) / 2e-6, atol=1e-8)


def test_axes_and_trees():
    rows = jnp.asarray(RNG.normal(size=(4, 3)))
    each = jax.jit(proximal.Simplex(axis=1).project)(rows)
    np.testing.assert_allclose(each, jax.jit(jax.vmap(proximal.Simplex().project))(rows), atol=1e-15)
    tree = {"a": rows[0], "b": rows[1:]}
    whole = proximal.L2Ball(0.1).project(tree)
    np.testing.assert_allclose(np.sqrt(sum(float(jnp.sum(v**2)) for v in whole.values())), 0.1)
    parts = proximal.Separate({"a": None, "b": proximal.NonNegative()}).project(tree)
    np.testing.assert_array_equal(parts["a"], tree["a"])
    assert (parts["b"] >= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize(("term", "shape"), [(t, s) for t, _, s in SETS] + PENALTIES, ids=name)
def test_float32(term, shape):
    x = RNG.normal(size=shape)
    single = jax.jit(term.prox)(jnp.asarray(x, jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, term.prox(jnp.asarray(x)), atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 1000])
def test_large_offsets_and_sizes(size):
    x = jnp.asarray(1e6 + RNG.normal(size=size), jnp.float32)
    p = proximal.Simplex().project(x)
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-6)
    assert (p >= 0).all()
    sorted_ = proximal.Monotone().project(jnp.asarray(RNG.normal(size=size)))
    assert (np.diff(sorted_) >= 0).all()


LONG = {
    "Transport",
    "Birkhoff",
    "NuclearBall",
    "NuclearNorm",
    "Monotone",
    "BoxSection",
    "Affine",
    "SparseSimplex",
}


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(each, marks=pytest.mark.slow) if each in LONG else each
        for each in sorted(set(proximal.__all__) - {"Penalty", "Set"})
    ],
)
def test_examples(shown):
    text = inspect.getdoc(getattr(proximal, shown)) or ""
    assert ">>>" in text
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        example = doctest.DocTestParser().get_doctest(text, {}, shown, None, None)
        said: list[str] = []
        doctest.DocTestRunner().run(example, out=said.append)
    assert not said, "".join(said)
