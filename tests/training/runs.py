"""Small training runs for the tests of the room: a net 4-3-2 with everything a run can depend on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import nestor

STEPS, ROWS = 12, 20


def data(rows: int = ROWS) -> tuple[jax.Array, jax.Array]:
    """Inputs of four features and two targets."""
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, 4))
    return jnp.asarray(x), jnp.asarray(np.tanh(x[:, :2]) + 0.1 * random.normal(size=(rows, 2)))


def start() -> dict[str, Any]:
    """A net 4-3-2 as two layers."""
    random = np.random.default_rng(1)
    layer = lambda n, m: {"w": jnp.asarray(random.normal(size=(n, m)) / n**0.5), "b": jnp.zeros(m)}  # noqa: E731
    return {"one": layer(4, 3), "two": layer(3, 2)}


def net(params: Any, x: jax.Array) -> jax.Array:
    hidden = jnp.tanh(x @ params["one"]["w"] + params["one"]["b"][None])
    return hidden @ params["two"]["w"] + params["two"]["b"][None]


def squared(params: Any, batch: Any) -> jax.Array:
    """The mean squared error of the net."""
    return jnp.mean((net(params, batch[0]) - batch[1]) ** 2)


def outer(
    hyper: dict[str, Any], optimizer: Any, adjoint: Any, steps: int = STEPS, **options: Any
) -> jax.Array:
    """A number that depends on the end of a run, its losses and its held-out loss."""

    def loss(params: Any, batch: Any) -> jax.Array:
        x, y, weight = batch
        errors = jnp.sum((net(params, x) - y) ** 2, axis=1)
        decay = hyper["decay"] * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
        return jnp.mean(weight * errors) + decay

    x, y = data()
    run = nestor.train(
        loss,
        hyper["start"],
        (hyper["x"], y, hyper["weight"]),
        optimizer=optimizer(hyper),
        steps=steps,
        batch_size=5,
        key=jax.random.key(3),
        clip=hyper["clip"],
        adjoint=adjoint,
        validation=lambda params: squared(params, (0.5 * x, y)),
        **options,
    )
    return squared(run.params, (-x, y)) + run.validation_loss + jnp.mean(run.history.loss)


def hypers(**more: Any) -> dict[str, Any]:
    """What the runs of `outer` depend on besides the optimizer."""
    return {
        "start": start(),
        "decay": jnp.asarray(0.01),
        "x": data()[0],
        "weight": jnp.linspace(0.5, 1.5, ROWS),
        "clip": jnp.asarray(1.0),
        **more,
    }


def direction(tree: Any, seed: int = 5) -> Any:
    """A fixed random tangent."""
    leaves, structure = jax.tree.flatten(tree)
    random = np.random.default_rng(seed)
    return structure.unflatten([jnp.asarray(random.normal(size=a.shape)) for a in leaves])


def dot(a: Any, b: Any) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(float(jnp.vdot(x, y)) for x, y in pairs)


def relative(got: Any, want: Any) -> float:
    """The largest difference, relative to the largest entry of the same array."""
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    return max(float(jnp.max(jnp.abs(a - b)) / (1e-12 + jnp.max(jnp.abs(b)))) for a, b in pairs)
