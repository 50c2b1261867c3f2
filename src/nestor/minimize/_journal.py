"""A journal of every answer that the user's functions gave, so that a killed solve is made again without them.

A host solver is deterministic: given the same answers it asks the same questions. So the file holds the answers in
order, each with a digest of its question and a checksum, and a resumed solve is replayed from it, bit for bit, until
it ends; from there on it goes on and writes. The first and the last answers are asked again and compared, so that
data which changed on the way are noticed. Nothing is written before the first answer is there.

A record is handed to the operating system before the solver sees it: a killed process loses nothing that the solver
knew. It is forced to the disk once a second, so a power cut loses at most that; a record that was cut off, or whose
checksum is wrong, ends the journal there.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nestor.errors import BadArgument

Vector = np.ndarray

_MAGIC = b"nestor journal 1\n"
_HEAD = struct.Struct("<1s16sqI")  # what was asked, digest of the question, entries of the answer, checksum
_FORCED_EVERY = 1.0  # seconds


class Journal:
    """The journal of one solve; without a path, none.

    Args:
        where: the public function, for messages.
        path: the file; None keeps nothing.
        sign: a digest of all that the solve's questions depend on, 32 bytes.

    Attributes:
        replayed: how many answers came from the file.
    """

    def __init__(self, where: str, path: Any, sign: bytes = b""):
        self.where, self.path, self.replayed = where, None if path is None else Path(path), 0
        self._start = _MAGIC + sign
        self._pending: list[tuple[bytes, bytes, Vector]] = []
        self._file: BinaryIO | None = None
        self._forced = 0.0

    def asked(self, what: str, x: Vector, compute: Callable[[], Vector]) -> tuple[Vector, bool]:
        """The answer to a question, and whether it was in the journal."""
        if self.path is None:
            return compute(), False
        kind, question, computed = what.encode(), _digest(x), None
        if self._file is None:
            computed = np.asarray(compute(), np.float64)
            self._open(self.path, self._start)
        if self.replayed < len(self._pending):
            wrote, asked, answer = self._pending[self.replayed]
            if (wrote, asked) != (kind, question):
                raise self._another("the solve asks something else than it did then")
            if computed is None and self.replayed == len(self._pending) - 1:
                computed = np.asarray(compute(), np.float64)
            if computed is not None and not _same(computed, answer):
                raise self._another("the functions have other values than they had then")
            self.replayed += 1
            return answer.copy(), True
        answer = np.asarray(compute(), np.float64) if computed is None else computed
        self._write(kind, question, answer)
        return answer, False

    def close(self) -> None:
        """Force what there is to the disk."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def _open(self, path: Path, start: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        saved = path.read_bytes() if path.exists() else b""
        if not start.startswith(saved[: len(start)]):
            raise self._another(
                "it was written by another solve"
                if saved.startswith(_MAGIC)
                else "it is no journal of Nestor's"
            )
        end = len(start)
        if len(saved) >= end:
            self._pending, end = _records(saved, end)
        self._file = open(path, "r+b" if saved else "w+b", buffering=0)  # noqa: SIM115  (open as long as the solve)
        if len(saved) < len(start):
            self._file.write(start)
        self._file.seek(end)
        self._file.truncate()

    def _write(self, kind: bytes, question: bytes, answer: Vector) -> None:
        assert self._file is not None
        body = answer.tobytes()
        self._file.write(_HEAD.pack(kind, question, answer.size, zlib.crc32(kind + question + body)) + body)
        if time.monotonic() - self._forced > _FORCED_EVERY:
            os.fsync(self._file.fileno())
            self._forced = time.monotonic()

    def _another(self, why: str) -> BadArgument:
        return BadArgument(
            self.where,
            "checkpoint",
            got=f"{str(self.path)!r}, which cannot be resumed ({why})",
            want="a file that this very solve wrote, or one that is not there yet",
            do="pass another file name, or remove that file to start anew",
        )


def _records(saved: bytes, begin: int) -> tuple[list[tuple[bytes, bytes, Vector]], int]:
    """All whole records, and where they end."""
    found = []
    while begin + _HEAD.size <= len(saved):
        kind, question, size, check = _HEAD.unpack_from(saved, begin)
        end = begin + _HEAD.size + 8 * size
        body = saved[begin + _HEAD.size : end]
        if size < 0 or len(body) != 8 * size or zlib.crc32(kind + question + body) != check:
            break
        found.append((kind, question, np.frombuffer(body)))
        begin = end
    return found, begin


def _same(one: Vector, other: Vector) -> bool:
    return one.shape == other.shape and np.allclose(one, other, rtol=1e-6, atol=1e-12, equal_nan=True)


def _digest(x: Vector) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(x).tobytes(), digest_size=16).digest()
