"""Ways to adapt to a task, against closed forms on quadratic tasks and against each other."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nestor
from nestor import levels, linear

N, RATE, TASKS = 4, 0.3, 3
KEY = jax.random.key(7)


def loss(x, task):
    """A quadratic with the Hessian and the minimizer of the task."""
    hessian, centre = task
    return 0.5 * (x - centre) @ hessian @ (x - centre)


def tasks(count: int = TASKS):
    """Hessians with eigenvalues between 1/2 and about 2, and minimizers."""
    a = jax.random.normal(KEY, (count, N, N))
    hessians = a @ a.transpose(0, 2, 1) / (2 * N) + 0.5 * jnp.eye(N)[None]
    return hessians, jax.random.normal(jax.random.fold_in(KEY, 1), (count, N))


def one_task(i: int = 0):
    return jax.tree.map(lambda leaf: leaf[i], tasks())


THETA = jnp.arange(1.0, N + 1)
QUERY = (jnp.eye(N), jnp.ones(N))
sgd = functools.partial(nestor.sgd, RATE)


def shrunk(steps: int):
    """(I - rate H)^steps, the Jacobian of the steps in the start."""
    hessian, _ = one_task()
    return jnp.linalg.matrix_power(jnp.eye(N) - RATE * hessian, steps)


@pytest.mark.parametrize(
    "adjoint",
    [None, *(pytest.param(a, marks=pytest.mark.slow) for a in (nestor.Unroll(), nestor.Checkpoint(slots=2)))],
)
def test_maml_by_hand(adjoint):
    adapt = lambda x: levels.maml(loss, x, one_task(), optimizer=sgd(), steps=3, adjoint=adjoint)  # noqa: E731
    centre, jacobian = one_task()[1], shrunk(3)
    phi = centre + jacobian @ (THETA - centre)
    np.testing.assert_allclose(adapt(THETA), phi, rtol=1e-12)
    found = jax.grad(lambda x: loss(adapt(x), QUERY))(THETA)
    np.testing.assert_allclose(found, jacobian.T @ (phi - 1), rtol=1e-11)


def test_fomaml_is_the_gradient_at_the_answer():
    adapt = lambda x: levels.fomaml(loss, x, one_task(), optimizer=sgd(), steps=3)  # noqa: E731
    phi = levels.maml(loss, THETA, one_task(), optimizer=sgd(), steps=3)
    np.testing.assert_array_equal(adapt(THETA), phi)
    np.testing.assert_allclose(jax.grad(lambda x: loss(adapt(x), QUERY))(THETA), phi - 1, rtol=1e-12)


def imaml(x, task, steps=60, strength=2.0, solver=linear.CG()):  # noqa: B008
    return levels.imaml(
        loss,
        x,
        task,
        strength=strength,
        optimizer=nestor.sgd(0.3),
        steps=steps,
        adjoint=None if solver is None else nestor.Implicit(solver),
    )


@pytest.mark.parametrize(
    "solver",
    [
        None,
        linear.CG(),
        *(pytest.param(s, marks=pytest.mark.slow) for s in (linear.Cholesky(), linear.GMRES())),
    ],
)
def test_imaml_is_the_dense_formula(solver):
    hessian, centre = one_task()
    phi = jnp.linalg.solve(hessian + 2 * jnp.eye(N), hessian @ centre + 2 * THETA)
    found, pull = jax.vjp(lambda x: imaml(x, one_task(), solver=solver), THETA)
    np.testing.assert_allclose(found, phi, rtol=1e-10)
    inverse = jnp.linalg.inv(jnp.eye(N) + hessian / 2)
    np.testing.assert_allclose(pull(phi - 1)[0], inverse @ (phi - 1), rtol=1e-8)


def test_imaml_has_a_derivative_in_its_strength():
    hessian, centre = one_task()

    def closed(strength):
        x = jnp.linalg.solve(hessian + strength * jnp.eye(N), hessian @ centre + strength * THETA)
        return loss(x, QUERY)

    found = jax.grad(lambda s: loss(imaml(THETA, one_task(), strength=s), QUERY))(1.5)
    np.testing.assert_allclose(found, jax.grad(closed)(1.5), rtol=1e-8)


def test_anil_leaves_the_body():
    moves = {"body": False, "head": True}
    start = {"body": {"w": THETA, "count": 3}, "head": THETA / 2}
    product = lambda p, task: loss(p["body"]["w"] * p["head"], task)  # noqa: E731

    def adapt(p):
        return levels.anil(product, p, one_task(), moves=moves, optimizer=sgd(), steps=1)

    phi = adapt(start)
    slope = jax.grad(lambda head: product({**start, "head": head}, one_task()))
    assert phi["body"] == start["body"] or phi["body"]["w"] is start["body"]["w"]
    np.testing.assert_allclose(phi["head"], start["head"] - RATE * slope(start["head"]), rtol=1e-12)

    def after(body):
        return product(adapt({"body": {"w": body, "count": 3}, "head": start["head"]}), QUERY)

    def by_hand(body):
        inner = jax.grad(lambda head: loss(body * head, one_task()))(start["head"])
        return loss(body * (start["head"] - RATE * inner), QUERY)

    np.testing.assert_allclose(jax.grad(after)(THETA), jax.grad(by_hand)(THETA), rtol=1e-11)


@pytest.mark.parametrize("moves", [{"body": False, "head": False}, {"head": True}])
def test_anil_refuses_what_does_not_fit(moves):
    params = {"body": THETA, "head": THETA}
    with pytest.raises(nestor.BadArgument, match="moves"):
        levels.anil(lambda p, _: p["head"].sum(), params, None, moves=moves, optimizer=sgd(), steps=1)


def test_reptile_points_away_from_where_the_tasks_lead():
    def value(x):
        return levels.reptile(loss, x, tasks(), optimizer=sgd(), steps=5)

    ends = [levels.maml(loss, THETA, one_task(i), optimizer=sgd(), steps=5) for i in range(TASKS)]
    np.testing.assert_allclose(jax.grad(value)(THETA), THETA - sum(ends) / TASKS, rtol=1e-12)


WAYS = {
    "maml": functools.partial(levels.maml, loss, optimizer=sgd(), steps=3),
    "fomaml": functools.partial(levels.fomaml, loss, optimizer=sgd(), steps=3),
    "imaml": imaml,
    "adam": functools.partial(levels.maml, loss, optimizer=nestor.adam(0.1), steps=3),
}


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=pytest.mark.slow if way == "adam" else ()) for way in WAYS]
)
def test_tasks_side_by_side_are_tasks_one_by_one(way: str):
    query = (tasks()[0], jnp.ones((TASKS, N)))
    together = lambda x: levels.meta_loss(loss, x, (tasks(), query), WAYS[way])  # noqa: E731

    def alone(x):
        rows = [loss(WAYS[way](x, one_task(i)), (query[0][i], query[1][i])) for i in range(TASKS)]
        return sum(rows) / TASKS

    value, slope = jax.value_and_grad(together)(THETA)
    np.testing.assert_allclose(value, alone(THETA), rtol=1e-12)
    np.testing.assert_allclose(slope, jax.grad(alone)(THETA), rtol=1e-10)


@pytest.mark.parametrize(("way", "flat"), [("imaml", True), ("fomaml", True), ("maml", False)])
def test_memory_over_inner_steps(way: str, flat: bool):
    """Bytes of a compiled meta-gradient, of nets of 3 * 64 numbers, at 10 and at 1000 steps."""
    more = {"strength": 2.0} if way == "imaml" else {}
    fit = lambda w, task: jnp.mean((jnp.tanh(w[0][None] * task[0][:, None]) @ w[1] + w[2][0] - task[1]) ** 2)  # noqa: E731
    points = jnp.linspace(-1.0, 1.0, 10)
    together = ((jnp.stack([points] * 2), jnp.stack([points**2] * 2)),) * 2

    def bytes_at(steps: int) -> int:
        adapt = functools.partial(getattr(levels, way), fit, optimizer=nestor.sgd(0.01), steps=steps, **more)
        slope = jax.jit(jax.grad(lambda x: levels.meta_loss(fit, x, together, adapt)))
        return slope.lower(jnp.ones((3, 64))).compile().memory_analysis().temp_size_in_bytes

    short, long = bytes_at(10), bytes_at(1000)
    print(way, short, long)
    if flat:
        assert long < 1.2 * short
    else:
        assert long > 10 * short


def test_a_level_of_tasks():
    """The start of all tasks as the highest level of a graph: it goes to where its own closed form is."""
    adapt = WAYS["imaml"]
    query = (tasks()[0], tasks()[1] + 1)
    outer = lambda p, _: levels.meta_loss(loss, p["theta"], (tasks(), query), adapt)  # noqa: E731
    run = nestor.Graph({"theta": nestor.Level(outer, jnp.zeros(N), nestor.sgd(1.0))}).run(60)

    def closed(x):
        hessians, centres = tasks()
        right = (hessians @ centres[..., None])[..., 0] + 2 * x[None]
        phi = jnp.linalg.solve(hessians + 2 * jnp.eye(N)[None], right[..., None])[..., 0]
        return jnp.mean(jax.vmap(loss)(phi, query))

    best = jnp.linalg.solve(jax.hessian(closed)(jnp.zeros(N)), -jax.grad(closed)(jnp.zeros(N)))
    np.testing.assert_allclose(closed(run.params["theta"]), closed(best), rtol=1e-3, atol=1e-4)
