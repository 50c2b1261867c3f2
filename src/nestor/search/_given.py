"""Trials that are given and not sampled: records from elsewhere, and parameters that are to be tried."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nestor.errors import BadArgument
from nestor.search._arguments import integer, plain, reals, whole
from nestor.search._ledger import Ledger
from nestor.search._records import Direction, FrozenTrial, TrialState
from nestor.search._spaces import Domain


def create_trial(
    *,
    value: float | None = None,
    values: Sequence[float] | None = None,
    params: Mapping[str, Any] | None = None,
    domains: Mapping[str, Domain] | None = None,
    state: TrialState = TrialState.COMPLETE,
    user_attrs: Mapping[str, Any] | None = None,
    reports: Mapping[int, float] | None = None,
    constraints: Sequence[float] | None = None,
    gradient: Mapping[str, Any] | None = None,
    error: str | None = None,
    system_attrs: Mapping[str, Any] | None = None,
) -> FrozenTrial:
    """The record of a trial that was made elsewhere, for `Study.add_trial`.

    Args:
        value: the value of the only objective.
        values: one value an objective, for several.
        params: parameter name to value.
        domains: parameter name to the domain that it comes from.
        state: ``COMPLETE`` needs a value; others may have none.
        user_attrs: notes.
        reports: step to value.
        constraints: each satisfied where it is <= 0.
        gradient: parameter name to the derivative of the value by it.
        error: what a failed trial raised, as text.
        system_attrs: notes of programs.

    >>> from nestor import search
    >>> study = search.create_study()
    >>> domains = {"x": search.Float(0.0, 1.0)}
    >>> study.add_trial(search.create_trial(params={"x": 0.5}, domains=domains, value=0.25))
    >>> study.best_params
    {'x': 0.5}
    """
    where, params, domains = "create_trial", dict(params or {}), dict(domains or {})
    if value is not None and values is not None:
        raise BadArgument(where, "values", got="both", want="one of value and values", do="drop value")
    if value is not None:
        values = (value,)
    told = None if values is None else tuple(reals(where, "values", *values))
    if state == TrialState.COMPLETE and (told is None or any(math.isnan(one) for one in told)):
        want = "given for a complete trial, and a number"
        raise BadArgument(where, "value", got=told, want=want, do="or pass state=TrialState.FAILED")
    for name, one in params.items():
        if name not in domains:
            raise BadArgument(where, "domains", got=list(domains), want=f"with '{name}'", do="add its domain")
        if not domains[name].contains(one):
            raise BadArgument(
                where, "params", got=f"{name}={one!r}", want=f"in {domains[name]}", do="mend it"
            )
    now = time.time()
    return FrozenTrial(
        number=0,
        state=state,
        values=told,
        params=params,
        domains={name: domains[name] for name in params},
        user_attrs=plain(where, "user_attrs", dict(user_attrs or {})),
        reports={whole(where, "reports", step, least=0): value for step, value in (reports or {}).items()},
        constraints=None if constraints is None else tuple(reals(where, "constraints", *constraints)),
        gradient=None if gradient is None else plain(where, "gradient", dict(gradient)),
        error=error,
        started=None if state == TrialState.WAITING else now,
        ended=now if state >= TrialState.PAUSED else None,
        attempt=0,
        system_attrs=plain(where, "system_attrs", dict(system_attrs or {})),
    )


def checked_record(directions: Sequence[Direction], trial: Any) -> FrozenTrial:
    """A record that a study can take: what is wrong must be said before the log holds it."""
    count = len(directions)
    if not isinstance(trial, FrozenTrial):
        do = "make it by create_trial, or take it from another study's trials"
        raise BadArgument("add_trial", "trial", got=trial, want="a FrozenTrial", do=do)
    values = trial.values
    complete = trial.state == TrialState.COMPLETE
    if (values is None and complete) or (values is not None and len(values) != count):
        want = f"with {count} value{'s' if count > 1 else ''}, one an objective"
        got = f"one with values {values}"
        raise BadArgument("add_trial", "trial", got=got, want=want, do="give each objective its value")
    if complete and any(math.isnan(value) for value in values or ()):
        do = "give it state=TrialState.FAILED"
        raise BadArgument("add_trial", "trial", got=f"complete with {values}", want="without NaN", do=do)
    for step, value in trial.reports.items():
        if integer(step) is None or (isinstance(value, Sequence) and len(value) != count):
            want = f"with a whole step, and a number or {count} of them at each"
            got = f"one that reported {value!r} at step {step!r}"
            raise BadArgument("add_trial", "trial", got=got, want=want, do="mend its reports")
    return trial


def is_there(ledger: Ledger, given: Mapping[str, Any]) -> bool:
    """Whether a trial has these parameters and no others, or was enqueued with them."""
    if any(set(kept) == set(given) and _same(kept, given) for kept in ledger.fixed.values()):
        return True
    if not all(name in ledger.columns for name in given):
        return False
    rows = np.ones(ledger.size, bool)
    for name, column in ledger.columns.items():
        rows &= (column.kinds[: ledger.size] > 0) == (name in given)
    return any(_same(ledger.trial(int(number)).params, given) for number in np.flatnonzero(rows))


def _same(params: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether two sets of parameters are equal; NaN is equal to itself."""
    for name, value in given.items():
        other = params[name]
        if isinstance(other, np.ndarray) or isinstance(value, list):
            equal = np.array_equal(np.asarray(other), np.asarray(value))
        else:
            equal = other == value or (other != other and value != value)
        if not equal:
            return False
    return True
