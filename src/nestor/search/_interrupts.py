"""Ctrl-C between two changes of a study, never in the middle of one."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_SIGINT = int(signal.SIGINT)


class Shield:
    """A block of code in which Ctrl-C waits: it is raised at the end of the outermost block.

    It holds in the main thread, which is the one that signals reach, and where Python's own handler stands, or one
    that asks `handle`. A second Ctrl-C does not wait.
    """

    def __init__(self) -> None:
        self._depth, self._pending, self._stands_in = 0, False, False
        self.obeyed = False  # whether its handler stands for a while
        self._main = threading.main_thread().ident

    def __enter__(self) -> None:
        if threading.get_ident() != self._main:
            return
        if self._depth == 0:
            self._pending = False
            self._stands_in = not self.obeyed and signal.getsignal(_SIGINT) is signal.default_int_handler
            if self._stands_in:
                signal.signal(signal.SIGINT, self.handle)
        self._depth += 1

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        if threading.get_ident() != self._main:
            return
        self._depth -= 1
        if self._depth:
            return
        if self._stands_in:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt("it waited until a change of the study was whole")

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """What a handler of SIGINT does: raise KeyboardInterrupt, now or at the end of the block."""
        if self._depth and not self._pending:
            self._pending = True
            return
        self._pending = False
        raise KeyboardInterrupt("interrupted")


shield = Shield()


@contextlib.contextmanager
def obeyed() -> Iterator[None]:
    """One handler for many shielded blocks, where Python's own stands: it saves each of them the change."""
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, shield.handle)
    shield.obeyed = True
    try:
        yield
    finally:
        shield.obeyed = False
        signal.signal(signal.SIGINT, signal.default_int_handler)
