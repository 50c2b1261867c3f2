"""Trials as a sequence that makes its records when they are looked at, and as a table."""

from __future__ import annotations

import datetime
import importlib
from collections.abc import Sequence
from typing import Any, overload

from nestor.errors import MissingExtra
from nestor.search._ledger import Ledger
from nestor.search._records import FrozenTrial, TrialState


class Trials(Sequence[FrozenTrial]):
    """The trials of a study as a view: it costs nothing to make, and a record is made for each trial looked at.

    >>> from nestor import search
    >>> study = search.create_study()
    >>> study.optimize(lambda trial: trial.number, n_trials=4)
    >>> [trial.value for trial in study.trials[1:3]]
    [1.0, 2.0]
    """

    __slots__ = ("_ledger", "_numbers")

    def __init__(self, ledger: Ledger, numbers: Sequence[int]):
        self._ledger, self._numbers = ledger, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> FrozenTrial: ...
    @overload
    def __getitem__(self, index: slice) -> Trials: ...

    def __getitem__(self, index: int | slice) -> Any:
        chosen = self._numbers[index]
        return Trials(self._ledger, chosen) if isinstance(chosen, Sequence) else self._ledger.trial(chosen)

    def __repr__(self) -> str:
        return f"Trials({len(self)} of them)"


def value_names(ledger: Ledger, metrics: Sequence[str] | None) -> list[str]:
    """The names of the columns that hold values, in a table."""
    count = len(ledger.directions)
    return ["value"] if count == 1 else [f"values_{one}" for one in metrics or range(count)]


def frame(ledger: Ledger, metrics: Sequence[str] | None = None) -> Any:
    """All trials as a pandas.DataFrame."""
    try:
        pandas = importlib.import_module("pandas")
    except ImportError as error:
        raise MissingExtra("pandas", "search", "a table of trials") from error
    names, rows = value_names(ledger, metrics), []
    for trial in Trials(ledger, range(ledger.size)):
        values = trial.values or (None,) * len(names)
        rows.append(
            {
                "number": trial.number,
                **dict(zip(names, values, strict=True)),
                "started": _moment(trial.started),
                "ended": _moment(trial.ended),
                "duration": trial.duration,
                **{f"params_{name}": value for name, value in trial.params.items()},
                **{f"user_attrs_{name}": value for name, value in trial.user_attrs.items()},
                "state": TrialState(trial.state).name,
            }
        )
    if not rows:  # the columns are there all the same
        return pandas.DataFrame(columns=["number", *names, "started", "ended", "duration", "state"])
    return pandas.DataFrame(rows)


def _moment(seconds: float | None) -> datetime.datetime | None:
    return None if seconds is None else datetime.datetime.fromtimestamp(seconds)
