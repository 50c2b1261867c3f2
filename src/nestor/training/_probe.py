"""What the doctor sees of the runs inside an objective: their cotangents, step by step, and how they ended.

While a probe is set, `train` makes its runs with an identity on what every step reads; the transpose of that
identity tells the host how large the cotangent is there. Nothing of it is in a run that nobody diagnoses.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.adjoints import Implicit
from nestor.programs import Watcher, registered, show
from nestor.training._cotangents import PARAMS, RESIDUAL, STATUS, STEP
from nestor.training._run import Inputs, Plan, pieces

Tree = Any


@dataclasses.dataclass
class Run:
    """What was seen of one run.

    Attributes:
        steps: how many it had.
        asked, used: the adjoint that was wanted, and the one it was diagnosed with.
        norms: log of the norm of the cotangent of the parameters before step t (and after the last), by t.
        through: the same for what came through step t alone, without the loss that was recorded there.
        lost: (place, t) of every cotangent that was not finite.
        code, made: how it ended, and after how many steps; None if it was never run.
        residuals: norm of the gradient on all data at the start and at the end; of implicit adjoints.
    """

    steps: int
    asked: Any
    used: Any
    norms: dict[int, float] = dataclasses.field(default_factory=dict)
    through: dict[int, float] = dataclasses.field(default_factory=dict)
    lost: set[tuple[int, int]] = dataclasses.field(default_factory=set)
    code: int | None = None
    made: int | None = None
    residuals: tuple[float, float] | None = None


class Probe:
    """The runs that were seen, and what was done to them.

    Args:
        substitute: (plan, inputs) -> the adjoint to diagnose with.
        stretch: how many times as many steps.
    """

    def __init__(self, substitute: Callable[[Plan, Inputs], Any], stretch: int = 1):
        self.substitute, self.stretch = substitute, stretch
        self.runs: list[Run] = []
        self.number = 0

    def enter(self, plan: Plan, inputs: Inputs) -> tuple[Plan, Inputs]:
        """A run begins to be traced."""
        used = self.substitute(plan, inputs)
        tag = jnp.asarray([self.number, len(self.runs)], jnp.int32)
        self.runs.append(Run(plan.steps * self.stretch, plan.adjoint, used))
        plan = plan._replace(adjoint=used, probe=True, steps=plan.steps * self.stretch)
        return plan, inputs._replace(probe=tag)

    def leave(self, plan: Plan, inputs: Inputs, answer: Any) -> Any:
        """The answer of a run, after the host was told how it ended."""
        assert inputs.probe is not None
        nothing = jnp.zeros((), trees.float_dtype(answer.x))
        code = answer.record.code.astype(nothing.dtype)
        seen = [(STATUS, answer.record.steps, code, nothing)]
        if isinstance(plan.adjoint, Implicit):
            _, _, condition = pieces(plan)
            at = trees.stop_gradient((inputs.params, answer.x, inputs))
            first, last = (trees.norm(condition.residual(x, at[2])) for x in at[:2])
            seen.append(
                (RESIDUAL, answer.record.steps, first.astype(nothing.dtype), last.astype(nothing.dtype))
            )
        for place, t, a, b in seen:
            told = show(inputs.probe[0], jnp.ones((), bool), inputs.probe[1], jnp.int32(place), t, a, b)
            x = jax.tree.map(
                lambda leaf, told=told: jnp.where(told, jnp.full_like(leaf, jnp.nan), leaf), answer.x
            )
            answer = answer._replace(x=x)
        return answer

    def note(self, number: Any, place: Any, t: Any, a: Any, b: Any) -> None:
        """A report from inside a run."""
        run, place, t, a, b = self.runs[int(number)], int(place), int(t), float(a), float(b)
        if place == STATUS:
            run.made, run.code = max(t, run.made or 0), max(int(a), run.code or 0)
        elif place == RESIDUAL:
            run.residuals = (a, b)
        elif not b:  # not finite
            run.lost.add((place, t))
        elif place in (PARAMS, STEP):
            norms = run.norms if place == PARAMS else run.through
            norms[t] = max(a, norms.get(t, -math.inf))


_current: ContextVar[Probe | None] = ContextVar("nestor_probe", default=None)


def current_probe() -> Probe | None:
    """The probe of the diagnosis that is going on, if there is one."""
    return _current.get()


@contextmanager
def probing(probe: Probe) -> Iterator[None]:
    """Let `train` know the probe."""
    watcher = Watcher(lambda *values: probe.note(*values), None, None)
    with registered(watcher) as number:
        probe.number = number
        token = _current.set(probe)
        try:
            yield
        finally:
            _current.reset(token)
    if watcher.error is not None:
        raise watcher.error
