"""An outer step of two levels against the inner steps before it (1 to 10,000) and the inner parameters (1e3 to 1e7).

Softmax regression on a batch of 20 random examples, ten classes, one L2 strength a weight as the upper level, float32.
Memory is what the compiled outer step asks for beside its inputs and outputs; time is CPU seconds, of the median of a
few calls. An outer step is: the inner steps (SGD with momentum 0.9), and the hypergradient of another batch's loss.

    Implicit(CG), Implicit(Neumann)   ten products, at the answer       memory flat in the inner steps
    SAMA                              two gradients, at the answer      flat
    Truncate(last=10)                 the last ten steps                flat from ten steps on
    Unroll                            every step, stored                grows with the steps
    Checkpoint                        every step, recomputed            with their square root
    Reversible                        every step, run backwards         with the bits that momentum loses

Programs that would store more than a gigabyte are left out. The line's figures are bytes at 10,000 inner steps:
Implicit(CG) against Reversible. A full run takes some minutes and writes `results/levels_growth.json` and `.png`;
`--quick` stops at 1000 steps and 1e5 parameters, and writes nothing.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from _timing import in_process

import nestor
from nestor.plots._canvas import COLORS

STEPS, QUICK_STEPS = (1, 10, 100, 1000, 10_000), (1, 10, 100, 1000)
SIZES, QUICK_SIZES = (1000, 10_000, 100_000, 1_000_000, 10_000_000), (1000, 10_000, 100_000)
PARAMETERS, INNER = 10_000, 10  # where the other one varies
BATCH, CLASSES, LARGEST = 20, 10, 1e9
BITS = math.log2(1 / 0.9)
ADJOINTS: dict[str, Callable[[int], Any]] = {
    "Implicit(CG)": lambda steps: nestor.Implicit(nestor.CG(tol=0.0, max_steps=10)),
    "Implicit(Neumann)": lambda steps: nestor.Implicit(nestor.Neumann(10, scale=0.1)),
    "SAMA": lambda steps: nestor.SAMA(),
    "Truncate(last=10)": lambda steps: nestor.Truncate(last=10),
    "Unroll": lambda steps: nestor.Unroll(),
    "Checkpoint": lambda steps: nestor.Checkpoint(),
    "Reversible": lambda steps: nestor.Reversible(bits=BITS * steps + 1),
}
RESULTS = Path(__file__).parent / "results"


def cross_entropy(weights: jax.Array, batch: Any) -> jax.Array:
    x, y = batch
    logs = jax.nn.log_softmax(x @ weights)
    return -jnp.mean(jnp.take_along_axis(logs, y[:, None], axis=1))


def batch_of(features: int, seed: int) -> Any:
    """Random examples of length about one, so that one rate serves all sizes."""
    first, second = jax.random.split(jax.random.key(seed))
    x = jax.random.normal(first, (BATCH, features)) / math.sqrt(features)
    return x, jax.random.randint(second, (BATCH,), 0, CLASSES)


def outer_step(parameters: int, steps: int, adjoint: Any) -> tuple[Callable[[], Any], int]:
    """The compiled hypergradient, and its bytes of temporary memory."""
    features = parameters // CLASSES

    def slope(weights: jax.Array, strengths: jax.Array, train: Any, held_out: Any) -> jax.Array:
        def lower(p: Any, batch: Any) -> jax.Array:
            return cross_entropy(p["w"], batch) + 0.5 * jnp.sum(jnp.exp(p["s"]) * p["w"] ** 2)

        graph = nestor.Graph(
            {
                "w": nestor.Level(
                    lower, weights, nestor.sgd(0.1, momentum=0.9), data=train, steps=steps, adjoint=adjoint
                ),
                "s": nestor.Level(
                    lambda p, batch: cross_entropy(p["w"], batch), strengths, nestor.sgd(1.0), data=held_out
                ),
            }
        )
        return graph.hypergradient().gradient

    shape = (features, CLASSES)
    inputs = (jnp.zeros(shape), jnp.full(shape, -3.0), batch_of(features, 0), batch_of(features, 1))
    program = jax.jit(slope).lower(*inputs).compile()
    return lambda: program(*inputs), program.memory_analysis().temp_size_in_bytes


def measured(parameters: int, steps: int) -> list[dict[str, Any]]:
    """A row for each adjoint that fits."""
    rows = []
    for name, make in ADJOINTS.items():
        if name == "Unroll" and 24.0 * parameters * steps > LARGEST:
            continue
        run, memory = outer_step(parameters, steps, make(steps))
        jax.block_until_ready(run())
        times = max(1, min(20, 20_000_000 // (parameters * steps)))
        cost = in_process(lambda run=run, times=times: [run() for _ in range(times)])
        seconds = statistics.median(cost().cpu / times for _ in range(3))
        row = {"adjoint": name, "parameters": parameters, "steps": steps}
        rows.append({**row, "bytes": memory, "cpu_s": float(f"{seconds:.3g}")})
    return rows


def picture(by_steps: list[dict[str, Any]], by_size: list[dict[str, Any]], path: Path) -> None:
    """Memory and time, each against steps and parameters."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), dpi=100, layout="constrained")
    axes = figure.subplots(2, 2)
    for column, (table, x, label) in enumerate(
        [(by_steps, "steps", "inner steps"), (by_size, "parameters", "inner parameters")]
    ):
        for row, (key, unit, text) in enumerate(
            [("bytes", 1e6, "temporary memory (MB)"), ("cpu_s", 1e-3, "time of an outer step (CPU ms)")]
        ):
            ax = axes[row, column]
            for name, marker, color in zip(ADJOINTS, "os^vD*P", COLORS, strict=False):
                mine = [r for r in table if r["adjoint"] == name]
                ax.plot(
                    [r[x] for r in mine], [r[key] / unit for r in mine], marker + "-", color=color, label=name,
                    markersize=5, linewidth=1.1,
                )  # fmt: skip
            ax.set(xscale="log", yscale="log", xlabel=label, ylabel=text)
            ax.spines[["top", "right"]].set_visible(False)
            ax.grid(True, color="0.9", linewidth=0.8)
            ax.set_axisbelow(True)
    axes[0, 0].set_title(f"{PARAMETERS} parameters")
    axes[0, 1].set_title(f"{INNER} inner steps")
    axes[0, 0].legend(fontsize="small", edgecolor="none", framealpha=0.9)
    figure.savefig(path)


def main() -> None:
    """Both tables, the picture and the line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="smaller tables, and write nothing")
    quick = parser.parse_args().quick
    by_steps = [row for steps in (QUICK_STEPS if quick else STEPS) for row in measured(PARAMETERS, steps)]
    by_size = [row for size in (QUICK_SIZES if quick else SIZES) for row in measured(size, INNER)]
    most = max(row["steps"] for row in by_steps)

    def of(name: str, steps: int) -> int:
        return next(r["bytes"] for r in by_steps if (r["adjoint"], r["steps"]) == (name, steps))

    line = {
        "claim": "the memory of an outer step by an implicit adjoint does not grow with the inner steps",
        "ours": of("Implicit(CG)", most),
        "peer": of("Reversible", most),
        "ratio": round(of("Implicit(CG)", most) / of("Reversible", most), 4),
        "unit": f"bytes at {most} inner steps and {PARAMETERS} parameters, Implicit(CG) against Reversible",
        "growth_from_ten_steps": {
            name: round(of(name, most) / of(name, 10), 3)
            for name in ("Implicit(CG)", "Implicit(Neumann)", "SAMA")
        },
        "columns": ["adjoint", "parameters", "steps", "bytes", "cpu_s"],
        "table": [list(row.values()) for row in by_steps + by_size],
    }
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        record = {k: v for k, v in line.items() if k not in ("columns", "table")}
        text = json.dumps({**record, "by_steps": by_steps, "by_size": by_size}, indent=1) + "\n"
        (RESULTS / "levels_growth.json").write_text(text)
        picture(by_steps, by_size, RESULTS / "levels_growth.png")
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
