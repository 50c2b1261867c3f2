"""Memory and time of every adjoint against the length of the run, 10 to 100,000 steps, beside the theory.

A hypergradient (rate, momentum, L2) through T steps of SGD with momentum 0.9 on a linear softmax model of the digits at
28x28 (7,850 parameters, batches of 5, float32, 32-bit words). Memory is what the compiled program asks for beside its
inputs and outputs; time is CPU seconds in plain forward runs of the same length, measured in turns. The theory, with s
bytes of state (parameters and velocity) and all memory above a floor of seven states:

    Unroll                    T s at least       3 runs: forward, and back through a gradient (2)
    Checkpoint(levels=1)      T s                4: every step recomputed once
    Checkpoint(levels=2)      2 sqrt(T) s        5
    Checkpoint(slots=c)       c s                4 and the sweeps of the best schedule (Griewank, Walther 2000)
    Reversible                T log2(1/0.9) bits a parameter                         4
    Reversible(snapshots=c)   c s and T/c log2(1/0.9) bits, c = sqrt(T bits / 64)    5

Two constants are not theory: the floor is a measured one, and 48 bytes a step for the tables of a run in integers were
set after a first look at these figures. The time theory counts gradients: in a model as light as this one (22
microseconds a step) copies of states and the arithmetic of integers stand above it.

Runs that would store more than a gigabyte are left out. The line's figures are bytes at T = 10,000: exact reversal
against one state a step. A full run takes a few minutes and writes `results/adjoints_against_length.json` and `.png`;
`--quick` stops at T = 1000 and writes nothing.
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
import numpy as np
from _timing import Cost, in_process
from sklearn.datasets import load_digits

from nestor import Checkpoint, Reversible, Unroll, sgd, train
from nestor.plots._canvas import COLORS

LENGTHS, QUICK = (10, 30, 100, 1000, 10_000, 100_000), (10, 100, 1000)
IMAGES, BATCH, MOMENTUM, BITS = 100, 5, 0.9, math.log2(1 / 0.9)
PARAMETERS = 785 * 10
STATE = 8 * PARAMETERS  # bytes: parameters and velocity
RECORD = 48  # of a step in integers: coefficients, what each multiplication does, and their slopes
FLOOR, LARGEST = 7 * STATE, 1e9
RESULTS = Path(__file__).parent / "results"


def snapshots(steps: int) -> int:
    """Where a snapshot more saves as much of the stack."""
    return min(steps, max(2, round(math.sqrt(steps * BITS / 64))))


def sweeps(steps: int, slots: int) -> float:
    """Forward runs that reversing with so many slots repeats, at best."""
    slots = min(slots, steps)
    r = 0
    while math.comb(slots + r, r) < steps:
        r += 1
    return r - math.comb(slots + r, r - 1) / steps if r else 0.0


ADJOINTS: dict[str, Callable[[int], Any]] = {
    "Unroll": lambda steps: Unroll(),
    "Checkpoint(levels=1)": lambda steps: Checkpoint(levels=1),
    "Checkpoint(levels=2)": lambda steps: Checkpoint(levels=2),
    "Checkpoint(slots=44)": lambda steps: Checkpoint(slots=44),
    "Checkpoint(slots=10)": lambda steps: Checkpoint(slots=10),
    "Reversible": lambda steps: Reversible(bits=BITS * steps + 1),
    "Reversible(snapshots=c)": lambda steps: Reversible(bits=BITS * steps + 1, snapshots=snapshots(steps)),
}
STORED: dict[str, Callable[[int], float]] = {
    "Unroll": lambda steps: steps * STATE,
    "Checkpoint(levels=1)": lambda steps: steps * STATE,
    "Checkpoint(levels=2)": lambda steps: 2 * math.sqrt(steps) * STATE,
    "Checkpoint(slots=44)": lambda steps: min(44, steps) * STATE,
    "Checkpoint(slots=10)": lambda steps: min(10, steps) * STATE,
    "Reversible": lambda steps: steps * BITS / 8 * PARAMETERS,
    "Reversible(snapshots=c)": lambda steps: (
        snapshots(steps) * STATE + steps / snapshots(steps) * BITS / 8 * PARAMETERS
    ),
}
RUNS: dict[str, Callable[[int], float]] = {
    "Unroll": lambda steps: 3,
    "Checkpoint(levels=1)": lambda steps: 4,
    "Checkpoint(levels=2)": lambda steps: 5,
    "Checkpoint(slots=44)": lambda steps: 4 + sweeps(steps, 44),
    "Checkpoint(slots=10)": lambda steps: 4 + sweeps(steps, 10),
    "Reversible": lambda steps: 4,
    "Reversible(snapshots=c)": lambda steps: 5,
}


def memory_theory(name: str, steps: int) -> float:
    """Bytes."""
    record = RECORD * steps if name.startswith("Reversible") else 0
    return FLOOR + record + STORED[name](steps)


def digits() -> tuple[jax.Array, jax.Array]:
    """The first images, enlarged and with a column of ones; their labels."""
    images, labels = load_digits(return_X_y=True)
    small = jnp.asarray(images[:IMAGES] / 16, jnp.float32).reshape(-1, 8, 8)
    large = jax.image.resize(small, (IMAGES, 28, 28), "bilinear").reshape(IMAGES, -1)
    return jnp.column_stack([large, jnp.ones(IMAGES)]), jnp.asarray(labels[:IMAGES], jnp.int32)


def cross_entropy(weights: jax.Array, data: tuple[jax.Array, jax.Array]) -> jax.Array:
    images, labels = data
    logs = jax.nn.log_softmax(images @ weights)
    return -jnp.mean(jnp.take_along_axis(logs, labels[:, None], axis=1))


def trained(hyper: Any, data: Any, steps: int, adjoint: Any) -> jax.Array:
    """The loss on all images after the run."""
    rate, momentum, l2 = hyper

    def loss(weights: jax.Array, batch: Any) -> jax.Array:
        return cross_entropy(weights, batch) + 0.5 * l2 * jnp.sum(weights**2)

    run = train(
        loss,
        jnp.zeros((785, 10)),
        data,
        optimizer=sgd(rate, momentum),
        steps=steps,
        batch_size=BATCH,
        shuffle=False,
        adjoint=adjoint,
    )
    return cross_entropy(run.params, data)


def compiled(steps: int, adjoint: Any, data: Any, *, backward: bool = True) -> tuple[Callable[[], Any], int]:
    """A run or its hypergradient, and its bytes of temporary memory."""
    hyper = (jnp.float32(0.01), jnp.float32(MOMENTUM), jnp.float32(1e-3))

    def outer(hyper: Any, data: Any) -> jax.Array:
        return trained(hyper, data, steps, adjoint)

    program = jax.jit(jax.grad(outer) if backward else outer).lower(hyper, data).compile()
    return lambda: program(hyper, data), program.memory_analysis().temp_size_in_bytes


def repeated(run: Callable[[], Any], times: int, first: Callable[[], Any]) -> Callable[[], Cost]:
    """A measure of short runs: of one, from several; after another, lest it pays for what its neighbour freed."""

    def measure() -> Cost:
        jax.block_until_ready(first())
        cpu, wall = in_process(lambda: [run() for _ in range(times)])()
        return Cost(cpu / times, wall / times)

    return measure


def rows(steps: int, data: Any) -> list[dict[str, Any]]:
    """For each adjoint that fits what it takes at one length, and what it should."""
    plain = compiled(steps, Checkpoint(slots=2), data, backward=False)[0]
    programs = {
        name: compiled(steps, make(steps), data)
        for name, make in ADJOINTS.items()
        if memory_theory(name, steps) < LARGEST
    }
    times, rounds = max(1, 1000 // steps), 6 if steps <= 1000 else 2 if steps < LENGTHS[-1] else 1
    answers: dict[str, Any] = {}

    def noted(name: str) -> Callable[[], Any]:
        return lambda: answers.update({name: jax.block_until_ready(programs[name][0]())})

    seen = {
        "plain": repeated(plain, times, plain),
        **{name: repeated(noted(name), times, plain) for name in programs},
    }
    seconds: dict[str, list[float]] = {name: [] for name in seen}
    for turn in range(rounds):
        for name in list(seen)[:: 1 if turn % 2 == 0 else -1]:
            seconds[name].append(seen[name]().cpu)
    kept = slice(1 if rounds > 2 else 0, None)  # of long runs the first is as good as any
    base, exact = seconds["plain"][kept], np.stack(answers["Checkpoint(slots=10)"])
    runs = {
        name: statistics.median(mine / plain for mine, plain in zip(each[kept], base, strict=True))
        for name, each in seconds.items()
    }
    return [
        {
            "adjoint": name,
            "steps": steps,
            "bytes": programs[name][1],
            "bytes_theory": round(memory_theory(name, steps)),
            "forward_runs": round(runs[name], 2),
            "forward_runs_theory": round(RUNS[name](steps), 2),
            "forward_run_s": round(statistics.median(base), 5),
            "apart": float(f"{np.max(np.abs(np.stack(answers[name]) / exact - 1)):.1e}"),
        }
        for name in programs
    ]


def picture(table: list[dict[str, Any]], path: Path) -> None:
    """Measured points, theoretical lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), dpi=110, layout="constrained")
    axes = figure.subplots(1, 2)
    lengths = np.unique(np.geomspace(LENGTHS[0], LENGTHS[-1], 120).astype(int))
    kinds = ((memory_theory, "bytes", 1e6, "temporary memory (MB)"), (None, "forward_runs", 1, "time (runs)"))
    for ax, (theory, key, unit, label) in zip(axes, kinds, strict=True):
        for (name, marker), color in zip(zip(ADJOINTS, "os^vD*P", strict=True), COLORS, strict=True):
            line = [(theory(name, t) if theory else RUNS[name](t)) / unit for t in lengths]
            ax.plot(lengths, line, color=color, linewidth=1.1, alpha=0.8)
            mine = [row for row in table if row["adjoint"] == name]
            x, y = [row["steps"] for row in mine], [row[key] / unit for row in mine]
            ax.plot(x, y, marker, color=color, markersize=5.5, label=name)
        ax.set(xscale="log", xlabel="steps of the run", ylabel=label)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(True, color="0.9", linewidth=0.8)
        ax.set_axisbelow(True)
    axes[0].set(yscale="log", title="points: measured; lines: theory", ylim=(0.2, 3e4))
    axes[1].set(title="hypergradient, in forward runs", ylim=(0, None))
    axes[0].legend(fontsize="small", edgecolor="none", framealpha=0.9)
    figure.savefig(path)


def main() -> None:
    """All lengths; the table, the picture and the line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="stop at 1000 steps and write nothing")
    quick = parser.parse_args().quick
    data = digits()
    table = [row for steps in (QUICK if quick else LENGTHS) for row in rows(steps, data)]
    steps = 1000 if quick else 10_000
    ours, peer = (
        next(row["bytes"] for row in table if (row["adjoint"], row["steps"]) == (name, steps))
        for name in ("Reversible", "Checkpoint(levels=1)")
    )
    worst = {
        key: max((row[key] / row[key + "_theory"], row["adjoint"], row["steps"]) for row in table)
        for key in ("bytes", "forward_runs")
    }
    line = {
        "claim": "memory and time of every adjoint against the length of a run follow the theory",
        "ours": ours,
        "peer": peer,
        "ratio": round(ours / peer, 5),
        "unit": f"bytes at {steps} steps, exact reversal against one state a step",
        "worst_over_theory": {key: [round(w[0], 2), *w[1:]] for key, w in worst.items()},
        "furthest_apart": max(row["apart"] for row in table),
        "columns": ["adjoint", "steps", "bytes", "theory", "forward runs", "theory"],
        "table": [
            [row[key] for key in ("adjoint", "steps", "bytes", "bytes_theory")]
            + [row[key] for key in ("forward_runs", "forward_runs_theory")]
            for row in table
        ],
    }
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        record = {**{k: v for k, v in line.items() if k not in ("columns", "table")}, "table": table}
        text = json.dumps(record, indent=1) + "\n"
        (RESULTS / "adjoints_against_length.json").write_text(text)
        picture(table, RESULTS / "adjoints_against_length.png")
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
