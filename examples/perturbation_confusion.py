"""Perturbation confusion: nested derivatives must not mix up whose perturbation is whose.

d/dx [x * d/dy (x y)] at x = 1 is 2, because the inner derivative is x: a library that confuses the two
perturbations says 1 or 3. The same with solves at the inner level. Source: Siskind and Pearlmutter 2005.
"""

import itertools

import jax
import jax.numpy as jnp

import nestor

jax.config.update("jax_enable_x64", True)


def plain(inner, outer):
    """x * d/dy (x y), differentiated; both derivatives in any mode."""
    return outer(lambda x: x * inner(lambda y: x * y)(2.0))(1.0)


def through_a_minimum(inner, outer):
    """The minimum over z of (z - x y)^2 / 2 + x z is x^2 y - x^2 / 2; times x after d/dy: x^3, slope 3."""

    def least(x, y):
        return nestor.minimum(lambda z: (z - x * y) ** 2 / 2 + x * z, 0.0)

    return outer(lambda x: x * inner(lambda y: least(x, y))(2.0))(1.0)


def through_a_minimizer(inner, outer):
    """The minimizer over z of cosh(z - x y) is x y: the derivative inside is x, so the answer is 2 again."""

    def best(x, y):
        return nestor.argmin(lambda z: jnp.cosh(z - x * y), 0.0)

    return outer(lambda x: x * inner(lambda y: best(x, y))(2.0))(1.0)


def through_a_root(inner, outer):
    """z^3 = x y has z = (x y)^(1/3); x * dz/dy at y = 1 is x^(4/3) / 3, with slope 4/9 at x = 1."""

    def root(x, y):
        return nestor.find_root(lambda z: z**3 - x * y, 1.0).x

    return outer(lambda x: x * inner(lambda y: root(x, y))(1.0))(1.0)


STORIES = {plain: 2.0, through_a_minimum: 3.0, through_a_minimizer: 2.0, through_a_root: 4 / 9}
MODES = {"forward": jax.jacfwd, "reverse": jax.jacrev}


def main():
    for story, truth in STORIES.items():
        for inner, outer in itertools.product(MODES, MODES):
            found = story(MODES[inner], MODES[outer])
            print(f"{story.__name__:20} {outer} over {inner}: {found:.9f} (truth {truth:.9f})")


if __name__ == "__main__":
    main()
