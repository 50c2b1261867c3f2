"""Samplers that do not learn. Every sampler is a pure function of its seed, the number of the trial and the history."""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from nestor.errors import BadArgument
from nestor.search._ledger import History
from nestor.search._spaces import Array, Domain

_MASK = 2**64 - 1


class Asked:
    """One trial as a sampler sees it while it suggests.

    Attributes:
        number: the number of the trial.
        history: the finished trials that it may learn from.
        given: the parameters that the trial has already: name to (domain, place in [0, 1]).
        memo: for what the sampler derives from those, from one suggestion to the next.
        exactly: None, or name to the value that a place stands for, set by a sampler that means it to the last bit.
        commit: adds entries to the log of the study, for a sampler that must keep notes beside trials (those of
            other libraries); None where there is no log. What samplers suggest is written down without it.

    >>> from nestor import search
    >>> class Alternating:
    ...     def __call__(self, asked, name, domain):
    ...         return asked.number % 2
    >>> study = search.create_study(sampler=Alternating())
    >>> [trial.suggest_int("x", 0, 9) for trial in study.ask(4)]
    [0, 9, 0, 9]
    """

    __slots__ = ("commit", "exactly", "given", "history", "memo", "number")

    def __init__(self, number: int, history: History, commit: Callable[..., Any] | None = None):
        self.number, self.history, self.commit = number, history, commit
        self.given: dict[str, tuple[Domain, Any]] = {}
        self.memo: dict[Any, Any] = {}
        self.exactly: dict[str, Any] | None = None


@runtime_checkable
class Sampler(Protocol):
    """What a sampler must do: name a place in [0, 1] for one parameter of one trial.

    It has to be a function of its settings and its arguments: no state and no other source of randomness. That is
    why a study can be interrupted, resumed and shared among workers, and is the same.

    >>> from nestor import search
    >>> class Middle:
    ...     def __call__(self, asked, name, domain):
    ...         return 0.5
    >>> study = search.create_study(sampler=Middle())
    >>> round(study.ask().suggest_float("x", 1e-4, 1.0, log=True), 6)
    0.01
    """

    def __call__(self, asked: Asked, name: str, domain: Domain) -> Any:
        """A place in [0, 1], or an array of places for an `Array`."""
        ...


def seed_or_new(where: str, seed: int | None) -> int:
    """A seed as it was given, or a new one."""
    if seed is None:
        return int.from_bytes(os.urandom(6), "little")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise BadArgument(where, "seed", got=seed, want="None or a whole number >= 0", do="pass seed=0")
    return int(seed)


def mixed(seed: int, number: int, name: str) -> int:
    """64 bits that look random, of a seed, a trial and a name (splitmix64, thrice)."""
    bits = 0
    for part in (seed, number, zlib.crc32(name.encode())):
        bits = (bits + part + 0x9E3779B97F4A7C15) & _MASK
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
        bits ^= bits >> 31
    return bits


def mixed_many(seed: int, numbers: np.ndarray, name: str) -> np.ndarray:
    """The same for many trials: uint64 [n] -> uint64 [n]."""
    bits = np.zeros(len(numbers), np.uint64)
    for part in (np.uint64(seed & _MASK), numbers, np.uint64(zlib.crc32(name.encode()))):
        bits = bits + part + np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits = bits ^ (bits >> np.uint64(31))
    return bits


def generator(seed: int, number: int, name: str) -> np.random.Generator:
    """A generator of random numbers for one parameter of one trial."""
    return np.random.Generator(np.random.Philox(key=mixed(seed, number, name)))


def uniform(seed: int, number: int, name: str, domain: Domain) -> Any:
    """A place in [0, 1), uniform."""
    if isinstance(domain, Array):
        return generator(seed, number, name).random(domain.shape)
    return (mixed(seed, number, name) >> 11) * 2.0**-53


class RandomSampler:
    """Independent, uniform: a baseline, and the right thing for a first look.

    Args:
        seed: makes the study repeatable; None takes a new one.

    >>> from nestor import search
    >>> first, second = (search.create_study(sampler=search.RandomSampler(seed=1)) for _ in range(2))
    >>> first.ask().suggest_float("x", 0, 1) == second.ask().suggest_float("x", 0, 1)
    True
    """

    def __init__(self, seed: int | None = None):
        self.seed = seed_or_new("RandomSampler", seed)

    def __call__(self, asked: Asked, name: str, domain: Domain) -> Any:
        """A place in [0, 1)."""
        return uniform(self.seed, asked.number, name, domain)

    def places(self, numbers: Sequence[int], name: str) -> list[float]:
        """The same for a parameter, not an array, of many trials at once."""
        bits = mixed_many(self.seed, np.array(numbers, np.uint64), name)
        return ((bits >> np.uint64(11)) * 2.0**-53).tolist()


class QuasiRandomSampler:
    """A scrambled Sobol sequence (`scipy.stats.qmc`): covers the space more evenly than random points.

    The parameter that a trial suggests as its k-th takes the k-th coordinate, up to 32; arrays and what comes
    after are random.

    Args:
        seed: makes the study repeatable; None takes a new one.

    >>> from nestor import search
    >>> study = search.create_study(sampler=search.QuasiRandomSampler(seed=0))
    >>> study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=8)
    >>> sorted(int(trial.params["x"] * 8) for trial in study.trials)
    [0, 1, 2, 3, 4, 5, 6, 7]
    """

    _coordinates, _block = 32, 256

    def __init__(self, seed: int | None = None):
        self.seed = seed_or_new("QuasiRandomSampler", seed)

    def __call__(self, asked: Asked, name: str, domain: Domain) -> Any:
        """A place in [0, 1)."""
        coordinate = len(asked.given)
        if isinstance(domain, Array) or coordinate >= self._coordinates:
            return uniform(self.seed, asked.number, name, domain)
        block, row = divmod(asked.number, self._block)
        return float(_sobol(self.seed, block, self._coordinates, self._block)[row, coordinate])


@functools.lru_cache(maxsize=8)
def _sobol(seed: int, block: int, coordinates: int, rows: int) -> np.ndarray:
    """A block of the sequence; 0 <= entry < 1."""
    from scipy.stats import qmc

    name = "rng" if "rng" in inspect.signature(qmc.Sobol).parameters else "seed"  # SciPy before 1.15
    random: dict[str, Any] = {name: np.random.default_rng(seed)}
    engine = qmc.Sobol(coordinates, scramble=True, **random)
    if block:
        engine.fast_forward(block * rows)
    return np.minimum(engine.random(rows), 1 - 2.0**-53)


class GridSampler:
    """All combinations of given values, once each; then the study stops.

    The trial of number k takes the k-th combination. So a study that had other trials before, or where some are
    enqueued, goes without the combinations of their numbers.

    Args:
        grid: parameter name to the values that it takes.
        seed: shuffles the combinations; None takes them in order.

    >>> from nestor import search
    >>> study = search.create_study(sampler=search.GridSampler({"x": [0.0, 0.5], "y": [1, 2, 3]}))
    >>> study.optimize(lambda trial: trial.suggest_float("x", 0, 1) + trial.suggest_int("y", 1, 3))
    >>> len(study.trials), study.best_params
    (6, {'x': 0.0, 'y': 1})
    """

    def __init__(self, grid: Mapping[str, Sequence[Any]], seed: int | None = None):
        self.grid = {name: tuple(values) for name, values in grid.items()}
        if not self.grid or not all(self.grid.values()):
            raise BadArgument(
                "GridSampler", "grid", got=grid, want="names with values", do="give each a value"
            )
        self._points = list(itertools.product(*self.grid.values()))
        if seed is not None:
            seed = seed_or_new("GridSampler", seed)
            order = np.random.default_rng(seed).permutation(len(self._points))
            self._points = [self._points[place] for place in order]

    @property
    def limit(self) -> int:
        """How many trials there are to make."""
        return len(self._points)

    def __call__(self, asked: Asked, name: str, domain: Domain) -> Any:
        """The place of the value of this combination."""
        if name not in self.grid:
            raise BadArgument(
                "GridSampler", "grid", got=f"without '{name}'", want="complete", do=f"add values of '{name}'"
            )
        value = self._points[asked.number % len(self._points)][list(self.grid).index(name)]
        if not domain.contains(value):
            raise BadArgument("GridSampler", "grid", got=value, want=f"in {domain}", do=f"mend '{name}'")
        if isinstance(domain, Array):
            value = np.asarray(value, float)
        asked.exactly = {**(asked.exactly or {}), name: value}
        if isinstance(domain, Array):
            return domain.to_unit(value)
        return float(domain.to_unit(np.array(domain.encode(value))))
