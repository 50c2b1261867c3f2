"""Ctrl-C in a compiled solve that somebody watches: the best point so far, and SIGINT given back."""

import os
import signal

import jax.numpy as jnp
import pytest

import nestor


def valley(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def test_ctrl_c_returns_the_best_point_of_a_watched_solve():
    seen = []

    def pressed(report):
        seen.append(report.fun)
        if len(seen) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    solution = nestor.minimize(valley, jnp.zeros(8), callback=pressed)
    assert solution.status == nestor.Status.INTERRUPTED
    assert len(seen) <= 7
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
