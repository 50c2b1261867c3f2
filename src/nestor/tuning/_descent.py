"""Nestor's L-BFGS, one evaluation at a time, for an objective that is evaluated elsewhere: in trials of a study."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nestor.solution import Status
from nestor.solvers import LBFGS, Box, Minimization

_FIRST = 0.1  # the length of the first step, in units of the box
_SMALLEST = 8  # unknowns of the smallest program; others are padded to powers of two


class Descent:
    """A descent in [0, 1]^d: told the value and the gradient at its point, it names the next one.

    A solver's step evaluates the objective once, at the point it is given; so the tangent plane there, which is what
    has been told, can stand for the objective.

    Args:
        start: where it begins. [d].
    """

    def __init__(self, start: np.ndarray):
        self.point = np.clip(np.asarray(start, float), 0.0, 1.0)
        self.converged = False
        self._state: Any = None
        self._scale = 1.0
        self._width = max(_SMALLEST, 1 << max(len(start) - 1, 0).bit_length())

    def tell(self, value: float, gradient: np.ndarray) -> np.ndarray | None:
        """Take note of what was found at `point`; the next point, or None where it goes no further.

        Args:
            value: the loss there; infinite or NaN makes the step shorter.
            gradient: of shape (d,).
        """
        init, step = _compiled(self._width)
        with jax.enable_x64(True):
            if self._state is None:
                size = float(np.linalg.norm(gradient))
                if not np.isfinite(value) or not np.isfinite(size) or size == 0.0:
                    self.converged = size == 0.0
                    return None
                self._scale = _FIRST / size
                self._state = init(self._padded(self.point))
            given = self._padded(self.point), self._state
            slopes = self._padded(np.asarray(gradient, float) * self._scale)
            upper = self._padded(np.ones(len(self.point)))
            ahead, self._state, code = step(*given, np.float64(value * self._scale), slopes, upper)
            if int(code) != Status.RUNNING:
                self.converged = int(code) == Status.CONVERGED
                return None
            self.point = np.clip(np.asarray(ahead)[: len(self.point)], 0.0, 1.0)
        return self.point

    def _padded(self, vector: np.ndarray) -> np.ndarray:
        return np.pad(vector, (0, self._width - len(vector)))


@functools.lru_cache(maxsize=16)
def _compiled(width: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The first state, and the step, of L-BFGS for vectors of some width."""
    solver = LBFGS()

    def problem(x: Any, value: Any, slopes: Any, upper: Any) -> Minimization:
        tangent = lambda z: value + jnp.vdot(slopes, z - x)  # noqa: E731
        return Minimization(tangent, 1e-10, Box(jnp.zeros_like(x), upper))

    def init(x: Any) -> Any:
        return solver.init(problem(x, jnp.zeros((), x.dtype), x, jnp.ones_like(x)), x)

    def step(x: Any, state: Any, value: Any, slopes: Any, upper: Any) -> Any:
        posed = problem(x, value, slopes, upper)
        ahead, state = solver.step(posed, x, state)
        return ahead, state, solver.status(posed, x, state)

    return jax.jit(init), jax.jit(step)
