"""What the page is told, as things that JSON can hold; numbers that JSON has no words for become text."""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from nestor.errors import NestorError
from nestor.search import Array, Categorical, FollowedStudy, Follower, FrozenTrial, TrialState, importance

MOST_TRIALS = 2000  # in one reply; the page asks for the rest at once
_MOST_CURVES = 50  # of the best trials, and of the latest
_MOST_STEPS = 300  # of a curve
_SHORT_ARRAY = 4  # entries that are columns of their own
_LONG_ARRAY = 10_000  # entries of an array that a trial's own page shows
_LONG_TEXT = 200  # characters of a note in the table
_MEMORIES: weakref.WeakKeyDictionary[FollowedStudy, dict[str, Any]] = weakref.WeakKeyDictionary()


def studies(follower: Follower, nested: bool) -> dict[str, Any]:
    """All studies, the latest first; those made inside trials of others are counted, and told if asked for."""
    headers = follower.headers()
    found = [
        {"name": name, "directions": header["directions"], "created": header.get("created")}
        for name, header in headers.items()
        if nested or "parent" not in header
    ]
    return {"studies": found[::-1], "nested": sum("parent" in header for header in headers.values())}


def summary(followed: FollowedStudy) -> dict[str, Any]:
    """How far a study is: trials by state, the best, and the notes."""

    def told(place: int) -> dict[str, Any]:
        study = followed.study
        trials = {state.name: len(study.trials_with(state)) for state in TrialState}
        best = _best(followed)
        return {
            "id": followed.identity,
            "place": place,
            "directions": [str(direction) for direction in study.directions],
            "states": {name: count for name, count in trials.items() if count},
            "best": None if best is None else {"number": best.number, "values": plain(best.values)},
            "front": len(_front(followed)),
            "attrs": plain(study.user_attrs),
            "names": study.metric_names,
        }

    return _once(followed, "summary", told)


def changes(followed: FollowedStudy, after: int) -> dict[str, Any]:
    """The trials that changed after a place of the log; with nothing new, no more than the place."""
    with followed.lock:
        place, numbers = followed.changes(after)
        if place == after:
            return {"place": place}
        notes = {"attrs": plain(followed.study.user_attrs), "names": followed.study.metric_names}
        if not numbers:
            return {"place": place, **notes}
        end = MOST_TRIALS
        while end < len(numbers) and followed.place_of(numbers[end]) == followed.place_of(numbers[end - 1]):
            end += 1  # one entry of the log changed both, and the next reply begins after it
        chosen = numbers[:end]
        whole = len(chosen) == len(numbers)
        trials = [followed.study.trials[number] for number in chosen]
        names: dict[str, Any] = {}  # parameters of these trials
        for trial in trials:
            names.update((name, domain.as_json()) for name, domain in trial.domains.items())
        order = list(names)
        best = _best(followed)
        return {
            "place": place if whole else followed.place_of(chosen[-1]),
            "more": not whole,
            "params": [[name, plain(domain)] for name, domain in names.items()],
            "trials": [_row(trial, order) for trial in trials],
            "best": None if best is None else best.number,
            "front": _front(followed),
            **notes,
        }


def trial(follower: Follower, followed: FollowedStudy, number: int) -> dict[str, Any]:
    """Everything about one trial, with the studies that were made inside it."""
    inside = {"id": followed.identity, "number": number}
    parents = {name: header.get("parent", {}) for name, header in follower.headers().items()}
    nested = [name for name, parent in parents.items() if inside.items() <= parent.items()]
    with followed.lock:
        followed.changes(after=0)
        trials = followed.study.trials
        if not 0 <= number < len(trials):
            raise NestorError(
                f"There is no trial {number} in this study.\nDo this: take one below {len(trials)}"
            )
        found = trials[number]
        return {
            "number": found.number,
            "state": found.state.name,
            "values": plain(found.values),
            "params": {
                name: _value(value, found.domains[name], _LONG_ARRAY) for name, value in found.params.items()
            },
            "domains": {name: plain(domain.as_json()) for name, domain in found.domains.items()},
            "reports": [[step, plain(value)] for step, value in sorted(found.reports.items())],
            "gradient": plain(found.gradient),
            "constraints": plain(found.constraints),
            "attrs": plain(found.user_attrs),
            "error": found.error,
            "started": found.started,
            "ended": found.ended,
            "attempt": found.attempt,
            "nested": nested,
        }


def curves(followed: FollowedStudy) -> dict[str, Any]:
    """The reported values of the best trials and of the latest."""
    sign = followed.study.directions[0].sign

    def told(place: int) -> dict[str, Any]:
        reported = _reported(followed, place)
        last = {number: sign * reports[max(reports)] for number, (_, reports) in reported.items()}
        ranked = sorted(last, key=lambda number: (math.isnan(last[number]), last[number]))
        chosen = sorted({*ranked[:_MOST_CURVES], *sorted(reported)[-_MOST_CURVES:]})
        lines = [
            {"number": number, "state": reported[number][0], "points": _thinned(reported[number][1])}
            for number in chosen
        ]
        return {"place": place, "curves": lines, "of": len(reported)}

    return _once(followed, "curves", told)


def shares(followed: FollowedStudy) -> dict[str, Any]:
    """The importance of the parameters; why there is none where there is none."""

    def told(place: int) -> dict[str, Any]:
        try:
            return {"place": place, "importance": list(importance(followed.study).items())}
        except NestorError as error:
            return {"place": place, "importance": [], "why": str(error).splitlines()[0]}

    return _once(followed, "shares", told)


def _once(followed: FollowedStudy, what: str, told: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    """What was told of a study at this place of its log; found out again only when the log has grown."""
    with followed.lock:
        place, _ = followed.changes(after=_memory(followed).get("place", 0))
        memory = _memory(followed)
        memory["place"] = place
        if what not in memory or memory[what]["place"] != place:
            memory[what] = told(place)
        return memory[what]


def _reported(followed: FollowedStudy, place: int) -> dict[int, tuple[int, Any]]:
    """Number to state and reports of the trials that reported; only those that changed are read again."""
    memory = _memory(followed)
    since, found = memory.get("reported", (0, {}))
    told = followed.ledger.reports
    for number in followed.changes(after=since)[1]:
        if number in told:
            trial = followed.ledger.trial(number)
            found[number] = int(trial.state), trial.reports
    memory["reported"] = place, found
    return found


def _memory(followed: FollowedStudy) -> dict[str, Any]:
    return _MEMORIES.setdefault(followed, {})


def _row(trial: FrozenTrial, names: list[str]) -> list[Any]:
    """One trial for the table; what each place holds stands in page/data.js."""
    params = [
        _value(trial.params[name], trial.domains[name], _SHORT_ARRAY) if name in trial.params else None
        for name in names
    ]
    missed = sum(max(value, 0.0) for value in trial.constraints or ())
    attrs = {name: _short(value) for name, value in trial.user_attrs.items()}
    row = [trial.number, int(trial.state), plain(trial.values), params, trial.started, trial.ended]
    more = [plain(missed), attrs, int(bool(trial.reports))]
    while more and not more[-1]:
        more.pop()
    return row + more


def _value(value: Any, domain: Any, longest: int) -> Any:
    """A parameter: an array by its entries when they are few, else by least, mean and largest entry."""
    if isinstance(domain, Array):
        entries = np.asarray(value, float)
        told = {"shape": list(domain.shape)}
        if domain.size <= longest:
            return {**told, "entries": entries.ravel().tolist()}
        return {**told, "least": entries.min(), "mean": entries.mean(), "most": entries.max()}
    if isinstance(domain, Categorical) and value is None:
        return "None"  # null is a parameter that the trial does not have
    return plain(value)


def _best(followed: FollowedStudy) -> FrozenTrial | None:
    if len(followed.study.directions) > 1:
        return None
    try:
        return followed.study.best_trial
    except NestorError:
        return None


def _front(followed: FollowedStudy) -> list[int]:
    """The numbers of the trials on the Pareto front; none with one objective."""
    if len(followed.study.directions) == 1:
        return []
    return [one.number for one in followed.study.best_trials]


def _thinned(reports: Any) -> list[list[Any]]:
    points = [[step, plain(value)] for step, value in sorted(reports.items())]
    if len(points) <= _MOST_STEPS:
        return points
    return [points[place] for place in np.linspace(0, len(points) - 1, _MOST_STEPS).astype(int).tolist()]


def _short(value: Any) -> Any:
    """A note as the table shows it."""
    value = plain(value)
    if isinstance(value, dict | list):
        value = _brief(value)
    return value[: _LONG_TEXT - 1] + "…" if isinstance(value, str) and len(value) > _LONG_TEXT else value


def _brief(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def plain(value: Any) -> Any:
    """Anything as JSON can hold it: NaN and infinities as the texts "nan", "inf", "-inf"."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, str) or not isinstance(value, Iterable):
        return value
    return [plain(inner) for inner in value]
