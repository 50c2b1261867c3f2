"""Successive halving, by itself and in the brackets of Hyperband: most trials stop or pause early, the best go on."""

from __future__ import annotations

import math

import numpy as np

from nestor.errors import BadArgument
from nestor.search._ledger import Ledger
from nestor.search._pruners import GO_ON, PAUSE, STOP, Curves
from nestor.search._records import TrialState
from nestor.search._samplers import mixed


class SuccessiveHalvingPruner:
    """Asynchronous successive halving: at steps r, r eta, r eta^2, ... only the best of eta trials go on.

    With ``promote=True`` a trial that has a checkpoint pauses instead of ending. When others came to that step and
    left it among the best, it is resumed: `Study.ask` hands it out again, and its objective finds what it saved
    in ``trial.restored``.

    Args:
        min_resource: the first step at which trials are compared.
        reduction_factor: eta.
        promote: whether trials pause and may come back.
        min_early_stopping_rate: steps of this ladder that are left out at the start.

    >>> from nestor import search
    >>> def objective(trial):
    ...     x = trial.suggest_float("x", 0, 1)
    ...     for step in range(trial.restored or 0, 9):
    ...         trial.checkpoint(step + 1)
    ...         trial.report(x, step + 1)
    ...         if trial.should_prune():
    ...             raise search.TrialPruned("others are better")
    ...     return x
    >>> pruner = search.SuccessiveHalvingPruner(1, 3, promote=True)
    >>> study = search.create_study(sampler=search.RandomSampler(seed=0), pruner=pruner)
    >>> study.optimize(objective, n_trials=27)
    >>> sum(trial.attempt > 1 for trial in study.trials) > 0
    True

    Source: Li et al., A system for massively parallel hyperparameter tuning, MLSys 2020.
    """

    def __init__(
        self,
        min_resource: int = 1,
        reduction_factor: int = 4,
        *,
        promote: bool = False,
        min_early_stopping_rate: int = 0,
    ):
        if not min_resource >= 1:
            raise BadArgument(
                "SuccessiveHalvingPruner", "min_resource", got=min_resource, want=">= 1", do="pass 1"
            )
        _check_factor("SuccessiveHalvingPruner", reduction_factor)
        self.min_resource, self.reduction_factor, self.promotes = min_resource, reduction_factor, promote
        self.min_early_stopping_rate = min_early_stopping_rate

    def __call__(self, curves: Curves, step: int) -> TrialState:
        """``PRUNED`` or ``PAUSED`` at the foot of a rung where too many are better."""
        rung = self._rung(step)
        earlier = max((known for known in curves.own if known < step), default=-1)
        if rung is None or self._rung(earlier) == rung:
            return GO_ON
        others = list(self._at(curves, rung).values())
        if self._leads(curves.own[step], others, len(others) + 1):
            return GO_ON
        return PAUSE if self.promotes else STOP

    def promote(self, ledger: Ledger) -> int | None:
        """The paused trial that has come among the best of its rung, the farthest first."""
        waiting: dict[int, list[int]] = {}
        for number in ledger.paused:
            rung = self._rung(max(ledger.reports.get(number, ()), default=-1))
            if rung is not None and self._is_mine(number):
                waiting.setdefault(rung, []).append(number)
        for rung in sorted(waiting, reverse=True):
            losses = self._at(Curves(ledger, -1), rung)
            if len(losses) < self.reduction_factor:
                continue
            among = list(losses.values())
            leading = [number for number in waiting[rung] if self._leads(losses[number], among, len(among))]
            if leading:
                return min(leading)
        return None

    def _leads(self, loss: float, others: list[float], count: int) -> bool:
        """Whether a loss is among the best of eta out of so many; alone, it is."""
        if math.isnan(loss):
            return False
        return sum(other < loss for other in others) < max(count // self.reduction_factor, 1)

    def _rung(self, step: int) -> int | None:
        """How many comparisons lie at or before a step, less one; None before the first."""
        rung, foot = -1, self.min_resource * self.reduction_factor**self.min_early_stopping_rate
        while step >= foot:
            rung, foot = rung + 1, foot * self.reduction_factor
        return None if rung < 0 else rung

    def _at(self, curves: Curves, rung: int) -> dict[int, float]:
        """Number to loss of the others, at their first report on a rung."""
        first: dict[int, float] = {}
        for step in sorted(curves.ledger.steps):
            if self._rung(step) == rung:
                for number, loss in curves.others(step).items():
                    if self._is_mine(number):
                        first.setdefault(number, loss)
        return first

    def _is_mine(self, number: int) -> bool:
        """Whether a trial is among those that are compared."""
        return True


def _check_factor(where: str, factor: float) -> None:
    if not factor >= 2:
        raise BadArgument(where, "reduction_factor", got=factor, want=">= 2", do="pass 3")


class HyperbandPruner:
    """Successive halving in several brackets, which begin to compare at r, r eta, r eta^2, ...

    Which bracket a trial is in follows from its number. Trials are compared within their bracket.

    Args:
        min_resource: r.
        max_resource: the step at which a trial ends.
        reduction_factor: eta.
        promote: whether trials pause and may come back; see `SuccessiveHalvingPruner`.

    >>> from nestor import search
    >>> pruner = search.HyperbandPruner(1, 27, 3)
    >>> sorted({pruner.bracket(number) for number in range(100)})
    [0, 1, 2, 3]

    Source: Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar, Hyperband, JMLR 18, 2018.
    """

    def __init__(
        self,
        min_resource: int = 1,
        max_resource: int = 81,
        reduction_factor: int = 3,
        *,
        promote: bool = False,
    ):
        if not max_resource >= min_resource >= 1:
            got = f"{min_resource}, {max_resource}"
            raise BadArgument(
                "HyperbandPruner",
                "min_resource, max_resource",
                got=got,
                want="1 <= min <= max",
                do="pass 1, 81",
            )
        _check_factor("HyperbandPruner", reduction_factor)
        count, foot = 1, min_resource * reduction_factor
        while foot <= max_resource:
            count, foot = count + 1, foot * reduction_factor
        shares = [math.ceil(count * reduction_factor ** (count - 1 - b) / (count - b)) for b in range(count)]
        self._ends = np.cumsum(shares).tolist()
        self.brackets = [_Bracket(self, b, min_resource, reduction_factor, promote) for b in range(count)]

    def bracket(self, number: int) -> int:
        """The bracket of a trial."""
        share = mixed(0, number, "bracket") % self._ends[-1]
        return next(place for place, end in enumerate(self._ends) if share < end)

    def __call__(self, curves: Curves, step: int) -> TrialState:
        """What successive halving says within the bracket."""
        return self.brackets[self.bracket(curves.number)](curves, step)

    def promote(self, ledger: Ledger) -> int | None:
        """A paused trial of any bracket that has come among the best."""
        found = [number for bracket in self.brackets if (number := bracket.promote(ledger)) is not None]
        return min(found, default=None)


class _Bracket(SuccessiveHalvingPruner):
    """Successive halving among the trials of one bracket."""

    def __init__(self, whole: HyperbandPruner, place: int, resource: int, factor: int, promote: bool):
        super().__init__(resource, factor, promote=promote, min_early_stopping_rate=place)
        self._whole, self._place = whole, place

    def _is_mine(self, number: int) -> bool:
        return self._whole.bracket(number) == self._place
