"""Linear programs by HiGHS: answers against SciPy, derivatives, proofs, and what may not be passed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import nestor
from nestor.proximal import NonNegative

RNG = np.random.default_rng(3)
N, M = 5, 7


def random_program(rng):
    inside, A, G = rng.uniform(0.5, 1, N), rng.normal(size=(1, N)), rng.normal(size=(M, N))
    data = {
        "c": rng.normal(size=N),
        "A": A,
        "b": A @ inside,
        "G": G,
        "h": G @ inside + rng.uniform(0.1, 1, M),
    }
    return {name: jnp.asarray(value) for name, value in data.items()}


DATA = random_program(RNG)
SIDES = (0.0, 3.0)
WEIGHTS = jnp.asarray(RNG.normal(size=N))


def test_the_answer_and_its_multipliers_are_scipys():
    c, A, b, G, h = (np.asarray(DATA[name]) for name in "cAbGh")
    theirs = scipy.optimize.linprog(c, G, h, A, b, SIDES)
    ours = nestor.solve_lp(**DATA, bounds=SIDES)
    np.testing.assert_allclose(ours.x, theirs.x, atol=1e-9)
    np.testing.assert_allclose(ours.kkt.constraints[0], -theirs.eqlin.marginals, atol=1e-9)
    np.testing.assert_allclose(ours.kkt.constraints[1], -theirs.ineqlin.marginals, atol=1e-9)
    np.testing.assert_allclose(ours.kkt.lower, theirs.lower.marginals, atol=1e-9)
    assert max(map(float, (ours.kkt.stationarity, ours.kkt.feasibility, ours.kkt.complementarity))) < 1e-12


def test_derivatives_in_all_data_agree_with_differences():
    def both(data):
        solution = nestor.solve_lp(**data, bounds=SIDES)
        return jnp.array([jnp.vdot(WEIGHTS, solution.x), solution.fun])

    way = jax.tree.map(lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape)), DATA)
    moved = [jax.tree.map(lambda a, d, s=s: a + s * 1e-6 * d, DATA, way) for s in (1, -1)]
    numeric = (both(moved[0]) - both(moved[1])) / 2e-6
    np.testing.assert_allclose(jax.jvp(both, (DATA,), (way,))[1], numeric, rtol=1e-6, atol=1e-7)
    slopes = jax.jacrev(both)(DATA)
    backwards = sum(jnp.tensordot(slopes[name], way[name], way[name].ndim) for name in DATA)
    np.testing.assert_allclose(backwards, numeric, rtol=1e-6, atol=1e-7)


def test_lanes_are_solved_at_once_and_one_without_an_answer_spoils_no_other():
    h = jnp.stack([DATA["h"], DATA["h"] + 0.2, DATA["h"] - 1e3])

    @jax.jit
    @jax.vmap
    def solved(h):
        solution = nestor.solve_lp(**{**DATA, "h": h}, bounds=SIDES)
        return solution.x, solution.code

    x, codes = solved(h)
    assert [nestor.Status(int(code)).name for code in codes] == ["CONVERGED", "CONVERGED", "INFEASIBLE"]
    for lane in range(2):
        alone = nestor.solve_lp(**{**DATA, "h": h[lane]}, bounds=SIDES)
        np.testing.assert_allclose(x[lane], alone.x, atol=1e-9)


def test_what_has_no_answer_is_said_and_raised():
    with pytest.raises(nestor.SolveFailed, match="INFEASIBLE"):
        nestor.solve_lp(jnp.ones(2), G=jnp.array([[1.0, 1.0], [-1.0, -1.0]]), h=jnp.array([-1.0, 0.0]))
    with pytest.raises(nestor.SolveFailed, match="UNBOUNDED"):
        nestor.solve_lp(jnp.array([1.0, 0.0]), G=jnp.array([[0.0, 1.0], [0.0, -1.0]]), h=jnp.ones(2))
    both = {"G": jnp.array([[0.0, 1.0], [0.0, -1.0]]), "h": -jnp.ones(2)}  # nothing feasible, and a way down
    with pytest.raises(nestor.SolveFailed, match="INFEASIBLE"):
        nestor.solve_lp(jnp.array([1.0, 0.0]), **both)


def test_equalities_that_follow_from_others_leave_derivatives_alone():
    """A transport problem: one of its equalities is the difference of the others."""
    supply, demand = jnp.array([2.0, 3.0]), jnp.array([1.0, 4.0])
    A = jnp.array([[1.0, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1]])
    cost = jnp.array([1.0, 2.0, 3.0, 1.5])

    def plan(shift):  # what is supplied stays what is demanded
        b = jnp.concatenate([supply + jnp.array([1.0, -1.0]) * shift, demand])
        return nestor.solve_lp(cost, A, b, bounds=(0.0, None)).x

    np.testing.assert_allclose(plan(0.0), [1, 1, 0, 3], atol=1e-12)
    np.testing.assert_allclose(jax.jacfwd(plan)(0.0), [0, 1, 0, -1], atol=1e-9)
    np.testing.assert_allclose(jax.jacrev(plan)(0.0), [0, 1, 0, -1], atol=1e-9)


def test_where_the_best_points_are_many_it_says_so():
    def solved(h):
        return nestor.solve_lp(jnp.ones(2), G=-jnp.ones((1, 2)), h=h, bounds=(0.0, None))

    np.testing.assert_allclose(jax.grad(lambda h: solved(h).fun)(-jnp.ones(1)), [-1.0], atol=1e-9)
    assert int(solved(-jnp.ones(1)).kkt.weakly_active) > 0


def test_bad_input():
    c, one = jnp.ones(2), jnp.ones((1, 2))
    for data, match in (
        ({"c": one}, "vector"),
        ({"c": c, "G": one}, "together"),
        ({"c": c, "G": one, "h": jnp.ones(2)}, "shape"),
        ({"c": c, "solver": nestor.LBFGS()}, "HiGHS"),
        ({"c": c, "solver": nestor.HiGHS}, "solver"),
        ({"c": c, "adjoint": nestor.Unroll()}, "at the answer"),
        ({"c": c, "bounds": (1.0, 0.0)}, "bounds"),
    ):
        with pytest.raises(nestor.BadArgument, match=match):
            nestor.solve_lp(**data)
    with pytest.raises(nestor.BadArgument, match="Clarabel"):
        nestor.solve_qp(jnp.eye(2), c, solver=nestor.HiGHS())
    with pytest.raises(nestor.BadArgument, match="as many"):
        nestor.solve_cone(None, c, G=[one], h=[jnp.ones(1)], cones=[])
    with pytest.raises(nestor.BadArgument, match="a cone"):
        nestor.solve_cone(None, c, G=[one], h=[jnp.ones(1)], cones=[nestor.proximal.Simplex()])
    with pytest.raises(nestor.BadArgument, match="list"):
        nestor.solve_cone(None, c, G=one, h=[jnp.ones(1)], cones=[NonNegative()])
    cone = nestor.proximal.PositiveSemidefinite()
    with pytest.raises(nestor.BadArgument, match="symmetric"):
        nestor.solve_cone(None, c, G=[one], h=[jnp.ones(1)], cones=[cone])
    with pytest.raises(nestor.BadArgument, match="semidefinite"):
        nestor.solve_cone(-jnp.eye(2), c)
