"""Pruners: whether a trial goes on, stops, or pauses until it deserves more. Functions of what was reported."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np

from nestor.errors import BadArgument
from nestor.search._arguments import whole
from nestor.search._ledger import Ledger
from nestor.search._records import TrialState

GO_ON, STOP, PAUSE = TrialState.RUNNING, TrialState.PRUNED, TrialState.PAUSED


class Curves:
    """The curve of one trial beside those of the others, as losses: less is better whatever the direction.

    Where trials report one value an objective, the loss at a step is the share of the trials there that are better
    in one objective and not worse in any.

    Attributes:
        number: the trial's number.
        ledger: the columns of the study.
        horizon: the largest number that the trial may be compared with (the ordered mode), or None.
        commit: adds entries to the log of the study, for a pruner that must keep notes; or None.

    >>> from nestor import search
    >>> study = search.create_study(direction="maximize")
    >>> trial = study.ask()
    >>> trial.report(3.0, step=0)
    >>> curves = search.Curves(search.Register(study.storage).open(0).ledger, trial.number)
    >>> curves.own
    {0: -3.0}
    """

    __slots__ = ("commit", "horizon", "ledger", "number", "sign")

    def __init__(
        self,
        ledger: Ledger,
        number: int,
        horizon: int | None = None,
        commit: Callable[..., Any] | None = None,
    ):
        self.ledger, self.number, self.horizon, self.commit = ledger, number, horizon, commit
        self.sign = ledger.directions[0].sign

    @property
    def own(self) -> dict[int, float]:
        """Step to loss, of this trial."""
        reports = self.ledger.reports.get(self.number, {})
        if any(isinstance(value, tuple) for value in reports.values()):
            return {step: self._losses(step)[self.number] for step in reports}
        return {step: self.sign * value for step, value in reports.items()}

    def others(self, step: int) -> dict[int, float]:
        """Number to loss at a step, of the other trials that reported at it."""
        return {number: loss for number, loss in self._losses(step).items() if self._counts(number)}

    def reported(self, step: int) -> tuple[float, ...]:
        """What the trial reported at a step, as it was: one value, or one an objective."""
        value = self.ledger.reports[self.number][step]
        return value if isinstance(value, tuple) else (value,)

    def _losses(self, step: int) -> dict[int, float]:
        """Number to loss at a step, of this trial too."""
        found = {
            number: value
            for number, value in self.ledger.steps.get(step, {}).items()
            if number == self.number or self._counts(number)
        }
        if not any(isinstance(value, tuple) for value in found.values()):
            return {number: self.sign * value for number, value in found.items()}
        return dict(zip(found, dominated_shares(list(found.values()), self.ledger.signs), strict=True))

    def complete(self, step: int) -> np.ndarray:
        """The losses at a step of the other trials that are complete."""
        state = self.ledger.state
        return np.array([loss for n, loss in self.others(step).items() if state[n] == TrialState.COMPLETE])

    def _counts(self, number: int) -> bool:
        return number != self.number and (self.horizon is None or number <= self.horizon)


def losses_of(values: list[Any], signs: np.ndarray) -> np.ndarray:
    """Reported values, one alone or one an objective, as losses; NaN where an objective lacks. [n, objectives]."""
    lacking = (math.nan,) * (len(signs) - 1)
    return np.array([value if isinstance(value, tuple) else (value, *lacking) for value in values]) * signs


def dominated_shares(values: list[Any], signs: np.ndarray) -> list[float]:
    """For each of some values, one an objective, the share of them that dominate it; NaN where an objective lacks."""
    losses = losses_of(values, signs)
    not_worse = (losses[:, None, :] <= losses[None, :, :]).all(axis=-1)
    better = not_worse & (losses[:, None, :] < losses[None, :, :]).any(axis=-1)
    shares = better.sum(axis=0) / len(values)
    return np.where(np.isnan(losses).any(axis=1), math.nan, shares).tolist()


@runtime_checkable
class Pruner(Protocol):
    """What a pruner must do: say what becomes of a trial that has just reported at a step.

    ``TrialState.RUNNING`` lets it go on, ``PRUNED`` ends it, ``PAUSED`` lets it wait, with its checkpoint.
    A pruner that pauses also has ``promote(ledger)``: the number of a paused trial to go on with, or None. One with
    ``fork(ledger)`` may put another trial in the place of a paused one; see `PopulationBasedTraining`.

    >>> from nestor import search
    >>> class Never:
    ...     def __call__(self, curves, step):
    ...         return search.TrialState.RUNNING
    >>> isinstance(Never(), search.Pruner)
    True
    """

    def __call__(self, curves: Curves, step: int) -> TrialState:
        """What becomes of the trial."""
        ...


class PercentilePruner:
    """Stops a trial whose best value so far is outside the best ``percentile`` of complete trials at this step.

    Args:
        percentile: from 0 to 100; of 25, a trial must be among the best quarter.
        n_startup_trials: complete trials at this step before any is stopped.
        n_warmup_steps: steps before a trial may be stopped.
        interval_steps: looks at the first report in every so many steps.

    >>> from nestor import search
    >>> search.create_study(pruner=search.PercentilePruner(25.0)).pruner.percentile
    25.0
    """

    def __init__(
        self,
        percentile: float,
        *,
        n_startup_trials: int = 5,
        n_warmup_steps: int = 0,
        interval_steps: int = 1,
    ):
        if not 0 <= percentile <= 100:
            raise BadArgument(
                "PercentilePruner", "percentile", got=percentile, want="in [0, 100]", do="pass 50"
            )
        where, self.percentile = "PercentilePruner", float(percentile)
        self.n_startup_trials = whole(where, "n_startup_trials", n_startup_trials, least=0)
        self.n_warmup_steps = whole(where, "n_warmup_steps", n_warmup_steps, least=0)
        self.interval_steps = whole(where, "interval_steps", interval_steps)

    def __call__(self, curves: Curves, step: int) -> TrialState:
        """``PRUNED`` where its best value is worse than the percentile."""
        own = curves.own
        earlier = max((known for known in own if self.n_warmup_steps <= known < step), default=-math.inf)
        begins = step - (step - self.n_warmup_steps) % self.interval_steps
        if step < self.n_warmup_steps or earlier >= begins:
            return GO_ON
        losses = curves.complete(step)
        losses = losses[~np.isnan(losses)]
        if len(losses) < max(self.n_startup_trials, 1):
            return GO_ON
        best = min((loss for loss in own.values() if not math.isnan(loss)), default=math.inf)
        return STOP if best > _percentile(losses, self.percentile) else GO_ON


def _percentile(losses: np.ndarray, percentile: float) -> float:
    """The percentile of losses that may be infinite, linear between two of them."""
    place = percentile / 100.0 * (len(losses) - 1)
    ordered, low = np.sort(losses), int(place)
    left, right = float(ordered[low]), float(ordered[min(low + 1, len(losses) - 1)])
    share = place - low
    return left if share == 0.0 or left == right else left * (1.0 - share) + right * share


class MedianPruner(PercentilePruner):
    """Stops a trial whose best value so far is worse than the median of complete trials at this step.

    Args:
        n_startup_trials: complete trials at this step before any is stopped.
        n_warmup_steps: steps before a trial may be stopped.
        interval_steps: looks at the first report in every so many steps.

    >>> from nestor import search
    >>> def objective(trial):
    ...     x = trial.suggest_float("x", 0, 1)
    ...     for step in range(5):
    ...         trial.report(x, step)
    ...         if trial.should_prune():
    ...             raise search.TrialPruned("worse than half of them")
    ...     return x
    >>> study = search.create_study(sampler=search.RandomSampler(seed=0), pruner=search.MedianPruner())
    >>> study.optimize(objective, n_trials=20)
    >>> any(trial.state == search.TrialState.PRUNED for trial in study.trials)
    True
    """

    def __init__(self, *, n_startup_trials: int = 5, n_warmup_steps: int = 0, interval_steps: int = 1):
        super().__init__(
            50.0,
            n_startup_trials=n_startup_trials,
            n_warmup_steps=n_warmup_steps,
            interval_steps=interval_steps,
        )


class ThresholdPruner:
    """Stops a trial that reports a value out of bounds, in any objective, or no number at all.

    Args:
        lower: the least value that is good enough, or None.
        upper: the largest value that is good enough, or None.
        n_warmup_steps: steps before a trial may be stopped.

    >>> from nestor import search
    >>> study = search.create_study(pruner=search.ThresholdPruner(upper=10.0))
    >>> trial = study.ask()
    >>> trial.report(11.0, step=0)
    >>> trial.should_prune()
    True
    """

    def __init__(self, lower: float | None = None, upper: float | None = None, *, n_warmup_steps: int = 0):
        if lower is None and upper is None:
            raise BadArgument(
                "ThresholdPruner", "lower, upper", got="None", want="at least one", do="pass upper="
            )
        if lower is not None and upper is not None and not lower <= upper:
            got = f"{lower}, {upper}"
            raise BadArgument(
                "ThresholdPruner", "lower, upper", got=got, want="lower <= upper", do="swap them"
            )
        self.lower = -math.inf if lower is None else lower
        self.upper = math.inf if upper is None else upper
        self.n_warmup_steps = n_warmup_steps

    def __call__(self, curves: Curves, step: int) -> TrialState:
        """``PRUNED`` where the last value is out of bounds."""
        within = all(self.lower <= value <= self.upper for value in curves.reported(step))
        return STOP if step >= self.n_warmup_steps and not within else GO_ON


class PatientPruner:
    """Lets another pruner decide only after a trial has not improved for some steps, in any objective.

    Args:
        pruner: asked when patience is at its end; None stops the trial then.
        patience: reports without improvement that are borne.
        min_delta: what is less is no improvement.

    >>> from nestor import search
    >>> study = search.create_study(pruner=search.PatientPruner(None, patience=1))
    >>> trial = study.ask()
    >>> for step, value in enumerate([3.0, 2.0, 2.5, 2.4]):
    ...     trial.report(value, step)
    >>> trial.should_prune()
    True
    """

    def __init__(self, pruner: Pruner | None, patience: int, *, min_delta: float = 0.0):
        if not min_delta >= 0:
            raise BadArgument("PatientPruner", "min_delta", got=min_delta, want=">= 0", do="pass 0.0")
        self.pruner, self.min_delta = pruner, min_delta
        self.patience = whole("PatientPruner", "patience", patience, least=0, example=5)

    def __call__(self, curves: Curves, step: int) -> TrialState:
        """What the other pruner says, or ``PRUNED``, once the last reports bring nothing."""
        reports = curves.ledger.reports[curves.number]
        losses = losses_of([reports[known] for known in sorted(reports)], curves.ledger.signs)
        losses = losses[:, ~np.isnan(losses).all(axis=0)]  # those that are reported
        losses = np.where(np.isnan(losses), math.inf, losses)  # what is no number is no improvement
        before, recent = losses[: -self.patience - 1], losses[-self.patience - 1 :]
        if not len(before) or not (before.min(axis=0) + self.min_delta < recent.min(axis=0)).all():
            return GO_ON
        return STOP if self.pruner is None else self.pruner(curves, step)
