"""A run of a graph as the host sees it: in stretches of one compiled program, with reports and saves between."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from nestor import trees
from nestor.errors import BadArgument, CannotDifferentiate, SolveFailed
from nestor.levels import _methods
from nestor.levels._checks import check_moves
from nestor.levels._prepare import Prepared
from nestor.levels._reading import Reader, check_function, traced
from nestor.levels._run import (
    RUNNING,
    Carry,
    RunInputs,
    RunPlan,
    Seen,
    compiled,
    compiled_beginning,
    compiled_whole,
)
from nestor.programs import is_traced
from nestor.settings import as_count, as_optional_count
from nestor.solution import Status
from nestor.training import (
    Bar,
    check_callback,
    check_scalar,
    load_state,
    needs_validation,
    save_state,
    signature,
    with_status,
)

Tree = Any
Reporter = Callable[[int, int, dict[str, float], Any], Any]


@dataclasses.dataclass(frozen=True)
class Settings:
    """The keyword arguments of `Graph.run`."""

    method: Any
    validation: Any
    validate_every: int | None
    patience: int | None
    callback: Any
    report_every: int | None
    progress: bool
    logger: Any
    checkpoint: Any
    checkpoint_every: int | None
    devices: Any
    raise_on_failure: bool
    compiler_options: Any = None


class Position(NamedTuple):
    """Where a run is: the states of the levels, what its method keeps besides, and the random key."""

    states: Any
    own: Any
    key: Any


def drive(
    where: str,
    prepared: Prepared,
    whole: Prepared | None,
    steps: Any,
    start: Any,
    settings: Settings,
    report: Reporter,
) -> tuple[Carry, Seen]:
    """Make the run; what it ends with, and what was recorded."""
    plan, inputs = _planned(where, prepared, whole, steps, start, settings)
    _check_watchers(where, settings)
    if is_traced(inputs):
        return _traced(where, plan, inputs, settings)
    begin, stretch = compiled(plan)
    carry, rows = begin(inputs)
    if start is not None and settings.method is not None and start.state.own != ():
        carry = carry._replace(own=start.state.own)
    saved = _Saved(where, plan, inputs, settings)
    carry, rows = saved.restored(carry, rows)
    watch = _Watch(plan, prepared, settings, report)
    pace = _Pace(plan.steps)
    try:
        while int(carry.code) == RUNNING and int(carry.t) < plan.steps:
            until = min(pace.until(int(carry.t)), watch.until(int(carry.t)), saved.until(int(carry.t)))
            before = carry
            carry, rows = stretch(inputs, carry, rows, jnp.int32(until))
            jax.block_until_ready(carry)  # after the assignment: Ctrl-C does not lose the stretch
            if int(carry.code) == int(Status.NOT_FINITE):  # again with guard, to the step where it happened
                carry, rows = compiled(plan._replace(guarded=True))[1](inputs, before, rows, jnp.int32(until))
            saved.save(carry, rows)
            if watch.stops(carry, rows):
                carry = _stopped(carry)
                saved.save(carry, rows, now=True)
    except KeyboardInterrupt:
        carry = _stopped(carry)
        saved.save(carry, rows, now=True)
    finally:
        watch.close()
    return carry, rows


def _stopped(carry: Carry) -> Carry:
    """The same with the status STOPPED, unless the run had come to an end by itself."""
    return carry._replace(code=with_status(carry.code, jnp.ones((), bool), Status.STOPPED))


def raise_if_failed(where: str, run: Any, wanted: bool) -> None:
    """`SolveFailed` if the run met NaN or infinity, outside a trace."""
    if not wanted or isinstance(run.code, jax.core.Tracer) or run.status != Status.NOT_FINITE:
        return
    raise SolveFailed(
        f"{where}: {run.status.message}\nThis was found at outer step {int(run.steps) - 1}. Lower the rates, clip "
        "the gradients (clip=1.0), or, if an implicit adjoint met a Hessian that is not positive, use "
        "Implicit(Neumann(20)), Implicit(GMRES()) or SAMA(). The run up to there is in the exception's .solution, and "
        "raise_on_failure=False returns it.",
        run,
    )


def _traced(where: str, plan: RunPlan, inputs: RunInputs, settings: Settings) -> tuple[Carry, Seen]:
    """A run inside jit or vmap: one stretch, nothing to see of it on the way, and no derivative."""
    for name in ("callback", "logger", "checkpoint", "progress", "compiler_options"):
        if getattr(settings, name) not in (None, False):
            raise BadArgument(
                where,
                name,
                got=getattr(settings, name),
                want="left away where the run is traced (inside jit, grad or vmap)",
                do="call run outside the traced function",
            )

    def refuse(*_: Any) -> Any:
        raise CannotDifferentiate(
            "The run of a graph has no derivative: its highest level answers to nobody.\n"
            "Do this: put what you differentiate for into the graph as a level above the highest one."
        )

    return trees.custom_jvp_on_perturbed(compiled_whole(plan._replace(guarded=True)), refuse)(inputs)


# --- plan ----------------------------------------------------------------------------------------------


def _planned(
    where: str, prepared: Prepared, whole: Prepared | None, steps: Any, start: Any, settings: Settings
) -> tuple[RunPlan, RunInputs]:
    steps = as_count(where, "steps", steps)
    if settings.method is None:
        check_moves(prepared.plan)
    graph = prepared.plan._replace(mesh=_mesh(where, prepared, settings.devices))
    states = (
        compiled_beginning(graph)(prepared.inputs) if start is None else states_of(where, start, prepared)
    )
    program, captured = None, []
    if settings.validation is not None:
        program, captured = _validation(where, prepared, settings.validation)
    hundredth = max(1, math.ceil(steps / 100))
    every = as_optional_count(where, "report_every", settings.report_every)
    method, arrays = None, []
    if settings.method is not None:
        _methods.check(where, settings.method, prepared.plan)
        arrays, method = trees.split(settings.method)
    plan = RunPlan(
        graph=graph,
        mover=method,
        whole=None if whole is None else whole.plan,
        steps=steps,
        validation=program,
        every=as_optional_count(where, "validate_every", settings.validate_every) or hundredth,
        patience=needs_validation(where, "patience", settings.patience, settings.validation),
        reports=every or hundredth,
        compiler_options=_compiler_options(where, settings.compiler_options),
    )
    inputs = RunInputs(prepared.inputs, states, arrays, () if whole is None else whole.inputs, captured)
    if graph.mesh is not None:  # everything is on all devices, wherever it was
        inputs = jax.device_put(inputs, jax.sharding.NamedSharding(graph.mesh, jax.sharding.PartitionSpec()))
    return plan, inputs


def _compiler_options(where: str, given: Any) -> tuple[tuple[str, Any], ...]:
    """XLA's options in order; XLA itself refuses those that it does not know."""
    if given is None:
        return ()
    plain = isinstance(given, dict) and all(
        isinstance(name, str) and isinstance(value, (bool, int, float, str)) for name, value in given.items()
    )
    if not plain:
        raise BadArgument(
            where,
            "compiler_options",
            got=given,
            want="a dictionary of XLA's options: names to booleans, numbers or strings",
            do='write compiler_options={"xla_cpu_use_fusion_emitters": False}',
        )
    return tuple(sorted(given.items()))


def _check_watchers(where: str, settings: Settings) -> None:
    check_callback(where, settings.callback)
    if settings.logger is not None and not callable(getattr(settings.logger, "log", None)):
        raise BadArgument(
            where,
            "logger",
            got=settings.logger,
            want="an object with log(step, metrics)",
            do='pass nestor.levels.CSVLogger("run.csv"), or an object of yours with that one verb',
        )


def states_of(where: str, start: Any, prepared: Prepared) -> Any:
    """The states of all levels at the end of a run, if they are states of these levels."""
    states = getattr(getattr(start, "state", None), "states", None)
    shapes = lambda tree: jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree)  # noqa: E731
    here = jax.eval_shape(compiled_beginning(prepared.plan), prepared.inputs)
    if states is None or shapes(states) != shapes(here):
        raise BadArgument(
            where,
            "start",
            got=start,
            want="a run of a graph with these levels and optimizers",
            do="pass what an earlier run(...) returned; to set parameters, build the graph from them",
        )
    return states


def _validation(where: str, prepared: Prepared, validation: Any) -> tuple[Any, list[Any]]:
    names = [level.name for level in prepared.plan.levels]
    wholes = dict(zip(names, prepared.wholes, strict=True))
    trained = {name: level.initial for name, level in zip(names, prepared.inputs, strict=True)}
    if not callable(validation):
        raise BadArgument(
            where,
            "validation",
            got=validation,
            want="a function of the parameters of all levels by name",
            do='write validation=lambda p: loss(p["weights"], held_out)',
        )
    read = Reader(wholes)
    check_function(where, "validation", validation, 1)
    program, captured = traced(where, "validation", lambda params: validation(read(params)), read, trained)
    check_scalar(where, "validation", program.out_shape, floating=False)
    return program, captured


def _mesh(where: str, prepared: Prepared, devices: Any) -> Any:
    if devices is None:
        return None
    if isinstance(devices, int) and not isinstance(devices, bool):
        if not 1 <= devices <= len(jax.devices()):
            raise BadArgument(
                where,
                "devices",
                got=devices,
                want=f"at most the number of devices here, {len(jax.devices())}",
                do="pass a list of devices, or see jax.devices()",
            )
        devices = jax.devices()[:devices]
    if not (
        isinstance(devices, (list, tuple)) and devices and all(isinstance(d, jax.Device) for d in devices)
    ):
        raise BadArgument(
            where,
            "devices",
            got=devices,
            want="a list of devices, their number, or None",
            do="pass jax.devices(), or how many of them",
        )
    for level in prepared.plan.levels:
        sizes = {level.batches.size // level.parts}
        if level.batches.function is not None:
            sizes = {(*leaf.shape, 1)[0] for leaf in jax.tree.leaves(level.batches.function.out_shape)}
        for size in sizes:
            if size % len(devices):
                raise BadArgument(
                    where,
                    "devices",
                    got=len(devices),
                    want=f'a divisor of every batch size, or part of one; that of level "{level.name}" is {size}',
                    do="choose batch_size as a multiple of the number of devices, times accumulate",
                )
    return jax.sharding.Mesh(np.asarray(devices), ("data",))


# --- between two stretches -----------------------------------------------------------------------------

_LONG = 0.5  # seconds after which Ctrl-C should find somebody listening


class _Pace:
    """Stretches that grow until they take a while: a run that nobody watches can still be stopped."""

    def __init__(self, steps: int):
        self.steps, self.length = steps, max(1, steps // 100)
        self.began: float | None = None

    def until(self, t: int) -> int:
        """Where a stretch from step t on should end."""
        now = time.perf_counter()
        if self.began is not None and now - self.began < _LONG:
            self.length *= 8
        self.began = now
        return min(self.steps, t + self.length)


def _next(t: int, every: int) -> int:
    """The first multiple of `every` above t."""
    return every * (t // every + 1)


class _Saved:
    """The file of a run, if there is one."""

    def __init__(self, where: str, plan: RunPlan, inputs: RunInputs, settings: Settings):
        self.where = where
        self.path = None if settings.checkpoint is None else Path(settings.checkpoint)
        self.every = plan.steps
        if self.path is None:
            return
        self.every = as_optional_count(where, "checkpoint_every", settings.checkpoint_every) or max(
            1, plan.steps // 10
        )
        begin, stretch = compiled(plan._replace(reports=1))  # who looks on changes nothing
        facts = (plan.steps, plan.every, plan.patience, plan.mover)
        self.sign = signature(lambda i: stretch(i, *begin(i), jnp.int32(1)), repr(facts), inputs)

    def until(self, t: int) -> int:
        """Where a stretch from step t on must end."""
        return _next(t, self.every)

    def restored(self, carry: Carry, rows: Seen) -> tuple[Carry, Seen]:
        if self.path is None or not self.path.exists():
            return carry, rows
        carry, rows = load_state(self.where, self.path, self.sign, (carry, rows))
        stopped = carry.code == int(Status.STOPPED)
        return carry._replace(code=jnp.where(stopped, jnp.int32(RUNNING), carry.code)), rows

    def save(self, carry: Carry, rows: Seen, *, now: bool = False) -> None:
        ended = int(carry.code) != RUNNING
        if self.path is not None and (now or ended or int(carry.t) % self.every == 0):
            save_state(self.path, self.sign, (carry, rows))


class _Watch:
    """Who looks on: a bar, a logger, a callback."""

    def __init__(self, plan: RunPlan, prepared: Prepared, settings: Settings, report: Reporter):
        self.plan, self.settings, self.report = plan, settings, report
        self.names = [level.name for level in prepared.plan.levels]
        self.watched = settings.callback or settings.progress or settings.logger is not None
        self.bar = Bar(plan.steps, self.names[-1]) if settings.progress else None

    def until(self, t: int) -> int:
        """Where a stretch from step t on must end."""
        return _next(t, self.plan.reports if self.watched else self.plan.steps)

    def stops(self, carry: Carry, rows: Seen) -> bool:
        """Report what is due; whether somebody wants the run to end."""
        step = int(carry.t)
        due = step % self.plan.reports == 0 or step == self.plan.steps or int(carry.code) != RUNNING
        if not self.watched or not due:
            return False
        metrics = self._metrics(carry, rows)
        if self.bar is not None:
            self.bar.show(step, f"loss={metrics[f'{self.names[-1]}/loss']:.4g}")
        if self.settings.logger is not None:
            self.settings.logger.log(step, metrics)
        if self.settings.callback is None:
            return False
        try:
            return bool(self.settings.callback(self.report(step, self.plan.steps, metrics, carry.states)))
        except StopIteration:
            return True

    def _metrics(self, carry: Carry, rows: Seen) -> dict[str, float]:
        last = jax.tree.map(lambda row: np.asarray(row[int(carry.t) - 1]), rows)
        top = self.names[-1]
        metrics = {f"{name}/loss": float(v) for name, v in zip(self.names, last.below, strict=False)}
        metrics |= {f"{top}/loss": float(last.loss), f"{top}/gradient_norm": float(last.norm)}
        if self.plan.validation is not None:
            metrics |= {"validation": float(last.validation), "best_validation": float(carry.best_value)}
        return metrics

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        if hasattr(self.settings.logger, "close"):
            self.settings.logger.close()
