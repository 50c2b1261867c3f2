"""The graph of levels: what depends on what, and its run."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.core

from nestor import trees
from nestor.errors import BadArgument
from nestor.levels import _driver
from nestor.levels._checks import check_moves
from nestor.levels._level import Level
from nestor.levels._prepare import WHERE, Prepared, prepare
from nestor.levels._run import compiled_beginning, compiled_move
from nestor.training import Outcome, random_key

Tree = Any


class Hypergradient(NamedTuple):
    """What a level would follow: its loss, and its gradient through the answers of the levels below.

    Attributes:
        loss: a scalar.
        gradient: a tree like the level's parameters; None in place of what is not trained.
        params: of all levels after the levels below have answered, by name.
    """

    loss: jax.Array
    gradient: Tree
    params: dict[str, Tree]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LevelsHistory:
    """What was seen at every outer step, in order.

    Attributes:
        loss: of the highest level before its move, shape (steps,).
        gradient_norm: Euclidean norm of its gradient.
        validation: validation loss after the step, NaN where none was taken.
        below: by level, its loss after the step; NaN where it was not measured (see `report_every`).

    >>> import jax.numpy as jnp, nestor
    >>> graph = nestor.Graph({"x": nestor.Level(lambda p, _: p["x"] ** 2, 1.0, nestor.sgd(0.25))})
    >>> graph.run(3).history.loss
    Array([1.    , 0.25  , 0.0625], dtype=float32)
    """

    loss: Any
    gradient_norm: Any
    validation: Any
    below: dict[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LevelsRun(Outcome):
    """The outcome of a run of a graph.

    Attributes:
        params: the last parameters of every level, by name, trees like those passed.
        best: those with the lowest validation loss; the last ones without validation.
        best_validation_loss: that loss; infinite without validation.
        history: a `LevelsHistory`.
        steps: outer steps made (int32).
        code: of the status (int32).
        state: where every level is; pass the run as ``start=`` to go on.

    >>> import nestor
    >>> graph = nestor.Graph({"x": nestor.Level(lambda p, _: p["x"] ** 2, 1.0, nestor.sgd(0.25))})
    >>> run = graph.run(3)
    >>> run.status.name, float(run.params["x"])
    ('FINISHED', 0.125)
    """

    params: dict[str, Tree]
    best: dict[str, Tree]
    best_validation_loss: Any
    history: LevelsHistory
    steps: Any
    code: Any
    state: Any


@dataclasses.dataclass(frozen=True)
class LevelsReport:
    """What a callback of `Graph.run` is shown.

    Attributes:
        step: outer steps made so far.
        steps: how many there will be.
        metrics: the latest measurements: "<level>/loss" of every level, "<highest>/gradient_norm", "validation"
            and "best_validation" where something validates.
        params: the parameters of every level, by name.

    >>> import nestor
    >>> graph = nestor.Graph({"x": nestor.Level(lambda p, _: p["x"] ** 2, 1.0, nestor.sgd(0.25))})
    >>> seen = []
    >>> _ = graph.run(2, callback=lambda report: seen.append(report.metrics["x/loss"]), report_every=1)
    >>> seen
    [1.0, 0.25]
    """

    step: int
    steps: int
    metrics: dict[str, float]
    params: dict[str, Tree]


class Graph:
    """Levels of optimization on top of each other: each is solved given those above it, and feels those below.

    A level's loss may read any other level. One that stands above and is read is a hyperparameter; one that
    stands below and is read is an answer: a function of the levels above it, which the derivative goes through,
    on every path. Who depends on whom is found by tracing the losses.

    One move of a level: the levels below that it needs are brought up to date (from the highest of them to the
    lowest, each by a run of its own `steps`, from where it was), its loss is differentiated through their
    answers, and its optimizer moves it.

    Args:
        levels: a dictionary from names to `Level` objects, lowest first. A graph of one level is plain training.

    Raises:
        BadArgument: a field cannot be used, a loss reads a level that is not there, a start or a closed form
            reads a level that is not above (a cycle), an answer is read by nobody, parameters reach no loss.

    Cost of building: one trace of every loss.
    Source: Choe et al. 2023, "Betty", section 3, for the graph; Blondel et al. 2022 for answers as functions.

    >>> import jax.numpy as jnp, nestor
    >>> graph = nestor.Graph({
    ...     "w": nestor.Level(lambda p, _: (p["w"] - p["h"]) ** 2, 0.0, nestor.sgd(0.25), steps=40),
    ...     "h": nestor.Level(lambda p, _: (p["w"] - 3.0) ** 2, 0.0, nestor.sgd(0.25)),
    ... })
    >>> round(float(graph.run(40).params["h"]), 3)
    3.0
    """

    def __init__(self, levels: Mapping[str, Level]):
        self._prepared: Prepared = prepare(levels)
        self._levels = dict(levels)

    # --- what it is ----------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """The levels, lowest first."""
        return tuple(self._levels)

    @property
    def reads(self) -> dict[str, tuple[str, ...]]:
        """By level, whose parameters its loss reads."""
        return {name: self._named(self._prepared.reads[i]) for i, name in enumerate(self.names)}

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """By level, the levels below that answer before it moves, lowest first."""
        return {name: self._named(self._prepared.plan.levels[i].needs) for i, name in enumerate(self.names)}

    @property
    def feels(self) -> dict[str, tuple[str, ...]]:
        """By level, the levels above that its answer depends on."""
        return {name: self._named(self._prepared.feels[i]) for i, name in enumerate(self.names)}

    def _named(self, numbers: Any) -> tuple[str, ...]:
        return tuple(self.names[k] for k in sorted(numbers))

    def describe(self) -> str:
        """A table of the levels, highest first: sizes, moves, adjoints, and who depends on whom.

        >>> import nestor
        >>> print(nestor.Graph({"x": nestor.Level(lambda p, _: p["x"] ** 2, 1.0, nestor.sgd(0.25))}).describe())
        level  numbers  batch  steps  adjoint  its loss reads  needs the answers of
        x            1      -      -  -        x               -
        """
        rows = [("level", "numbers", "batch", "steps", "adjoint", "its loss reads", "needs the answers of")]
        for i in reversed(range(len(self.names))):
            name, plan = self.names[i], self._prepared.plan.levels[i]
            top = i == len(self.names) - 1
            closed = plan.answer is not None
            rows.append(
                (
                    name,
                    str(trees.size(self._prepared.inputs[i].initial)),
                    f"{plan.batches.size} of {plan.batches.rows}" if plan.batches.rows else "-",
                    "-" if top or closed else str(plan.steps),
                    "-"
                    if top
                    else "closed form"
                    if closed
                    else _short(self._levels[name].adjoint or plan.adjoint),
                    ", ".join(self.reads[name]) or "-",
                    ", ".join(self.needs[name]) or "-",
                )
            )
        widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
        right = (1, 2, 3)
        lines = [
            "  ".join(
                cell.rjust(w) if c in right else cell.ljust(w)
                for c, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Graph({', '.join(self.names)})"

    # --- what it does --------------------------------------------------------------------------------

    def hypergradient(
        self, level: str | None = None, *, key: Any = None, start: LevelsRun | None = None
    ) -> Hypergradient:
        """The gradient that a level would follow at its next move, through the answers of the levels below.

        Args:
            level: its name; None is the highest.
            key: a random key for batches and noise; None is that of `start`, or ``jax.random.key(0)``.
            start: a run whose end is where the levels are; None is their start.

        Differentiable itself, where the adjoints below are. Cost: as of one move.

        >>> import nestor
        >>> graph = nestor.Graph({
        ...     "w": nestor.Level(lambda p, _: (p["w"] - 2 * p["h"]) ** 2, 0.0, nestor.sgd(0.5)),
        ...     "h": nestor.Level(lambda p, _: (p["w"] - 3.0) ** 2, 1.0, nestor.sgd(0.1)),
        ... })
        >>> float(graph.hypergradient().gradient)  # 2 (2 h - 3) 2
        -4.0
        """
        if level is not None and level not in self.names:
            raise BadArgument(
                f"{WHERE}.hypergradient",
                "level",
                got=level,
                want="a level of this graph: " + ", ".join(map(repr, self.names)),
                do="leave it away for the highest level",
            )
        check_moves(self._prepared.plan)
        i = len(self.names) - 1 if level is None else self.names.index(level)
        where = f"{WHERE}.hypergradient"
        prepared, _ = self._keyed(where, key, start)
        plan, inputs = prepared.plan, prepared.inputs
        states = (
            compiled_beginning(plan)(inputs) if start is None else _driver.states_of(where, start, prepared)
        )
        move = compiled_move(plan, i)(inputs, states)
        after = (*move.states[:i], *states[i:])
        return Hypergradient(move.loss, move.gradient, self._whole([s.params for s in after]))

    def run(
        self,
        steps: int,
        *,
        key: Any = None,
        method: Any = None,
        start: LevelsRun | None = None,
        validation: Callable[[dict[str, Tree]], Any] | None = None,
        validate_every: int | None = None,
        patience: int | None = None,
        callback: Callable[[LevelsReport], Any] | None = None,
        report_every: int | None = None,
        progress: bool = False,
        logger: Any = None,
        checkpoint: str | Path | None = None,
        checkpoint_every: int | None = None,
        devices: Any = None,
        compiler_options: dict[str, Any] | None = None,
        raise_on_failure: bool = True,
    ) -> LevelsRun:
        """Move the highest level so many times; everything below moves as it asks.

        All steps are one compiled program, whatever the reports between them. Ctrl-C (at the next report, or within
        a second), a callback that returns a true value or raises StopIteration end the run with the status STOPPED
        and what there is.

        Args:
            steps: moves of the highest level.
            key: a random key for batches and noise; None is that of `start`, or ``jax.random.key(0)``.
            method: None is the alternating engine; or a stochastic method for two levels, such as
                `nestor.levels.SOBA`, which draws the batches and moves both levels itself: their optimizers and
                adjoints do nothing then. The history has its losses where reports are due, and the lengths of the
                moves of the highest level.
            start: a run of this graph to go on from: levels, optimizers, batches and random key. Validation
                begins anew.
            validation: ``validation(p) -> scalar`` of all parameters by name, for `best` and `patience`.
            validate_every: outer steps between two validations; None is a hundredth of the run.
            patience: stop after so many validations without a new lowest one.
            callback: is shown a `LevelsReport` every `report_every` steps.
            report_every: outer steps between two reports (and measurements of the losses below, and rows of the
                logger); None is a hundredth of the run.
            progress: show a progress bar.
            logger: is told the measurements: an object with ``log(step, metrics)`` such as `CSVLogger`.
            checkpoint: a file in which everything is saved, and from which it is resumed if it is there: the
                numbers are those of a run that was never interrupted.
            checkpoint_every: outer steps between two saves; None is a tenth of the run.
            devices: a list of devices, or their number, over which the batches are spread; parameters are copied.
            compiler_options: XLA's, as `jax.jit` takes them. On a CPU ``{"xla_cpu_use_fusion_emitters": False}``
                halves the memory that compilation takes, and saves a third of its time; a step is then some 10 to 20 %
                slower.
            raise_on_failure: raise `SolveFailed` if the run met NaN or infinity; False returns the last finite
                parameters, with the status.

        Raises:
            BadArgument: an argument cannot be used.
            SolveFailed: a loss or a gradient of the highest level became NaN or infinite.
        """
        arguments = {k: v for k, v in locals().items() if k not in ("self", "steps", "key", "start")}
        where = f"{WHERE}.run"
        prepared, key = self._keyed(where, key, start)
        outcome = _driver.drive(
            where,
            prepared,
            self._whole_batches(method),
            steps,
            start,
            _driver.Settings(**arguments),
            self._report,
        )
        run = self._delivered(outcome, key)
        _driver.raise_if_failed(where, run, raise_on_failure)
        return run

    # --- parts ---------------------------------------------------------------------------------------

    def _keyed(self, where: str, key: Any, start: Any) -> tuple[Prepared, jax.Array]:
        prepared = self._prepared
        if key is None:
            key = getattr(getattr(start, "state", None), "key", None)
        key = random_key(where, key)
        keys = _split(key, len(prepared.inputs))
        inputs = tuple(level._replace(key=k) for level, k in zip(prepared.inputs, keys, strict=True))
        return prepared._replace(inputs=inputs), key

    def _whole_batches(self, method: Any) -> Prepared | None:
        """For a stochastic method, the graph with all data in each batch."""
        if method is None:
            return None
        if all(level.batch_size is None for level in self._levels.values()):
            return self._prepared
        return prepare({n: dataclasses.replace(v, batch_size=None) for n, v in self._levels.items()})

    def _whole(self, params: Any) -> dict[str, Tree]:
        return {
            name: whole(p) for name, whole, p in zip(self.names, self._prepared.wholes, params, strict=True)
        }

    def _report(self, step: int, steps: int, metrics: dict[str, float], states: Any) -> LevelsReport:
        return LevelsReport(step, steps, metrics, self._whole([s.params for s in states]))

    def _delivered(self, outcome: Any, key: jax.Array) -> LevelsRun:
        carry, rows = outcome
        params = [state.params for state in carry.states]
        best = carry.best or params
        made = rows.loss.shape[0] if isinstance(carry.code, jax.core.Tracer) else int(carry.t)
        if made < rows.loss.shape[0]:
            rows = jax.tree.map(lambda row: row[:made], rows)
        below = {name: rows.below[:, i] for i, name in enumerate(self.names[:-1])}
        history = LevelsHistory(rows.loss, rows.norm, rows.validation, below)
        return LevelsRun(
            self._whole(params),
            self._whole(best),
            carry.best_value,
            history,
            carry.t,
            carry.code,
            _driver.Position(carry.states, carry.own, key),
        )


@functools.partial(jax.jit, static_argnums=1)
def _split(key: jax.Array, count: int) -> list[jax.Array]:
    return [jax.random.fold_in(key, i) for i in range(count)]


def _short(adjoint: Any) -> str:
    """An adjoint as it would be written, without the settings that are their defaults."""
    if not dataclasses.is_dataclass(adjoint):
        return type(adjoint).__name__
    said = []
    for field in dataclasses.fields(adjoint):
        value = getattr(adjoint, field.name)
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if value != default:
            said.append(_short(value) if dataclasses.is_dataclass(value) else f"{field.name}={value}")
    return f"{type(adjoint).__name__}({', '.join(said)})"
