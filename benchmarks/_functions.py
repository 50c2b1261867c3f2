"""Test functions of global optimization with their boxes and least values, for benchmarks of trials with gradients."""

import jax.numpy as jnp
import numpy as np

_A = np.array(
    [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
)
_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)
_WEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])


def branin(x):
    a, b = x[0], x[1]
    bowl = (b - 5.1 / (4 * np.pi**2) * a**2 + 5 / np.pi * a - 6) ** 2
    return bowl + 10 * (1 - 1 / (8 * np.pi)) * jnp.cos(a) + 10


def hartmann6(x):
    return -jnp.sum(_WEIGHTS * jnp.exp(-jnp.sum(_A * (x[None] - _P) ** 2, axis=1)))


def rosenbrock5(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def ellipsoid10(x):
    return jnp.sum(jnp.logspace(0, 3, 10) * (x - 0.3) ** 2)


# name: function, lower and upper ends of the box, least value, regret that counts as found
FUNCTIONS = {
    "branin": (branin, [-5.0, 0.0], [10.0, 15.0], 0.397887, 0.01 * 0.397887),
    "hartmann6": (hartmann6, [0.0] * 6, [1.0] * 6, -3.32237, 0.01 * 3.32237),
    "rosenbrock5": (rosenbrock5, [-2.048] * 5, [2.048] * 5, 0.0, 0.1),
    "ellipsoid10": (ellipsoid10, [-1.0] * 10, [1.0] * 10, 0.0, 0.1),
}
