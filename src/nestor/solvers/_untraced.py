"""A solve outside every trace: a program of its own, in stretches, between which Python hears Ctrl-C.

A program of XLA cannot be left before it ends, and until then Python runs no handler of signals. So the loop is told
after how many turns to hand over what it has made, from which the same program goes on: after about a fifth of a
second, by what its turns took before. A solve that is shorter is one call, as it would be without all this.

Nobody asks for its derivatives, and it is a whole program: so it can be compiled as `quick_jit` does.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nestor.adjoints import Answer
from nestor.loops import begun, onward, to_the_end
from nestor.programs import quick_jit
from nestor.solution import Status
from nestor.solvers import _drive

Tree = Any

_STRETCH = 0.2  # seconds
_LONGER = 8  # times as many turns as in the stretch before, at most
_PACKED = 4096  # numbers in an array that is handed over beside others, in one
_KEPT = 1 << 20  # bytes that a pace may keep


def solve(plan: _drive.Plan, inputs: _drive.Inputs) -> Answer:
    """The answer of a plan; after Ctrl-C the best one so far, INTERRUPTED, if a stretch has ended.

    In one piece where a callback watches, who hears Ctrl-C itself, and outside the main thread, which alone hears it.
    """
    pace = _pace(plan)
    made = pace.blank(inputs)
    if made is None:
        return pace.whole(inputs)
    if plan.watch or threading.current_thread() is not threading.main_thread():
        return pace.run(inputs, made, pace.all)[0]
    answer, until = None, 0
    try:
        while True:
            since, before = time.monotonic(), until
            until = min(until + pace.turns, pace.bound)
            limit = pace.all if until == pace.bound else np.int32(until)
            answer, more, packed = pace.run(inputs, made, limit)
            if until == pace.bound:
                return answer
            going_on = bool(more)
            pace.took(time.monotonic() - since, int(answer.record.turns) - before)
            if not going_on:
                return answer
            made = _unpacked(packed, made)
    except KeyboardInterrupt:
        if answer is None:
            raise
        code = jnp.int32(int(Status.INTERRUPTED))
        return answer._replace(record=answer.record._replace(code=code))


class _Pace:
    """What is remembered of a plan from solve to solve: its program, the turns of a stretch, blank arrays."""

    def __init__(self, plan: _drive.Plan) -> None:
        self.run, self.whole, self._shapes = _programs(plan)
        self.turns = 1
        self.bound = plan.max_steps + 1
        self.all = jnp.int32(self.bound)
        self._blank: dict[Any, list[Any] | None] = {}

    def took(self, seconds: float, turns: int) -> None:
        """A stretch of so many turns took so long."""
        wanted = turns * _STRETCH / max(seconds, 1e-9)
        self.turns = int(min(max(wanted, 1), _LONGER * self.turns))

    def blank(self, inputs: _drive.Inputs) -> list[Any] | None:
        """What stands for what is made before the first turn; None where no zeros can (keys)."""
        leaves, structure = jax.tree.flatten(inputs)
        key = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if key in self._blank:
            return self._blank[key]
        shapes = self._shapes(inputs)
        if any(jnp.issubdtype(shape.dtype, jax.dtypes.extended) for shape in shapes):
            blank = None
        else:
            blank = jax.device_put([np.zeros(shape.shape, shape.dtype) for shape in shapes])
        if blank is None or sum(leaf.nbytes for leaf in blank) <= _KEPT:
            self._blank[key] = blank
        return blank


@functools.lru_cache(maxsize=512)
def _pace(plan: _drive.Plan) -> _Pace:
    return _Pace(plan)


class _Programs(NamedTuple):
    """A solve as programs without derivatives.

    Attributes:
        run: (inputs, made, until) -> (answer, whether it is not the last one, made), after `until` turns in all,
            or at the end if that is earlier. What is made is a list of arrays, at the beginning of zeros; what
            comes out is packed.
        whole: inputs -> the answer, for what cannot be begun with zeros.
        shapes: inputs -> the shapes of what is made.
    """

    run: Callable[[_drive.Inputs, list[Any], Any], tuple[Answer, jax.Array, list[Any]]]
    whole: Callable[[_drive.Inputs], Answer]
    shapes: Callable[[_drive.Inputs], list[jax.ShapeDtypeStruct]]


def _programs(plan: _drive.Plan) -> _Programs:
    """The loop of a plan; a stretch that is the whole costs about as much as the whole."""
    loop, read, condition = _drive.pieces(plan)
    plan.adjoint.attach(loop, read, condition)  # only so that what cannot be attached is refused

    def begin(inputs: _drive.Inputs) -> _drive.Made:
        return begun(loop, inputs)

    def run(inputs: _drive.Inputs, leaves: list[Any], until: Any) -> tuple[Answer, jax.Array, list[Any]]:
        structure = jax.tree.structure(jax.eval_shape(begin, inputs))
        made: _drive.Made = jax.tree.unflatten(structure, leaves)
        made = jax.lax.cond(made[0] == 0, lambda: begin(inputs), lambda: made)
        made = onward(loop, inputs, made, until)
        more = loop.running(made[1]) & (made[0] < loop.bound)
        return read(inputs, made[1], made[2]), more, _packed(jax.tree.leaves(made))

    def whole(inputs: _drive.Inputs) -> Answer:
        return read(inputs, *to_the_end(loop, inputs))

    return _Programs(
        quick_jit(run), quick_jit(whole), lambda inputs: jax.tree.leaves(jax.eval_shape(begin, inputs))
    )


def _places(leaves: list[Any]) -> list[list[int]]:
    """Which leaves are handed over in one array: small ones of a dtype together, all others by themselves."""
    kind = lambda i: str(leaves[i].dtype) if leaves[i].size <= _PACKED else str(i)  # noqa: E731
    order = sorted(range(len(leaves)), key=kind)
    return [list(group) for _, group in itertools.groupby(order, kind)]


def _packed(leaves: list[Any]) -> list[jax.Array]:
    """The same numbers in few arrays: a call costs more than a microsecond for each that it returns."""
    groups = [[leaves[i] for i in places] for places in _places(leaves)]
    return [
        group[0] if len(group) == 1 else jnp.concatenate([jnp.ravel(x) for x in group]) for group in groups
    ]


def _unpacked(packed: list[Any], like: list[Any]) -> list[Any]:
    """What was packed, with the shapes of `like`; on the host, so that nothing is compiled for it."""
    leaves: list[Any] = [None] * len(like)
    for array, places in zip(packed, _places(like), strict=True):
        if len(places) == 1:
            leaves[places[0]] = array
            continue
        ends = np.cumsum([like[i].size for i in places])[:-1]
        for i, part in zip(places, np.split(np.asarray(array), ends), strict=True):
            leaves[i] = part.reshape(like[i].shape)
    return leaves
