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

    def studies(self) -> dict[int, dict[str, Any]]:
        """Place to header (``id``, ``name``, ``directions``, ``created``) of the studies that are there now.

        The first to create a study of a name has it, until that one is deleted. What was read is not read again.
        """
        for place, entry in self.storage.read(REGISTER, self._read):
            self._read = place
            if entry["do"] == "create":
                if all(entry["name"] != other["name"] for other in self._found.values()):
                    self._found = {**self._found, self._made: entry}
                    self._made += 1
            else:
                self._found = {k: other for k, other in self._found.items() if other["id"] != entry["id"]}
        return self._found

    def open(self, place: int) -> Direct | Shared:
        """A study below its vocabulary: ``.ledger`` are its columns, ``.commit(*entries)`` adds to its log.

        Before what others may have written is read, call ``.sync()``; ``.suggest(number, name, domain, stored)``
        writes down a parameter of a running trial; ``.close()`` ends the signs of life of its trials.
        """
        found = self.studies()[place]
        header = {key: value for key, value in found.items() if key not in ("do", "id")}
        return channel_to(self.storage, found["id"], header)
