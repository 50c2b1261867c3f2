"""Tuning a tiny net, batches of trials as one program, against a loop of Optuna's trials over a jitted objective.

Random sampling on both sides, so that what is compared is the machinery: at most 0.15 ms of CPU a trial, end to end.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from _search import as_line, optuna_or_exit

from nestor import search, tuning

BATCH, OURS, PEER, ROUNDS = 64, 2048, 256, 5
draw = np.random.default_rng(0)
inputs = jnp.asarray(draw.normal(size=(32, 2)), jnp.float32)
targets = jnp.sin(inputs[:, 0]) * inputs[:, 1]
first = jnp.asarray(draw.normal(size=(2, 8)), jnp.float32)
last = jnp.asarray(draw.normal(size=8), jnp.float32)
SPACE = {"rate": (1e-3, 1.0, "log"), "l2": (1e-6, 1e-1, "log"), "scale": (0.1, 2.0)}


def misfit(net):
    return jnp.mean((jnp.tanh(inputs @ net[0]) @ net[1] - targets) ** 2)


def objective(hyper):
    """The loss of a net 2-8-1 after ten steps of gradient descent."""

    def loss(net):
        return misfit(net) + hyper["l2"] * (jnp.sum(net[0] ** 2) + jnp.sum(net[1] ** 2))

    def step(net, _):
        return jax.tree.map(lambda leaf, slope: leaf - hyper["rate"] * slope, net, jax.grad(loss)(net)), None

    return misfit(jax.lax.scan(step, (hyper["scale"] * first, hyper["scale"] * last), None, length=10)[0])


def cpu_per_trial(work, count):
    before = time.process_time()
    work(count)
    return (time.process_time() - before) / count


def main():
    optuna = optuna_or_exit()
    study = search.create_study(sampler=search.RandomSampler(seed=0))
    posed = {sloped: tuning.Batched(objective, SPACE, gradient=sloped) for sloped in (False, True)}
    compiled = jax.jit(objective)

    def peer_objective(trial):
        ends = {name: (low, high, bool(log)) for name, (low, high, *log) in SPACE.items()}
        hyper = {
            name: trial.suggest_float(name, low, high, log=log) for name, (low, high, log) in ends.items()
        }
        return float(compiled(hyper))

    peer = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for sloped in posed:
        study.optimize(posed[sloped], BATCH, batch=BATCH)
    peer.optimize(peer_objective, n_trials=8)
    rounds = [
        (
            cpu_per_trial(lambda n: study.optimize(posed[False], n, batch=BATCH), OURS),
            cpu_per_trial(lambda n: study.optimize(posed[True], n, batch=BATCH), OURS),
            cpu_per_trial(lambda n: peer.optimize(peer_objective, n_trials=n), PEER),
        )
        for _ in range(ROUNDS)
    ]
    plain, sloped, theirs = (statistics.median(column) for column in zip(*rounds, strict=True))
    as_line(
        f"a trial of tuning a tiny net in batches of {BATCH}: at most 0.15 ms of CPU",
        plain,
        theirs,
        unit="CPU s a trial",
        with_gradients=round(sloped, 9),
        rounds=ROUNDS,
        optuna=optuna.__version__,
        jax=jax.__version__,
    )


if __name__ == "__main__":
    main()
