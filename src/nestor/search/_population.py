"""Population based training: members that lag behind are replaced by copies of the best, with moved parameters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nestor.errors import BadArgument
from nestor.search._arguments import whole
from nestor.search._ledger import Ledger
from nestor.search._pruners import Curves
from nestor.search._records import TrialState
from nestor.search._samplers import generator, mixed, seed_or_new
from nestor.search._spaces import Array, Categorical, Domain


class PopulationBasedTraining:
    """A scheduler: a population trains side by side, and its worst members go on as altered copies of its best.

    A member pauses at every ``interval`` steps. When all have come there, each of the worst ``share`` ends as PRUNED,
    and a new trial goes on from the checkpoint of one of the best ``share`` (`Trial.restored`), with parameters that
    are moved a little from that one's, or drawn anew. So parameters follow a schedule: that of the line of the best
    trial. The attribute ``forked_from`` of such a trial holds the number of its parent and the step.

    A study under it is one population and ends by itself: call ``study.optimize(objective)`` without ``n_trials``.
    The objective saves a checkpoint before it reports, and begins at what was restored. With several workers the
    outcome is the same, but a slow member holds up the others at every interval.

    Args:
        population: how many members there are.
        interval: steps between two comparisons.
        share: of the population, those that are replaced, and those that are copied: in (0, 0.5].
        spread: the standard deviation of a move, in units of the range (of its logarithm, with ``log=True``).
        resample: the probability with which a parameter is drawn anew instead; a choice is moved only so.
        seed: makes the moves repeatable; None takes a new one.

    >>> from nestor import search
    >>> def objective(trial):
    ...     rate = trial.suggest_float("rate", 1e-3, 1.0, log=True)
    ...     step, x = trial.restored or (0, 1.0)
    ...     for step in range(step + 1, 41):
    ...         x *= 1 - rate if rate < 0.5 else 1 + rate
    ...         trial.checkpoint((step, x))
    ...         trial.report(x, step)
    ...         if trial.should_prune():
    ...             raise search.TrialPruned("waits for the others")
    ...     return x
    >>> scheduler = search.PopulationBasedTraining(population=4, interval=10, seed=0)
    >>> study = search.create_study(sampler=search.RandomSampler(seed=0), pruner=scheduler)
    >>> study.optimize(objective)
    >>> any("forked_from" in trial.user_attrs for trial in study.trials)
    True

    Source: Jaderberg et al., Population based training of neural networks, 2017.
    """

    def __init__(
        self,
        population: int = 8,
        interval: int = 1,
        *,
        share: float = 0.25,
        spread: float = 0.1,
        resample: float = 0.1,
        seed: int | None = None,
    ):
        where = "PopulationBasedTraining"
        self.population = whole(where, "population", population, least=2, example=8)
        self.interval = whole(where, "interval", interval, example=8)
        if not 0 < share <= 0.5:
            raise BadArgument(where, "share", got=share, want="in (0, 0.5]", do="pass 0.25")
        if not (spread > 0 and 0 <= resample <= 1):
            got = f"{spread}, {resample}"
            raise BadArgument(
                where, "spread, resample", got=got, want="positive, a probability", do="pass 0.1, 0.1"
            )
        self.share, self.spread, self.resample = float(share), float(spread), float(resample)
        self.seed = seed_or_new(where, seed)

    def __call__(self, curves: Curves, step: int) -> TrialState:
        """``PAUSED`` where an interval is over."""
        before = max([_begun(curves.ledger, curves.number), *(known for known in curves.own if known < step)])
        over = step // self.interval > max(before, 0) // self.interval
        return TrialState.PAUSED if over else TrialState.RUNNING

    def full(self, ledger: Ledger) -> bool:
        """Whether the population is complete, so that no trial begins but in the place of another."""
        if ledger.size < self.population:
            return False
        forks = sum("forked_from" in notes for notes in ledger.trial_attrs.values())
        return ledger.size - forks >= self.population

    def promote(self, ledger: Ledger) -> int | None:
        """A paused member that all others have come up to, and that is not among the worst: the slowest first."""
        found = [(step, number) for number, step, worst in self._ready(ledger) if number not in worst]
        return min(found)[1] if found else None

    def fork(self, ledger: Ledger) -> dict[str, Any] | None:
        """The entry that puts a copy of one of the best in the place of one of the worst, or None."""
        for number, step, worst in self._ready(ledger):
            if number not in worst:
                continue
            best = self._ranked(ledger, step)[: len(worst)]
            parents = [other for other in best if other in ledger.checkpoints and other not in worst]
            if not parents:
                continue
            parent = parents[mixed(self.seed, number, "parent") % len(parents)]
            notes = {"forked_from": [parent, step]}
            return {
                "number": number,
                "of": parent,
                "params": self._moved(ledger, parent, number),
                "attrs": notes,
            }
        return None

    def _ready(self, ledger: Ledger) -> list[tuple[int, int, set[int]]]:
        """The paused members that all others have come up to: number, step, and the worst at that step."""
        if not self.full(ledger):
            return []
        living = [*ledger.owners, *ledger.paused, *ledger.waiting]
        slowest = min(
            max([_begun(ledger, number), *ledger.reports.get(number, ())], default=-1) for number in living
        )
        ready, worst = [], {}
        for number in sorted(ledger.paused):
            step = max(ledger.reports.get(number, {-1: 0.0}))
            if step <= slowest:
                if step not in worst:
                    ranked = self._ranked(ledger, step)
                    worst[step] = set(ranked[len(ranked) - self._count(len(ranked)) :])
                ready.append((number, step, worst[step]))
        return ready

    def _count(self, members: int) -> int:
        """How many of some members are replaced."""
        return int(members * self.share) if members > 1 else 0

    def _ranked(self, ledger: Ledger, step: int) -> list[int]:
        """The numbers of those that reported at a step, the best first."""
        losses = Curves(ledger, -1).others(step)
        return sorted(
            losses, key=lambda number: (math.inf if math.isnan(losses[number]) else losses[number], number)
        )

    def _moved(self, ledger: Ledger, parent: int, number: int) -> dict[str, Any]:
        """The parameters of a trial, each moved or drawn anew."""
        found = {}
        for name in ledger.columns:
            known = ledger.param(parent, name)
            if known is not None:
                found[name] = self._altered(*known, generator(self.seed, number, name))
        return found

    def _altered(self, domain: Domain, value: Any, random: np.random.Generator) -> Any:
        anew = random.random() < self.resample
        if isinstance(domain, Array):
            place = domain.to_unit(value) + self.spread * random.standard_normal(domain.shape)
            return domain.from_unit(random.random(domain.shape) if anew else _folded(place)).tolist()
        if anew:
            return domain.from_unit(random.random())
        if isinstance(domain, Categorical):
            return value
        place = float(domain.to_unit(np.array(domain.encode(value))))
        return domain.from_unit(float(_folded(np.array(place + self.spread * random.standard_normal()))))


def _begun(ledger: Ledger, number: int) -> int:
    """The step at which a trial began: that of its parent, or -1."""
    return int(ledger.trial_attrs.get(number, {}).get("forked_from", (0, -1))[1])


def _folded(places: np.ndarray) -> np.ndarray:
    """Places reflected into [0, 1]."""
    places = np.abs(places) % 2.0
    return np.where(places > 1.0, 2.0 - places, places)
