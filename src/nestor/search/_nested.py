"""Studies inside trials of other studies: who belongs to whom, and what it all cost."""

from __future__ import annotations

from typing import Any

from nestor.search._channels import channel_to
from nestor.search._ledger import Ledger
from nestor.search._records import TrialState
from nestor.search._register import Register
from nestor.search._storages import Storage


def inner(storage: Storage, identity: str) -> dict[int, list[dict[str, Any]]]:
    """Number of a trial to the headers of the studies that were made inside it."""
    found: dict[int, list[dict[str, Any]]] = {}
    for header in Register(storage).studies().values():
        parent = header.get("parent")
        if parent is not None and parent["id"] == identity:
            found.setdefault(parent["number"], []).append(header)
    return found


def cost(storage: Storage, identity: str, ledger: Ledger, number: int | None = None) -> float:
    """What one trial of a study cost, or all of them, with the studies inside them."""
    numbers = range(ledger.size) if number is None else [number]
    below = inner(storage, identity)
    total = 0.0
    for one in numbers:
        headers = below.get(one, [])
        begun = ledger.state[one] != TrialState.WAITING or ledger.attempts[one] > 0
        total += ledger.costs.get(one, 0.0 if headers else float(begun))
        for header in headers:
            total += cost(storage, header["id"], channel_to(storage, header["id"], header).ledger)
    return total
