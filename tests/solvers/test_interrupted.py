"""Ctrl-C in a compiled solve, watched or not: the best point so far, and SIGINT given back."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nestor
from nestor import trees
from nestor.solvers import _untraced
from nestor.solvers._posing import Options, pose_minimization

NONE: dict[str, Any] = {"solver": None, "adjoint": None, "tol": None, "max_steps": 1000}


def valley(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


LONG: dict[str, Any] = {"solver": nestor.GradientDescent(nestor.FixedStep(1e-9)), "max_steps": 10**8}


def far(x):
    return jnp.sum((x - 1.0) ** 4)


def test_ctrl_c_returns_the_best_point_of_a_watched_solve():
    seen = []

    def pressed(report):
        seen.append(report.fun)
        if len(seen) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    solution = nestor.minimize(far, jnp.full(8, 50.0), callback=pressed, **LONG)
    assert solution.status == nestor.Status.INTERRUPTED
    assert len(seen) < 10**5
    assert float(solution.fun) == pytest.approx(min(seen))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1


def test_whoever_took_sigint_keeps_it():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        done = []

        def pressed(report):
            if not done:
                done.append(os.kill(os.getpid(), signal.SIGINT))

        solution = nestor.minimize(valley, jnp.zeros(8), callback=pressed)
    finally:
        signal.signal(signal.SIGINT, before)
    assert solution.success
    assert heard


def test_ctrl_c_returns_the_best_point_of_a_solve_that_nobody_watches(monkeypatch):
    stretches = []

    def pressed(pace, seconds, turns):
        stretches.append(turns)
        if len(stretches) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(_untraced._Pace, "took", pressed)
    solution = nestor.minimize(far, jnp.full(2, 50.0), **LONG)
    assert stretches == [1, 1, 1]
    assert solution.status == nestor.Status.INTERRUPTED
    assert int(solution.stats.steps) > 1
    assert float(solution.fun) < float(far(jnp.full(2, 50.0)))
    assert float(solution.fun) == pytest.approx(float(far(solution.x)))


def test_a_solve_in_stretches_is_the_same_to_the_bit():
    cases: list[tuple[Any, dict[str, Any]]] = [
        ({"a": jnp.zeros(4), "b": jnp.ones(3)}, {"solver": nestor.LBFGS(), "history": True}),
        (jnp.zeros(5), {"bounds": (-0.5, 0.7)}),
        (jnp.zeros(5), {"max_steps": 7}),
    ]
    for x0, options in cases:
        posed = pose_minimization(
            lambda x: valley(trees.ravel(x)[0]), x0, Options("minimize", **(NONE | options))
        )
        pace = _untraced._pace(posed.plan)
        whole = pace.whole(posed.inputs)
        for turns in (1, 3, 10**4):
            pace.turns, pace.took = turns, lambda seconds, turns: None
            jax.tree.map(np.testing.assert_array_equal, _untraced.solve(posed.plan, posed.inputs), whole)


def test_a_pace_finds_stretches_of_a_fifth_of_a_second():
    posed = pose_minimization(valley, jnp.zeros(3), Options("minimize", **NONE))
    pace = _untraced._Pace(posed.plan)
    pace.took(3.0, 1)  # it was compiled
    assert pace.turns == 1
    for _ in range(20):
        pace.took(1e-3 * pace.turns, pace.turns)
    assert pace.turns == pytest.approx(200, abs=2)
    pace.took(2.0, pace.turns)
    assert pace.turns == pytest.approx(20, abs=1)


@pytest.mark.parametrize("front", [nestor.argmin, nestor.minimum])
@pytest.mark.parametrize("on_failure", [None, "keep", "nan"])
def test_ctrl_c_in_a_solve_that_gives_no_status_is_passed_on(front, on_failure, monkeypatch):
    def pressed(pace, seconds, turns):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(_untraced._Pace, "took", pressed)
    with pytest.raises(KeyboardInterrupt, match=f"{front.__name__} was interrupted"):
        front(far, jnp.full(2, 50.0), on_failure=on_failure, **LONG)


def test_a_solve_in_another_thread_is_made_in_one_piece_and_is_the_same_to_the_bit():
    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(nestor.minimize, valley, jnp.zeros(3)).result()
    here = nestor.minimize(valley, jnp.zeros(3))
    assert here.success
    jax.tree.map(np.testing.assert_array_equal, there, here)


def test_a_watched_solve_is_the_same_to_the_bit():
    seen = []
    watched = nestor.minimize(valley, jnp.zeros(3), callback=lambda report: seen.append(report.fun))
    bare = nestor.minimize(valley, jnp.zeros(3))
    assert len(seen) == int(bare.stats.evaluations)
    np.testing.assert_array_equal(watched.x, bare.x)


def test_a_solve_of_constants_inside_a_jit_belongs_to_it():
    @jax.jit
    def inside(t):
        x = nestor.argmin(lambda x: jnp.sum((x - 2.0) ** 2), jnp.zeros(3))
        return t * nestor.minimum(lambda x: jnp.sum((x - 2.0) ** 2) + 1.0, x)

    assert float(inside(3.0)) == pytest.approx(3.0)
    assert float(jax.grad(inside)(3.0)) == pytest.approx(1.0)


BARE = """
import os, signal, threading, time
import jax, jax.numpy as jnp
import nestor
from nestor.solvers import _untraced

slow = jnp.full((300, 300), 1e-3)

def far(x):  # a long way, and some work on every step of it
    work = jax.lax.fori_loop(0, 20, lambda _, m: jnp.tanh(m @ slow), slow + 1e-9 * x[0])
    return jnp.sum((x - 1.0) ** 4) + 1e-20 * jnp.sum(work)

def run(**options):
    return nestor.minimize(
        far, jnp.full(2, 50.0), solver=nestor.GradientDescent(nestor.FixedStep(1e-9)), max_steps=10**8, **options
    )

took, stretches = _untraced._Pace.took, []

def and_press(pace, seconds, turns):  # Ctrl-C, when it is compiled and runs
    took(pace, seconds, turns)
    stretches.append(seconds)
    if len(stretches) == 8:
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()

_untraced._Pace.took = and_press
solution = run()
assert sum(stretches[8:]) < 20, stretches
assert solution.status == nestor.Status.INTERRUPTED, solution.status
assert int(solution.stats.steps) > 0
assert float(solution.fun) < float(far(jnp.full(2, 50.0)))
print("best", flush=True)

threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
time.sleep(60)  # the next Ctrl-C is Python's
"""


@pytest.mark.slow
def test_ctrl_c_returns_the_best_point_of_a_bare_solve_and_the_next_one_kills():
    ended = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, timeout=240)
    assert ended.stdout == "best\n", ended.stderr
    assert "KeyboardInterrupt" in ended.stderr.splitlines()[-1], ended.stderr
