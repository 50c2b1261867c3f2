"""Tree-structured Parzen estimators over columns, multivariate by conditioning."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from nestor.search._arguments import whole
from nestor.search._ledger import History
from nestor.search._records import TrialState
from nestor.search._samplers import Asked, generator, seed_or_new, uniform
from nestor.search._spaces import Array, Categorical, Domain

_MOST_GOOD = 25
_MOST_BAD = 1500  # of more, every so manieth by rank: the density changes little, the cost is bounded
_CANDIDATES = 8
_RISK_WIDTH = 0.05  # of the kernels that tell where trials fail; narrower, because the edge is sharp
_RISK_WEIGHT = 5.0


class TPESampler:
    r"""Tree-structured Parzen estimators: try what is likely among good trials and unlikely among the others.

    With :math:`l` the density of the best trials and :math:`g` that of the others, finished badly, failed or still
    running (the constant liar), each a mixture of one kernel a trial and a uniform one, a parameter is the best of
    eight draws :math:`x \sim l(\cdot \mid \text{what the trial has so far})` by :math:`l(x \mid \ldots) /
    g(x \mid \ldots)`. Conditioning means to weigh every kernel by how well it explains the parameters that the
    trial has already, so that a conditional space needs no declaration: a kernel without a parameter has no
    opinion on it. Trials rank by value (by fronts and crowding for several objectives), then pruned ones, then
    those that miss constraints, then failed ones. Where trials failed, candidates are also weighed by the
    probability not to fail.

    Cost: a suggestion looks at eight candidates times at most 1500 trials. An `Array` is drawn as a whole near a
    good one, without a choice among candidates.

    Args:
        seed: makes the study repeatable; None takes a new one.
        n_startup: random trials before it starts to learn.

    >>> from nestor import search
    >>> study = search.create_study(sampler=search.TPESampler(seed=0))
    >>> study.optimize(lambda trial: (trial.suggest_float("x", -10, 10) - 2) ** 2, n_trials=60)
    >>> abs(study.best_params["x"] - 2) < 0.5
    True

    Source: Bergstra, Bardenet, Bengio and Kegl, Algorithms for hyper-parameter optimization, NeurIPS 2011;
    the multivariate kernel: Falkner, Klein and Hutter, BOHB, ICML 2018.
    """

    def __init__(self, seed: int | None = None, *, n_startup: int = 10):
        self.seed = seed_or_new("TPESampler", seed)
        self.n_startup = whole("TPESampler", "n_startup", n_startup, example=10)

    def __call__(self, asked: Asked, name: str, domain: Domain) -> Any:
        """A place in [0, 1], or an array of places."""
        if len(asked.history.rows) < self.n_startup:
            return uniform(self.seed, asked.number, name, domain)
        mixtures = asked.memo.get("tpe")
        if mixtures is None:
            good, bad, failed = split(asked.history)
            if len(good) == 0:
                return uniform(self.seed, asked.number, name, domain)
            bad = np.concatenate([bad, np.array(asked.history.pending(asked.number), int)])
            mixtures = asked.memo["tpe"] = _Mixtures(asked.history, good, bad, failed)
            for known, (its_domain, place) in asked.given.items():
                mixtures.condition(known, its_domain, place)
        random = generator(self.seed, asked.number, name)
        if isinstance(domain, Array):
            return mixtures.draw_array(name, domain, random)
        return mixtures.best(name, domain, random)

    def told(self, asked: Asked, name: str, domain: Domain, place: Any) -> None:
        """A parameter of the trial is settled: the next ones are drawn given this one."""
        if "tpe" in asked.memo:
            asked.memo["tpe"].condition(name, domain, place)


class _Mixtures:
    """The densities of good, bad and failed trials, each kernel weighed by what the trial has so far."""

    def __init__(self, history: History, good: np.ndarray, bad: np.ndarray, failed: np.ndarray):
        dimensions = max(len(history.ledger.columns), 1)
        self.good = _Mixture(history, good, dimensions)
        self.bad = _Mixture(history, bad, dimensions)
        self.risk: tuple[_Mixture, _Mixture] | None = None
        if len(failed):
            worked = np.setdiff1d(history.rows, failed)[-_MOST_BAD:]
            self.risk = _Mixture(history, failed, dimensions), _Mixture(history, worked, dimensions)
            for side in self.risk:
                side.width = _RISK_WIDTH

    def best(self, name: str, domain: Domain, random: np.random.Generator) -> float:
        """The candidate with the best ratio of the densities."""
        if domain.count == 1:
            return 0.5
        if isinstance(domain, Categorical):
            places = domain.to_unit(np.arange(domain.count, dtype=float))
            probabilities = np.exp(self.good.log_density(name, domain, places))
            drawn = random.choice(len(places), size=_CANDIDATES, p=probabilities / probabilities.sum())
            candidates = places[np.unique(drawn)]
        else:
            candidates = self.good.draw(name, domain, random)
        score = self.good.log_density(name, domain, candidates) - self.bad.log_density(
            name, domain, candidates
        )
        if self.risk is not None:
            fails, works = (side.log_share(name, domain, candidates) for side in self.risk)
            score -= _RISK_WEIGHT * np.logaddexp(0.0, fails - works)
        return float(candidates[int(np.argmax(score))])

    def draw_array(self, name: str, domain: Array, random: np.random.Generator) -> np.ndarray:
        """The array of a good trial, moved by the width of the kernels; now and then a new one."""
        numbers = self.good.numbers_with(name, domain)
        if len(numbers) == 0 or random.random() < 1.0 / (len(numbers) + 1):
            return random.random(domain.shape)
        arrays = self.good.ledger.columns[name].arrays
        centre = domain.to_unit(arrays[int(random.choice(numbers))])
        place = centre + self.good.width * random.standard_normal(domain.shape)
        place = np.abs(place)  # reflected into [0, 1]
        return np.clip(np.where(place > 1.0, 2.0 - place, place), 0.0, 1.0)

    def condition(self, name: str, domain: Domain, place: Any) -> None:
        """Weigh the kernels by how well they explain a parameter."""
        if not isinstance(domain, Array):
            for mixture in (self.good, self.bad, *(self.risk or ())):
                mixture.condition(name, domain, place)


class _Mixture:
    """One kernel a trial, and a uniform one as the last."""

    def __init__(self, history: History, numbers: np.ndarray, dimensions: int):
        self.ledger, self.numbers, self.count = history.ledger, numbers, len(numbers)
        self.width = max(
            0.2 * max(self.count, 1) ** (-1.0 / (dimensions + 4)), 1.0 / min(100.0, 1.0 + self.count)
        )
        self.log_weights = np.zeros(self.count + 1, np.float32)
        self.evidence = 0.0  # the log density of what the trial has so far
        self._seen: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def kernels(self, name: str, domain: Domain) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of a parameter: the centres (0.5 where absent), which are there, and the log of the kernels' masses."""
        if name not in self._seen:
            column = self.ledger.columns.get(name)
            if column is None or isinstance(domain, Array) or self.count == 0:
                there = np.zeros(self.count, bool)
                centres = np.full(self.count, 0.5, np.float32)
            else:
                there = column.kinds[self.numbers] > 0
                with np.errstate(invalid="ignore"):
                    centres = domain.to_unit(column.values[self.numbers])
                if not isinstance(domain, Categorical):
                    there &= (centres >= 0) & (centres <= 1)  # a range that moved
                centres = np.where(there, centres, 0.5).astype(np.float32)
            log_mass = np.interp(centres, *_log_masses(self.width)).astype(np.float32)
            self._seen[name] = centres, there, log_mass
        return self._seen[name]

    def numbers_with(self, name: str, domain: Domain) -> np.ndarray:
        """The trials that have this parameter, of this domain."""
        column = self.ledger.columns.get(name)
        if column is None:
            return np.zeros(0, int)
        kinds = {place for place, known in enumerate(self.ledger.domains, 1) if known == domain}
        return np.array(
            [number for number in self.numbers.tolist() if int(column.kinds[number]) in kinds], int
        )

    def log_kernels(self, name: str, domain: Domain, places: np.ndarray) -> np.ndarray:
        """The log density of every kernel at every place: [places, kernels + 1]; the uniform one is 0."""
        centres, there, log_mass = self.kernels(name, domain)
        table = np.zeros((len(places), self.count + 1), np.float32)
        inner = table[:, :-1]
        if isinstance(domain, Categorical):
            same = np.abs(places[:, None].astype(np.float32) - centres) * domain.count < 0.5
            other = 1.0 / max(self.count, 1)
            total = math.log((1.0 + domain.count * other) / domain.count)
            inner[...] = np.where(same, math.log(1.0 + other) - total, math.log(other) - total)
        else:
            np.subtract(places[:, None].astype(np.float32), centres, out=inner)
            inner *= np.float32(math.sqrt(0.5) / self.width)
            np.multiply(inner, inner, out=inner)
            np.add(inner, log_mass, out=inner)
            np.negative(inner, out=inner)
        if not there.all():
            inner[:, ~there] = 0.0
        return table

    def log_density(self, name: str, domain: Domain, places: np.ndarray) -> np.ndarray:
        """The log of the mixture at places, given what the trial has so far."""
        table = self.log_kernels(name, domain, places)
        table += self.log_weights
        top = table.max(axis=1, keepdims=True)
        table -= top
        np.exp(table, out=table)
        return np.log(table.sum(axis=1)) + top[:, 0] - _log_sum(self.log_weights)

    def log_share(self, name: str, domain: Domain, places: np.ndarray) -> np.ndarray:
        """The log of how many of these trials one would expect at places, what the trial has so far included."""
        return self.log_density(name, domain, places) + self.evidence + math.log(self.count + 1)

    def draw(self, name: str, domain: Domain, random: np.random.Generator) -> np.ndarray:
        """Places drawn from the mixture, moved to the middle of their cells."""
        centres, there, _ = self.kernels(name, domain)
        weights = np.exp((self.log_weights - self.log_weights.max()).astype(float))
        cumulative = np.cumsum(weights)
        chosen = np.searchsorted(cumulative, random.random(_CANDIDATES) * cumulative[-1], side="right")
        chosen = np.minimum(chosen, self.count)
        flat = np.concatenate([~there, [True]])[chosen]
        middle = np.concatenate([centres, [0.5]])[chosen].astype(float)
        normals = middle[:, None] + self.width * random.standard_normal((_CANDIDATES, 8))
        inside = (normals >= 0) & (normals <= 1)
        first = normals[np.arange(_CANDIDATES), inside.argmax(axis=1)]
        places = np.where(flat | ~inside.any(axis=1), random.random(_CANDIDATES), first)
        if domain.count is not None and not isinstance(domain, Array):
            values = np.array([domain.encode(domain.from_unit(place)) for place in places.tolist()])
            places = np.unique(domain.to_unit(values))
        return places

    def condition(self, name: str, domain: Domain, place: float) -> None:
        """Weigh every kernel by its density at the place that a parameter took."""
        more = self.log_kernels(name, domain, np.array([place]))[0]
        before = _log_sum(self.log_weights)
        self.log_weights = self.log_weights + more
        self.evidence += _log_sum(self.log_weights) - before


def split(history: History) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The numbers of the best trials, of the others (thinned when they are many), and of those that failed."""
    if "split" not in history.memo:
        rows, ledger = history.rows, history.ledger
        states = ledger.state[rows]
        failed = rows[states == TrialState.FAILED]
        ranked = ranking(history)
        wanted = min(math.ceil(0.1 * len(ranked)), _MOST_GOOD)
        complete = int(np.count_nonzero(states != TrialState.FAILED))
        good, bad = ranked[: min(wanted, complete)], ranked[min(wanted, complete) :]
        if len(bad) > _MOST_BAD:
            bad = bad[np.linspace(0, len(bad) - 1, _MOST_BAD).astype(int)]
        history.memo["split"] = good, bad, failed[-_MOST_BAD:]
    return history.memo["split"]


def ranking(history: History) -> np.ndarray:
    """The numbers of the finished trials, the best first."""
    rows, ledger = history.rows, history.ledger
    states = ledger.state[rows]
    missed = ledger.violations(rows)
    losses = ledger.values[rows] * ledger.signs
    complete = states == TrialState.COMPLETE
    grade = np.where(complete, 0, np.where(states == TrialState.PRUNED, 1, 3))
    grade = np.where((missed > 0) & (grade < 3), 2, grade)
    loss = losses[:, 0] if losses.shape[1] == 1 else _front_order(losses, grade == 0)
    loss = np.where(np.isnan(loss), np.inf, loss)
    if not grade.any():
        return rows[np.argsort(loss, kind="stable")]
    steps = np.zeros(len(rows))
    for place in np.flatnonzero(grade == 1).tolist():
        steps[place] = -max(ledger.reports.get(int(rows[place]), {0: 0.0}))
    return rows[np.lexsort((loss, np.where(grade == 2, missed, steps), grade))]


def _front_order(losses: np.ndarray, complete: np.ndarray) -> np.ndarray:
    """Ranks for several objectives: front by front, the less crowded first, until more are ranked than are good."""
    rank = np.full(len(losses), np.inf)
    rank[~complete] = losses[~complete, 0]
    rank[complete] = front_by_front(losses[complete], _MOST_GOOD + 1)
    return rank


def front_by_front(losses: np.ndarray, wanted: int) -> np.ndarray:
    """The rank of each row: front by front, the less crowded first, until so many are ranked. [n, k] -> [n]."""
    rank = np.empty(len(losses))
    left, done = np.arange(len(losses)), 0
    while len(left) and done < wanted:
        front = left[non_dominated(losses[left])]
        order = front[np.argsort(-_crowding(losses[front]), kind="stable")]
        rank[order] = done + np.arange(len(order))
        done += len(front)
        left = np.setdiff1d(left, front)
    rank[left] = done + np.arange(len(left))
    return rank


def non_dominated(losses: np.ndarray) -> np.ndarray:
    """Which rows no other row dominates: less or equal everywhere and less somewhere. [n, k] -> [n]."""
    best = np.ones(len(losses), bool)
    for place in np.lexsort(losses.T[::-1]).tolist():
        if best[place]:
            worse = (losses >= losses[place]).all(axis=1) & (losses > losses[place]).any(axis=1)
            best &= ~worse
    return best


def _crowding(losses: np.ndarray) -> np.ndarray:
    """The crowding distance of NSGA-II: how far apart a row's neighbours are. [n, k] -> [n]."""
    distance = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        span = max(float(column[order[-1]] - column[order[0]]), 1e-300)
        distance[order[[0, -1]]] = np.inf
        distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distance


def _log_sum(logs: np.ndarray) -> float:
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).sum()))


@functools.lru_cache(maxsize=256)
def _log_masses(width: float) -> tuple[np.ndarray, np.ndarray]:
    """Centres in [0, 1], and the log of the integral over [0, 1] of exp(-(x - centre)^2 / 2 width^2)."""
    centres = np.linspace(0.0, 1.0, 513)
    mass = _normal_cdf((1.0 - centres) / width) - _normal_cdf(-centres / width)
    return centres, np.log(np.maximum(mass * (width * math.sqrt(2 * math.pi)), 1e-30))


def _normal_cdf(x: np.ndarray) -> np.ndarray:
    """The normal distribution function, to 1e-7 (Abramowitz and Stegun, 7.1.26)."""
    z = np.abs(x) * math.sqrt(0.5)
    t = 1.0 / (1.0 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    upper = 0.5 * series * np.exp(-z * z)
    return np.where(x < 0, upper, 1.0 - upper)
