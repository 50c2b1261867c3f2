"""Two players that model each other: Nash, Stackelberg, k levels of thought, and a tax on top of it all.

Cournot's duopoly: firm i brings q_i to a market with price D - q1 - q2, at a cost of c_i a piece. Answers:
Nash q1 = (D - 2 c1 + c2) / 3; leader q1 = (D - 2 c1 + c2) / 2; follower q2 = (D - c2 - q1) / 2; the tax a piece
on firm 1 that brings most, t = (D - 2 c1 + c2) / 4.
"""

import jax
import jax.numpy as jnp

import nestor

jax.config.update("jax_enable_x64", True)
MARKET = {"demand": 10.0, "cost1": 1.0, "cost2": 2.0}


def loss(market, firm, own, other):
    """Minus the profit of a firm."""
    return -own * (market["demand"] - own - other - market[f"cost{firm}"])


def response(market, firm, other):
    """The best answer of a firm to what the other brings."""
    return nestor.argmin(lambda own: loss(market, firm, own, other), 1.0)


def nash(market):
    """Simultaneous: each answers the other, a fixed point of two minimizers."""

    def answers(q):
        return response(market, 1, q[1]), response(market, 2, q[0])

    return nestor.fixed_point(answers, (0.0, 0.0)).x


def stackelberg(market):
    """Firm 1 leads: it minimizes with firm 2's minimizer inside its objective."""
    q1 = nestor.argmin(lambda own: loss(market, 1, own, response(market, 2, own)), 1.0)
    return q1, response(market, 2, q1)


def thinks(market, firm, levels):
    """A firm that models the other, who models the firm, ... down to one who brings nothing."""
    if levels == 0:
        return jnp.zeros(())
    return response(market, firm, thinks(market, 3 - firm, levels - 1))


def best_tax(market):
    """Three levels: a minimizer over a fixed point over two minimizers."""

    def minus_revenue(tax):
        return -tax * nash({**market, "cost1": market["cost1"] + tax})[0]

    return nestor.argmin(minus_revenue, 0.0)


def main():
    market = jax.tree.map(jnp.asarray, MARKET)
    rounded = lambda tree: jax.tree.map(lambda leaf: round(float(leaf), 6), tree)  # noqa: E731
    print("Nash:", rounded(nash(market)), "truth", (10 / 3, 7 / 3))
    print("Stackelberg:", rounded(stackelberg(market)), "truth", (5.0, 1.5))
    print("levels of thought:", [rounded(thinks(market, 1, k)) for k in range(1, 6)], "towards", 10 / 3)
    print("best tax:", rounded(best_tax(market)), "truth", 2.5)
    print("its gradient:", rounded(jax.jit(jax.grad(best_tax))(market)), "truth", (-0.5, 0.25, 0.25))


if __name__ == "__main__":
    main()
