"""When a solve gives up."""

import jax.numpy as jnp

from nestor.solvers import _progress
from nestor.solvers._contract import Info


def after(merits, optimalities, **more):
    progress = _progress.begin(jnp.zeros(()))
    for i, (merit, optimality) in enumerate(zip(merits, optimalities, strict=True)):
        info = Info(jnp.asarray(merit), jnp.asarray(optimality), jnp.asarray(True))
        progress = _progress.advance(progress, info, merit=info.value, first=jnp.asarray(i == 0), **more)
    return progress


def test_two_points_in_turns_are_no_progress():
    merits = [1.0] + [1.0 + 1e-15, 1.0] * 5
    progress = after(merits, [1e-3] * 11)
    assert int(progress.idle) == 10
    assert bool(_progress.exhausted(progress, jnp.asarray(True)))
    assert not bool(_progress.exhausted(progress, jnp.asarray(False)))


def test_a_lower_merit_or_a_lesser_optimality_is_progress():
    assert int(after([1.0, 1.1, 1.2, 0.9], [1.0, 2.0, 2.0, 2.0]).idle) == 0
    assert int(after([1.0, 1.1, 1.2, 1.3], [1.0, 2.0, 2.0, 0.5]).idle) == 0
    assert int(after([1.0, 1.1, 1.2, 1.1], [1.0, 2.0, 2.0, 2.0]).idle) == 3


def test_against_another_merit():
    assert int(after([1.0, 1.2, 1.1], [1.0, 2.0, 2.0], against=jnp.asarray(1.15)).idle) == 0
