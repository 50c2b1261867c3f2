"""Tolls that know how drivers answer: two leaders on a small road network, followers in equilibrium.

Five roads, three routes (Braess's network). The drivers spread until no route is better than another; that is a
minimum (Beckmann et al. 1956), here with a little noise in their choice (Fisk 1980). A city sets tolls on all roads
against the total time, and reaches the social optimum; an owner sets one for the bridge, and earns what he can.

    python stackelberg.py    writes results/stackelberg.json; with --quick, fewer steps
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import nestor

jax.config.update("jax_enable_x64", True)
QUICK = "--quick" in sys.argv
STEPS, NOISE = (60 if QUICK else 300), 0.05
roads = jnp.array([[1, 0, 0, 1, 0], [0, 1, 1, 0, 0], [1, 0, 1, 0, 1.0]])  # of each route: over, under, bridge
free, slope = jnp.array([0.1, 1.0, 0.1, 1.0, 0.05]), jnp.array([1.0, 0.1, 1.0, 0.1, 0.2])
BRIDGE = 4


def shares(choice):  # of the three routes; the first entry of the softmax is fixed
    return jax.nn.softmax(jnp.append(0.0, choice))


def total_time(share):
    flow = share @ roads
    return flow @ (free + slope * flow)


def potential(choice, tolls):
    share, flow = shares(choice), shares(choice) @ roads
    return jnp.sum((free + tolls) * flow + slope * flow**2 / 2) + NOISE * share @ jnp.log(share)


def city(share, tolls):
    return total_time(share)


def owner(share, tolls):
    return -tolls[BRIDGE] * (share @ roads)[BRIDGE]


def led_by(leader, tolled, steps=STEPS):
    """Where drivers and tolls end, if the leader may put a toll on these roads."""
    tolls = lambda p: jnp.zeros(5).at[tolled].set(jax.nn.softplus(p["leader"]))  # noqa: E731
    follow = lambda p, _: potential(p["drivers"], tolls(p))  # noqa: E731
    lead = lambda p, _: leader(shares(p["drivers"]), tolls(p))  # noqa: E731
    lu = nestor.Implicit(nestor.LU())
    drivers = nestor.Level(follow, jnp.zeros(2), nestor.sgd(2.0), steps=300, adjoint=lu)
    above = nestor.Level(lead, jnp.full(len(tolled), -3.0), nestor.adam(0.1))
    graph = nestor.Graph({"drivers": drivers, "leader": above})
    end = graph.hypergradient(start=graph.run(steps)).params  # after the drivers' answer to the last tolls
    return shares(end["drivers"]), tolls(end)


def report(share, tolls):
    names = ("time", "shares", "tolls", "earned_by_the_bridge")
    values = total_time(share), share, tolls, -owner(share, tolls)
    return {name: np.round(v, 4).tolist() for name, v in zip(names, values, strict=True)}


if __name__ == "__main__":
    found = {"city": report(*led_by(city, jnp.arange(5)))}
    found["owner of the bridge"] = report(*led_by(owner, jnp.array([BRIDGE])))
    freely = shares(nestor.argmin(lambda c: potential(c, jnp.zeros(5)), jnp.zeros(2)))
    found["nobody"] = report(freely, jnp.zeros(5))
    found["least_time"] = float(nestor.minimum(lambda c: total_time(shares(c)), jnp.zeros(2)))
    print(json.dumps(found, indent=2))
    assert found["city"]["time"] < found["least_time"] + (0.02 if QUICK else 2e-4) < found["nobody"]["time"]
    if not QUICK:
        path = Path(__file__).parent / "results" / "stackelberg.json"
        path.write_text(json.dumps(found, indent=2) + "\n")
