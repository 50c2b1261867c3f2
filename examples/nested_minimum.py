"""A minimum of a maximum, differentiated twice, against its closed form.

V(p) = min over x of max over y of  |x - p|^2 / 2 + x'A y - |y|^2 / 2.  The maximum is at y = A'x, so that
x = (I + A A')^-1 p, V' = p - x and V'' = I - (I + A A')^-1.
"""

import jax
import jax.numpy as jnp

import nestor

jax.config.update("jax_enable_x64", True)
A = jnp.array([[1.0, 0.5, 0.0], [-0.3, 0.8, 2.0]])
P = jnp.array([1.0, -2.0])


def payoff(x, y, p):
    return jnp.sum((x - p) ** 2) / 2 + x @ A @ y - jnp.sum(y**2) / 2


def worst(x, p):
    """The maximum over y: minus the minimum of minus the payoff."""
    return -nestor.minimum(lambda y: -payoff(x, y, p), jnp.zeros(3))


def value(p):
    return nestor.minimum(lambda x: worst(x, p), jnp.zeros(2))


def saddle(p):
    """Both players' points; y is found from x, so its derivative goes through both solves."""
    x = nestor.argmin(lambda x: worst(x, p), jnp.zeros(2))
    return x, nestor.argmin(lambda y: -payoff(x, y, p), jnp.zeros(3))


def closed_form(p):
    """x, y, V and its two derivatives."""
    inverse = jnp.linalg.inv(jnp.eye(2) + A @ A.T)
    x = inverse @ p
    return x, A.T @ x, p @ (p - x) / 2, p - x, jnp.eye(2) - inverse


def main():
    x, y, v, slope, curvature = closed_form(P)
    found_x, found_y = saddle(P)
    print("x       ", found_x, "truth", x)
    print("y       ", found_y, "truth", y)
    print("V       ", value(P), "truth", v)
    print("V'      ", jax.grad(value)(P), "truth", slope)
    print("V''     ", jax.hessian(value)(P).ravel(), "truth", curvature.ravel())


if __name__ == "__main__":
    main()
