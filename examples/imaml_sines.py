"""Learning to learn sines: iMAML against MAML through the exact steps, on as many tasks.

A task is a sine of its own amplitude and phase; a net of 1-40-40-1 units adapts to it from ten points. MAML
differentiates the steps of the adaptation, iMAML the condition at its end: it may take many steps, and the memory of
its gradient does not know how many. (Finn et al. 2017, section 5.1; Rajeswaran et al. 2019.)

    python imaml_sines.py    writes results/imaml_sines.json; with --quick, fewer steps
"""

import functools
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp

import nestor
from nestor import levels

QUICK = "--quick" in sys.argv
OUTER_STEPS, RATES, INNER = (40, (0.05,), (5, 50)) if QUICK else (2000, (0.02, 0.05, 0.08), (5, 50, 500))
TASKS, TESTS, SHOTS = 25, 50 if QUICK else 500, 10


def loss(net, points):
    hidden = jnp.tanh(points[0] / 2.5 @ net["in"] + net["in bias"])
    hidden = jnp.tanh(hidden @ net["middle"] + net["middle bias"])
    return jnp.mean((hidden @ net["out"] + net["out bias"] - points[1]) ** 2)


def sines(key, count):
    """Support and query of so many tasks, ten points each."""
    keys = jax.random.split(key, 3)
    amplitude = jax.random.uniform(keys[0], (count, 1, 1), minval=0.1, maxval=1.0)
    phase = jax.random.uniform(keys[1], (count, 1, 1), maxval=jnp.pi)
    x = jax.random.uniform(keys[2], (count, 2 * SHOTS, 1), minval=-5.0, maxval=5.0)
    y = amplitude * jnp.sin(x - phase)
    return (x[:, :SHOTS], y[:, :SHOTS]), (x[:, SHOTS:], y[:, SHOTS:])


def bytes_of_a_gradient(adapt):
    slope = jax.jit(jax.grad(lambda net: levels.meta_loss(loss, net, test, adapt)))
    return slope.lower(start).compile().memory_analysis().temp_size_in_bytes


key, middle, out, order = jax.random.split(jax.random.key(0), 4)
start = {"in": jax.random.normal(key, (1, 40)), "in bias": jnp.zeros(40)}
start |= {"middle": jax.random.normal(middle, (40, 40)) / 5, "middle bias": jnp.zeros(40)}
start |= {"out": jax.random.normal(out, (40, 1)) / 5, "out bias": jnp.zeros(1)}
tasks, test = (lambda step: sines(jax.random.fold_in(order, step), TASKS)), sines(jax.random.key(1), TESTS)

cg = nestor.Implicit(nestor.CG(tol=0.0, max_steps=10))
imaml = functools.partial(levels.imaml, loss, strength=2.0, optimizer=nestor.sgd(0.01, 0.8), adjoint=cg)
ways = {
    f"maml, rate {rate}": functools.partial(levels.maml, loss, optimizer=nestor.sgd(rate), steps=5)
    for rate in RATES
}
ways["imaml"] = functools.partial(imaml, steps=100)
found = {}
for name, adapt in ways.items():
    begin, outer = time.process_time(), functools.partial(levels.meta_loss, loss, adapt=adapt)
    adam = nestor.adam(nestor.schedules.Cosine(1e-3, OUTER_STEPS))
    net = nestor.train(outer, start, tasks, optimizer=adam, steps=OUTER_STEPS, clip=1.0).params
    found[name] = {"test_loss": float(outer(net, test)), "before_adapting": float(loss(net, test[1]))}
    found[name] |= {"cpu_seconds": round(time.process_time() - begin, 1)}
best = min(value["test_loss"] for name, value in found.items() if name != "imaml")
maml = functools.partial(levels.maml, loss, optimizer=nestor.sgd(0.01), adjoint=nestor.Unroll())
bytes_of = {
    name: [bytes_of_a_gradient(functools.partial(way, steps=steps)) for steps in INNER]
    for name, way in (("imaml", imaml), ("maml", maml))[: 1 if QUICK else 2]
}
found |= {"inner_steps": INNER, "bytes_of_a_gradient": bytes_of}
print(json.dumps(found, indent=2))
assert bytes_of["imaml"][-1] <= 1.02 * bytes_of["imaml"][0]
if not QUICK:
    assert found["imaml"]["test_loss"] < 1.05 * best
    (Path(__file__).parent / "results" / "imaml_sines.json").write_text(json.dumps(found, indent=2) + "\n")
