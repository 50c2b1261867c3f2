"""A stochastic method by itself, on functions of rows: what its tests look into, without a graph around it."""

import functools

import jax
import jax.numpy as jnp


def run(problem, inputs, method, y, x, steps, key, every=None):
    """The last state of a method after so many steps, and x after each `every` of them."""
    return _run(problem, steps, every or max(steps, 1), inputs, method, *map(_floating, (y, x)), key)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _run(problem, steps, every, inputs, method, y, x, key):
    def turn(state, t):
        return method.step(problem, inputs, state, t), None

    def stretch(state, times):
        state, _ = jax.lax.scan(turn, state, times)
        return state, state.x

    state = method.init(problem, inputs, y, x, key)
    times = jnp.arange(steps, dtype=jnp.int32)
    whole = steps - steps % every
    state, kept = jax.lax.scan(stretch, state, times[:whole].reshape(steps // every, every))
    return (state if whole == steps else stretch(state, times[whole:])[0]), kept


def _floating(tree):
    """Arrays without weak types, so that a step keeps their dtypes."""
    arrays = jax.tree.map(jnp.asarray, tree)
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), arrays)
