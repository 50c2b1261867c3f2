"""Two things timed in turns, and the line of JSON that says what came out."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

Measure = Callable[[], "Cost"]


class Cost(NamedTuple):
    """What one run took, in seconds: CPU of all threads, and the clock on the wall."""

    cpu: float
    wall: float


class Comparison(NamedTuple):
    """Medians over the rounds, and the median ratio (ours over peer) of CPU and of wall time."""

    ours: Cost
    peer: Cost
    cpu_ratio: float
    wall_ratio: float
    rounds: int


def in_process(run: Callable[[], Any]) -> Measure:
    """A measure of `run` in this process; what it returns is waited for if JAX computes it."""

    def measure() -> Cost:
        import jax

        cpu, wall = time.process_time(), time.perf_counter()
        jax.block_until_ready(run())
        return Cost(time.process_time() - cpu, time.perf_counter() - wall)

    return measure


def in_fresh_process(snippet: str, *, environment: dict[str, str] | None = None) -> Measure:
    """A measure of a piece of Python in an interpreter of its own, start-up included."""

    def measure() -> Cost:
        wall = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-c", snippet],
            env={**os.environ, **(environment or {})},
            stdout=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(child.pid, 0)  # the usage of this child alone
        wall = time.perf_counter() - wall
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            raise RuntimeError(f"exit status {child.returncode} from the snippet: {snippet}")
        return Cost(usage.ru_utime + usage.ru_stime, wall)

    return measure


def interleaved(ours: Measure, peer: Measure, *, rounds: int = 9, warmups: int = 1) -> Comparison:
    """Measure both in turns, the first one alternating, after some rounds that do not count."""
    for _ in range(warmups):
        ours()
        peer()
    pairs = []
    for turn in range(rounds):
        if turn % 2 == 0:
            mine, theirs = ours(), peer()
        else:
            theirs, mine = peer(), ours()
        pairs.append((mine, theirs))
    return Comparison(
        ours=_median([mine for mine, _ in pairs]),
        peer=_median([theirs for _, theirs in pairs]),
        cpu_ratio=statistics.median(mine.cpu / theirs.cpu for mine, theirs in pairs),
        wall_ratio=statistics.median(mine.wall / theirs.wall for mine, theirs in pairs),
        rounds=rounds,
    )


def report(claim: str, measured: Comparison, **more: Any) -> None:
    """Print the one line of a benchmark; `more` is whatever a reader needs to judge it."""
    line = {
        "claim": claim,
        "ours": round(measured.ours.cpu, 6),
        "peer": round(measured.peer.cpu, 6),
        "ratio": round(measured.cpu_ratio, 4),
        "unit": "CPU s",
        "wall_ours": round(measured.ours.wall, 6),
        "wall_peer": round(measured.peer.wall, 6),
        "wall_ratio": round(measured.wall_ratio, 4),
        "rounds": measured.rounds,
        **more,
    }
    print(json.dumps(line), flush=True)


def _median(costs: list[Cost]) -> Cost:
    return Cost(
        statistics.median(cost.cpu for cost in costs),
        statistics.median(cost.wall for cost in costs),
    )
