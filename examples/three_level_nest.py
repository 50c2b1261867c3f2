"""A minimum in a minimum in a minimum, as one function of its parameters: compiled, batched, differentiated.

V(p) = min over z of  cos(z + p0) + min over x of  (x - z)^2 + (x - p1)^2
                                  + min over y of  (y - sin x)^2 + p2 y^4
"""

import jax
import jax.numpy as jnp

import nestor

jax.config.update("jax_enable_x64", True)
AT = {"shift": 0.0, "target": 1.0, "weight": 0.1}  # the textbook nest: cos z, (x - 1)^2 and 0.1 y^4
STARTS = {"z": 0.0, "x": 0.0, "y": 0.0}


def by_minimum(p, starts, **options):
    """Every level is `nestor.minimum`: the envelope theorem, three times."""

    def lowest(x):
        cost = lambda y: (y - jnp.sin(x)) ** 2 + p["weight"] * y**4  # noqa: E731
        return nestor.minimum(cost, starts["y"], **options)

    def middle(z):
        cost = lambda x: (x - z) ** 2 + (x - p["target"]) ** 2 + lowest(x)  # noqa: E731
        return nestor.minimum(cost, starts["x"], **options)

    return nestor.minimum(lambda z: jnp.cos(z + p["shift"]) + middle(z), starts["z"], **options)


def by_argmin(p, starts, **options):
    """Every level is `nestor.argmin`, and its objective evaluated there: the chain rule through minimizers."""

    def lowest(x):
        cost = lambda y: (y - jnp.sin(x)) ** 2 + p["weight"] * y**4  # noqa: E731
        return cost(nestor.argmin(cost, starts["y"], **options))

    def middle(z):
        cost = lambda x: (x - z) ** 2 + (x - p["target"]) ** 2 + lowest(x)  # noqa: E731
        return cost(nestor.argmin(cost, starts["x"], **options))

    top = lambda z: jnp.cos(z + p["shift"]) + middle(z)  # noqa: E731
    return top(nestor.argmin(top, starts["z"], **options))


def main():
    at = jax.tree.map(jnp.asarray, AT)
    for value in (by_minimum, by_argmin):
        fun = jax.jit(lambda p, value=value: value(p, STARTS))
        slope = jax.jit(jax.grad(fun))(at)
        print(f"{value.__name__}: V = {fun(at):.9f}")
        print("  gradient:", {name: round(float(g), 9) for name, g in slope.items()})
    shifts = jnp.linspace(-0.5, 0.5, 5)
    many = jax.vmap(lambda s: by_minimum({**at, "shift": s}, STARTS))
    print("  a batch of shifts:", many(shifts).round(6))


if __name__ == "__main__":
    main()
