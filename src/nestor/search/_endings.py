"""How a trial ends: the entry of the log that says so, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nestor.errors import BadArgument
from nestor.search._ledger import Ledger
from nestor.search._records import TrialState
from nestor.search._spaces import Array

_COMPLETE, _FAILED = int(TrialState.COMPLETE), int(TrialState.FAILED)
_ENDS = (_COMPLETE, int(TrialState.PRUNED), _FAILED, int(TrialState.PAUSED))


def ending(
    ledger: Ledger,
    number: int,
    values: Any = None,
    *,
    at: float,
    state: TrialState | None = None,
    gradient: Mapping[str, Any] | None = None,
    constraints: Sequence[float] | None = None,
    error: str | None = None,
    returned: bool = False,
) -> dict[str, Any]:
    """The entry that ends a trial.

    Args:
        ledger: the columns of its study.
        number: its number.
        values: what came out: a number, or one an objective. NaN fails the trial.
        at: when, in seconds since the epoch.
        state: one of those that a trial can end in; None is ``COMPLETE``.
        gradient: parameter name to the derivative of the value by it.
        constraints: each satisfied where it is <= 0.
        error: what a failed trial raised, as text.
        returned: whether it was an objective that returned the values, for messages.
    """
    if state is not None and state not in _ENDS:
        want = "COMPLETE, PRUNED, FAILED or PAUSED"
        raise BadArgument("tell", "state", got=repr(state), want=want, do="drop it, or pass one of these")
    entry: dict[str, Any] = {"do": "tell", "number": number, "at": at}
    end = _COMPLETE if state is None else int(state)
    if values is not None or returned:
        found = _numbers(values, len(ledger.directions), returned)
        if any(map(math.isnan, found)):
            end, error = _FAILED, error or "the value is not a number"
        else:
            entry["values"] = found
    elif end == _COMPLETE:
        raise BadArgument("tell", "values", got=None, want="given for a complete trial", do="or pass state=")
    entry["state"] = end
    if constraints is not None:
        entry["constraints"] = [float(value) for value in constraints]
    if gradient is not None and end != _FAILED:
        entry["gradient"] = slopes("tell", ledger, number, gradient)
    if error:
        entry["error"] = error
    return entry


def slopes(where: str, ledger: Ledger, number: int, gradient: Mapping[str, Any]) -> dict[str, Any]:
    """A gradient by parameters that a trial has, each in the shape of its parameter, as JSON holds it."""
    found = {}
    for name, slope in gradient.items():
        known = ledger.param(number, name)
        if known is None:
            want = "by parameters that the trial has"
            raise BadArgument(where, "gradient", got=f"for {name!r}", want=want, do="suggest it first")
        shape = known[0].shape if isinstance(known[0], Array) else ()
        slope = np.asarray(slope, float)
        if slope.shape != shape and not (shape == () and slope.size == 1):
            got, want = f"of shape {slope.shape} for {name!r}", f"of the shape of the parameter, {shape}"
            raise BadArgument(where, "gradient", got=got, want=want, do="reshape it")
        found[name] = slope.reshape(shape).tolist()
    return found


def _numbers(values: Any, count: int, returned: bool) -> list[float]:
    """One float an objective."""
    if type(values) is float and count == 1:
        return [values]
    try:
        each: Any = values if np.ndim(values) else (values,)
        found = [float(value) for value in each]
    except (TypeError, ValueError):
        found = []
    if len(found) == count:
        return found
    want = "a number" if count == 1 else f"{count} numbers, one an objective"
    if returned:
        got = f"a function that returned {values!r}"
        raise BadArgument(
            "optimize", "objective", got=got, want=f"one that returns {want}", do="mend its return"
        )
    raise BadArgument("tell", "values", got=values, want=want, do="tell one value an objective")
