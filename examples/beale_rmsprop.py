"""Beale's function by RMSProp(0.01, 0.9), from (1, 1.5), for 3000 steps; the start is differentiable too.

Source: the optimizer example of Hype, a library for nested differentiation; its RMSProp adds 1e-6 in the root.
"""

import jax
import jax.numpy as jnp
import optax

import nestor

jax.config.update("jax_enable_x64", True)
START = (1.0, 1.5)


def beale(z):
    x, y = z
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def descend(start, *, steps=3000, rate=0.01, adjoint=None):
    """The run: `.fun` is the best value seen, `.history.value[k]` the value after k updates."""
    rmsprop = optax.rmsprop(rate, decay=0.9, eps=1e-6, eps_in_sqrt=True)
    return nestor.minimize(
        beale,
        start,
        solver=rmsprop,
        adjoint=adjoint,
        max_steps=steps,
        history=True,
        raise_on_failure=False,  # it circles the minimum at a distance of about the rate: no convergence
    )


def best_in(steps):
    """The best value of a short run as a function of the learning rate, through every step."""
    start = tuple(map(jnp.asarray, START))
    return lambda rate: descend(start, steps=steps, rate=rate, adjoint=nestor.Unroll()).fun


def main():
    run = descend(tuple(map(jnp.asarray, START)))
    print(f"value at the 11th point: {run.history.value[10]:.4f}")
    print(f"best of {len(run.history.value)} values: {run.fun:.3e}, status {run.status.name}")
    after = best_in(50)
    slope = jax.grad(after)(0.01)
    print(f"best of 50 steps: {after(0.01):.4f}; its derivative in the learning rate: {slope:.2f}")


if __name__ == "__main__":
    main()
