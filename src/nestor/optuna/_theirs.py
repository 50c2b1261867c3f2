"""Samplers and pruners of Optuna inside our studies."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from nestor.errors import BadArgument
from nestor.optuna._need import inside, need
from nestor.optuna._records import LARGEST_ARRAY, distribution_of, stored_of
from nestor.search import Array, Asked, Curves, Float, Ledger, TrialState


class OptunaSampler:
    """A sampler of Optuna as a sampler of Nestor.

    Args:
        sampler: a sampler of Optuna, or what makes one when called with ``seed=``: a class such as
            ``optuna.samplers.TPESampler``, or a `functools.partial` of it. Made anew for every trial, it is a
            function of seed, number and history as our own are, and a study can be repeated and resumed. (Not so
            its ``QMCSampler``, whose sequence has one seed: pass an instance.) An instance has a state of its own.
        seed: of the samplers that are made; None takes a new one.

    What the sampler keeps beside trials, such as the state of its CMA-ES, is kept in our storage. Its ``after_trial``
    is not called: say constraints with ``trial.set_constraints``, and use `search.GridSampler` for a grid. An array
    of at most 256 entries is a parameter an entry.

    Raises:
        BadArgument: it is not a sampler of Optuna, or a parameter is a larger array.
        MissingExtra: Optuna is not installed.

    >>> import nestor.optuna, optuna
    >>> from nestor import search
    >>> sampler = nestor.optuna.OptunaSampler(optuna.samplers.TPESampler, seed=0)
    >>> study = search.create_study(sampler=sampler)
    >>> study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=40)
    >>> study.best_value < 0.01
    True
    """

    def __init__(self, sampler: Any, seed: int | None = None):
        base = need("nestor.optuna.OptunaSampler").samplers.BaseSampler
        instance = isinstance(sampler, base)
        if not (instance or callable(sampler)):
            want = "a sampler of Optuna, or what makes one when called with seed="
            do = "pass optuna.samplers.TPESampler"
            raise BadArgument("nestor.optuna.OptunaSampler", "sampler", got=sampler, want=want, do=do)
        if instance and seed is not None:
            want, do = "None with an instance", "pass the class, or give the seed to the instance"
            raise BadArgument("nestor.optuna.OptunaSampler", "seed", got=seed, want=want, do=do)
        self.sampler: Any = sampler
        self._instance = instance
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else int(seed)
        self._views = _Views()

    def __getstate__(self) -> dict[str, Any]:
        return {"sampler": self.sampler, "seed": self.seed, "_instance": self._instance}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _views=_Views())
        if self._instance:  # in another process, which must not repeat what this one does
            self.sampler.reseed_rng()

    def __call__(self, asked: Asked, name: str, domain: Any) -> Any:
        """The place of what Optuna's sampler suggests."""
        if "optuna" not in asked.memo:
            asked.memo["optuna"] = _Suggesting(self._made(asked.number), self._views, asked)
        suggesting = asked.memo["optuna"]
        if not isinstance(domain, Array):
            return suggesting.place(name, domain)
        if domain.size > LARGEST_ARRAY:
            want, do = f"of at most {LARGEST_ARRAY} entries", "use a sampler of nestor.search"
            raise BadArgument("suggest_array", "shape", got=domain.shape, want=want, do=do)
        one = Float(domain.low, domain.high, domain.log)
        places = np.empty(domain.shape)
        for at in np.ndindex(domain.shape):
            places[at] = suggesting.place(f"{name}[{','.join(map(str, at))}]", one)
        return places

    def _made(self, number: int) -> Any:
        if self._instance:
            return self.sampler
        return self.sampler(seed=int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0]))


class OptunaPruner:
    """A pruner of Optuna as a pruner of Nestor, for studies of one objective.

    Args:
        pruner: a pruner of Optuna.

    Raises:
        BadArgument: it is not a pruner of Optuna.
        MissingExtra: Optuna is not installed.

    >>> import nestor.optuna, optuna
    >>> from nestor import search
    >>> pruner = nestor.optuna.OptunaPruner(optuna.pruners.ThresholdPruner(upper=1.0))
    >>> trial = search.create_study(pruner=pruner).ask()
    >>> trial.report(2.0, step=0)
    >>> trial.should_prune()
    True
    """

    def __init__(self, pruner: Any):
        if not isinstance(pruner, need("nestor.optuna.OptunaPruner").pruners.BasePruner):
            want, do = "a pruner of Optuna", "pass optuna.pruners.MedianPruner()"
            raise BadArgument("nestor.optuna.OptunaPruner", "pruner", got=pruner, want=want, do=do)
        self.pruner, self._views = pruner, _Views()

    def __getstate__(self) -> dict[str, Any]:
        return {"pruner": self.pruner}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _views=_Views())

    def __call__(self, curves: Curves, step: int) -> TrialState:
        """``PRUNED`` where Optuna's pruner says so."""
        ledger, number = curves.ledger, curves.number
        with self._views.lock:
            view = self._views(ledger, curves.commit)
            view.visible = None if curves.horizon is None else {*range(curves.horizon + 1), number}
            prunes = self.pruner.prune(view.study(pruner=self.pruner), view.get_trial(number))
        return TrialState.PRUNED if prunes else TrialState.RUNNING


class _Suggesting:
    """What a sampler of Optuna suggests to one trial."""

    def __init__(self, sampler: Any, views: _Views, asked: Asked):
        history = asked.history
        self.sampler, self.number = sampler, asked.number
        self.view = views(history.ledger, asked.commit)
        self.visible = {*history.rows.tolist(), *history.pending(asked.number), asked.number}
        self.view.visible = self.visible
        self.study = self.view.study(sampler=sampler)
        trial = self.view.get_trial(self.number)
        sampler.before_trial(self.study, trial)
        self.space = sampler.infer_relative_search_space(self.study, trial)
        self.relative = sampler.sample_relative(self.study, trial, self.space)

    def place(self, name: str, domain: Any) -> float:
        """The place of the value of a parameter: of those suggested together, or of its own."""
        distribution = distribution_of(domain)
        if distribution.single():
            return 0.5
        value = self.relative.get(name)
        if name not in self.relative or not domain.contains(value):
            self.view.visible = self.visible
            trial = self.view.get_trial(self.number)
            value = self.sampler.sample_independent(self.study, trial, name, distribution)
        stored = np.asarray(stored_of(domain, distribution, value))
        return min(max(float(domain.to_unit(stored)), 0.0), 1.0)


class _Views:
    """The view of the ledger that was asked for last, so that finished trials are made into records once."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._last: tuple[Ledger | None, Any] = None, None

    def __call__(self, ledger: Ledger, commit: Callable[..., Any] | None) -> Any:
        if self._last[0] is not ledger:
            self._last = ledger, inside("_stored", "nestor.optuna").View(ledger, commit)
        return self._last[1]
