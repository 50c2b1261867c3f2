"""Tracing and compiling the gradient of a three-level nest costs at most 0.7 of what optimistix needs.

Each measurement is a fresh process that reports the CPU time of trace, lowering and compilation alone, imports
not counted. The nest: min over z of cos(z + p) + min over x of (x - z)^2 + (x - 1)^2 + min over y of
(y - sin x)^2 + y^4 / 10. Both libraries minimise by BFGS in float64 with their default adjoint. `minimum` is how
Nestor writes "min over"; the same nest with `argmin`, evaluated at its answer as optimistix has to, is reported
too, and two levels of each, for the factor that a level costs.
"""

import json
import statistics
import subprocess
import sys

PRELUDE = """
import json, time
import jax, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
"""

OURS = """
import nestor
def minimum(f, x0):
    return nestor.minimum(f, x0, solver=nestor.BFGS(), tol=1e-8)
"""

OURS_ARGMIN = """
import nestor
def minimum(f, x0):
    return f(nestor.argmin(f, x0, solver=nestor.BFGS(), tol=1e-8))
"""

PEER = """
import optimistix
def minimum(f, x0):
    solver = optimistix.BFGS(rtol=1e-8, atol=1e-8)
    return f(optimistix.minimise(lambda y, _: f(y), solver, jnp.asarray(x0), max_steps=1000).value)
"""

NEST = """
def lowest(x):
    return minimum(lambda y: (y - jnp.sin(x)) ** 2 + 0.1 * y**4, 0.5)
def middle(z):
    return minimum(lambda x: (x - z) ** 2 + (x - 1) ** 2 + lowest(x), 0.3)
three = lambda p: minimum(lambda z: jnp.cos(z + p) + middle(z), 2.0)
two = lambda p: middle(p)
levels = {"two": two, "three": three}[LEVELS]
jax.jit(lambda x: x + 1.0).lower(0.1).compile()
start = time.process_time()
compiled = jax.jit(jax.grad(levels)).lower(0.1).compile()
seconds = time.process_time() - start
print(json.dumps([seconds, float(compiled(0.1))]))
"""


def measure(library: str, levels: str) -> tuple[float, float]:
    """CPU seconds and the gradient."""
    code = PRELUDE + library + NEST.replace("LEVELS", repr(levels))
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    seconds, gradient = json.loads(out.stdout.splitlines()[-1])
    return seconds, gradient


def main(rounds: int = 5) -> None:
    """Interleave the variants and print the medians."""
    variants = {
        "ours": (OURS, "three"),
        "peer": (PEER, "three"),
        "ours_argmin": (OURS_ARGMIN, "three"),
        "ours_two_levels": (OURS, "two"),
        "ours_argmin_two_levels": (OURS_ARGMIN, "two"),
        "peer_two_levels": (PEER, "two"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    gradients: dict[str, float] = {}
    for _ in range(rounds):
        for name, (library, levels) in variants.items():
            cpu, gradients[name] = measure(library, levels)
            seconds[name].append(cpu)
    median = {name: round(statistics.median(values), 3) for name, values in seconds.items()}
    ratios = [a / b for a, b in zip(seconds["ours"], seconds["peer"], strict=True)]
    argmin_ratios = [a / b for a, b in zip(seconds["ours_argmin"], seconds["peer"], strict=True)]
    assert abs(gradients["ours"] - gradients["peer"]) < 1e-5, gradients
    print(
        json.dumps(
            {
                "claim": "compiling the gradient of a three-level nest: at most 0.7 of optimistix",
                "ours": median["ours"],
                "peer": median["peer"],
                "ratio": round(statistics.median(ratios), 4),
                "unit": "CPU s",
                "rounds": rounds,
                "ratio_argmin": round(statistics.median(argmin_ratios), 4),
                "level_factor_ours": round(median["ours"] / median["ours_two_levels"], 2),
                "level_factor_ours_argmin": round(
                    median["ours_argmin"] / median["ours_argmin_two_levels"], 2
                ),
                "level_factor_peer": round(median["peer"] / median["peer_two_levels"], 2),
                "medians": median,
            }
        )
    )


if __name__ == "__main__":
    main()
