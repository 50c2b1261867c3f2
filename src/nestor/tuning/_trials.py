"""A function of a tree of hyperparameters as the objective of a study: with its gradient, or for many trials."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nestor import programs
from nestor.errors import BadArgument, SolveFailed
from nestor.search import Trial, TrialPruned
from nestor.settings import as_count
from nestor.tuning._descent import Descent
from nestor.tuning._layout import Layout, layout_of

Tree = Any
FAILURES = (SolveFailed, ArithmeticError, MemoryError, jax.errors.JaxRuntimeError)


class NotFinite(ArithmeticError):
    """The value of a trial is infinite or not a number."""


@dataclasses.dataclass(frozen=True)
class _Found:
    """What an objective is at one point: floats, arrays of float64, and notes."""

    value: float
    gradient: list[Any]
    notes: Any


class _Compiled:
    """An objective of given choices, compiled: one program for one point, one for many."""

    def __init__(self, objective: Callable[..., Any], layout: Layout, picked: Mapping[str, Any] | None):
        self.layout, self._picked, self._objective = layout, picked, objective
        self._program: Any = None
        self._captured: list[Any] = []

    def one(self, leaves: Sequence[Any], sloped: bool, noted: bool) -> _Found:
        """Value, gradient and notes at one point."""
        hyper = self.layout.tree([jnp.asarray(leaf, _dtype()) for leaf in leaves])
        program, captured = self._hoisted(hyper)
        value, gradient, notes = jax.device_get(_evaluator(program, sloped, noted, False)(captured, hyper))
        return _Found(float(value), _leaves(gradient), notes)

    def many(self, rows: Sequence[Sequence[Any]], sloped: bool, noted: bool) -> list[_Found]:
        """The same at several points; their number is padded to a power of two, so that few programs do."""
        padded = 1 << (len(rows) - 1).bit_length()
        rows_and_more = [*rows, *[rows[-1]] * (padded - len(rows))]
        columns = [np.asarray(column, _dtype()) for column in zip(*rows_and_more, strict=True)]
        program, captured = self._hoisted(self.layout.tree([jnp.asarray(column[0]) for column in columns]))
        run = _evaluator(program, sloped, noted, True)
        values, gradients, notes = jax.device_get(run(captured, self.layout.tree(columns)))
        values, slopes = np.asarray(values, float).tolist(), _leaves(gradients)
        return [
            _Found(values[k], [leaf[k] for leaf in slopes], jax.tree.map(lambda leaf, k=k: leaf[k], notes))
            for k in range(len(rows))
        ]

    def _hoisted(self, hyper: Tree) -> tuple[Any, list[Any]]:
        if self._program is None:
            objective, picked = self._objective, self._picked
            whole = objective if picked is None else lambda hyper: objective(hyper, dict(picked))
            self._program, self._captured = programs.hoist(whole, hyper)
        return self._program, self._captured


def _leaves(tree: Tree) -> list[Any]:
    return [np.asarray(leaf, float) for leaf in jax.tree.leaves(tree)]


def _dtype() -> Any:
    return jnp.zeros(()).dtype


@functools.lru_cache(maxsize=256)
def _evaluator(program: Any, sloped: bool, noted: bool, many: bool) -> Callable[..., Any]:
    """(captured, hyper) -> (value, gradient or (), notes or ()), compiled; `many` maps over rows of hyper."""

    def value_and_notes(hyper: Tree, captured: list[Any]) -> Any:
        out = program(captured, hyper)
        return out if noted else (out, ())

    def evaluate(captured: list[Any], hyper: Tree) -> Any:
        if sloped:
            (value, notes), gradient = jax.value_and_grad(value_and_notes, has_aux=True)(hyper, captured)
            return value, gradient, notes
        value, notes = value_and_notes(hyper, captured)
        return value, (), notes

    return jax.jit(jax.vmap(evaluate, in_axes=(None, 0)) if many else evaluate)


class _Posed:
    """An objective, its space and its choices: what `Differentiated` and `Batched` have in common."""

    def __init__(self, where: str, objective: Callable[..., Any], space: Any, choices: Any):
        self.where, self.objective, self.space, self.choices = where, objective, space, choices
        self._compiled: dict[Any, _Compiled] = {}
        if not callable(space):
            layout_of(where, space)  # says what is wrong with it at once

    def pose(self, trial: Trial) -> tuple[_Compiled, list[Any]]:
        """The compiled objective of a trial's choices, and the trial's hyperparameters, leaf by leaf."""
        picked = self._pick(trial)
        key = None if picked is None else tuple((name, type(value), value) for name, value in picked.items())
        if key not in self._compiled:
            space = self.space(dict(picked or {})) if callable(self.space) else self.space
            layout = layout_of(self.where, space)
            double = set(layout.names) & set(picked or ())
            if double:
                want = "with names that the space has not"
                raise BadArgument(self.where, "choices", got=min(double), want=want, do="rename one")
            self._compiled[key] = _Compiled(self.objective, layout, picked)
        compiled = self._compiled[key]
        return compiled, compiled.layout.suggest(trial)

    def _pick(self, trial: Trial) -> dict[str, Any] | None:
        if self.choices is None:
            return None
        if callable(self.choices):
            picked: Any = self.choices(trial)
            return dict(picked)
        return {name: trial.suggest(name, domain) for name, domain in self.choices.items()}

    def __getstate__(self) -> dict[str, Any]:
        """Another process compiles anew."""
        return {**self.__dict__, "_compiled": {}}


class Differentiated:
    """A JAX function of hyperparameters as an objective of `Study.optimize`, whose trials carry its exact gradient.

    Value and gradient come from one call of `jax.value_and_grad`, compiled once for each combination of choices. The
    gradient by a parameter is told in the parameter's own units, logarithmic or not; samplers scale it.

    Args:
        objective: ``objective(hyper) -> scalar``, or with choices ``objective(hyper, picked) -> scalar``, where
            `picked` is a dictionary of plain values. `hyper` is a tree like `space`, of JAX's default float type.
        space: a tree whose leaves are `search.Float`, `search.Array`, ``(low, high)`` or ``(low, high, "log")``; or
            a function of the picked values that returns one. A parameter is named by its path: ``"layer.rate"``.
        choices: what has no derivative: name to `search.Categorical`, `search.Int` or a stepped `search.Float`; or
            a function ``choices(trial) -> dict`` that suggests what it likes. None for nothing.
        gradient: whether to take gradients.
        refine: evaluations in a trial. With more than 1 the trial goes on from what it was given by Nestor's L-BFGS
            within the bounds, reports every value (so pruners can end it), and the study remembers the best point:
            as the trial's parameters (see `search.Trial.revise`), with its value and gradient.
        noted: whether `objective` returns ``(scalar, notes)``; notes is a tree of arrays that is kept as the
            trial's user attribute ``"notes"``.

    A value that is not finite fails the trial. An entry of a gradient that is not finite makes that parameter's
    gradient unknown.

    Cost: one value and gradient a trial, `refine` of them with refinement; compiling once a combination of choices.

    >>> import jax.numpy as jnp
    >>> from nestor import search, tuning
    >>> bowl = lambda hyper: (jnp.log10(hyper["rate"]) + 2) ** 2 + (hyper["decay"] - 0.5) ** 2
    >>> posed = tuning.Differentiated(bowl, {"rate": (1e-4, 1.0, "log"), "decay": (0.0, 1.0)})
    >>> study = search.create_study(sampler=search.RandomSampler(seed=0))
    >>> study.optimize(posed, n_trials=1)
    >>> sorted(study.trials[0].gradient)
    ['decay', 'rate']
    """

    def __init__(
        self,
        objective: Callable[..., Any],
        space: Any,
        choices: Any = None,
        *,
        gradient: bool = True,
        refine: int = 1,
        noted: bool = False,
    ):
        self.gradient, self.refine, self.noted = gradient, as_count("Differentiated", "refine", refine), noted
        if refine > 1 and not gradient:
            raise BadArgument(
                "Differentiated", "refine", got=refine, want="1 without gradients", do="drop it"
            )
        self._posed = _Posed("Differentiated", objective, space, choices)

    def __call__(self, trial: Trial) -> float | Exception:
        """The value of a trial, or why it failed; its gradient is told to the trial."""
        compiled, leaves = self._posed.pose(trial)
        if self.refine == 1:
            found = compiled.one(leaves, self.gradient, self.noted)
        else:
            leaves, found = self._refined(trial, compiled, leaves)
            trial.revise(compiled.layout.by_name(leaves))
        return _told(trial, compiled.layout, found, self.gradient, self.noted)

    def _refined(self, trial: Trial, compiled: _Compiled, leaves: list[Any]) -> tuple[list[Any], _Found]:
        """The best of some points on a descent, with what was found there."""
        layout, descent = compiled.layout, None
        best: tuple[list[Any], _Found] | None = None
        sign, turn = trial.directions[0].sign, 0
        for turn in range(1, self.refine + 1):
            found = compiled.one(leaves, True, self.noted)
            if best is None or sign * found.value < sign * best[1].value:
                best = leaves, found
            if math.isfinite(best[1].value):
                trial.report(best[1].value, turn)
            if turn < self.refine and trial.should_prune():
                trial.revise(layout.by_name(best[0]))
                trial.set_user_attr("evaluations", turn)
                raise TrialPruned(f"after {turn} evaluations")
            if turn < self.refine:
                place = layout.to_unit(leaves)
                descent = Descent(place) if descent is None else descent
                ahead = descent.tell(sign * found.value, sign * layout.slopes(leaves, found.gradient))
                if ahead is None:
                    break
                leaves = layout.from_unit(ahead)
        assert best is not None
        trial.set_user_attr("evaluations", turn)
        return best


class Batched:
    """A JAX function of hyperparameters as an objective of ``Study.optimize(..., batch=64)``: one program for all.

    Trials of the same choices run as one vmapped, compiled program; a batch with several combinations of choices runs
    one program for each. The size of a group is padded to a power of two, so that few programs are compiled.

    Args:
        objective: as in `Differentiated`.
        space: as in `Differentiated`.
        choices: as in `Differentiated`.
        gradient: whether the trials carry their gradients.
        noted: as in `Differentiated`.
        catch: exceptions that fail the trials of a group, and not the others of the batch.

    Memory: that of all trials of a group at once.

    >>> import jax.numpy as jnp
    >>> from nestor import search, tuning
    >>> study = search.create_study(sampler=search.RandomSampler(seed=0))
    >>> study.optimize(tuning.Batched(lambda x: (x - 1.0) ** 2, (0.0, 3.0)), n_trials=256, batch=64)
    >>> len(study.trials), study.best_value < 0.01
    (256, True)
    """

    def __init__(
        self,
        objective: Callable[..., Any],
        space: Any,
        choices: Any = None,
        *,
        gradient: bool = False,
        noted: bool = False,
        catch: type[Exception] | Iterable[type[Exception]] = FAILURES,
    ):
        self.gradient, self.noted = gradient, noted
        self.catch = catch if isinstance(catch, type) else tuple(catch)
        self._posed = _Posed("Batched", objective, space, choices)

    def __call__(self, trials: Sequence[Trial]) -> list[float | Exception]:
        """The value of each trial, or the exception that it failed with."""
        groups: dict[int, list[tuple[int, Trial, list[Any]]]] = {}
        compiled_of: dict[int, _Compiled] = {}
        for place, trial in enumerate(trials):
            compiled, leaves = self._posed.pose(trial)
            compiled_of[id(compiled)] = compiled
            groups.setdefault(id(compiled), []).append((place, trial, leaves))
        results: list[float | Exception] = [0.0] * len(trials)
        for key, group in groups.items():
            compiled = compiled_of[key]
            try:
                found = compiled.many([leaves for _, _, leaves in group], self.gradient, self.noted)
            except self.catch as error:
                for place, _, _ in group:
                    results[place] = error
                continue
            for (place, trial, _), one in zip(group, found, strict=True):
                results[place] = _told(trial, compiled.layout, one, self.gradient, self.noted)
        return results


def _told(trial: Trial, layout: Layout, found: _Found, sloped: bool, noted: bool) -> float | Exception:
    """Tell a trial its gradient and notes; its value, or why it failed."""
    if noted:
        trial.set_user_attr("notes", jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), found.notes))
    if not math.isfinite(found.value):
        return NotFinite(f"the value is {found.value}")
    if sloped:
        known = [
            (name, slope)
            for name, slope in zip(layout.names, found.gradient, strict=True)
            if np.isfinite(slope).all()
        ]
        trial.set_gradient(dict(known))
    return found.value
