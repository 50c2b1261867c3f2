"""One trial, one domain, in Optuna's words and in ours. Nothing is lost on the way there and back."""

from __future__ import annotations

import base64
import datetime
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nestor.errors import BadArgument
from nestor.optuna._need import need
from nestor.search import Array, Categorical, Direction, Float, FrozenTrial, Int, Ledger, TrialState

LARGEST_ARRAY = 256  # entries of an array that Optuna sees, each as a parameter of its own
_CONSTRAINTS, _FIXED, _OURS = "constraints", "fixed_params", "nestor:"  # keys of Optuna's system attributes

_OPTUNA_NAMES = {
    TrialState.WAITING: "WAITING",
    TrialState.RUNNING: "RUNNING",
    TrialState.PAUSED: "RUNNING",  # it has no such state; the note "nestor:paused" says so
    TrialState.COMPLETE: "COMPLETE",
    TrialState.PRUNED: "PRUNED",
    TrialState.FAILED: "FAIL",
}
_OUR_STATES = {name: state for state, name in _OPTUNA_NAMES.items() if state != TrialState.PAUSED}


def state_of(state: Any) -> TrialState:
    """Our state for one of Optuna's."""
    return _OUR_STATES[state.name]


def direction_of(direction: Any) -> Direction:
    """Our direction for one of Optuna's."""
    if direction.name == "NOT_SET":
        raise BadArgument(
            "nestor.optuna", "directions", got="NOT_SET", want="set", do="begin it with directions"
        )
    return Direction(direction.name.lower())


def domain_of(distribution: Any) -> Float | Int | Categorical:
    """Our domain for one of Optuna's distributions."""
    distributions = need("nestor.optuna").distributions
    if isinstance(distribution, distributions.FloatDistribution):
        return Float(distribution.low, distribution.high, distribution.log, distribution.step)
    if isinstance(distribution, distributions.IntDistribution):
        return Int(distribution.low, distribution.high, distribution.log, distribution.step)
    if isinstance(distribution, distributions.CategoricalDistribution):
        return Categorical(distribution.choices)
    want = "a FloatDistribution, IntDistribution or CategoricalDistribution"
    raise BadArgument("nestor.optuna", "distribution", got=distribution, want=want, do="pass one of these")


@functools.lru_cache(maxsize=4096)
def distribution_of(domain: Float | Int | Categorical) -> Any:
    """Optuna's distribution for one of our domains."""
    distributions = need("nestor.optuna").distributions
    if isinstance(domain, Categorical):
        return distributions.CategoricalDistribution(domain.choices)
    kind = distributions.FloatDistribution if isinstance(domain, Float) else distributions.IntDistribution
    return kind(domain.low, domain.high, log=domain.log, step=domain.step)


def stored_of(domain: Float | Int | Categorical, distribution: Any, value: Any) -> float:
    """The number that is stored for a value that Optuna knows, inside of the domain or not."""
    if isinstance(domain, Categorical) and domain.contains(value):
        return domain.encode(value)
    return float(distribution.to_internal_repr(value))


# --- from ours to Optuna's ------------------------------------------------------------------------


def frozen_of(ledger: Ledger, number: int, trial_id: int) -> Any:
    """A trial as Optuna's record."""
    trial = need("nestor.optuna").trial
    ours = ledger.trial(number)
    params: dict[str, Any] = {}
    distributions: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    for name, domain in ours.domains.items():
        if isinstance(domain, Array):
            arrays[name] = domain.as_json()
            _spread(name, domain, ours.params[name], params, distributions)
        else:
            params[name], distributions[name] = ours.params[name], distribution_of(domain)
    finished, reports = ours.state.is_finished, ledger.reports.get(number, {})
    return trial.FrozenTrial(
        number=number,
        trial_id=trial_id,
        state=trial.TrialState[_OPTUNA_NAMES[ours.state]],
        value=None,
        values=ours.values,
        datetime_start=_moment(ours.started),
        datetime_complete=_moment(ours.ended) if finished else None,
        params=params,
        distributions=distributions,
        user_attrs=dict(ours.user_attrs),
        system_attrs=_system_attrs(ours, ledger, arrays),
        intermediate_values={step: _first(value) for step, value in reports.items()},
    )


def _spread(
    name: str, domain: Array, value: np.ndarray, params: dict[str, Any], distributions: dict[str, Any]
) -> None:
    """Show the entries of an array as parameters of their own."""
    if domain.size <= LARGEST_ARRAY:
        one = distribution_of(Float(domain.low, domain.high, domain.log))
        for place in np.ndindex(domain.shape):
            entry = f"{name}[{','.join(map(str, place))}]"
            params[entry], distributions[entry] = float(value[place]), one


def _system_attrs(ours: FrozenTrial, ledger: Ledger, arrays: dict[str, Any]) -> dict[str, Any]:
    """What Optuna knows of a trial beside its fields: its own notes, and what its record has no field for."""
    found = dict(ours.system_attrs)
    if ours.constraints is not None and not any(key.partition(":")[0] == _CONSTRAINTS for key in found):
        found[_CONSTRAINTS] = list(ours.constraints)
    if ours.number in ledger.fixed:
        found.setdefault(_FIXED, ledger.fixed[ours.number])
    reports = ledger.reports.get(ours.number, {}).items()
    more = {
        "paused": ours.state == TrialState.PAUSED,
        "error": ours.error,
        "cost": ledger.costs.get(ours.number),
        "gradient": dict(ours.gradient or {}),
        "reports": {str(step): np.ravel(value).tolist() for step, value in reports if np.ndim(value)},
        "arrays": arrays,
    }
    return {**found, **{_OURS + key: value for key, value in more.items() if value}}


# --- from Optuna's to ours ------------------------------------------------------------------------


def entry_of(frozen: Any, worker: str = "") -> dict[str, Any]:
    """Optuna's record as the entry that adds it to a study; a running trial becomes the worker's."""
    state = state_of(frozen.state)
    system = dict(frozen.system_attrs)
    ours = {key[len(_OURS) :]: system.pop(key) for key in list(system) if key.startswith(_OURS)}
    if ours.get("paused"):
        state = TrialState.PAUSED
    entry = {
        "do": "add",
        "state": int(state),
        "params": _written(frozen.params, frozen.distributions, ours.get("arrays") or {}),
        "reports": {str(step): float(value) for step, value in frozen.intermediate_values.items()}
        | ours.get("reports", {}),
        "attrs": dict(frozen.user_attrs),
        "system": system,
        "constraints": constraints_of(system),
        "fixed": system.get(_FIXED),
        "gradient": ours.get("gradient"),
        "error": ours.get("error"),
        "cost": ours.get("cost"),
        "started": _seconds(frozen.datetime_start),
        "at": _seconds(frozen.datetime_complete),
        "by": worker if state == TrialState.RUNNING else None,
        **values_of(state, frozen.values, bool(frozen.intermediate_values)),
    }
    return {key: value for key, value in entry.items() if value is not None}


def values_of(state: TrialState, values: Sequence[float] | None, reported: bool) -> dict[str, Any]:
    """The part of an entry that holds the values; a trial that ended without any says so."""
    if state not in (TrialState.COMPLETE, TrialState.PRUNED):
        return {}
    if values is None:
        return {"values": []} if reported else {}
    return {"values": [float(value) for value in values]}


def constraints_of(system: Mapping[str, Any]) -> list[float] | None:
    """The constraints among Optuna's notes of a trial, in both of its ways to write them."""
    old = system.get(_CONSTRAINTS) or ()
    new = [value for key, value in system.items() if key.startswith(_CONSTRAINTS + ":")]
    found = [float(value) for value in itertools.chain(old, new)]
    return found or None


def _written(
    params: Mapping[str, Any], distributions: Mapping[str, Any], arrays: Mapping[str, Any]
) -> dict[str, Any]:
    """Name to [domain, stored value], as the log has it; arrays are put together again."""
    found: dict[str, Any] = {}
    left = dict(params)
    for name, (_, shape, *range_) in arrays.items():
        names = [f"{name}[{','.join(map(str, place))}]" for place in np.ndindex(*shape)]
        if names and all(one in left for one in names):
            entries = np.array([left.pop(one) for one in names], float).reshape(shape)
            packed = base64.b64encode(np.ascontiguousarray(entries, "<f8").tobytes()).decode()
            found[name] = [Array(tuple(shape), *range_).as_json(), packed]
    for name, value in left.items():
        domain = domain_of(distributions[name])
        found[name] = [domain.as_json(), stored_of(domain, distributions[name], value)]
    return found


def _first(reported: Any) -> float:
    """What was reported, of several objectives the first: Optuna's curves have one."""
    return float(reported[0]) if np.ndim(reported) else float(reported)


def _seconds(moment: datetime.datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _moment(seconds: float | None) -> datetime.datetime | None:
    return None if seconds is None else datetime.datetime.fromtimestamp(seconds)
