"""Aim a particle past two charges: Newton's method on a simulation that differentiates its own potential.

The acceleration is a derivative, Newton's method takes two more: third order, through a loop whose number of
turns depends on the data. Source: the particle of Pearlmutter and Siskind 2008, as run by Hype.
"""

import functools

import jax
import jax.numpy as jnp

import nestor

jax.config.update("jax_enable_x64", True)
STEP = 0.1


def potential(x, w):
    charges = jnp.stack([jnp.stack([jnp.full_like(w, 10), 10 - w]), jnp.stack([jnp.full_like(w, 10), 0 * w])])
    return jnp.sum(1 / jnp.sqrt(jnp.sum((x[None] - charges) ** 2, axis=1)))


def move(w, point, kick_first):
    """One step: (position, velocity, last position) -> the same; `kick_first` is semi-implicit Euler."""
    x, v, _ = point
    kicked = v - STEP * jax.grad(potential)(x, w)
    return x + STEP * (kicked if kick_first else v), kicked, x


def start(w, v0=0.75):
    x = jnp.array([0.0, 8.0], w.dtype)
    return x, jnp.stack([v0 + 0 * w, 0 * w]), x


def landing(w, *, kick_first, v0=0.75, bound=None):
    """The particle when x2 <= 0; forward mode only, or with a bound on the steps reverse mode too."""
    flying = lambda point: point[0][1] > 0  # noqa: E731
    if bound is None:
        return jax.lax.while_loop(flying, lambda point: move(w, point, kick_first), start(w, v0))

    def turn(point, _):
        after = move(w, point, kick_first)
        return jax.tree.map(lambda a, b: jnp.where(flying(point), a, b), after, point), None

    return jax.lax.scan(turn, start(w, v0), None, length=bound)[0]


def loss_above(w, **options):
    """x1 squared at the last point above the axis; the velocity is updated before the position."""
    return landing(w, kick_first=True, **options)[2][0] ** 2


def loss_crossing(w, **options):
    """x1 squared where the axis is crossed, back along the last velocity; explicit Euler."""
    x, v, _ = landing(w, kick_first=False, **options)
    return (x[0] - v[0] * x[1] / v[1]) ** 2


def newton(loss, w, iterations, derivative=jax.jacfwd):
    """Plain Newton iteration, w - f' / f'': every w it visits, the first included."""
    slope = derivative(loss)
    step = lambda w, _: (w - slope(w) / derivative(slope)(w), w)  # noqa: E731
    last, seen = jax.lax.scan(step, w, None, length=iterations)
    return jnp.append(seen, last)


def main():
    run = jax.jit(newton, static_argnums=(0, 2))
    print(f"last point above the axis, float32: w = {run(loss_above, jnp.float32(0), 10)[-1]:.7f}")
    print(f"crossing of the axis, float64:      w = {run(loss_crossing, jnp.float64(0), 10)[-1]:.7f}")
    loss = functools.partial(loss_crossing, bound=500)
    root = nestor.find_root(jax.grad(loss), -0.25)
    print(f"nestor.find_root of its slope:      w = {root.x:.7f} in {root.stats.steps} steps")
    other = nestor.minimize(loss, 0.0, solver=nestor.Newton())
    print(f"nestor.minimize, another aim:       w = {other.x:.7f} in {other.stats.steps} steps")


if __name__ == "__main__":
    main()
