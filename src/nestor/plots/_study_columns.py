"""What the pictures of studies draw from: trials, and their parameters as columns of plain values."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nestor.errors import BadArgument, MissingExtra
from nestor.search import Array, Categorical, FrozenTrial, Int, Study, TrialState

_SHORT_ARRAY = 4  # entries that are columns of their own


@dataclasses.dataclass(frozen=True)
class Column:
    """One parameter, or one entry of an array, over some trials.

    Attributes:
        name: as it is shown.
        values: one a trial; None where a trial does not have it, text for a choice.
        low, high: the range that it was suggested from last.
        log: whether the range is logarithmic.
        choices: the choices as text, or None.
        whole: whether it counts.
    """

    name: str
    values: list[Any]
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: tuple[str, ...] | None = None
    whole: bool = False


def plotly(module: str = "graph_objects") -> Any:
    """A module of plotly; says how to get it where it is missing."""
    try:
        return importlib.import_module(f"plotly.{module}")
    except ImportError as error:
        raise MissingExtra("plotly", "plots", "a picture of a study") from error


def complete_trials(study: Study, where: str) -> list[FrozenTrial]:
    """The complete trials with finite values."""
    return [
        trial
        for trial in checked(study, where).trials_with(TrialState.COMPLETE)
        if trial.values is not None and all(map(math.isfinite, trial.values))
    ]


def checked(study: Study, where: str) -> Study:
    """The study, if it is one."""
    if not isinstance(study, Study):
        raise BadArgument(where, "study", got=study, want="a nestor.search.Study", do="pass the study itself")
    return study


def objective_name(study: Study, objective: int, where: str) -> str:
    """What an objective is called; checks that there is such a one."""
    count = len(checked(study, where).directions)
    if isinstance(objective, bool) or objective not in range(count):
        want = f"a whole number from 0 to {count - 1}"
        raise BadArgument(where, "objective", got=objective, want=want, do="count from 0")
    names = study.metric_names
    if names is not None:
        return plain(names[objective])
    return "value" if count == 1 else f"value {objective}"


def columns(trials: Sequence[FrozenTrial], params: Sequence[str] | None, where: str) -> list[Column]:
    """The parameters of trials; an array by its entries when they are few, else by their mean."""
    latest: dict[str, Any] = {}
    for trial in trials:
        latest.update(trial.domains)
    unknown = [name for name in params or () if name not in latest]
    if unknown or isinstance(params, str):
        want = f"a list of names among {list(latest)}"
        raise BadArgument(where, "params", got=params, want=want, do="pass params=None for all")
    found: list[Column] = []
    for name in latest if params is None else params:
        found += _columns_of(name, latest[name], [trial.params.get(name) for trial in trials], trials)
    return found


def _columns_of(name: str, domain: Any, values: list[Any], trials: Sequence[FrozenTrial]) -> list[Column]:
    if isinstance(domain, Categorical):
        texts = [
            str(value) if name in trial.params else None for value, trial in zip(values, trials, strict=True)
        ]
        return [Column(name, texts, choices=tuple(map(str, domain.choices)))]
    shown: dict[str, Any] = {"low": domain.low, "high": domain.high, "log": domain.log}
    if not isinstance(domain, Array):
        return [Column(name, values, whole=isinstance(domain, Int), **shown)]
    if domain.size > _SHORT_ARRAY:
        means = [None if value is None else float(np.mean(value)) for value in values]
        return [Column(f"mean of {name}", means, **shown)]
    return [
        Column(
            f"{name}{list(place)}",
            [None if value is None else float(value[place]) for value in values],
            **shown,
        )
        for place in np.ndindex(domain.shape)
    ]


def told(trial: FrozenTrial) -> str:
    """What is said about a trial that the pointer is on."""
    lines = [f"trial {trial.number}, {trial.state.name.lower()}"]
    lines += [f"value {value:.7g}" for value in trial.values or ()]
    for name, value in list(trial.params.items())[:15]:
        shown = f"array {np.shape(value)}" if isinstance(value, np.ndarray) else value
        lines.append(f"{name} = {shown:.5g}" if isinstance(shown, float) else f"{name} = {shown}")
    return "<br>".join(map(plain, lines))


def plain(text: str) -> str:
    """Text in which plotly, which reads a few tags in its texts, sees none."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def axis(column: Column) -> dict[str, Any]:
    """The horizontal axis of a parameter."""
    if column.choices is not None:
        return {"type": "category", "categoryorder": "array", "categoryarray": list(column.choices)}
    if column.log:
        wide = column.high >= 100 * column.low  # then the powers of ten say enough
        return {"type": "log", "exponentformat": "power", **({"dtick": 1} if wide else {})}
    return {"type": "linear", **({"tickformat": "d"} if column.whole else {})}


def dimension(column: Column) -> dict[str, Any]:
    """An axis of parallel coordinates; what is absent stands below its range."""
    absent = any(value is None for value in column.values)
    if column.choices is not None:
        places = {choice: float(place) for place, choice in enumerate(column.choices)}
        ticks, texts = list(places.values()), [plain(choice) for choice in column.choices]
        low, high, below = 0.0, max(ticks), -1.0
    else:
        places = None
        turn = math.log10 if column.log else float
        there = [turn(value) for value in column.values if value is not None]
        low, high = min([turn(column.low), *there]), max([turn(column.high), *there])
        below = low - 0.15 * ((high - low) or 1.0)
        ticks = np.linspace(low, high, 5).tolist()
        texts = [f"{10**tick if column.log else tick:.3g}" for tick in ticks]
    place = places.__getitem__ if places else (math.log10 if column.log else float)
    found = {"label": plain(column.name), "range": [low, high]}
    found["values"] = [below if value is None else place(value) for value in column.values]
    if absent:
        ticks, texts, found["range"] = [below, *ticks], ["absent", *texts], [below, high]
    if absent or column.log or places:
        found |= {"tickvals": ticks, "ticktext": texts}
    return found
