"""Logistic regression, the digits in ten classes and 10,000 x 200 with l2: faster than SciPy and every JAX peer.

float64, mean loss, from zero, L-BFGS everywhere, until the largest entry of the gradient is at most 1e-6 (jaxopt:
its norm; optimistix: its own tests on step and value at 1e-6; the line says where each arrived). Times are those
of compiled programs; SciPy runs over the compiled value and gradient.
"""

import json
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _minimizers import (
    in_turns,
    jaxopt_lbfgs,
    max_norm,
    median_ratio,
    optax_lbfgs,
    optimistix_lbfgs,
    scipy_over_jit,
)
from sklearn.datasets import load_digits

import nestor

TOL, STEPS = 1e-6, 2000


def digits() -> tuple[Callable[[Any], Any], jax.Array]:
    """Multinomial regression on the digits: 64 features and a constant, ten classes, n = 650."""
    images, labels = load_digits(return_X_y=True)
    a = jnp.asarray(np.hstack([images / 16.0, np.ones((len(images), 1))]))
    y = jnp.asarray(labels, jnp.int32)

    def loss(w: Any) -> Any:
        logits = a @ w.reshape(65, 10)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1)
        return -jnp.mean(picked) + 1e-4 * jnp.sum(w**2)

    return loss, jnp.zeros(650)


def binary() -> tuple[Callable[[Any], Any], jax.Array]:
    """10,000 rows of 200 features, labels from a noisy plane, l2 = 1e-4."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(10_000, 200)) * np.geomspace(1, 0.1, 200)
    y = np.sign(a @ rng.normal(size=200) + rng.normal(size=10_000))
    signed = jnp.asarray(a * y[:, None])
    return lambda w: jnp.mean(jax.nn.softplus(-(signed @ w))) + 1e-4 * jnp.sum(w**2), jnp.zeros(200)


def by_nestor(fun: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """L-BFGS until the gradient is as small."""
    solver = nestor.LBFGS()
    return lambda x0: nestor.minimize(
        fun, x0, solver=solver, tol=TOL, max_steps=STEPS, raise_on_failure=False
    )


def main(rounds: int = 5) -> None:
    """Both problems, all libraries in turns."""
    jax.config.update("jax_enable_x64", True)
    result: dict[str, Any] = {}
    ratios: dict[str, float] = {}
    for name, (fun, x0) in {"digits": digits(), "l2_10000x200": binary()}.items():
        ours = jax.jit(by_nestor(fun))
        scipy_solve = scipy_over_jit(fun, TOL, STEPS)
        peers = {
            "optax": jax.jit(optax_lbfgs(fun, TOL, STEPS)),
            "jaxopt": jax.jit(jaxopt_lbfgs(fun, TOL, STEPS)),
            "optimistix": jax.jit(optimistix_lbfgs(fun, TOL, STEPS)),
        }
        gradient = jax.jit(jax.grad(fun))
        theirs = scipy_solve(x0)
        solution = ours(x0)
        points = {"ours": solution.x, "SciPy": theirs.x} | {peer: run(x0) for peer, run in peers.items()}
        runs = {peer: lambda run=run, x0=x0: run(x0) for peer, run in peers.items()}
        runs["ours"] = lambda ours=ours, x0=x0: ours(x0)
        runs["SciPy"] = lambda solve=scipy_solve, x0=x0: solve(x0).x
        cpu = in_turns(runs, rounds)
        for peer in ("SciPy", *peers):
            ratios[f"{name} {peer}"] = round(median_ratio(cpu["ours"], cpu[peer]), 4)
        result[name] = {
            "cpu": {key: round(statistics.median(times), 4) for key, times in cpu.items()},
            "gradient": {key: float(max_norm(gradient(jnp.asarray(x)))) for key, x in points.items()},
            "evaluations": {"ours": int(solution.stats.evaluations), "SciPy": int(theirs.nfev)},
        }
    worst = max(ratios, key=lambda key: ratios[key])
    first = result["digits"]["cpu"]
    print(
        json.dumps(
            {
                "claim": "multinomial digits and l2-logistic 10,000 x 200: faster than SciPy over a compiled "
                "function and than every JAX peer",
                "ours": first["ours"],
                "peer": min(seconds for key, seconds in first.items() if key != "ours"),
                "ratio": ratios[worst],
                "unit": "CPU s on the digits, the fastest peer; ratio: the worst over problems and peers",
                "worst": worst,
                "ratios": ratios,
                "rounds": rounds,
                **result,
            }
        )
    )


if __name__ == "__main__":
    main()
