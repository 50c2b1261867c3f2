"""Samplers that propose all parameters of a trial at once; what they have no word on is left to TPE."""

from __future__ import annotations

from typing import Any

from nestor.search._samplers import Asked, seed_or_new
from nestor.search._spaces import Domain
from nestor.search._threads import one_thread
from nestor.search._tpe import TPESampler


class Proposing:
    """What such samplers have in common.

    Args:
        where: the name of the sampler, for messages.
        seed: None takes a new one.
    """

    def __init__(self, where: str, seed: int | None):
        self.seed = seed_or_new(where, seed)
        self._otherwise = TPESampler(self.seed)

    def __call__(self, asked: Asked, name: str, domain: Domain) -> Any:
        """A place in [0, 1], or an array of places."""
        if "proposed" not in asked.memo:
            with one_thread():
                asked.memo["proposed"] = self._propose(asked)
        proposed = asked.memo["proposed"].get(name)
        if proposed is None or proposed[0] != domain:
            return self._otherwise(asked, name, domain)
        return proposed[1]

    def told(self, asked: Asked, name: str, domain: Domain, place: Any) -> None:
        """A parameter of the trial is settled."""
        self._otherwise.told(asked, name, domain, place)

    def _propose(self, asked: Asked) -> dict[str, tuple[Domain, Any]]:
        """Name to (domain, place); empty where the sampler does not apply."""
        raise NotImplementedError("a sampler of this kind says what it proposes")
