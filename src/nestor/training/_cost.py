"""What differentiating a run takes, known before it is run: bytes from shapes, time from a count of its passes."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import Literal
from jax.interpreters import partial_eval

from nestor.adjoints import (
    Checkpoint,
    Evolution,
    FiniteDifference,
    Forward,
    Implicit,
    OneStep,
    Reversible,
    Truncate,
    Unroll,
    check_adjoint,
)
from nestor.errors import BadArgument
from nestor.loops import Forget
from nestor.training._adjoints import choose, lost_bits
from nestor.training._checks import Settings, prepare
from nestor.training._run import Inputs, Plan, pieces

Tree = Any

_SOLVES = 30  # products with the Hessian that an implicit derivative is counted with
_WORKING = 5  # states that a reversed run holds beside its words: decoded, gradient, cotangents


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one adjoint takes for a gradient of a run: a row of a `CostTable`.

    Attributes:
        adjoint: the adjoint, ready to be passed to `train`.
        stored: predicted bytes of temporary memory; NaN where the adjoint does not go with the run.
        time: of forward and reverse pass together, in forward runs; NaN likewise.
        exact: whether it is a reverse mode that gives the exact derivative of the steps.
        remark: what else to know, one line.

    >>> import nestor
    >>> table = nestor.predict_cost(lambda x, _: x**2, 1.0, None, optimizer=nestor.sgd(0.1), steps=100)
    >>> table.rows[0].name, table.rows[0].time
    ('Unroll()', 4.0)
    """

    adjoint: Any
    stored: float
    time: float
    exact: bool
    remark: str = ""

    @property
    def name(self) -> str:
        """The adjoint as one would write it."""
        return short_name(self.adjoint)


@dataclasses.dataclass(frozen=True)
class CostTable:
    """What the adjoints take for a gradient of one run; prints as a table.

    Attributes:
        rows: one `Cost` for each adjoint.
        chosen: what ``adjoint=None`` would choose.
        steps: of the run.

    >>> import nestor
    >>> table = nestor.predict_cost(lambda x, _: x**2, 1.0, None, optimizer=nestor.sgd(0.1), steps=100)
    >>> print(type(table.chosen).__name__)
    Checkpoint
    """

    rows: tuple[Cost, ...]
    chosen: Any
    steps: int

    def within(self, memory: float) -> Any:
        """The fastest exact adjoint that needs no more than `memory` bytes; of equals the smallest.

        Raises:
            BadArgument: none does; says what the smallest one needs.
        """
        exact = [row for row in self.rows if row.exact and math.isfinite(row.stored)]
        fitting = [row for row in exact if row.stored <= memory]
        if not fitting:
            least = min(exact, key=lambda row: row.stored)
            raise BadArgument(
                "CostTable.within",
                "memory",
                got=_bytes(memory),
                want=f"at least {_bytes(least.stored)}, which {least.name} takes",
                do="take a smaller batch or model, or an inexact adjoint: Truncate, Implicit, Evolution",
            )
        return min(fitting, key=lambda row: (row.time, row.stored)).adjoint

    def __str__(self) -> str:
        """A table, one row an adjoint."""
        head = ("adjoint", "memory", "time", "")
        body = [(row.name, _bytes(row.stored), _runs(row.time), row.remark) for row in self.rows]
        widths = [max(len(row[i]) for row in [head, *body]) for i in range(3)]
        lines = [
            f"{name.ljust(widths[0])}  {size.rjust(widths[1])}  {time.rjust(widths[2])}  {remark}".rstrip()
            for name, size, time, remark in [head, *body]
        ]
        title = f"A gradient of {self.steps} steps; time in forward runs. adjoint=None takes "
        return "\n".join([f"{title}{short_name(self.chosen)}.", *lines])

    __repr__ = __str__


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RunCost:
    """What a run took, and what its gradient takes.

    Attributes:
        adjoint: the adjoint of the run as text; with ``adjoint=None`` the one that was chosen.
        stored: predicted bytes that a reverse pass keeps over the steps; the working memory of one step, and
            what the forward run needs itself, come on top.
        bits: bits that a reversed run has room for, for each parameter; NaN for other adjoints.
        seconds: the forward run, waiting for its end; the first run of its kind is compiled in that time. NaN
            inside a trace.

    >>> import nestor
    >>> run = nestor.train(lambda x, _: x**2, 1.0, None, optimizer=nestor.sgd(0.1), steps=100)
    >>> run.cost.adjoint, float(run.cost.stored)
    ('Checkpoint(levels=1)', 400.0)
    """

    adjoint: str = dataclasses.field(metadata={"static": True})
    stored: Any
    bits: Any
    seconds: Any


def predict_cost(
    loss: Callable[..., Any],
    params: Tree,
    data: Any,
    *,
    optimizer: Any,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    shuffle: bool = True,
    key: Any = None,
    stochastic: bool = False,
    clip: Any = None,
    validation: Any = None,
    hyperparameters: int = 1,
    adjoints: Any = None,
) -> CostTable:
    """What a gradient through a run would take with each adjoint, before anything is run or compiled.

    Args:
        loss, params, data, optimizer, steps, epochs, batch_size, shuffle, key, stochastic, clip, validation: as
            for `train`.
        hyperparameters: how many numbers are differentiated; only `Forward` depends on it.
        adjoints: a list of adjoints; None compares all of them, at settings that are usual for the run.

    The bytes are counted from shapes: of the state D that a step needs from the one before, of what the
    derivative of one step keeps (found by tracing it once), and of the bits that a reversed run stores. They
    are those of a gradient in hyperparameters and the start, mostly within a factor of two of what XLA
    allocates; data and parameters themselves come on top. The time counts passes over the run; a linear solve
    is counted as 30 products with the Hessian. Cost: one trace of a step.

    Returns:
        A `CostTable`; ``print`` it. ``.within(bytes)`` gives the fastest exact adjoint for that memory.

    Raises:
        BadArgument: as `train`.

    Source: Griewank and Walther 2000 for checkpoints; Maclaurin, Duvenaud, Adams 2015 for reversal.

    >>> import jax.numpy as jnp, nestor
    >>> loss = lambda w, batch: jnp.mean((batch @ w - 1.0) ** 2)
    >>> table = nestor.predict_cost(loss, jnp.zeros(1000), jnp.ones((50, 1000)),
    ...                             optimizer=nestor.sgd(0.1, momentum=0.9), steps=10_000)
    >>> print(type(table.within(1e6)).__name__)
    Reversible
    """
    settings = Settings(
        optimizer=optimizer,
        steps=steps,
        epochs=epochs,
        batch_size=batch_size,
        shuffle=shuffle,
        key=key,
        stochastic=stochastic,
        clip=clip,
        validation=validation,
    )
    if not isinstance(hyperparameters, int) or hyperparameters < 1:
        raise BadArgument(
            "predict_cost", "hyperparameters", got=hyperparameters, want="an integer >= 1", do="pass 1"
        )
    plan, inputs, _ = prepare("predict_cost", loss, params, data, settings)
    sizes = _sizes(plan, inputs, _room(plan, inputs, Reversible()), inside=True)
    chosen = choose(plan, inputs, None)
    if isinstance(chosen, Reversible):  # `train` finds the bits again
        chosen = dataclasses.replace(chosen, bits=None)
    every = _usual(sizes, chosen) if adjoints is None else _checked(adjoints)
    each = [(adjoint, sizes._replace(lost=_room(plan, inputs, adjoint))) for adjoint in every]
    return CostTable(tuple(_cost(*one, hyperparameters) for one in each), chosen, plan.steps)


def run_cost(plan: Plan, inputs: Inputs, seconds: float) -> RunCost:
    """What a run took, from its plan."""
    adjoint = plan.adjoint
    sizes = _sizes(
        plan, inputs, _room(plan, inputs, adjoint), inside=isinstance(adjoint, Unroll | Truncate | OneStep)
    )
    stored = _kept(adjoint, sizes)
    bits = 8 * _stack(sizes) if isinstance(adjoint, Reversible) else math.nan
    one = np.float32
    return RunCost(short_name(adjoint), one(stored), one(bits), one(seconds))


def _room(plan: Plan, inputs: Inputs, adjoint: Any) -> float:
    """The bits for each parameter that a reversed run must have room for; 0 for other adjoints."""
    if plan.rule is None or not isinstance(adjoint, Reversible):
        return 0.0
    bits = lost_bits(plan, inputs, adjoint.snapshots) if adjoint.bits is None else adjoint.bits
    return float(plan.steps) if bits is None else bits


def short_name(adjoint: Any) -> str:
    """An adjoint as one would write it: only what differs from the defaults."""
    if not dataclasses.is_dataclass(adjoint):
        return f"{type(adjoint).__name__}()"
    shown = []
    for field in dataclasses.fields(adjoint):
        value, usual = getattr(adjoint, field.name), field.default
        plain = value is None or isinstance(value, (bool, int, float, str))
        if plain and not (usual is not dataclasses.MISSING and value == usual):
            shown.append(f"{field.name}={value!r}" if field.name != "bits" else f"bits={value:g}")
    return f"{type(adjoint).__name__}({', '.join(shown)})"


def _checked(adjoints: Any) -> list[Any]:
    given = list(adjoints) if isinstance(adjoints, list | tuple) else [adjoints]
    for adjoint in given:
        if not hasattr(adjoint, "attach") or isinstance(adjoint, type):
            raise BadArgument(
                "predict_cost",
                "adjoints",
                got=adjoint,
                want="a list of adjoints, or None",
                do="write adjoints=[nestor.Unroll(), nestor.Reversible()]",
            )
        check_adjoint("predict_cost", adjoint)
    return given


# --- sizes ---------------------------------------------------------------------------------------------


class _Sizes(NamedTuple):
    """The numbers that costs are made of, in bytes where nothing else is said.

    Attributes:
        steps: T.
        params: number of parameters.
        words: integers for each parameter in a reversed run (position and slots); 0 if it cannot be reversed.
        width: bytes of such an integer.
        lost: bits for each parameter that the multiplications of the whole run lose.
        forgets: slots whose step is made anew.
        state: what a step needs from the one before for its derivative.
        whole: what goes round the loop.
        inside: what the derivative of one step keeps beside the state; 0 if that was not asked for.
        full: batches in the data.
        function: whether the data is a function.
    """

    steps: int
    params: int
    words: int
    width: int
    lost: float
    forgets: int
    state: float
    whole: float
    inside: float
    full: float
    function: bool


def _sizes(plan: Plan, inputs: Inputs, lost: float, inside: bool) -> _Sizes:
    leaves = jax.tree.leaves(inputs.params)
    rule = plan.rule
    forgotten = [] if rule is None else [move.slot for move in rule.kicks if isinstance(move, Forget)]
    wide = jax.dtypes.canonicalize_dtype(np.int64) == np.int64
    spec = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), inputs)
    flat, structure = jax.tree.flatten(spec)
    if inside:
        state, whole, residue = _traced_sizes(plan._replace(adjoint=None), structure, tuple(flat))
    else:
        slots = 2 if rule is None else len(rule.slots) - len(forgotten)
        one = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
        state, whole, residue = one * (1.0 + slots), one * (1.0 + slots), 0.0
    return _Sizes(
        steps=plan.steps,
        params=sum(leaf.size for leaf in leaves),
        words=0 if rule is None else 1 + len(rule.slots),
        width=8 if wide else 4,
        lost=lost,
        forgets=len(forgotten),
        state=float(state),
        whole=float(whole),
        inside=float(residue),
        full=plan.batches.rows / plan.batches.size if plan.batches.rows else 1.0,
        function=plan.batches.function is not None,
    )


@functools.lru_cache(maxsize=256)
def _traced_sizes(plan: Plan, structure: Any, flat: tuple[Any, ...]) -> tuple[float, float, float]:
    """Bytes of the needed state, of all that goes round, and of what the derivative of a step keeps beside."""
    spec = jax.tree.unflatten(structure, flat)
    loop, _, _ = pieces(plan)
    start = jax.eval_shape(loop.start, spec)

    def residues(inputs: Inputs, carry: Tree) -> Tree:
        def turn(free: Tree, carry: Tree) -> Tree:
            return loop.turn(inputs._replace(captured=free[0], optimizer=free[1]), carry)

        return jax.vjp(turn, (inputs.captured, inputs.optimizer), carry)[1]

    jaxpr = jax.make_jaxpr(residues)(spec, start).jaxpr
    kept = {id(var): var for var in jaxpr.outvars if not isinstance(var, Literal)}
    inputs, carried = jaxpr.invars[: len(flat)], jaxpr.invars[len(flat) :]
    given = {id(var) for var in jaxpr.invars}
    inside = sum(_size(var.aval) for name, var in kept.items() if name not in given)
    _, used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    needed = sum(_size(var.aval) for var, yes in zip(carried, used[len(inputs) :], strict=True) if yes)
    return needed, sum(_size(leaf) for leaf in jax.tree.leaves(start)), inside


def _size(aval: Any) -> float:
    itemsize = getattr(aval.dtype, "itemsize", 0)
    return float(math.prod(aval.shape) * itemsize)


# --- the model -----------------------------------------------------------------------------------------


def _usual(s: _Sizes, chosen: Any) -> Iterator[Any]:
    yield from (Unroll(), Checkpoint(levels=1), Checkpoint(levels=2))
    slots = [c for c in (44, 17, 5) if c < s.steps]
    yield from (Checkpoint(slots=c) for c in slots)
    if isinstance(chosen, Checkpoint) and chosen.slots is not None and chosen.slots not in slots:
        yield chosen
    yield Reversible()
    yield Reversible(snapshots=_best_snapshots(s))
    yield from (Truncate(max(1, s.steps // 10)), Forward(), OneStep(), Implicit(), Evolution())


def _best_snapshots(s: _Sizes) -> int:
    """Where a word more for each parameter saves as much of the stack."""
    row = _stack(s)
    best = math.sqrt(row / max(s.words * s.width, 1))
    return max(2, min(round(best), s.steps))


def _stack(s: _Sizes) -> float:
    """Bytes for each parameter that a reversed run of all steps stores."""
    return s.lost / 8 + s.width / 2 * s.forgets * s.steps


def _sweeps(steps: int, slots: int) -> int:
    """r, the least number of recomputations with c slots: C(c + r, r) >= T."""
    r = 1
    while math.comb(slots + r, r) < steps:
        r += 1
    return r


def _kept(adjoint: Any, s: _Sizes) -> float:
    """Bytes that a reverse pass keeps over the steps."""
    if isinstance(adjoint, Unroll):
        return s.steps * (s.inside + s.state)
    if isinstance(adjoint, Truncate | OneStep):
        last = min(getattr(adjoint, "last", 1), s.steps)
        return last * (s.whole + s.inside + s.state)
    if isinstance(adjoint, Checkpoint):
        if adjoint.slots is not None:
            return min(adjoint.slots, s.steps) * s.whole
        levels = 2 if adjoint.levels is None else adjoint.levels
        return s.steps * s.state if levels == 1 else levels * math.ceil(s.steps ** (1 / levels)) * s.state
    if isinstance(adjoint, Reversible):
        words = s.params * s.words * s.width
        if adjoint.snapshots is None:
            return words + s.params * _stack(s)
        c = min(adjoint.snapshots, s.steps)
        return (1 + c) * words + s.params * (_stack(s) / c + 1)
    return 0.0


def _cost(adjoint: Any, s: _Sizes, hyperparameters: int) -> Cost:
    kept, one, t = _kept(adjoint, s), s.state + s.inside, float(s.steps)
    if isinstance(adjoint, Unroll):
        return Cost(adjoint, kept, 4.0, True)
    if isinstance(adjoint, Checkpoint):
        if adjoint.slots is None:
            levels = 2 if adjoint.levels is None else adjoint.levels
            return Cost(adjoint, kept + one, levels + 3.0, True)
        r = _sweeps(s.steps, adjoint.slots)
        return Cost(adjoint, kept + one, r + 3.0, True, f"recomputes a step {r} times")
    if isinstance(adjoint, Reversible):
        return _reversible(adjoint, kept, s)
    if isinstance(adjoint, Truncate | OneStep):
        last = min(getattr(adjoint, "last", 1), s.steps)
        remark = "biased" if last < s.steps else ""
        return Cost(adjoint, kept + one, 1 + 4 * last / t, False, remark)
    if isinstance(adjoint, Forward):
        h = hyperparameters
        each = "for one hyperparameter" if h == 1 else f"for {h} hyperparameters"
        return Cost(adjoint, (1 + h) * one, 1.0 + 2 * h, False, f"forward mode, {each}")
    if isinstance(adjoint, Implicit):
        if s.function:
            return Cost(adjoint, math.nan, math.nan, False, "not where the data is a function")
        time = 1 + 2 * _SOLVES * s.full / t
        remark = "converged runs only, for what the loss depends on"
        return Cost(adjoint, 8 * s.whole + s.full * s.inside, time, False, remark)
    if isinstance(adjoint, Evolution):
        runs = 2 * min(adjoint.batch or adjoint.pairs, adjoint.pairs)
        remark = f"smoothed and noisy: {2 * adjoint.pairs} runs"
        return Cost(adjoint, runs * (s.whole + s.inside / 2), 1.0 + 2 * adjoint.pairs, False, remark)
    if isinstance(adjoint, FiniteDifference):
        return Cost(adjoint, one, 1.0 + 4 * hyperparameters, False, "needs a smooth run")
    return Cost(adjoint, math.nan, math.nan, False, "no prediction for this one")


def _reversible(adjoint: Reversible, kept: float, s: _Sizes) -> Cost:
    if not s.words:
        return Cost(adjoint, math.nan, math.nan, True, "not with this optimizer: it cannot be run backwards")
    working = _WORKING * (s.whole + s.params * 4.0 * s.forgets) + s.inside
    words = s.params * s.words * s.width
    bits = s.lost / s.steps + 4 * s.width * s.forgets
    remark = f"{bits:.2g} bits a step and parameter"
    if s.forgets:
        remark += ": needs momentum > 0 (not Nesterov's) to be small"
    return Cost(adjoint, kept + words + working, 4.0 if adjoint.snapshots is None else 5.0, True, remark)


# --- text ----------------------------------------------------------------------------------------------


def _bytes(number: float) -> str:
    if not math.isfinite(number):
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def _runs(number: float) -> str:
    return "-" if not math.isfinite(number) else f"{number:.1f}"
