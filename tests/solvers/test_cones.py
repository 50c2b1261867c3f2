"""Cone programs by Clarabel: closed forms, a second method, derivatives in all data, lanes, proofs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nestor
from nestor.proximal import NonNegative, PositiveSemidefinite, SecondOrderCone

pytest.importorskip("clarabel")

N = 5
CONES = [NonNegative(), SecondOrderCone(), PositiveSemidefinite(), SecondOrderCone(axis=0)]


def random_program(seed):
    """Cones that are all feasible at one point, near enough for some of them to be active."""
    rng = np.random.default_rng(seed)
    inside, root = rng.normal(size=N), rng.normal(size=(N, N))
    A = rng.normal(size=(1, N))
    G = [rng.normal(size=shape) for shape in ((3, N), (3, N), (3, 3, N), (3, 2, N))]
    G[2] = G[2] + G[2].transpose(1, 0, 2)
    tips = [
        rng.uniform(0, 0.5, 3),
        np.array([1.0, 0.3, 0.2]),
        0.5 * np.eye(3),
        np.array([[1.0, 1.0]] + [[0.2, 0.1]] * 2),
    ]
    h = [g @ inside + tip for g, tip in zip(G, tips, strict=True)]
    data = {"P": 0.1 * root @ root.T, "q": 3 * rng.normal(size=N), "A": A, "b": A @ inside, "G": G, "h": h}
    return jax.tree.map(jnp.asarray, data)


def solved(data, **options):
    return nestor.solve_cone(**data, cones=CONES, bounds=(-3.0, 3.0), **options)


def test_conditions_and_derivatives_in_all_data():
    data, rng = random_program(0), np.random.default_rng(1)
    solution = solved(data)
    kkt = solution.kkt
    assert max(map(float, (kkt.stationarity, kkt.feasibility, kkt.complementarity))) < 1e-8
    weights = jnp.asarray(rng.normal(size=N))

    def of(data):
        return jnp.vdot(weights, solved(data).x)

    way = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), data)
    way["P"] = way["P"] + way["P"].T
    values = [of(jax.tree.map(lambda a, d, s=s: a + s * 1e-5 * d, data, way)) for s in (1, -1)]
    numeric = (values[0] - values[1]) / 2e-5
    slopes = jax.grad(of)(data)
    backwards = sum(
        jnp.vdot(a, d) for a, d in zip(jax.tree.leaves(slopes), jax.tree.leaves(way), strict=True)
    )
    np.testing.assert_allclose(jax.jvp(of, (data,), (way,))[1], numeric, rtol=1e-6)
    np.testing.assert_allclose(backwards, numeric, rtol=1e-6)


def test_lanes_of_a_batch_are_solved_by_one_call():
    many = [random_program(seed) for seed in range(4)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *many)
    x = jax.jit(jax.vmap(lambda data: solved(data).x))(batch)
    for lane, data in enumerate(many):
        np.testing.assert_allclose(x[lane], solved(data).x, atol=1e-7)


def test_the_nearest_point_of_a_disc_and_of_a_half_space():
    point = jnp.array([3.0, 4.0])
    G = jnp.array([[0.0, 0.0], [-1.0, 0.0], [0.0, -1.0]])

    def nearest(point, radius):
        h = jnp.zeros(3).at[0].set(radius)
        return nestor.solve_cone(jnp.eye(2), -point, G=[G], h=[h], cones=[SecondOrderCone()]).x

    np.testing.assert_allclose(nearest(point, 1.0), point / 5, atol=1e-9)
    out = jnp.outer(point, point) / 25
    np.testing.assert_allclose(jax.jacrev(nearest)(point, 1.0), (jnp.eye(2) - out) / 5, atol=1e-8)
    np.testing.assert_allclose(jax.jacfwd(nearest, 1)(point, 1.0), point / 5, atol=1e-8)


def test_the_largest_eigenvalue_and_its_derivative():
    matrix = jnp.array([[1.0, 2.0, 0.0], [2.0, -1.0, 0.5], [0.0, 0.5, 0.3]])

    def largest(matrix):
        G, cone = -jnp.eye(3)[..., None], PositiveSemidefinite()
        return nestor.solve_cone(None, jnp.ones(1), G=[G], h=[-matrix], cones=[cone]).fun

    values, vectors = jnp.linalg.eigh(matrix)
    np.testing.assert_allclose(largest(matrix), values[-1], atol=1e-9)
    np.testing.assert_allclose(
        jax.grad(largest)(matrix), jnp.outer(vectors[:, -1], vectors[:, -1]), atol=1e-7
    )


def test_it_agrees_with_our_own_method_in_single_precision_too():
    rng = np.random.default_rng(5)
    root, G = rng.normal(size=(N, N)), rng.normal(size=(4, N))
    data = {"P": root @ root.T, "q": rng.normal(size=N), "G": G, "h": rng.uniform(0, 1, 4)}
    wide = jax.tree.map(jnp.asarray, data)
    ours = nestor.solve_qp(**wide)
    theirs = nestor.solve_qp(**wide, solver=nestor.Clarabel())
    np.testing.assert_allclose(theirs.x, ours.x, atol=1e-8)
    np.testing.assert_allclose(theirs.kkt.constraints[0], ours.kkt.constraints[0], atol=1e-7)
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), wide)
    single = nestor.solve_qp(**narrow, solver=nestor.Clarabel())
    assert single.x.dtype == jnp.float32
    np.testing.assert_allclose(single.x, ours.x, atol=1e-4)


def test_what_has_no_answer_is_said():
    cone = SecondOrderCone()
    G = jnp.array([[0.0, 0.0], [-1.0, 0.0], [0.0, -1.0]])
    for q, h, name in (
        (jnp.ones(2), jnp.array([-1.0, 0.0, 0.0]), "INFEASIBLE"),  # a disc of negative radius
        (jnp.array([0.0, -1.0]), None, "UNBOUNDED"),
    ):
        block = G if h is not None else jnp.array([[0.0, -1.0], [0.0, 0.0], [0.0, 0.0]])
        h = jnp.array([1.0, 0.5, 0.0]) if h is None else h
        failed = nestor.solve_cone(None, q, G=[block], h=[h], cones=[cone], raise_on_failure=False)
        assert failed.status.name == name
        np.testing.assert_equal(np.isfinite(failed.x), True)


def test_an_interior_point_method_has_the_multipliers_of_bounds():
    """Its x is a rounding away from the bounds."""
    limits = {"G": jnp.ones((1, 2)), "h": jnp.ones(1), "bounds": (0.0, None), "solver": nestor.Clarabel()}
    solution = nestor.solve_lp(jnp.array([-1.0, -2.0]), **limits)
    np.testing.assert_allclose(solution.kkt.lower, [1.0, 0.0], atol=1e-6)
    box = nestor.solve_qp(jnp.eye(2), jnp.array([-3.0, -4.0]), bounds=(None, 1.0), solver=nestor.Clarabel())
    np.testing.assert_allclose(box.kkt.upper, [2.0, 3.0], atol=1e-6)


def test_a_claim_without_proof_is_asked_about_again_in_other_units():
    """Clarabel says that this is infeasible."""
    sums = {"A": jnp.ones((1, 2)), "b": jnp.array([1e6]), "bounds": (0.0, None)}
    solution = nestor.solve_lp(jnp.array([1e6, 2e6]), **sums, solver=nestor.Clarabel())
    np.testing.assert_allclose(solution.x, [1e6, 0.0], rtol=1e-9, atol=1e-3)
