"""The register of a storage: which studies there are, and the way below their vocabulary, to entries and columns."""

from __future__ import annotations

from typing import Any

from nestor.search._channels import Direct, Shared, channel_to
from nestor.search._storages import storage_at

REGISTER = ""  # the list of entries that says which studies there are


class Register:
    """The studies of a storage, by the place that each has for ever. For bridges, pages and commands.

    Args:
        storage: where studies are kept; see `create_study`.

    Attributes:
        storage: the storage itself.

    >>> from nestor import search
    >>> storage = search.MemoryStorage()
    >>> register = search.Register(storage)
    >>> for name in ("first", "second"):
    ...     _ = search.create_study(storage=storage, study_name=name)
    >>> {place: header["name"] for place, header in register.studies().items()}
    {0: 'first', 1: 'second'}
    >>> search.delete_study(study_name="first", storage=storage)
    >>> list(register.studies())
    [1]
    """

    def __init__(self, storage: Any):
        self.storage = storage_at(storage, "Register")
        self._read = self._made = 0
        self._found: dict[int, dict[str, Any]] = {}
        self._places: dict[str, int] = {}

    def studies(self) -> dict[int, dict[str, Any]]:
        """Place to header (``id``, ``name``, ``directions``, ``created``) of the studies that are there now.

        The first to create a study of a name has it, until that one is deleted. What was read is not read again.
        """
        news = self.storage.read(REGISTER, self._read)
        found = dict(self._found) if news else self._found  # who has the old one keeps what it was
        for place, entry in news:
            self._read = place
            if entry["do"] == "create":
                if entry["name"] not in self._places:
                    found[self._made] = entry
                    self._places[entry["name"]] = self._made
                    self._made += 1
            else:
                gone = [k for k, other in found.items() if other["id"] == entry["id"]]
                for k in gone:
                    del self._places[found.pop(k)["name"]]
        self._found = found
        return found

    def inside(self) -> dict[str, dict[int, list[dict[str, Any]]]]:
        """Identity of a study to number of a trial to the headers of the studies that were made inside it."""
        nested: dict[str, dict[int, list[dict[str, Any]]]] = {}
        for header in self.studies().values():
            parent = header.get("parent")
            if parent is not None:
                nested.setdefault(parent["id"], {}).setdefault(parent["number"], []).append(header)
        return nested

    def open(self, place: int) -> Direct | Shared:
        """A study below its vocabulary: ``.ledger`` are its columns, ``.commit(*entries)`` adds to its log.

        Before what others may have written is read, call ``.sync()``; ``.suggest(number, name, domain, stored)``
        writes down a parameter of a running trial; ``.close()`` ends the signs of life of its trials.
        """
        found = self.studies()[place]
        header = {key: value for key, value in found.items() if key not in ("do", "id")}
        return channel_to(self.storage, found["id"], header)
