"""Many problems of one kind at once: a compiled loop over lanes, which finished lanes leave."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nestor import trees
from nestor.errors import BadArgument
from nestor.programs import Program, in_trace, is_traced, quick_jit, shape_text, trace_function
from nestor.settings import shown
from nestor.solution import Solution, Status
from nestor.solvers import _checks, _drive, _onward
from nestor.solvers._bounds import clip
from nestor.solvers._delivery import solution_of
from nestor.solvers._posing import Options, pose_minimization

Tree = Any

_WHERE = "minimize_batch"
_FEWEST = 16  # lanes below which fewer of them save nothing: a turn costs its overhead
_STRETCH = 0.2  # seconds that the host waits for a stretch, about


def minimize_batch(
    fun: Callable[..., Any],
    x0: Tree,
    data: Tree = None,
    *,
    bounds: Any = None,
    solver: Any = None,
    tol: float | None = None,
    max_steps: int = 1000,
    shrink: int | None = 8,
    progress: bool = False,
) -> Solution:
    """Minimize the same function for many starts and data; lanes that have finished stop costing anything.

    The same as `jax.vmap` of `minimize` over `x0` and `data`, in which every turn costs all lanes until the last
    one has finished. Here, when only a part of the lanes still runs, they are gathered and go on by themselves.

    Args:
        fun: ``fun(x, d) -> scalar`` for one problem, with `d` its part of the data; ``fun(x)`` without data. What
            it closes over is the same for all problems.
        x0: the starts, a tree of floating arrays with a leading axis of one length, the number of problems.
        data: a tree of arrays with the same leading axis, or None.
        bounds, solver, tol, max_steps: as in `minimize`, for one problem; the same for all. With the default
            solver, Newton's method goes on where the first one has ended without an answer, as it does there.
        shrink: running lanes are gathered into 16, 16 shrink, 16 shrink², ... places, the largest of these numbers
            that is at most half of the places they have, as soon as they fit; None never gathers.
        progress: show on stderr how many problems are done.

    Returns:
        A `Solution` in which every array has the leading axis; `.success` and `.status` are arrays. It never
        raises for a problem that does not converge. Ctrl-C ends it: the problems that are done are, the others
        have their best points and the status STOPPED. It cannot be differentiated or stand inside `jit`; use
        `jax.vmap` there, started from this solution if you like.

    Raises:
        BadArgument: an argument cannot be used, or is traced.

    Answers are those of `vmap` to within rounding: the same arithmetic, but sums may be taken in another order.

    Cost: one compilation for each number of places (for 1000 problems 1000, 128 and 16), each as long as that of
    one solve; calls with the same function and number of problems reuse them, and `shrink=None` needs one. It pays
    where few problems take many times as long as most, and in repeated calls; see `benchmarks/compaction.py`.

    >>> import jax.numpy as jnp, nestor
    >>> found = nestor.minimize_batch(lambda x, d: (x - d) ** 2 + x**4, jnp.zeros(3), jnp.arange(3.0))
    >>> found.x.round(2).tolist(), found.success.tolist()
    ([0.0, 0.5899999737739563, 0.8399999737739563], [True, True, True])
    """
    lanes, starts, data = _check_lanes(fun, x0, data)
    if shrink is not None and not (isinstance(shrink, int) and shrink > 1):
        raise BadArgument(_WHERE, "shrink", got=shown(shrink), want="an int > 1, or None", do="leave it at 8")
    options = Options(_WHERE, solver, None, tol, max_steps, bounds=bounds)
    plan, inputs = _prepare(fun, starts, data, options)
    bar = _bar(lanes) if progress else None
    try:
        if solver is None:
            inputs = inputs._replace(onward=_onward.share(plan, _of_one(inputs)).onward)
        answer = _gathering(plan, inputs, np.arange(lanes), shrink, bar)
        if solver is None:
            answer = _gone_on(plan, inputs, answer, shrink)
    finally:
        if bar is not None:
            bar.close()
    return solution_of(plan, jax.tree.map(jnp.asarray, answer))


# --- what is asked -----------------------------------------------------------------------------------------


def _check_lanes(fun: Any, x0: Tree, data: Tree) -> tuple[int, Tree, Tree]:
    """The number of lanes, and starts and data as arrays."""
    _checks.check_function(_WHERE, "fun", fun)
    starts = _checks.check_start(_WHERE, "x0", x0)
    data = jax.tree.map(jnp.asarray, data)
    _refuse_traced("x0", in_trace(starts))
    _refuse_traced("data", is_traced(data))
    leaves = jax.tree.leaves((starts, data))
    sizes = {leaf.shape[0] if leaf.ndim else 0 for leaf in leaves}
    if len(sizes) != 1 or 0 in sizes:
        raise BadArgument(
            _WHERE,
            "x0" if data is None else "x0 and data",
            got=f"x0 of shapes {shape_text(starts)}"
            + (f", data of {shape_text(data)}" if data is not None else ""),
            want="arrays whose first axes have one length, the number of problems",
            do="stack the problems along a first axis; what they share goes into fun's closure",
        )
    return sizes.pop(), starts, data


def _refuse_traced(name: str, traced: bool) -> None:
    if traced:
        raise BadArgument(
            _WHERE,
            name,
            got="traced, or called inside jit, vmap or grad",
            want="known while it runs",
            do="use jax.vmap(lambda x0, d: nestor.minimize(lambda x: fun(x, d), x0)) there",
        )


@dataclasses.dataclass(frozen=True)
class OfLane:
    """The program of one lane, as a function of (what all share and what the lane has, x)."""

    program: Program

    def __call__(self, captured: list[Any], x: Tree) -> Any:
        """The objective of the lane at x."""
        shared, own = captured
        return self.program(shared, x, *own)


def _prepare(
    fun: Callable[..., Any], starts: Tree, data: Tree, options: Any
) -> tuple[_drive.Plan, _drive.Inputs]:
    """The plan of one lane, and the inputs of all: x0 and the lanes' own data have a leading axis."""
    own = () if data is None else (data,)
    start, of_one = jax.tree.map(lambda leaf: leaf[0], (starts, own))
    program, shared, _ = trace_function(
        _WHERE,
        "fun",
        fun,
        start,
        *of_one,
        takes="two arguments, x and its data" if own else "one argument, x, for no data is given",
    )
    _refuse_traced("fun", is_traced(shared))
    plan, inputs, _ = pose_minimization(lambda x: program(shared, x, *of_one), start, options)
    if inputs.box is not None:
        starts = jax.vmap(lambda x: clip(x, inputs.box))(starts)
    return plan._replace(program=OfLane(program)), inputs._replace(captured=[shared, own], x0=starts)


# --- the loop on the host ----------------------------------------------------------------------------------


class Lanes(NamedTuple):
    """Where a batch stands.

    Attributes:
        places: for every place its problem, -1 for none.
        inputs, carries: of every place.
        answers, running: what is known of every place; None before the first turn.
    """

    places: np.ndarray
    inputs: _drive.Inputs
    carries: Any
    answers: Any = None
    running: Any = None


def _gathering(plan: Any, inputs: Any, places: np.ndarray, shrink: int | None, bar: Any = None) -> Any:
    """The answers of all lanes, in NumPy; `places` are as in `Lanes`."""
    start, stretch = _programs(plan, _axes(inputs))
    now = Lanes(places, inputs, start(inputs))
    lanes, delivered = int(places.max()) + 1, None
    limit, done = 20, 0
    try:
        while now.running is None or now.running.any():
            size = len(now.places)
            few = 0 if shrink is None else _room(size // 2, shrink)
            few = few if few < size else 0
            began = time.perf_counter()
            carries, answers, running = stretch(now.inputs, now.carries, np.int32(few), np.int32(limit))
            running = np.asarray(running)
            now = now._replace(carries=carries, answers=answers, running=running)
            limit = _next_limit(limit, time.perf_counter() - began)
            if running.any() and running.sum() <= few:
                delivered = _delivered(delivered, now, ~running, lanes)
                now = _gathered(now, few)
            if bar is not None:
                left = int(running.sum())
                bar.update(lanes - left - done)
                done = lanes - left
    except KeyboardInterrupt:
        if now.answers is None and delivered is None:
            raise
    return _delivered(delivered, now, np.ones(len(now.places), bool), lanes)


def _room(lanes: int, shrink: int) -> int:
    """The largest number of places, of 16, 16 shrink, ..., that is not above `lanes`; 16 at least."""
    room = _FEWEST
    while room * shrink <= lanes:
        room *= shrink
    return room


def _next_limit(limit: int, seconds: float) -> int:
    """Turns of the next stretch: about as many as the host is willing to wait for."""
    return int(np.clip(limit * _STRETCH / max(seconds, 1e-4), max(limit // 4, 5), min(limit * 4, 10**6)))


def _gathered(now: Lanes, size: int) -> Lanes:
    """The running lanes alone; the places that are left over repeat one that has finished."""
    rest = np.flatnonzero(now.running)
    idle = np.flatnonzero(~now.running)[0]
    chosen = np.concatenate([rest, np.full(size - len(rest), idle)])
    places = np.concatenate([now.places[rest], np.full(size - len(rest), -1)])
    inputs = _some(now.inputs, chosen)
    carries, answers = _taken((now.carries, now.answers), chosen)
    return Lanes(places, inputs, carries, answers, now.running[chosen])


def _some(inputs: _drive.Inputs, chosen: np.ndarray) -> _drive.Inputs:
    """The inputs of some lanes."""
    lanewise = (inputs.captured[1], inputs.x0, inputs.onward if _axes(inputs) else None)
    own, x0, onward = _taken(lanewise, chosen)
    onward = inputs.onward if onward is None else onward
    return inputs._replace(captured=[inputs.captured[0], own], x0=x0, onward=onward)


_taken = jax.jit(lambda tree, chosen: jax.tree.map(lambda leaf: leaf[chosen], tree))


def _axes(inputs: _drive.Inputs) -> bool:
    """Whether every lane has a budget of its own."""
    return inputs.onward is not None and inputs.onward.scale is not None


def _delivered(delivered: Any, now: Lanes, which: np.ndarray, lanes: int) -> Any:
    """The answers so far, with those of some places written in; what still runs was stopped."""
    code = np.where(now.running, np.int32(Status.STOPPED), np.asarray(now.answers.record.code))
    answers = now.answers._replace(record=now.answers.record._replace(code=code))
    if delivered is None:
        delivered = jax.tree.map(lambda leaf: np.zeros((lanes, *leaf.shape[1:]), leaf.dtype), answers)
    which = which & (now.places >= 0)

    def write(whole: np.ndarray, part: Any) -> None:
        whole[now.places[which]] = np.asarray(part)[which]

    jax.tree.map(write, delivered, answers)
    return delivered


# --- the default goes on: see `_onward` --------------------------------------------------------------------


def _of_one(inputs: _drive.Inputs) -> _drive.Inputs:
    """The inputs with the start of the first lane."""
    return inputs._replace(x0=jax.tree.map(lambda leaf: leaf[0], inputs.x0))


def _gone_on(plan: Any, inputs: Any, answer: Any, shrink: int | None) -> Any:
    """The answers after Newton's method has gone on in the lanes where the first method ended without one."""
    one = answer.record
    left = plan.max_steps + 1 - one.turns
    solver = _onward.follower(plan, _of_one(inputs))
    which = np.flatnonzero(np.isin(one.code, _onward.MENDED) & (left >= 2))
    if solver is None or not len(which):
        return answer
    arrays, rest = trees.split(solver)
    size = _FEWEST
    while size < len(which):
        size *= shrink or 8
    chosen = np.concatenate([which, np.full(size - len(which), which[0])])
    places = np.concatenate([np.arange(len(which)), np.full(size - len(which), -1)])
    second = _some(inputs._replace(onward=None), chosen)._replace(
        x0=jax.tree.map(lambda leaf: jnp.asarray(leaf[chosen]), answer.x),
        solver=arrays,
        onward=_drive.Onward(jnp.asarray(left[chosen]), jnp.asarray(one.first[chosen])),
    )
    found = _gathering(plan._replace(solver=rest), second, places, shrink)
    return _joined(answer, found, which)


def _joined(answer: Any, found: Any, which: np.ndarray) -> Any:
    """The answers, with what was found in some lanes: where it is better, and with the counts of both."""
    one, two = jax.tree.map(lambda leaf: leaf[which], answer.record), found.record
    solved = int(Status.CONVERGED)
    better = (two.code == solved) | (one.code != solved)

    def write(whole: np.ndarray, part: np.ndarray) -> None:
        whole[which[better]] = part[better]

    jax.tree.map(write, answer, found)
    answer.record.first[which] = one.first
    answer.record.turns[which] = one.turns + two.turns
    answer.record.accepted[which] = one.accepted + two.accepted - 1  # a start counts as accepted
    return answer


# --- what is compiled --------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=128)
def _programs(plan: _drive.Plan, own_budgets: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(inputs) -> carries; (inputs, carries, few, limit) -> (carries, answers, which still run)."""
    loop, read, _ = _drive.pieces(plan)
    axes: Any = jax.tree.map(lambda _: None, _drive.Inputs([], 0, [], jnp.int32(0)))
    axes = axes._replace(captured=[None, 0], x0=0, onward=0 if own_budgets else None)
    turn = jax.vmap(loop.turn, in_axes=(axes, 0))

    def running(carries: _drive.Carry) -> jax.Array:
        return jax.vmap(loop.running)(carries) & (carries.turns < loop.bound)

    def stretch(inputs: Any, carries: Any, few: jax.Array, limit: jax.Array) -> Any:
        def more(counted: Any) -> jax.Array:
            carries, count = counted
            return (jnp.sum(running(carries), dtype=jnp.int32) > few) & (count < limit)

        def body(counted: Any) -> Any:
            carries, count = counted
            on = running(carries)
            after = turn(inputs, carries)
            return jax.tree.map(functools.partial(_where, on), after, carries), count + 1

        carries, _ = jax.lax.while_loop(more, body, (carries, jnp.int32(0)))
        answers = jax.vmap(lambda inputs, carry: read(inputs, carry, ()), (axes, 0))(inputs, carries)
        return carries, answers, running(carries)

    return quick_jit(jax.vmap(loop.start, (axes,))), quick_jit(stretch)


def _where(on: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.where(on.reshape(-1, *(1,) * (new.ndim - 1)), new, old)


def _bar(lanes: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=lanes, desc=_WHERE, unit="problem", leave=True, mininterval=0.1)
