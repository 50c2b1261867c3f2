"""The problems of `_bilevel_problems` in other libraries, each in a process of its own that runs when it is asked.

    with Worker("betty", "logistic") as betty, Worker("by_hand", "logistic") as floor:
        for _ in range(rounds):
            betty.run(), floor.run()      # what they took an outer step, where they arrived

A process of its own keeps PyTorch's threads and JAX's out of each other's way, and lets memory be measured: the most
that was resident, with the imports and above them. `RUNNERS` has a line for every library; something
else to be measured is one more line: a function that imports and gives a function from the problem to what
prepares a run. `python benchmarks/_levels_peers.py` compares all of them.

The libraries and what had to be done for them: `_levels_in_torch`. `by_hand` and `on_paper`: `_levels_by_hand`.
Everyone runs on one thread, the setting that takes least at such sizes: PyTorch by its own call, JAX by NPROC=1 in
the environment. A library can be asked for in another setting, behind a plus (`SETTINGS`): `nestor+threads`.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _bilevel_problems import Logistic, logistic, reweighting
from _levels_in_torch import Answer, Start, start_of
from _timing import Cost

PROBLEMS: dict[str, Callable[..., Any]] = {"logistic": logistic, "reweighting": reweighting}


ONE_THREAD = {"NPROC": "1"}  # read by XLA on a CPU; PyTorch does not read it
SETTINGS: dict[str, dict[str, str]] = {
    "": ONE_THREAD,
    "threads": {},  # as many threads as the machine has cores, JAX's default
    "lean": ONE_THREAD | {"LEAN": "1"},  # read by `_levels_ours`: half the memory of compilation
}


class Run(NamedTuple):
    """One run: what it took an outer step, where it arrived, bytes (see `Worker`)."""

    cost: Cost
    outer: np.ndarray
    inner: np.ndarray
    loss: float
    memory: dict[str, int]


class Worker:
    """A library in a process of its own.

    A run's `memory`, in bytes of what is resident:

    `whole`: the most since the process began, imports in it: what a machine must hold.
    `peak`: the most since the imports, less what was there right after them; compilation is in it.
    `running`: the most while a run was going on, less what was there before it.
    """

    def __init__(self, library: str, problem: str, **settings: Any):
        library, _, setting = library.partition("+")
        if (message := missing(library)) is not None:
            raise ModuleNotFoundError(message)
        self.outer_steps = PROBLEMS[problem](**settings).outer_steps
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", library, problem, json.dumps(settings)],
            env={**os.environ, **SETTINGS[setting]},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self) -> Run:
        """One more run of all outer steps, from the start."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        print(file=stdin, flush=True)
        line = stdout.readline()
        if not line:
            raise RuntimeError(
                f"a library ended with exit status {self.process.wait()}; its words stand above"
            )
        told = json.loads(line)
        steps = self.outer_steps
        return Run(
            Cost(told["cpu"] / steps, told["wall"] / steps),
            np.array(told["outer"]),
            np.array(told["inner"]),
            told["loss"],
            told["memory"],
        )

    def measure(self) -> Cost:
        """CPU and wall seconds an outer step, for `_timing.interleaved`."""
        return self.run().cost

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.communicate()


def missing(library: str) -> str | None:
    """What to do to get a library that cannot be imported, or None."""
    library = library.partition("+")[0]
    peers = "pip install -e '.[peers]'"
    betty = "betty", "", "pip install --no-deps --ignore-requires-python betty-ml==0.2.1"
    remedies = {
        "betty": betty,
        "betty_mended": betty,
        "hypertorch": (
            "hypergrad",
            "CG_torch.py",
            "put prolearner/hypertorch (GitHub; on no registry) on PYTHONPATH",
        ),
        "torchopt": ("torchopt", "", peers),
    }
    for module, file, remedy in [("torch", "", peers), remedies[library]] if library in remedies else []:
        found = importlib.util.find_spec(module)
        if found is None or found.origin is None or not (Path(found.origin).parent / file).exists():
            return f"{library} needs the module `{module}`, which cannot be imported: {remedy}"
    return None


def compared(
    libraries: list[str], problem: str, *, rounds: int = 5, **settings: Any
) -> dict[str, dict[str, Any]]:
    """All in turns, the first one alternating: medians, memory, and how far they arrive from the first of the list."""
    workers = {name: Worker(name, problem, **settings) for name in libraries if missing(name) is None}
    runs: dict[str, list[Run]] = {name: [workers[name].run()] for name in workers}
    for turn in range(rounds):
        for name in list(workers) if turn % 2 else reversed(workers):
            runs[name].append(workers[name].run())
    for worker in workers.values():
        worker.__exit__()
    first = runs[libraries[0]]
    seen = {}
    for name, (warm, *timed) in runs.items():
        ratios = [mine.cost.cpu / theirs.cost.cpu for mine, theirs in zip(timed, first[1:], strict=True)]
        seen[name] = {
            "cpu_ms": round(1e3 * statistics.median(run.cost.cpu for run in timed), 4),
            "wall_ms": round(1e3 * statistics.median(run.cost.wall for run in timed), 4),
            f"times_{libraries[0]}": round(statistics.median(ratios), 2),
            "apart": float(f"{np.abs(warm.outer - first[0].outer).max():.1e}"),
            "moved": float(f"{np.abs(warm.outer - start_of(PROBLEMS[problem](**settings))).max():.1e}"),
            "loss": round(warm.loss, 5),
            "whole_mb": round(timed[-1].memory["whole"] / 1e6, 1),
            "peak_mb": round(timed[-1].memory["peak"] / 1e6, 1),
            "running_mb": round(max(run.memory["running"] for run in timed) / 1e6, 1),
        }
    return seen | {name: {"missing": missing(name)} for name in libraries if name not in seen}


# --- in the worker ---------------------------------------------------------------------------------


def serve(library: str, problem: str, settings: dict[str, Any]) -> None:
    """Import, say nothing, and run once for every line that comes in."""
    protocol = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes elsewhere
    begin = RUNNERS[library]()
    whole = _resident("VmHWM")
    _forget_the_most()
    imported = peak = _resident("VmRSS")
    start = begin(PROBLEMS[problem](**settings))
    for _ in sys.stdin:
        go = start()
        peak = max(peak, _resident("VmHWM"))
        _forget_the_most()
        before = _resident("VmRSS")
        wall, cpu = time.perf_counter(), time.process_time()
        outer, inner, loss = go()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        most = _resident("VmHWM")
        peak = max(peak, most)
        told = {
            "cpu": cpu,
            "wall": wall,
            "outer": outer.tolist(),
            "inner": inner.tolist(),
            "loss": loss,
            "memory": {"whole": max(whole, peak), "peak": peak - imported, "running": most - before},
        }
        print(json.dumps(told), file=protocol, flush=True)


def _resident(field: str) -> int:
    """Bytes: VmRSS is now, VmHWM the most so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise LookupError(field)


def _forget_the_most() -> None:
    """VmHWM counts from here."""
    Path("/proc/self/clear_refs").write_text("5")


def _by_hand(name: str) -> Callable[[], Callable[[Any], Start]]:
    def imports() -> Callable[[Any], Start]:
        import _levels_by_hand as hand

        def begin(problem: Any) -> Start:
            program = getattr(hand, f"{type(problem).__name__.lower()}_{name}")(problem)
            go, _ = hand.compiled(program)

            def run() -> Answer:
                outer, inner, values = go()
                return outer, inner, float(values[-1])

            return lambda: run

        return begin

    return imports


def _ours() -> Callable[[Any], Start]:
    import _levels_ours

    return _levels_ours.begin


def _in_torch(name: str) -> Callable[[], Callable[[Any], Start]]:
    """One thread, and the runner for the kind of problem."""

    def imports() -> Callable[[Any], Start]:
        import _levels_in_torch as libraries
        import torch

        warnings.filterwarnings("ignore", module="higher|torchopt|torch")
        torch.set_num_threads(1)
        for_logistic, for_reweighting = getattr(libraries, name)()
        return lambda problem: (for_logistic if isinstance(problem, Logistic) else for_reweighting)(problem)

    return imports


RUNNERS: dict[str, Callable[[], Callable[[Any], Start]]] = {
    "nestor": lambda: _ours(),
    "by_hand": _by_hand("by_hand"),
    "on_paper": _by_hand("on_paper"),
    "plainly": _by_hand("plainly"),
    "betty": _in_torch("betty"),
    "betty_mended": _in_torch("betty_mended"),
    "hypertorch": _in_torch("hypertorch"),
    "torchopt": _in_torch("torchopt"),
}


def main() -> None:
    """Serve, or compare everything: a line of JSON for each problem."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", nargs=3, metavar=("LIBRARY", "PROBLEM", "SETTINGS"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--problem", choices=["logistic", "darts", "unroll"])
    chosen = parser.parse_args()
    if chosen.serve:
        library, problem, settings = chosen.serve
        return serve(library, problem, json.loads(settings))
    for name, problem, settings, libraries in [
        (
            "logistic",
            "logistic",
            {},
            ["by_hand", "nestor", "on_paper", "betty", "betty_mended", "hypertorch", "torchopt"],
        ),
        ("darts", "reweighting", {"hypergradient": "darts"}, ["by_hand", "nestor", "betty", "hypertorch"]),
        (
            "unroll",
            "reweighting",
            {"hypergradient": "unroll"},
            ["by_hand", "nestor", "betty", "hypertorch", "torchopt"],
        ),
    ]:
        if chosen.problem in (None, name):
            seen = compared(libraries, problem, rounds=chosen.rounds, **settings)
            print(json.dumps({"problem": name, **seen}), flush=True)
    return None


if __name__ == "__main__":
    main()
