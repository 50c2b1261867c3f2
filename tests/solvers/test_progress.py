"""When a solve gives up."""

from itertools import pairwise

import jax.numpy as jnp

from nestor.solvers import _progress
from nestor.solvers._contract import Info


def after(merits, optimality=1e-3, by_steps=False):
    """The progress after accepted points; `by_steps` counts what is below the point before as a gain."""
    progress = _progress.begin(jnp.zeros(()))
    points = zip(
        merits, optimality if isinstance(optimality, list) else [optimality] * len(merits), strict=True
    )
    before = [merits[0], *(a for a, _ in pairwise(merits))]
    for i, (merit, small) in enumerate(points):
        info = Info(jnp.asarray(merit), jnp.asarray(small), jnp.asarray(True))
        progress = _progress.advance(
            progress,
            info,
            merit=info.value,
            first=jnp.asarray(i == 0),
            against=jnp.asarray(before[i]) if by_steps else None,
        )
    return progress


def over(progress, rises=True, moved=True):
    return bool(_progress.exhausted(progress, jnp.asarray(moved), rises=rises))


def test_two_points_in_turns_are_no_progress():
    progress = after([1.0] + [1.0 + 1e-15, 1.0] * 5)
    assert int(progress.idle) == 10
    assert over(progress)
    assert not over(progress, moved=False)


def test_a_search_that_goes_down_every_other_time_ends_later():
    ups_and_downs = [1.0] + [1.0 + 1e-15, 1.0] * 20
    for merits, ends in ((ups_and_downs[:-1], False), (ups_and_downs, True)):
        progress = after(merits, by_steps=True)
        assert int(progress.idle) <= 1
        assert over(progress, rises=False) is ends
        assert not over(progress)


def test_a_lower_merit_or_a_lesser_optimality_is_progress():
    assert int(after([1.0, 1.1, 1.2, 0.9], [1.0, 2.0, 2.0, 2.0]).idle) == 0
    assert int(after([1.0, 1.1, 1.2, 1.3], [1.0, 2.0, 2.0, 0.5]).stale) == 0
    assert int(after([1.0, 1.1, 1.2, 1.1], [1.0, 2.0, 2.0, 2.0]).idle) == 3
