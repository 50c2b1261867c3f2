"""Many problems at once, which finished lanes leave: the answers of vmap, whatever leaves and when."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nestor
from nestor import solvers
from nestor.solvers import _batch
from tests.compiles import compilations

LANES = 70  # more than 16 times the shrink of these tests, so lanes are gathered twice


def valley(x, d):
    """Rosenbrock's function of a dictionary, with another weight for each lane."""
    return d["steep"] * (x["b"] - x["a"] ** 2) ** 2 + (1 - x["a"]) ** 2


@pytest.fixture(scope="module")
def problems():
    random = np.random.default_rng(0)
    starts = {"a": jnp.asarray(random.uniform(-2, 2, LANES)), "b": jnp.asarray(random.uniform(-2, 2, LANES))}
    return starts, {"steep": jnp.asarray(np.where(np.arange(LANES) % 10 == 0, 300.0, 0.3))}


def by_vmap(starts, data, max_steps):
    def one(x0, d):
        return nestor.minimize(lambda x: valley(x, d), x0, max_steps=max_steps, raise_on_failure=False)

    return jax.jit(jax.vmap(one))(starts, data)


@pytest.mark.parametrize("max_steps", [1000, pytest.param(40, marks=pytest.mark.slow)])
def test_it_is_vmap(problems, max_steps):
    """With 40 steps the steep lanes do not converge."""
    theirs = by_vmap(*problems, max_steps)
    ours = nestor.minimize_batch(valley, *problems, max_steps=max_steps, shrink=2)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    assert ours.code.tolist() == theirs.code.tolist()
    assert bool(ours.success.all()) == (max_steps == 1000)
    assert ours.stats.evaluations.tolist() == theirs.stats.evaluations.tolist()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), ours, theirs)
    dtypes = lambda tree: [leaf.dtype for leaf in jax.tree.leaves(tree)]  # noqa: E731
    assert dtypes(ours) == dtypes(theirs)


def test_lanes_do_leave_and_a_second_call_compiles_nothing(problems, monkeypatch):
    sizes = []
    gathered = _batch._gathered

    def spy(now, size):
        sizes.append(size)
        return gathered(now, size)

    monkeypatch.setattr(_batch, "_gathered", spy)
    scale = 1.0

    def call(scale):
        weight = jnp.asarray(scale)  # another closure: the same program
        return nestor.minimize_batch(lambda x, d: weight * valley(x, d), *problems, shrink=2)

    call(scale)
    assert sizes == [32, 16]
    with compilations() as count:
        call(2.0)
    assert count.number == 0


def test_without_data_and_without_gathering():
    found = nestor.minimize_batch(lambda x: jnp.sum((x - 1.0) ** 2), jnp.zeros((3, 2)), shrink=None)
    np.testing.assert_allclose(found.x, 1.0, atol=1e-7)
    assert found.success.tolist() == [True] * 3


class Seen(NamedTuple):
    """A state that is an info and nothing else."""

    info: solvers.Info


@dataclasses.dataclass(frozen=True)
class Projected:
    """Gradient steps of a fixed length, moved back into the box: the smallest solver that keeps bounds."""

    solves: ClassVar[type] = solvers.Minimization
    bounds: ClassVar[bool] = True

    def init(self, problem, x):
        return Seen(solvers.no_info(x))

    def step(self, problem, x, state):
        value, grad = problem.value_and_grad(x)
        after = jnp.clip(x - 0.4 * grad, problem.box.lower, problem.box.upper)
        return after, Seen(solvers.info_at(value, x - after))

    def status(self, problem, x, state):
        return solvers.judge(problem, state.info)


def test_bounds_are_those_of_each_problem():
    starts, targets = jnp.asarray([-9.0, 0.0, 9.0]), jnp.asarray([-2.0, 0.5, 2.0])
    found = nestor.minimize_batch(
        lambda x, d: (x - d) ** 2, starts, targets, bounds=(0.0, 1.0), solver=Projected()
    )
    np.testing.assert_allclose(found.x, [0.0, 0.5, 1.0], atol=1e-7)


def test_lanes_that_fail_say_so():
    found = nestor.minimize_batch(lambda x, d: d * x**2 + x, jnp.zeros(3), jnp.asarray([1.0, -1.0, jnp.nan]))
    assert [nestor.Status(int(code)).name for code in found.status] == [
        "CONVERGED",
        "UNBOUNDED",
        "NOT_FINITE",
    ]
    assert found.success.tolist() == [True, False, False]


def test_the_default_goes_on_with_newton_where_it_fails():
    """The counts are those of both methods, as in a single solve (146 for the second problem)."""

    def steep(x, d):
        return d * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2

    start, data = jnp.asarray([-1.2, 1.0]), jnp.asarray([0.3, 1e4, 1e8])
    found = nestor.minimize_batch(steep, jnp.tile(start, (3, 1)), data, max_steps=200)
    assert found.success.tolist() == [True, True, False]
    assert 101 < int(found.stats.evaluations[1]) < 201  # half of the steps were not enough
    assert int(found.stats.evaluations[2]) == 201
    np.testing.assert_allclose(found.x[1], 1.0, rtol=1e-6)


def test_an_interrupt_keeps_what_is_done(problems, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_batch, "_gathered", interrupted)  # when half of the lanes are done
    found = nestor.minimize_batch(valley, *problems, shrink=2)
    codes = found.code.tolist()
    assert set(codes) == {int(nestor.Status.CONVERGED), int(nestor.Status.STOPPED)}
    assert codes.count(int(nestor.Status.CONVERGED)) >= LANES // 2
    assert bool(jnp.isfinite(found.fun).all())


def test_a_progress_line_counts_problems(problems, capsys):
    nestor.minimize_batch(valley, *problems, shrink=2, progress=True)
    assert f"{LANES}/{LANES}" in capsys.readouterr().err


def test_a_mistake_is_explained(problems):
    starts, data = problems
    with pytest.raises(nestor.BadArgument, match="first axes have one length"):
        nestor.minimize_batch(valley, starts, {"steep": jnp.ones(3)})
    with pytest.raises(nestor.BadArgument, match="first axes have one length"):
        nestor.minimize_batch(lambda x: x**2, 1.0)
    with pytest.raises(nestor.BadArgument, match=r"jax\.vmap"):
        jax.jit(lambda x: nestor.minimize_batch(lambda x: x**2, x).x)(jnp.ones(2))
    with pytest.raises(nestor.BadArgument, match=r"jax\.vmap"):
        jax.jit(lambda: nestor.minimize_batch(lambda x: x**2, np.ones(2)).x)()
    with pytest.raises(nestor.BadArgument, match=r"jax\.vmap"):
        jax.grad(lambda s: nestor.minimize_batch(lambda x: s * x**2, jnp.ones(2)).fun.sum())(1.0)
    with pytest.raises(nestor.BadArgument, match="argument 'shrink'"):
        nestor.minimize_batch(valley, starts, data, shrink=1)
    with pytest.raises(nestor.BadArgument, match="argument 'fun'"):
        nestor.minimize_batch(lambda x: x**2, jnp.ones(2), jnp.ones(2))
    with pytest.raises(nestor.BadArgument, match="scalar"):
        nestor.minimize_batch(lambda x: x, jnp.ones((2, 2)))


def test_a_solver_for_penalties_keeps_bounds_in_every_lane():
    targets = jnp.arange(3.0)
    found = nestor.minimize_batch(
        lambda x, d: jnp.sum((x - d) ** 2),
        jnp.zeros((3, 2)),
        targets,
        solver=nestor.ProjectedGradient(),
        bounds=(0.0, 1.5),
    )
    np.testing.assert_allclose(found.x, np.minimum(targets, 1.5)[:, None] * np.ones(2), atol=1e-7)
    assert found.success.all()
