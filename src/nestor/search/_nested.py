"""Studies inside trials of other studies: who belongs to whom, and what it all cost."""

from __future__ import annotations

from typing import Any

from nestor.search._channels import channel_to
from nestor.search._ledger import Ledger
from nestor.search._records import TrialState
from nestor.search._register import Register
from nestor.search._storages import Storage

Nested = dict[str, dict[int, list[dict[str, Any]]]]  # see `Register.inside`


def below(nested: Nested, identity: str) -> list[dict[str, Any]]:
    """The headers of all studies inside a study, at any depth, the innermost first."""
    found = []
    for headers in nested.get(identity, {}).values():
        for header in headers:
            found += [*below(nested, header["id"]), header]
    return found


def cost(storage: Storage, identity: str, ledger: Ledger, number: int | None = None) -> float:
    """What one trial of a study cost, or all of them, with the studies inside them."""
    return _cost(storage, Register(storage).inside(), identity, ledger, number)


def _cost(storage: Storage, nested: Nested, identity: str, ledger: Ledger, number: int | None) -> float:
    total, inner = 0.0, nested.get(identity, {})
    for one in range(ledger.size) if number is None else [number]:
        headers = inner.get(one, [])
        begun = ledger.state[one] != TrialState.WAITING or ledger.attempts[one] > 0
        total += ledger.costs.get(one, 0.0 if headers else float(begun))
        for header in headers:
            within = channel_to(storage, header["id"], header).ledger
            total += _cost(storage, nested, header["id"], within, None)
    return total
