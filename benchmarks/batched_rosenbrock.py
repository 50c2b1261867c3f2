"""1000 Rosenbrock problems of dimension 10 under vmap: at most the time of optax and optimistix, all solved.

Random starts in [-2, 2]^10, float32 and float64. Ours and optimistix by BFGS, optax by its L-BFGS with its zoom
line search (it has no BFGS). All stop on the gradient or their own test at comparable tolerances; a lane counts
as solved when the largest entry of its gradient, recomputed, is at most 1e-3 (float32) or 1e-6 (float64).
"""

import json
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from _minimizers import optax_lbfgs
from _timing import in_process

import nestor

LANES, DIMENSION, STEPS = 1000, 10, 2000


def rosenbrock(x: jax.Array) -> jax.Array:
    """The chained Rosenbrock function."""
    return jnp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def by_nestor(x0: jax.Array) -> jax.Array:
    """BFGS with the default tolerance of the dtype."""
    return nestor.minimize(rosenbrock, x0, solver=nestor.BFGS(), max_steps=STEPS, raise_on_failure=False).x


def by_optimistix(x0: jax.Array) -> jax.Array:
    """BFGS; tolerances on the step, relative and absolute."""
    tol = 1e-6 if x0.dtype == jnp.float32 else 1e-8
    solver = optimistix.BFGS(rtol=tol, atol=tol)
    return optimistix.minimise(lambda y, _: rosenbrock(y), solver, x0, max_steps=STEPS, throw=False).value


def by_optax(x0: jax.Array) -> jax.Array:
    """L-BFGS until the gradient is as small as ours."""
    return optax_lbfgs(rosenbrock, float(jnp.finfo(x0.dtype).eps) ** 0.5, STEPS)(x0)


def main(rounds: int = 9) -> None:
    """Both dtypes, all three in turns."""
    result: dict[str, object] = {}
    ratios: list[float] = []
    for dtype, bar in ((np.float32, 1e-3), (np.float64, 1e-6)):
        with jax.enable_x64(dtype is np.float64):
            starts = jnp.asarray(np.random.default_rng(0).uniform(-2, 2, (LANES, DIMENSION)), dtype)
            gradient = jax.jit(jax.vmap(jax.grad(rosenbrock)))
            runs = {
                name: jax.jit(jax.vmap(solve))
                for name, solve in (
                    ("ours", by_nestor),
                    ("optimistix", by_optimistix),
                    ("optax", by_optax),
                )
            }
            solved = {}
            for name, run in runs.items():
                largest = np.abs(np.asarray(gradient(run(starts)))).max(axis=1)
                solved[name] = int((largest <= bar).sum())
            measures = {
                name: in_process(lambda run=run, starts=starts: run(starts)) for name, run in runs.items()
            }
            cpu: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(rounds):
                for name, measure in measures.items():
                    cpu[name].append(measure().cpu)
            medians = {name: round(statistics.median(times), 4) for name, times in cpu.items()}
            for peer in ("optimistix", "optax"):
                ratio = statistics.median(a / b for a, b in zip(cpu["ours"], cpu[peer], strict=True))
                ratios.append(ratio)
                result[f"ratio_{peer}_{np.dtype(dtype).name}"] = round(ratio, 4)
            result[f"cpu_{np.dtype(dtype).name}"] = medians
            result[f"solved_{np.dtype(dtype).name}"] = solved
    single = result["cpu_float32"]
    assert isinstance(single, dict)
    print(
        json.dumps(
            {
                "claim": "1000 BFGS solves under vmap: at most the time of optax and optimistix, all solved",
                "ours": single["ours"],
                "peer": min(single["optimistix"], single["optax"]),
                "ratio": round(max(ratios), 4),
                "unit": "CPU s (float32); ratio: the worst over both peers and both dtypes",
                "rounds": rounds,
                **result,
            }
        )
    )


if __name__ == "__main__":
    main()
